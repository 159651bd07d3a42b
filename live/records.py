"""What the state keeps of a position, an agent and the account's equity."""

import dataclasses
from decimal import Decimal

from jaxtrade.live.executions import NONE


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

    def mark(self, equity: float, day: int) -> None:
        """The account is worth this now."""
        if day != self.day:
            self.day_start_equity = equity if self.day < 0 else self.equity
            self.day = day
        self.equity = equity
        self.peak_equity = max(self.peak_equity, equity)

    def deposit(self, amount: float) -> None:
        """Money came from outside, or went there: nothing was earned; tell it before the mark that
        holds it.
        """
        if self.day >= 0:
            self.equity += amount
            self.peak_equity += amount
            self.day_start_equity += amount

    def restart(self) -> None:
        """Measure from here on."""
        self.peak_equity = self.day_start_equity = self.equity
