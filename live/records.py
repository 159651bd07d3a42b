"""What the state keeps of a position, an agent and the account's equity."""

import dataclasses
from decimal import Decimal

from jaxtrade.live.orders import NONE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What is held of a symbol: signed units, exact, and the agent it belongs to, "" for nobody."""

    owner: str = ""
    quantity: Decimal = NONE


@dataclasses.dataclass(slots=True)
class AgentRecord:
    """What is known of an agent: why it is paused ("" while it trades), the bundle it decides
    with, and the start of the last bar it decided on, UTC seconds, 0 before the first.
    """

    paused: str = ""
    model: str = ""
    sha256: str = ""
    last_start_s: int = 0


@dataclasses.dataclass(slots=True)
class Marks:
    """What limits on the account's equity are measured from.

    day: days since 1970 in the account's time zone, -1 before the first mark; day_start_equity: the
    last mark before that day, moved by deposits; peak_equity likewise. Rearming starts both anew.
    """

    equity: float = 0.0
    peak_equity: float = 0.0
    day: int = -1
    day_start_equity: float = 0.0
