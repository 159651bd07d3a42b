"""The last look at every order before it is journalled and sent: whatever is not proved is refused.

    refusal = check(intent, view)         # None: it may be sent
    if refusal is None:
        view.rates.take(intent, ...)      # `check` does so itself; see there

Written apart from the policy's risk review, and from planning, so that a mistake there stops here.
"""

import dataclasses
import math
from collections.abc import Container, Mapping, Sequence
from decimal import Decimal

from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.events import OrderIntent, TradingState
from jaxtrade.live.limits import GuardLimits, Protections
from jaxtrade.live.planning import Working
from jaxtrade.live.quotes import Quote
from jaxtrade.live.rates import Rates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an order is not sent: the name of the check, what it found; halts: trading is to stop."""

    check: str
    reason: str
    halts: bool = False


@dataclasses.dataclass(kw_only=True)
class View:
    """All that the guard looks at; the engine keeps one and brings it up to date.

    limits, protections: in force; rates: order counts; instruments, quotes: by symbol; epoch: of
    the connection; closes, ranges: last close, and average true range of a bar as a fraction of it;
    positions: signed units at the broker; orders: of the whole account that are not over; owners:
    agent of each symbol; agents: equity of each; equity, margin_used: of the account; peak_equity,
    day_start_equity: marks; trading: state; is_reconciling: connected, but not yet compared;
    locks: (protection, symbol) to UTC ns; paused: agents and why; blocked: symbols and why (an
    UNKNOWN order, UNPROTECTED, MISMATCH, ORPHAN); closed: symbols whose session is over;
    decision_keys: of all orders there ever were; wall_ns, steady_ns: now.
    """

    limits: GuardLimits
    protections: Protections
    rates: Rates
    instruments: Mapping[str, Instrument]
    quotes: Mapping[str, Quote]
    closes: Mapping[str, float]
    positions: Mapping[str, Decimal]
    orders: Sequence[Working]
    owners: Mapping[str, str]
    agents: Mapping[str, float]
    decision_keys: Container[str]
    equity: float = math.nan
    margin_used: float = 0.0
    peak_equity: float = 0.0
    day_start_equity: float = 0.0
    trading: TradingState = TradingState.ACTIVE
    is_reconciling: bool = False
    epoch: int = 0
    ranges: Mapping[str, float] = dataclasses.field(default_factory=dict)
    locks: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    paused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    blocked: Mapping[str, str] = dataclasses.field(default_factory=dict)
    closed: Container[str] = ()
    wall_ns: int = 0
    steady_ns: int = 0


def check(intent: OrderIntent, view: View, batch: Sequence[OrderIntent] = ()) -> Refusal | None:
    """Why an order may not be sent, or None; an exception in a check is a refusal too.

    batch: orders of the same decision that have passed and are not in `view.orders` yet.
    """
    raise NotImplementedError
