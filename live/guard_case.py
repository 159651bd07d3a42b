"""What the guard looks at: the view of the account, and one order in it."""

import dataclasses
import math
from collections.abc import Container, Mapping, Sequence
from decimal import Decimal

from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.events import OrderIntent, Side, TradingState
from jaxtrade.live.executions import EXACT, NONE
from jaxtrade.live.exposure import Distances, Exposure, Prices, exposures, spans_of
from jaxtrade.live.limits import GuardLimits, Protections
from jaxtrade.live.quotes import Quote
from jaxtrade.live.rates import Rates
from jaxtrade.live.scene import Working, rests, signed

SLACK = 1e-6
"""Of limits, for what rounding adds."""


@dataclasses.dataclass(kw_only=True)
class View:
    """All that the guard looks at; the engine keeps one and brings it up to date.

    limits, protections: in force; rates: of the orders sent; instruments, quotes: by symbol; epoch:
    of the connection; closes, ranges: last close, and average true range of a bar over it;
    positions: signed units at the broker; orders: of the whole account that are not over; owners:
    agent of each symbol; agents: equity of each; stop_losses: of each, distance over price, where
    it has stops; equity, margin_used, peak_equity, day_start_equity: of the account, its currency;
    trading: its state; is_reconciling: connected, but not yet
    compared; locks: (protection, symbol) to UTC ns; paused: agents and why; blocked: symbols and
    why (UNKNOWN order, UNPROTECTED, MISMATCH, ORPHAN); closed: symbols whose session is over;
    decision_keys: of the orders there were; wall_ns, steady_ns: now.
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
    peak_equity: float = math.nan
    day_start_equity: float = math.nan
    trading: TradingState = TradingState.HALTED
    is_reconciling: bool = True
    epoch: int = 0
    stop_losses: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, float] = dataclasses.field(default_factory=dict)
    locks: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    paused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    blocked: Mapping[str, str] = dataclasses.field(default_factory=dict)
    closed: Container[str] = ()
    wall_ns: int = 0
    steady_ns: int = 0

    @property
    def has_floor(self) -> bool:
        """Whether a limit on losses is on."""
        return self.protections.max_drawdown < 1 or self.protections.max_daily_loss < 1

    @property
    def prices(self) -> Prices:
        """Where prices are found."""
        return Prices(self.instruments, self.quotes, self.closes)


class Case:
    """An order, what it is looked at with, and what several checks ask of it.

    is_exit: it really reduces; price: last sane one; value: of the order, account currency.
    """

    __slots__ = (
        "_exposures",
        "batch",
        "held",
        "instrument",
        "intent",
        "is_exit",
        "price",
        "value",
        "view",
    )

    def __init__(self, intent: OrderIntent, view: View, batch: Sequence[OrderIntent]) -> None:
        self.intent, self.view, self.batch = intent, view, batch
        self.instrument = view.instruments.get(intent.symbol)
        self.is_exit = intent.reduce_only and _reduces(intent, view, batch)
        self.price = view.prices.price(intent.symbol)
        self.value = float(intent.quantity) * view.prices.unit(intent.symbol)
        self.held = 0.0
        self._exposures: tuple[Exposure, Exposure] | None = None

    def exposures(self) -> tuple[Exposure, Exposure]:
        """Of the account without this order, and with it; `held` is then the gross value of its
        positions.
        """
        if self._exposures is None:
            view = self.view
            orders = [(order.intent, order.remaining) for order in view.orders]
            orders += [(intent, intent.quantity) for intent in self.batch]
            spans, self.held = spans_of(view.positions, orders, view.prices)
            distances = None
            if view.has_floor:
                distances = Distances(view.stop_losses, view.limits.worst_move, view.ranges)
            self._exposures = exposures(spans, self.intent, self.value, view.owners, distances)
        return self._exposures

    def beyond(self, before: float, after: float, limit: float, what: str) -> str:
        """The objection to a value that grows beyond a limit, a fraction of equity."""
        equity = self.view.equity
        if after <= limit * equity * (1.0 + SLACK) or after <= before:
            return ""
        return f"{what} would be {after / equity:.4g} of equity, {limit:g} may be"


def _reduces(intent: OrderIntent, view: View, batch: Sequence[OrderIntent]) -> bool:
    """Whether an order takes off what is held, and no more than is left of it by those that do so
    already; a stop or target, also off what the orders under way will have opened.
    """
    position = view.positions.get(intent.symbol, NONE)
    opened, taken = position, NONE
    for order in view.orders:
        other = order.intent
        if other.symbol != intent.symbol or rests(other) or order.is_doubtful:
            continue
        opened = EXACT.add(opened, signed(other.side, order.remaining))
        if other.side is intent.side and not order.is_canceling:
            taken = EXACT.add(taken, order.remaining)
    for other in batch:
        if other.symbol == intent.symbol and not rests(other):
            opened = EXACT.add(opened, signed(other.side, other.quantity))
            if other.side is intent.side:
                taken = EXACT.add(taken, other.quantity)
    if rests(intent):
        return any(_takes_off(intent, held, NONE) for held in (position, opened))
    return _takes_off(intent, position, taken)


def _takes_off(intent: OrderIntent, held: Decimal, taken: Decimal) -> bool:
    is_against = held < 0 if intent.side is Side.BUY else held > 0
    return is_against and EXACT.add(intent.quantity, taken) <= held.copy_abs()
