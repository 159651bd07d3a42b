"""The guard's checks, each a function of a case that gives its objection, "" for none.

They compare so that a number that is none fails: whatever is not known to be within a limit is not.
"""

import math
from collections.abc import Callable

from jaxtrade.live.events import Leg, OrderKind, TradingState
from jaxtrade.live.executions import EXACT
from jaxtrade.live.guard_case import SLACK, Case
from jaxtrade.live.scene import is_price


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
    most = min(limits.max_order * case.view.equity, limits.max_notional) * (1.0 + SLACK)
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
    most_s = 0.0 if quote.is_close else view.limits.max_frozen_s
    if most_s and not still_s <= most_s:
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


def _exposure(case: Case) -> str:
    before, after = case.exposures()
    limit = case.view.limits.max_exposure
    return case.beyond(before.symbol, after.symbol, limit, case.intent.symbol)


def _gross(case: Case) -> str:
    before, after = case.exposures()
    return case.beyond(before.gross, after.gross, case.view.limits.max_gross, "gross exposure")


def _net(case: Case) -> str:
    before, after = case.exposures()
    return case.beyond(before.net, after.net, case.view.limits.max_net, "net exposure")


def _budget(case: Case) -> str:
    before, after = case.exposures()
    equity = case.view.agents.get(case.intent.agent, math.nan)
    most = case.view.limits.max_gross * equity * (1.0 + SLACK)
    if after.own <= most or after.own <= before.own:
        return ""
    return f"{case.intent.agent} would hold {after.own:.10g} with an equity of {equity:.10g}"


def _margin(case: Case) -> str:
    view = case.view
    before, after = case.exposures()
    needed = view.margin_used + view.limits.margin_per_value * max(after.gross - case.held, 0.0)
    is_within = needed <= view.limits.max_margin * view.equity * (1.0 + SLACK)
    if is_within or after.gross <= before.gross:
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
    if not view.has_floor:
        return ""
    floors = []
    if protections.max_drawdown < 1:
        floors.append(view.peak_equity * (1.0 - protections.max_drawdown))
    if protections.max_daily_loss < 1:
        floors.append(view.day_start_equity * (1.0 - protections.max_daily_loss))
    before, after = case.exposures()
    is_safe = all(view.equity - after.loss >= floor for floor in floors)
    if is_safe or after.loss <= before.loss:
        return ""
    return f"{after.loss:.10g} could be lost, which would leave less than {max(floors):.10g}"


def _blocked(case: Case) -> str:
    return case.view.blocked.get(case.intent.symbol, "")


def _rate(case: Case) -> str:
    """The last of all: what passes is counted."""
    view = case.view
    return view.rates.admit(
        case.intent,
        steady_ns=view.steady_ns,
        wall_ns=view.wall_ns,
        turnover=0.0 if case.is_exit else case.value / view.equity,
        is_exit=case.is_exit,
    )


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
    ("exposure", _exposure, False),
    ("gross", _gross, False),
    ("net", _net, False),
    ("budget", _budget, False),
    ("margin", _margin, False),
    ("reduce_only", _reduce_only, True),
    ("duplicate", _duplicate, True),
    ("headroom", _headroom, False),
    ("blocked", _blocked, False),
    ("rate", _rate, True),
)
"""The checks in their order, and whether they are for exits too. An order that all let pass has
been counted by the last of them."""
