"""Views and orders of the guard's tests, and for each check what it refuses and what passes."""

from dataclasses import replace
from decimal import Decimal

from jaxtrade.live.events import Leg, OrderKind, TradingState
from jaxtrade.live.guard import View
from jaxtrade.live.limits import GuardLimits, Protections
from jaxtrade.live.quotes import Quote
from jaxtrade.live.rates import Rates
from tests.live_orders import SECOND, instrument, intent_of, order_of

LIMITS = GuardLimits(max_exposure=0.8, max_gross=1.0, max_net=0.9, max_order=1.5)
NOW = 1_000 * SECOND


def quote(middle=100.0, spread=0.02, usual=None, **fields):
    """A quote of now; usual: median of spreads over the price."""
    known = {
        "bid": middle - spread / 2,
        "ask": middle + spread / 2,
        "seen_ns": NOW,
        "changed_ns": NOW,
        "epoch": 3,
        "spread": spread / middle if usual is None else usual,
    }
    return Quote(**{**known, **fields})


def view_of(**fields):
    """An account of 1,000 with the agents a (symbol A, B) and b (symbol C), prices of 100."""
    limits = fields.get("limits", LIMITS)
    known = {
        "limits": limits,
        "protections": Protections(),
        "rates": Rates(limits),
        "instruments": {s: instrument(s, price_step=Decimal("0.01")) for s in "ABC"},
        "quotes": {symbol: quote() for symbol in "ABC"},
        "closes": dict.fromkeys("ABC", 100.0),
        "positions": {},
        "orders": (),
        "owners": {"A": "a", "B": "a", "C": "b"},
        "agents": {"a": 600.0, "b": 400.0},
        "decision_keys": set(),
        "equity": 1_000.0,
        "peak_equity": 1_000.0,
        "day_start_equity": 1_000.0,
        "trading": TradingState.ACTIVE,
        "is_reconciling": False,
        "epoch": 3,
        "wall_ns": NOW,
        "steady_ns": NOW,
    }
    return View(**{**known, **fields})


def held(**units):
    """Positions by symbol."""
    return {symbol: Decimal(quantity) for symbol, quantity in units.items()}


def closing(units, symbol="A", **fields):
    """An order that closes a signed number of units."""
    return intent_of(units, symbol, **{"leg": Leg.CLOSE, "reduce_only": True, **fields})


NAN = float("nan")
OPEN = intent_of(5)
LIMIT = intent_of(5, kind=OrderKind.LIMIT, price=Decimal("99.5"))


def with_limits(**fields):
    """A view under other limits."""
    return {"limits": replace(LIMITS, **fields)}


def with_quote(**fields):
    """A view with another quote of A."""
    return {"quotes": {"A": quote(**fields)}}


def working(units, symbol="A", **fields):
    """A view with an order under way."""
    return {"orders": [order_of(intent_of(units, symbol, cid="under way", **fields))]}


def lossy(stop, **fields):
    """A view under a daily loss limit of which 14 of 1,000 are left."""
    loss = Protections(max_daily_loss=0.05)
    known = {"protections": loss, "day_start_equity": 1_037.9, "stop_losses": {"a": stop}}
    return {**known, **fields}


def instruments(**fields):
    """A view with another instrument A."""
    numbers = {name: Decimal(n) if "quantity" in name else n for name, n in fields.items()}
    return {"instruments": {"A": instrument(**numbers)}}


def still(seconds, **fields):
    """A view with a quote of A that has been the same for some time."""
    return with_quote(changed_ns=NOW - seconds * SECOND, **fields)


STILL = still(10)
ALL = {"agents": {"a": 1_000.0}}
ONE = intent_of(1)
REDUCING = intent_of(-5, reduce_only=True)
TIGHT = with_limits(collar_ranges=2.0) | {"ranges": {"A": 0.01}}
FALLEN = {"protections": Protections(max_drawdown=0.2), "ranges": {"A": 0.03}}

CASES = [
    # the check, an order and a view that it refuses, an order and a view that pass
    ("numbers", replace(OPEN, quantity=Decimal(0)), {}, OPEN, {}),
    ("numbers", replace(OPEN, quantity=Decimal("nan")), {}, OPEN, {}),
    ("numbers", replace(OPEN, reference_price=NAN), {}, OPEN, {}),
    ("numbers", replace(LIMIT, price=None), {}, LIMIT, {}),
    ("numbers", replace(LIMIT, price=Decimal(-1)), {}, LIMIT, {}),
    ("numbers", OPEN, {"equity": NAN}, OPEN, {"equity": 900.0}),
    ("numbers", OPEN, {"equity": 0.0}, OPEN, {"equity": 900.0}),
    ("instrument", OPEN, {"instruments": {}}, OPEN, {}),
    ("instrument", OPEN, instruments(is_tradable=False), OPEN, instruments()),
    ("instrument", OPEN, instruments(unit_value=NAN), OPEN, instruments(unit_value=0.9)),
    ("session", OPEN, {"closed": {"A"}}, OPEN, {"closed": {"B"}}),
    ("steps", replace(OPEN, quantity=Decimal("4.5")), {}, OPEN, {}),
    ("steps", replace(LIMIT, price=Decimal("99.505")), {}, LIMIT, {}),
    ("steps", OPEN, instruments(max_quantity=4), OPEN, instruments(max_quantity=5)),
    ("steps", OPEN, instruments(min_quantity=6), OPEN, instruments(min_quantity=5)),
    ("price", OPEN, {"quotes": {}, "closes": {}}, OPEN, {"closes": {}}),
    ("price", OPEN, {"quotes": {}, "closes": {"A": -5.0}}, OPEN, {}),
    ("collar", replace(OPEN, reference_price=120.0), {}, replace(OPEN, reference_price=105.0), {}),
    ("collar", replace(LIMIT, price=Decimal(80)), {}, replace(LIMIT, price=Decimal(95)), {}),
    ("collar", OPEN, {"closes": {"A": 150.0}}, OPEN, {"closes": {"A": 105.0}}),
    ("collar", replace(OPEN, reference_price=103.0), TIGHT, OPEN, TIGHT),
    ("order_value", intent_of(16), {}, OPEN, {}),
    ("order_value", OPEN, with_limits(max_notional=499.0), OPEN, with_limits(max_notional=500.0)),
    ("quote", OPEN, {"quotes": {}}, OPEN, {}),
    ("quote", OPEN, with_quote(fault="crossed"), OPEN, with_quote()),
    ("quote", OPEN, with_quote(spread=-0.01), OPEN, with_quote(spread=0.0)),
    ("quote", OPEN, with_quote(middle=NAN), OPEN, with_quote(middle=101.0)),
    ("age", OPEN, {"steady_ns": NOW + 31 * SECOND}, OPEN, {"steady_ns": NOW + 29 * SECOND}),
    ("age", OPEN, {"steady_ns": NOW - 1}, OPEN, {}),
    ("age", OPEN, STILL | with_limits(max_frozen_s=9.0), OPEN, STILL),
    ("age", OPEN, still(301), OPEN, still(299)),
    ("age", OPEN, still(301), OPEN, still(10**6, is_close=True)),
    ("spread", OPEN, with_quote(spread=2.5), OPEN, with_quote(spread=1.5)),
    ("spread", OPEN, with_quote(spread=0.5, usual=1e-4), OPEN, with_quote(spread=0.05, usual=1e-4)),
    ("feed", OPEN, {"epoch": 4}, OPEN, {}),
    ("trading", OPEN, {"trading": TradingState.REDUCING}, OPEN, {}),
    ("trading", OPEN, {"trading": TradingState.HALTED}, OPEN, {}),
    ("trading", OPEN, {"trading": TradingState.KILLED}, OPEN, {}),
    ("reconciling", OPEN, {"is_reconciling": True}, OPEN, {}),
    ("owner", intent_of(1, "C"), {}, intent_of(1, "C", agent="b"), {}),
    ("owner", OPEN, {"owners": {}}, OPEN, {}),
    ("paused", OPEN, {"paused": {"a": "a person"}}, OPEN, {"paused": {"b": "a person"}}),
    ("lock", OPEN, {"locks": {("x", "A"): NOW + 1}}, OPEN, {"locks": {("x", "A"): NOW}}),
    ("lock", OPEN, {"locks": {("x", ""): NOW + 1}}, OPEN, {"locks": {("x", "B"): NOW + 1}}),
    ("rate", OPEN, with_limits(turnover_per_day=0.4), OPEN, with_limits(turnover_per_day=0.6)),
    ("exposure", intent_of(9), ALL, intent_of(8), ALL),
    ("exposure", intent_of(4), {"positions": held(A=5)} | ALL, ONE, {"positions": held(A=5)}),
    ("exposure", intent_of(4), working(5) | ALL, ONE, working(5)),
    ("gross", intent_of(6, "B"), {"positions": held(A=-5)}, intent_of(6, "B"), ALL),
    ("gross", OPEN, working(-6, "C", agent="b"), intent_of(4), working(-6, "C", agent="b")),
    ("net", intent_of(5, "B"), {"positions": held(A=5)}, intent_of(5, "B"), ALL),
    ("budget", intent_of(7), {}, intent_of(6), {}),
    ("budget", ONE, {"agents": {"b": 400.0}}, ONE, {}),
    ("margin", OPEN, {"margin_used": 600.0}, OPEN, {"margin_used": 400.0}),
    ("margin", OPEN, {"margin_used": NAN}, OPEN, {}),
    ("margin", OPEN, with_limits(margin_rate=3.0), intent_of(3), with_limits(margin_rate=3.0)),
    ("reduce_only", replace(OPEN, reduce_only=True), {}, OPEN, {}),
    ("reduce_only", REDUCING, {"positions": held(A=4)}, REDUCING, {"positions": held(A=5)}),
    ("reduce_only", replace(OPEN, leg=Leg.CLOSE), {}, closing(5), {"positions": held(A=-5)}),
    ("duplicate", OPEN, {"decision_keys": {OPEN.decision_key}}, OPEN, {"decision_keys": {"x"}}),
    ("headroom", OPEN, lossy(0.05), OPEN, lossy(0.02)),
    ("headroom", OPEN, lossy(0.02, day_start_equity=NAN), OPEN, {}),
    ("headroom", OPEN, FALLEN | {"peak_equity": 1_240.0}, OPEN, FALLEN | {"peak_equity": 1_200.0}),
    ("blocked", OPEN, {"blocked": {"A": "unknown"}}, OPEN, {"blocked": {"B": "unknown"}}),
]
