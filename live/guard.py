"""The last look at every order before it is journalled and sent: what is not proved is refused.

    refusal = check(intent, view)             # None: it may be sent, and is counted as sent
    refusal = check(stop, view, [intent])     # the next of the same decision

Written apart from the policy's risk review and from planning, so that a mistake there stops here.
The checks of `CHECKS` run in their order, the first that objects names the refusal, and one that
fails itself objects. Exposure counts all orders under way as filled, in whichever way is worse, so
what is checked and journalled before the next check is reserved for it.

A reduce-only order that really reduces is an exit: of the opposite side of what is held (or of what
the orders of its own decision open) and no larger. It must be whole, of a known instrument, its
owner's, no duplicate, within `exits_per_minute`, and there has to be one sane price, however old.
It skips what would trap a position: session, size, collar, age and spread of quotes, reconciling,
locks, pauses, blocks, exposure, margin, headroom. REDUCING lets all exits pass; HALTED those that
are not the policy's (closing, stops, targets); KILLED closing alone.
"""

import dataclasses
import math
from collections.abc import Callable, Container, Mapping, Sequence
from decimal import Decimal
from typing import Any

from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.events import Leg, OrderIntent, OrderKind, Side, TradingState
from jaxtrade.live.exposure import Exposure, exposure_of
from jaxtrade.live.limits import GuardLimits, Protections
from jaxtrade.live.quotes import Quote
from jaxtrade.live.rates import Rates
from jaxtrade.live.scene import EXACT, NONE, Working, is_price, rests, signed

_SLACK = 1e-6
"""Of limits, for what rounding adds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an order is not sent: the name of the check, what it found; halts: trading is to stop."""

    check: str
    reason: str
    halts: bool = False


@dataclasses.dataclass(kw_only=True)
class View:
    """All that the guard looks at; the engine keeps one and brings it up to date.

    limits, protections: in force; rates: of the orders sent; instruments, quotes: by symbol; epoch:
    of the connection; closes, ranges: last close, and average true range of a bar over it;
    positions: signed units at the broker; orders: of the whole account that are not over; owners:
    agent of each symbol; agents: equity of each; stop_losses: of each, distance over price, where
    it has stops; equity, margin_used, peak_equity, day_start_equity: of the account, its currency;
    day: its day, days since 1970; trading: its state; is_reconciling: connected, but not yet
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
    day: int = -1
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

    def price(self, symbol: str) -> float:
        """The last sane price, however old; NaN where there is none."""
        quote = self.quotes.get(symbol)
        if quote is not None and is_price(quote.middle):
            return quote.middle
        close = self.closes.get(symbol, math.nan)
        return close if is_price(close) else math.nan


class Case:
    """An order, what it is looked at with, and what several checks ask of it.

    is_exit: it really reduces; price: last sane one; value: of the order, account currency.
    """

    __slots__ = ("_exposure", "batch", "instrument", "intent", "is_exit", "price", "value", "view")

    def __init__(self, intent: OrderIntent, view: View, batch: Sequence[OrderIntent]) -> None:
        self.intent, self.view, self.batch = intent, view, batch
        self.instrument = view.instruments.get(intent.symbol)
        self.is_exit = intent.reduce_only and _reduces(intent, view, batch)
        self.price = view.price(intent.symbol)
        self.value = float(intent.quantity) * self.unit(intent.symbol)
        self._exposure: tuple[Exposure, Exposure] | None = None

    def unit(self, symbol: str) -> float:
        """Value of one unit of a symbol, account currency; NaN where it is not known."""
        instrument = self.view.instruments.get(symbol)
        return math.nan if instrument is None else self.view.price(symbol) * instrument.unit_value

    def exposure(self) -> tuple[Exposure, Exposure]:
        """Of the account without this order, and with it."""
        if self._exposure is None:
            orders = [(order.intent, order.remaining) for order in self.view.orders]
            orders += [(intent, intent.quantity) for intent in self.batch]
            before = exposure_of(self.view.positions, orders, self.unit)
            value = self.value * self.intent.side.sign
            self._exposure = before, before.with_order(self.intent.symbol, value)
        return self._exposure

    def beyond(self, before: float, after: float, limit: float, what: str) -> str:
        """The objection to a value that grows beyond a limit, a fraction of equity."""
        equity = self.view.equity
        if after <= limit * equity * (1.0 + _SLACK) or after <= before:
            return ""
        return f"{what} would be {after / equity:.4g} of equity, {limit:g} may be"


def check(intent: OrderIntent, view: View, batch: Sequence[OrderIntent] = ()) -> Refusal | None:
    """Why an order may not be sent, or None; then it is counted in `view.rates`.

    batch: orders of the same decision that have passed and are not in `view.orders` yet.
    """
    name = "numbers"
    try:
        case = Case(intent, view, batch)
        for name, objection, is_for_exits in CHECKS:
            if is_for_exits or not case.is_exit:
                reason = objection(case)
                if reason:
                    return Refusal(check=name, reason=reason, halts=name == "rate")
        view.rates.take(intent, view.limits, **_rate(case))
    except Exception as error:
        return Refusal(check=name, reason=f"the check failed: {error!r}")
    return None


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


# --- the checks: each gives its objection, "" for none ------------------------------------------


def _numbers(case: Case) -> str:
    intent, equity = case.intent, case.view.equity
    if not (intent.quantity.is_finite() and intent.quantity > 0):
        return f"a quantity of {intent.quantity}"
    if intent.kind is not OrderKind.MARKET:
        price = intent.price
        if price is None or not (price.is_finite() and price > 0):
            return f"a {intent.kind} order at {price}"
    if case.is_exit:
        return ""
    if not is_price(intent.reference_price):
        return f"a reference price of {intent.reference_price}"
    return "" if 0 < equity < math.inf else f"an equity of {equity}"


def _instrument(case: Case) -> str:
    if case.instrument is None:
        return f"{case.intent.symbol} is no instrument of the broker"
    if not is_price(case.instrument.unit_value):
        return f"a unit value of {case.instrument.unit_value}"
    is_barred = not (case.is_exit or case.instrument.is_tradable)
    return f"{case.intent.symbol} cannot be traded" if is_barred else ""


def _session(case: Case) -> str:
    return "the session is over" if case.intent.symbol in case.view.closed else ""


def _steps(case: Case) -> str:
    intent, instrument = case.intent, case.instrument
    assert instrument is not None
    if EXACT.remainder(intent.quantity, instrument.quantity_step):
        return f"{intent.quantity} is not in steps of {instrument.quantity_step}"
    if not instrument.min_quantity <= intent.quantity <= instrument.max_quantity:
        return f"{intent.quantity} is not {instrument.min_quantity} to {instrument.max_quantity}"
    step = instrument.price_step
    if intent.price is not None and step and EXACT.remainder(intent.price, step):
        return f"a price of {intent.price} is not in steps of {step}"
    return ""


def _price(case: Case) -> str:
    return "" if is_price(case.price) else "no sane price is known"


def _collar(case: Case) -> str:
    intent, view, limits = case.intent, case.view, case.view.limits
    allowed, spread = limits.collar, view.ranges.get(intent.symbol, math.nan)
    if limits.collar_ranges and is_price(spread):
        allowed = min(allowed, limits.collar_ranges * spread)
    prices = {"the reference price": intent.reference_price}
    if intent.price is not None:
        prices["the order's price"] = float(intent.price)
    close = view.closes.get(intent.symbol)
    if close is not None:
        prices["the last close"] = close
    for what, price in prices.items():
        away = abs(price / case.price - 1.0)
        if not away <= allowed:
            return f"{what} of {price:g} is {away:.2%} from {case.price:g}, {allowed:.2%} may be"
    return ""


def _order_value(case: Case) -> str:
    limits = case.view.limits
    most = min(limits.max_order * case.view.equity, limits.max_notional) * (1.0 + _SLACK)
    return "" if case.value <= most else f"an order worth {case.value:.10g}, {most:.10g} may be"


def _quote(case: Case) -> str:
    quote = case.view.quotes.get(case.intent.symbol)
    if quote is None:
        return "there is no quote"
    if not 0.0 < quote.bid <= quote.ask < math.inf:
        return f"a quote of {quote.bid} to {quote.ask}"
    return f"the newest quote was not taken: {quote.fault}" if quote.fault else ""


def _age(case: Case) -> str:
    view, quote = case.view, case.view.quotes[case.intent.symbol]
    age_s = (view.steady_ns - quote.seen_ns) / 1e9
    if not 0 <= age_s <= view.limits.max_age_s:
        return f"the quote is {age_s:.3g} s old, {view.limits.max_age_s:g} s may be"
    still_s = (view.steady_ns - quote.changed_ns) / 1e9
    if view.limits.max_frozen_s and not still_s <= view.limits.max_frozen_s:
        return f"the quote has not moved for {still_s:.3g} s"
    return ""


def _spread(case: Case) -> str:
    quote, limits = case.view.quotes[case.intent.symbol], case.view.limits
    spread, usual = (quote.ask - quote.bid) / quote.middle, quote.spread
    if not spread <= limits.max_spread:
        return f"a spread of {spread:.3%}, {limits.max_spread:.3%} may be"
    if limits.max_spread_ratio and usual > 0 and not spread <= limits.max_spread_ratio * usual:
        return f"a spread of {spread:.3%}, {spread / usual:.1f} times the usual one"
    return ""


def _feed(case: Case) -> str:
    epoch = case.view.quotes[case.intent.symbol].epoch
    if epoch == case.view.epoch:
        return ""
    return f"the quote is of connection {epoch}, this is {case.view.epoch}"


def _trading(case: Case) -> str:
    state, leg = case.view.trading, case.intent.leg
    is_free = state is TradingState.ACTIVE
    if case.is_exit:
        is_free |= state is TradingState.REDUCING
        is_free |= state is TradingState.HALTED and leg is not Leg.TARGET
        is_free |= state is TradingState.KILLED and leg is Leg.CLOSE
    return "" if is_free else f"trading is {state}"


def _reconciling(case: Case) -> str:
    return "not yet compared with the broker" if case.view.is_reconciling else ""


def _owner(case: Case) -> str:
    owner = case.view.owners.get(case.intent.symbol, "")
    if owner == case.intent.agent:
        return ""
    return f"{case.intent.symbol} is {owner or 'nobody'}'s, not {case.intent.agent}'s"


def _paused(case: Case) -> str:
    reason = case.view.paused.get(case.intent.agent, "")
    return f"{case.intent.agent} is paused: {reason}" if reason else ""


def _lock(case: Case) -> str:
    for (protection, symbol), until_ns in case.view.locks.items():
        if until_ns > case.view.wall_ns and symbol in ("", case.intent.symbol):
            return f"{protection} for another {(until_ns - case.view.wall_ns) / 1e9:.0f} s"
    return ""


def _rate_of(case: Case) -> str:
    return case.view.rates.excess(case.intent, case.view.limits, **_rate(case))


def _rate(case: Case) -> dict[str, Any]:
    return {
        "steady_ns": case.view.steady_ns,
        "day": case.view.day,
        "turnover": 0.0 if case.is_exit else case.value / case.view.equity,
        "is_exit": case.is_exit,
    }


def _exposure(case: Case) -> str:
    before, after = (exposure.worst(case.intent.symbol) for exposure in case.exposure())
    return case.beyond(before, after, case.view.limits.max_exposure, case.intent.symbol)


def _gross(case: Case) -> str:
    before, after = (exposure.gross() for exposure in case.exposure())
    return case.beyond(before, after, case.view.limits.max_gross, "gross exposure")


def _net(case: Case) -> str:
    before, after = (exposure.net() for exposure in case.exposure())
    return case.beyond(before, after, case.view.limits.max_net, "net exposure")


def _budget(case: Case) -> str:
    view, agent = case.view, case.intent.agent
    equity = view.agents.get(agent, math.nan)
    own = {symbol for symbol, owner in view.owners.items() if owner == agent}
    before, after = (exposure.gross(own) for exposure in case.exposure())
    most = view.limits.max_gross * equity * (1.0 + _SLACK)
    if after <= most or after <= before:
        return ""
    return f"{agent} would hold {after:.10g} with an equity of {equity:.10g}"


def _margin(case: Case) -> str:
    view = case.view
    before, after = (exposure.gross() for exposure in case.exposure())
    held = exposure_of(view.positions, (), case.unit).gross()
    needed = view.margin_used + view.limits.margin_per_value * max(after - held, 0.0)
    if needed <= view.limits.max_margin * view.equity * (1.0 + _SLACK) or after <= before:
        return ""
    return f"margin of {needed:.10g} of an equity of {view.equity:.10g}"


def _reduce_only(case: Case) -> str:
    intent = case.intent
    if intent.reduce_only:
        return "" if case.is_exit else "it is reduce-only, and would not reduce"
    return "" if intent.leg is Leg.TARGET else f"a {intent.leg} that is not reduce-only"


def _duplicate(case: Case) -> str:
    key = case.intent.decision_key
    others = [other.decision_key for other in case.batch]
    return f"{key} was ordered already" if key in case.view.decision_keys or key in others else ""


def _headroom(case: Case) -> str:
    view, protections = case.view, case.view.protections
    floors = []
    if protections.max_drawdown < 1:
        floors.append(view.peak_equity * (1.0 - protections.max_drawdown))
    if protections.max_daily_loss < 1:
        floors.append(view.day_start_equity * (1.0 - protections.max_daily_loss))

    def distance(symbol: str) -> float:
        stop = view.stop_losses.get(view.owners.get(symbol, ""), 0.0)
        return stop or view.limits.worst_move or view.ranges.get(symbol, 0.0)

    if not floors:
        return ""
    before, after = (exposure.loss(distance) for exposure in case.exposure())
    if all(view.equity - after >= floor for floor in floors) or after <= before:
        return ""
    return f"{after:.10g} could be lost, which would leave less than {max(floors):.10g}"


def _blocked(case: Case) -> str:
    return case.view.blocked.get(case.intent.symbol, "")


CHECKS: tuple[tuple[str, Callable[[Case], str], bool], ...] = (
    ("numbers", _numbers, True),
    ("instrument", _instrument, True),
    ("session", _session, False),
    ("steps", _steps, True),
    ("price", _price, True),
    ("collar", _collar, False),
    ("order_value", _order_value, False),
    ("quote", _quote, False),
    ("age", _age, False),
    ("spread", _spread, False),
    ("feed", _feed, False),
    ("trading", _trading, True),
    ("reconciling", _reconciling, False),
    ("owner", _owner, True),
    ("paused", _paused, False),
    ("lock", _lock, False),
    ("rate", _rate_of, True),
    ("exposure", _exposure, False),
    ("gross", _gross, False),
    ("net", _net, False),
    ("budget", _budget, False),
    ("margin", _margin, False),
    ("reduce_only", _reduce_only, True),
    ("duplicate", _duplicate, True),
    ("headroom", _headroom, False),
    ("blocked", _blocked, False),
)
"""The checks in their order, and whether they are for exits too."""
