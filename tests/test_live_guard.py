import math
from dataclasses import replace
from decimal import Decimal

import pytest

from jaxtrade.live.checks import CHECKS
from jaxtrade.live.events import Leg, Tick, TradingState
from jaxtrade.live.guard import View, check
from jaxtrade.live.limits import GuardLimits, Protections
from jaxtrade.live.quotes import Quotes
from jaxtrade.specs import JaxtradeError
from tests.guard_cases import CASES, LIMITS, NAN, NOW, OPEN, closing, held, quote, view_of
from tests.live_orders import SECOND, exit_of, instrument, intent_of, order_of


@pytest.mark.parametrize(("name", "bad", "refusing", "good", "passing"), CASES)
def test_each_check_refuses_and_lets_pass(name, bad, refusing, good, passing):
    refusal = check(bad, view_of(**refusing))
    assert refusal is not None
    assert (refusal.check, refusal.halts) == (name, name == "rate")
    assert refusal.reason
    assert "\n" not in refusal.reason
    assert check(good, view_of(**passing)) is None


def test_every_check_has_cases():
    assert {name for name, *_ in CASES} == {name for name, _, _ in CHECKS}


def test_an_order_is_refused_where_a_check_fails_itself():
    refusal = check(OPEN, view_of(quotes=None))
    assert refusal.check == "price" or "failed" in refusal.reason
    refusal = check(OPEN, view_of(locks={("x", "A"): "soon"}))
    assert refusal.check == "lock"
    assert "failed: TypeError" in refusal.reason
    assert "failed" in check(replace(OPEN, quantity=None), view_of()).reason


def test_a_view_that_was_told_nothing_refuses():
    view = view_of()
    bare = View(
        **{
            name: getattr(view, name)
            for name in (
                "limits",
                "protections",
                "rates",
                "instruments",
                "quotes",
                "closes",
                "positions",
                "orders",
                "owners",
                "agents",
                "decision_keys",
            )
        }
    )
    assert check(OPEN, bare) is not None


# --- exits -------------------------------------------------------------------------------------

BAD = {
    "equity": NAN,
    "closed": {"A"},
    "quotes": {"A": quote(fault="crossed", spread=30.0, epoch=1)},
    "closes": {"A": 300.0},
    "steady_ns": NOW + 10_000 * SECOND,
    "is_reconciling": True,
    "paused": {"a": "a person"},
    "locks": {("x", ""): NOW + SECOND},
    "margin_used": NAN,
    "peak_equity": NAN,
    "blocked": {"A": "the position is unprotected"},
    "instruments": {"A": instrument(is_tradable=False)},
    "limits": replace(LIMITS, max_exposure=0.01, max_order=0.01, orders_per_day=1),
    "agents": {},
}


@pytest.mark.parametrize("intent", [closing(-5), exit_of(-5, 90), closing(-5, leg=Leg.TARGET)])
def test_nothing_traps_a_position(intent):
    """P14, P17, P18, F21, F22: of all that blocks an opening nothing blocks what closes."""
    view = view_of(positions=held(A=5), protections=Protections(max_drawdown=0.1), **BAD)
    assert check(intent, view) is None
    assert check(intent_of(5, cid="o"), view) is not None


@pytest.mark.parametrize(
    ("name", "intent", "fields"),
    [
        ("numbers", replace(closing(-5), quantity=Decimal("-inf")), {}),
        ("instrument", closing(-5), {"instruments": {}}),
        ("steps", closing("-4.5"), {}),
        ("price", closing(-5), {"quotes": {}, "closes": {}}),
        ("owner", closing(-5, agent="b"), {}),
        ("duplicate", closing(-5, decision_key="k"), {"decision_keys": {"k"}}),
    ],
)
def test_what_an_exit_has_to_keep_to(name, intent, fields):
    assert check(intent, view_of(positions=held(A=5), **fields)).check == name


def test_an_exit_no_larger_than_what_others_leave():
    under_way = order_of(intent_of(-3, reduce_only=True, cid="o"))
    view = view_of(positions=held(A=5), orders=[under_way])
    assert check(closing(-3), view).check == "reduce_only"
    assert check(closing(-2), view) is None
    under_way.is_doubtful = True
    assert check(closing(-5, cid="c"), view) is None
    stops = [order_of(exit_of(-5, 90)), order_of(exit_of(-5, 120, Leg.TAKE_PROFIT))]
    assert check(closing(-5), view_of(positions=held(A=5), orders=stops)) is None
    assert check(closing(5), view_of(positions=held(A=-5), orders=stops)) is None


def test_a_stop_goes_with_the_order_that_opens():
    entry, stop = intent_of(5), exit_of(-5, 90, parent=intent_of(5).cid)
    assert check(stop, view_of()).check == "reduce_only"
    view = view_of()
    assert check(entry, view) is None
    assert check(stop, view, [entry]) is None
    assert check(stop, view_of(orders=[order_of(entry)])) is None
    turned = intent_of(-8)
    assert check(exit_of(3, 110), view_of(positions=held(A=5)), [turned]) is None
    assert check(exit_of(4, 105), view_of(positions=held(A=5)), [turned]) is not None


@pytest.mark.parametrize(
    ("state", "passing"),
    [
        (TradingState.ACTIVE, {Leg.TARGET, Leg.STOP_LOSS, Leg.TAKE_PROFIT, Leg.CLOSE}),
        (TradingState.REDUCING, {Leg.TARGET, Leg.STOP_LOSS, Leg.TAKE_PROFIT, Leg.CLOSE}),
        (TradingState.HALTED, {Leg.STOP_LOSS, Leg.TAKE_PROFIT, Leg.CLOSE}),
        (TradingState.KILLED, {Leg.CLOSE}),
    ],
)
def test_which_exits_a_trading_state_lets_pass(state, passing):
    view = view_of(positions=held(A=5), trading=state)
    found = {leg for leg in Leg if check(closing(-5, leg=leg, cid=str(leg)), view) is None}
    assert found == passing


def test_what_brings_exposure_down_passes_though_it_is_too_high():
    view = view_of(positions=held(A=9, C=5), agents={"a": 300.0})
    assert check(intent_of(-17), view).check == "order_value"
    assert check(intent_of(-14), view) is None  # from 0.9 to -0.5, and never more than 0.9
    assert check(intent_of(1), view).check == "exposure"


# --- several orders, several agents ------------------------------------------------------------


def test_exposure_is_reserved_over_all_agents():
    view = view_of(agents={"a": 1_000.0, "b": 1_000.0})
    first = intent_of(6)
    second = intent_of(-5, "C", agent="b")
    assert check(first, view) is None
    assert check(second, view, [first]).check == "gross"
    assert check(second, replace(view, orders=[order_of(first)])).check == "gross"
    assert check(intent_of(-4, "C", agent="b", cid="4"), view, [first]) is None


def test_orders_that_both_may_fill_count_in_the_worse_way():
    orders = [order_of(intent_of(-6, cid="o"))]
    assert check(intent_of(6), view_of(orders=orders)) is None  # long 6 or short 6, not both
    assert check(intent_of(-3), view_of(orders=orders)).check == "exposure"


def test_the_same_decision_passes_once():
    order = intent_of(1)
    assert check(order, view_of(), [order]).check == "duplicate"


# --- P20: a flood ------------------------------------------------------------------------------


def test_a_flood_of_orders_halts_and_exits_still_pass():
    view = view_of(positions=held(A=5))
    found = [check(intent_of(1, cid=str(i)), view) for i in range(100)]
    passed = found.index(next(filter(None, found)))
    assert passed == LIMITS.orders_per_minute_symbol
    assert found[passed].check == "rate"
    assert found[passed].halts
    assert all(one.check == "rate" for one in found[passed:])
    assert check(closing(-5), view) is None


# --- F22: quotes, from the tick to the verdict -------------------------------------------------


def quoted(ticks, *, age_s=0.0):
    """A view after quotes of A, (bid, ask) each a second apart."""
    quotes = Quotes(LIMITS)
    for second in range(40):  # that vary a little
        move = 0.01 * (-1) ** second
        quotes.see(
            Tick(at_ns=0, symbol="A", bid=99.99 + move, ask=100.01 + move),
            steady_ns=second * SECOND,
            epoch=3,
        )
    for i, (bid, ask) in enumerate(ticks):
        tick = Tick(at_ns=0, symbol="A", bid=bid, ask=ask)
        quotes.see(tick, steady_ns=(40 + i) * SECOND, epoch=3)
    now = (39 + len(ticks)) * SECOND + round(age_s * SECOND)
    return view_of(quotes=quotes.known, steady_ns=now, positions=held(A=5), agents={"a": 900.0})


@pytest.mark.parametrize(
    ("ticks", "age_s", "name"),
    [
        ([(99.99, 100.01)], 31.0, "age"),
        ([(NAN, 100.0)], 0.0, "quote"),
        ([(100.0, NAN)], 0.0, "quote"),
        ([(0.0, 100.0)], 0.0, "quote"),
        ([(-100.0, 100.0)], 0.0, "quote"),
        ([(math.inf, math.inf)], 0.0, "quote"),
        ([(100.1, 99.9)], 0.0, "quote"),
        ([(109.99, 110.01)], 0.0, "quote"),
        ([(99.5, 100.5)], 0.0, "spread"),
        ([(99.99, 100.01), (0.0, 0.0)], 0.0, "quote"),
    ],
)
def test_a_bad_quote_opens_nothing_and_closes_at_a_sane_price(ticks, age_s, name):
    view = quoted(ticks, age_s=age_s)
    assert check(intent_of(1), view).check == name
    assert check(closing(-5), view) is None
    assert view.prices.price("A") == pytest.approx(100.0, abs=0.1)


def test_a_sane_quote_lifts_it():
    for bad in ((0.0, 0.0), (NAN, NAN), (100.1, 99.9), (109.99, 110.01)):
        assert check(intent_of(1), quoted([bad, (100.0, 100.02)])) is None


def test_a_spike_that_is_repeated_is_a_price():
    view = quoted([(109.99, 110.01), (110.0, 110.02)])
    assert view.prices.price("A") == pytest.approx(110.01)
    view = quoted([(109.99, 110.01), (130.0, 130.02)])
    assert view.prices.price("A") == pytest.approx(100.0, abs=0.1)
    assert check(intent_of(1), view).check == "quote"


def test_a_frozen_feed_is_seen():
    still = [(99.99, 100.01)] * 20
    view = quoted(still)
    assert check(intent_of(1), view) is None
    frozen = replace(view, limits=replace(LIMITS, max_frozen_s=15.0))
    assert check(intent_of(1), frozen).check == "age"
    assert check(closing(-5), frozen) is None


# --- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_gross", 0.0),
        ("max_gross", NAN),
        ("max_age_s", -1.0),
        ("margin_rate", -0.1),
        ("max_spread_ratio", math.inf),
        ("orders_per_day", 0),
        ("orders_per_minute", 1.5),
        ("worst_move", 1.1),
    ],
)
def test_limits_are_checked_when_made(name, value):
    with pytest.raises(JaxtradeError, match=rf"^{name} is .*: give "):
        GuardLimits(**{name: value})
