from decimal import Decimal
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import ledger
from jaxtrade.costs import make_costs
from jaxtrade.envs.actions import Request
from jaxtrade.envs.steps import order_for
from jaxtrade.live.events import Leg, OrderKind, Side
from jaxtrade.live.exits import breached, close, exits
from jaxtrade.live.planning import is_stale_price, plan
from jaxtrade.rules import make_rules
from jaxtrade.tape import Bar
from tests.live_orders import SECOND, exit_of, instrument, intent_of, order_of, scene_of, terms_of

NONE = jnp.int32(0)
SYMBOLS = ("A", "B", "C")


def planned(target, scene, *, start_s=60, **fields):
    options = {name: fields.pop(name) for name in ("attempt", "is_reducing") if name in fields}
    return plan(terms_of(**fields), {"A": target}, scene, start_s=start_s, **options)


def signed(intents):
    """Signed quantities of the orders to trade, by symbol."""
    return {one.symbol: one.side.sign * one.quantity for one in intents if one.leg is Leg.TARGET}


# --- the quantity is the backtest's ------------------------------------------------------------


def backtest_order(account, target, price, band, minimum, rules):
    params = SimpleNamespace(no_trade_band=band, minimum_order=minimum, rules=rules)
    target = jnp.asarray(target, jnp.float32)
    request = Request(exposure=target, invalid=NONE, clipped=NONE)
    zero = jnp.zeros(3, jnp.float32)
    bar = Bar(
        open=zero,
        high=zero,
        low=zero,
        close=zero,
        years=jnp.float32(0),
        new_day=jnp.float32(0),
        price=jnp.asarray(price, jnp.float32),
    )
    return np.asarray(order_for(account, target, request, bar, params).quantity)


def cases(num_cases, seed=0):
    generator = np.random.default_rng(seed)
    for _ in range(num_cases):
        yield (
            generator.choice([-1.0, -0.3, 0.0, 0.25, 0.5, 0.05, generator.normal()], 3),
            generator.choice([0.0, 0.0, 0.25, 0.5, generator.normal()], 3),
            np.exp(generator.normal(0, 3, 3)),
            float(np.float32(generator.normal(0, 0.4))),
            generator.choice([0.0, 0.05, 0.2]),
            generator.choice([None, 0.0, 0.1]),
        )


@pytest.mark.parametrize("step", ["1e-10", "1e-7"])
def test_without_lots_the_order_is_the_backtests(step):
    rules = make_rules(costs=make_costs(), deposit=100_000.0)
    checked = 0
    for target, weights, price, log_equity, band, minimum in cases(150):
        equity = 100_000.0 * np.exp(log_equity)
        account = ledger.open_account(3).replace(
            weights=jnp.asarray(weights, jnp.float32), log_equity=jnp.float32(log_equity)
        )
        expected = backtest_order(account, target, price, band, minimum, rules)
        units = [Decimal(w * equity / p) for w, p in zip(weights, price, strict=True)]
        scene = scene_of(
            equity=equity,
            prices=dict(zip(SYMBOLS, price, strict=True)),
            positions=dict(zip(SYMBOLS, units, strict=True)),
            instruments={symbol: instrument(symbol, step) for symbol in SYMBOLS},
        )
        terms = terms_of(no_trade_band=band, minimum_order=minimum or 0.0)
        targets = dict(zip(SYMBOLS, np.float32(target).tolist(), strict=True))
        found = signed(plan(terms, targets, scene, start_s=0).intents)
        for symbol, one, each in zip(SYMBOLS, expected, price, strict=True):
            exposure = float(found.get(symbol, 0)) * each / equity
            assert exposure == pytest.approx(one, abs=2e-6)
            assert (symbol in found) == (one != 0)
            assert found.get(symbol, Decimal(0)) % Decimal(step) == 0
            checked += 1
    assert checked == 450


def test_with_lots_the_order_is_the_backtests_to_the_lot():
    lot = 8.0
    rules = make_rules(costs=make_costs(), deposit=100_000.0, lot_size=lot)
    generator = np.random.default_rng(5)
    traded = 0
    for target, weights, price, log_equity, band, minimum in cases(150, seed=1):
        price = np.clip(price, 5, None)
        equity = 100_000.0 * np.exp(log_equity)
        lots = np.int32(np.trunc(weights * equity / (lot * price)))
        if generator.random() < 0.3:  # exactly three lots are three
            target = 3 * lot * price / equity
        account = ledger.open_account(3, rules).replace(
            lots=jnp.asarray(lots), log_equity=jnp.float32(log_equity)
        )
        account = account.replace(weights=lots * ledger.lot_value(account, price, rules))
        expected = backtest_order(account, target, price, band, minimum, rules)
        value = np.asarray(ledger.lot_value(account, jnp.asarray(price, jnp.float32), rules))
        scene = scene_of(
            equity=equity,
            prices=dict(zip(SYMBOLS, price, strict=True)),
            positions={s: Decimal(int(n)) * Decimal(8) for s, n in zip(SYMBOLS, lots, strict=True)},
            instruments={symbol: instrument(symbol, "8") for symbol in SYMBOLS},
        )
        terms = terms_of(no_trade_band=band, minimum_order=minimum or 0.0)
        targets = dict(zip(SYMBOLS, np.float32(target).tolist(), strict=True))
        found = signed(plan(terms, targets, scene, start_s=0).intents)
        for i, symbol in enumerate(SYMBOLS):
            wanted = int(np.rint(expected[i] / value[i]))
            assert found.get(symbol, 0) == Decimal(wanted) * 8
            traded += wanted != 0
    assert traded > 100


def test_what_the_ledger_takes_for_dust_is_not_traded_and_not_left():
    scene = scene_of("5.0000000001", step="1e-10")
    assert planned(0.5, scene).intents == ()
    (order,) = planned(5e-6, scene).intents
    assert order.quantity == Decimal("5.0000000001")


# --- closing, reducing, steps ------------------------------------------------------------------


def test_an_order_says_what_it_is_and_the_same_decision_says_it_again():
    scene = scene_of(2, references={"A": 101.0})
    (order,) = planned(0.5, scene, max_order_age_s=30).intents
    assert (order.side, order.quantity, order.kind) == (Side.BUY, 3, OrderKind.MARKET)
    assert (order.agent, order.symbol, order.leg) == ("a", "A", Leg.TARGET)
    assert (order.reference_price, order.reference_ns) == (101.0, 5 * SECOND)
    assert order.expires_ns == 35 * SECOND
    assert len(order.cid) == 16
    assert not order.reduce_only
    assert planned(0.5, scene, max_order_age_s=30).intents == (order,)
    others = [planned(0.5, scene, attempt=1), planned(0.5, scene, start_s=61)]
    assert len({order.cid, *(other.intents[0].cid for other in others)}) == 3


def test_closing_is_never_held_back_and_needs_no_price():
    scene = scene_of("-0.3", step="0.1", prices={})
    (order,) = planned(0.0, scene, no_trade_band=0.9, minimum_order=0.9).intents
    assert (order.side, order.quantity, order.reduce_only) == (Side.BUY, Decimal("0.3"), True)
    assert order.reference_price == 0.0


def test_what_cannot_be_sized_is_said():
    assert planned(float("nan"), scene_of()).waiting == {"A": "a target"}
    assert planned(0.5, scene_of(prices={"A": float("nan")})).waiting == {"A": "a price"}
    assert "instrument" in planned(0.5, scene_of(instruments={})).waiting["A"]
    assert "instrument" in planned(0.0, scene_of(4, step="0")).waiting["A"]
    odd = {"A": instrument(unit_value=float("nan"))}
    assert planned(0.5, scene_of(instruments=odd)).waiting == {"A": "a price"}
    assert close(terms_of(), "A", scene_of(4, step="0"), start_s=0).intents == ()
    assert "large enough" in planned(0.0, scene_of("0.4")).waiting["A"]
    assert planned(0.5, scene_of(5)).waiting == {}


def test_equity_that_is_gone_closes_everything():
    for equity in (0.0, -5.0):
        (order,) = planned(0.7, scene_of(4, equity=equity)).intents
        assert (order.side, order.quantity) == (Side.SELL, 4)


def test_equity_that_is_no_number_closes_only_what_is_to_be_closed():
    for equity in (float("nan"), float("inf")):
        scene = scene_of(4, equity=equity)
        assert planned(0.7, scene).waiting == {"A": "an equity"}
        assert planned(0.7, scene).intents == ()
        assert planned(0.0, scene).intents[0].quantity == 4


def test_only_what_really_reduces_is_reduce_only():
    position = 5
    found = [planned(target, scene_of(position)).intents[0] for target in (0.2, 0.0, -0.3, 0.8)]
    assert [one.reduce_only for one in found] == [True, True, False, False]


def test_while_reducing_nothing_is_opened_increased_or_turned_round():
    assert planned(0.8, scene_of(5), is_reducing=True).intents == ()
    assert planned(0.8, scene_of(0), is_reducing=True).intents == ()
    found = [planned(t, scene_of(5), is_reducing=True).intents[0] for t in (0.2, -0.8)]
    assert [one.quantity for one in found] == [3, 5]
    assert all(one.reduce_only for one in found)


def test_quantities_keep_to_what_can_be_ordered():
    few = {"A": instrument(step="0.5", max_quantity=Decimal("3.2"), min_quantity=Decimal(2))}
    assert signed(planned(0.9, scene_of(instruments=few)).intents) == {"A": 3}
    assert planned(0.19, scene_of(instruments=few)).intents == ()
    assert planned(0.0, scene_of(1, instruments=few)).intents == ()


def test_a_unit_may_be_worth_something_else_than_its_price():
    double = {"A": instrument(unit_value=2.0)}
    assert signed(planned(0.8, scene_of(instruments=double)).intents) == {"A": 4}


# --- what is under way -------------------------------------------------------------------------


def test_an_order_under_way_counts_as_filled():
    scene = scene_of(1, order_of(intent_of(4)))
    assert planned(0.5, scene).intents == ()
    assert signed(planned(0.7, scene).intents) == {"A": 2}


def test_what_was_filled_of_it_is_in_the_position():
    scene = scene_of(3, order_of(intent_of(4), remaining=Decimal(2)))
    assert planned(0.5, scene).intents == ()


def test_an_order_the_other_way_is_cancelled_first():
    buy = order_of(intent_of(4, cid="buy"))
    made = planned(-0.5, scene_of(1, buy))
    assert (made.cancels, made.intents) == (("buy",), ())
    assert made.waiting == {"A": "the cancellation of an order"}
    buy.is_canceling = True
    made = planned(-0.5, scene_of(1, buy))
    assert (made.cancels, made.intents) == ((), ())
    assert made.waiting == {"A": "the cancellation of an order"}
    assert signed(planned(-0.5, scene_of(1)).intents) == {"A": -6}


def test_while_an_order_is_unknown_only_the_brokers_position_is_reduced():
    unknown = order_of(intent_of(4), is_doubtful=True)
    assert planned(0.9, scene_of(1, unknown)).intents == ()
    assert "nothing is known" in planned(0.9, scene_of(1, unknown)).waiting["A"]
    assert signed(planned(-0.5, scene_of(1, unknown)).intents) == {"A": -1}
    made = planned(0.0, scene_of(5, unknown))
    assert signed(made.intents) == {"A": -5}
    assert made.waiting == {}


def test_other_symbols_and_exits_are_nobodys_order_to_trade():
    others = (order_of(intent_of(4, "B")), order_of(exit_of(-5, 90)))
    assert signed(planned(0.8, scene_of(5, *others)).intents) == {"A": 3}


def test_a_moved_price_makes_an_order_stale():
    intent = intent_of(1)
    assert is_stale_price(intent, 101.2, 0.01)
    assert is_stale_price(intent, 98.8, 0.01)
    assert not is_stale_price(intent, 100.9, 0.01)
    assert not is_stale_price(intent, 150.0, 0.0)
    assert not is_stale_price(intent, float("nan"), 0.01)
    assert not is_stale_price(intent_of(1, reference_price=0.0), 50.0, 0.01)


# --- closing for other reasons -----------------------------------------------------------------


def closed(scene):
    return close(terms_of(), "A", scene, start_s=60)


def test_a_close_is_reduce_only_and_leaves_the_exits():
    made = closed(scene_of(-5, order_of(exit_of(5, 110))))
    (order,) = made.intents
    assert (order.leg, order.side, order.quantity) == (Leg.CLOSE, Side.BUY, 5)
    assert order.reduce_only
    assert made.cancels == ()


def test_a_close_waits_for_nothing():
    adding, reducing = order_of(intent_of(4, cid="more")), order_of(intent_of(-2, cid="less"))
    made = closed(scene_of(5, adding))
    assert (made.cancels, made.intents[0].quantity) == (("more",), 5)
    assert made.intents[0].reduce_only
    assert closed(scene_of(5, reducing)).intents[0].quantity == 3
    reducing.is_doubtful = True
    assert closed(scene_of(5, reducing)).intents[0].quantity == 5
    assert closed(scene_of(0, adding)).cancels == ("more",)
    assert closed(scene_of(5, order_of(intent_of(-9)))).intents == ()


# --- stops and targets -------------------------------------------------------------------------

GUARDED = {"stop_loss": 0.1, "take_profit": 0.2}


def test_an_order_that_opens_brings_its_exits():
    entry, stop, target = planned(-0.5, scene_of(), **GUARDED).intents
    assert (entry.side, entry.quantity) == (Side.SELL, 5)
    assert (stop.leg, stop.kind, stop.side) == (Leg.STOP_LOSS, OrderKind.STOP, Side.BUY)
    assert (stop.price, stop.quantity) == (110, 5)
    assert (target.leg, target.kind, target.side) == (Leg.TAKE_PROFIT, OrderKind.LIMIT, Side.BUY)
    assert (target.price, target.quantity) == (80, 5)
    assert {stop.parent, target.parent} == {entry.cid}
    assert stop.reduce_only
    assert target.reduce_only
    assert len({entry.cid, stop.cid, target.cid}) == 3


def test_exits_are_rounded_away_from_the_entry():
    odd = {"A": instrument(price_step=Decimal("0.25"))}
    for target, expected in ((0.5, ["92.50", "107.50"]), (-0.5, ["107.50", "92.50"])):
        scene = scene_of(instruments=odd)
        found = planned(target, scene, stop_loss=0.0733, take_profit=0.0733).intents[1:]
        assert [one.price for one in found] == list(map(Decimal, expected))


def test_an_order_that_reduces_brings_none_and_one_that_turns_covers_what_is_left():
    stop = order_of(exit_of(-5, 90))
    assert len(planned(0.2, scene_of(5, stop), **GUARDED).intents) == 1
    entry, new, _ = planned(-0.3, scene_of(5, stop), **GUARDED).intents
    assert (entry.quantity, new.side, new.quantity, new.price) == (8, Side.BUY, 3, 110)


def test_what_is_added_is_covered_at_the_price_of_the_stop_there_is():
    stop = order_of(exit_of(-5, 87))
    entry, more, target = planned(0.8, scene_of(5, stop), **GUARDED).intents
    assert (entry.quantity, more.quantity, more.price, target.price) == (3, 3, 87, 120)


def test_a_broker_that_holds_no_exits_is_sent_none():
    scene = scene_of(5)
    assert len(planned(0.8, scene, holds_exits=False, **GUARDED).intents) == 1
    assert exits(terms_of(holds_exits=False, **GUARDED), "A", scene, start_s=0).intents == ()


def repaired(scene, **options):
    return exits(terms_of(**GUARDED), "A", scene, start_s=60, **options)


def test_an_unprotected_position_gets_its_exits():
    stop, target = repaired(scene_of(5, entries={"A": 105.0})).intents
    assert (stop.leg, stop.quantity, stop.price, stop.side) == (
        Leg.STOP_LOSS,
        5,
        Decimal("94.5"),
        Side.SELL,
    )
    assert (target.leg, target.price) == (Leg.TAKE_PROFIT, 126)


def test_what_is_covered_is_left_alone_and_what_is_not_is_covered():
    stop = order_of(exit_of(-5, 90, parent="p"))
    target = order_of(exit_of(-5, 120, Leg.TAKE_PROFIT, parent="p"))
    assert repaired(scene_of(5, stop, target)) == repaired(scene_of(5, stop, target))
    assert repaired(scene_of(5, stop, target)).intents == ()
    (more,) = repaired(scene_of(7, stop, order_of(exit_of(-7, 120, Leg.TAKE_PROFIT)))).intents
    assert (more.leg, more.quantity, more.price, more.parent) == (Leg.STOP_LOSS, 2, 90, "p")
    for lost in ("is_canceling", "is_doubtful"):
        gone = order_of(exit_of(-5, 90), **{lost: True})
        (again,) = repaired(scene_of(5, gone, target)).intents
        assert (again.leg, again.quantity) == (Leg.STOP_LOSS, 5)


def test_a_position_that_is_being_closed_needs_no_more_cover():
    stop = order_of(exit_of(-2, 90))
    target = order_of(exit_of(-2, 120, Leg.TAKE_PROFIT))
    assert repaired(scene_of(5, stop, target, order_of(intent_of(-3)))).intents == ()
    assert repaired(scene_of(5, order_of(intent_of(-5)))).intents == ()


def test_exits_that_guard_nothing_are_cancelled():
    stop, other = order_of(exit_of(-5, 90, cid="s")), order_of(exit_of(5, 110, cid="o"))
    assert repaired(scene_of(0, stop, other)).cancels == ("s", "o")
    assert repaired(scene_of(-3, stop, other)).cancels == ("s",)
    assert repaired(scene_of(0, stop, order_of(intent_of(5)))).cancels == ()
    assert repaired(scene_of(0, stop, order_of(intent_of(5), is_doubtful=True))).cancels == ()
    stop.is_canceling = True
    assert repaired(scene_of(0, stop)).cancels == ()


def test_a_position_too_long_without_its_stop_is_closed():
    target = order_of(exit_of(-5, 120, Leg.TAKE_PROFIT))
    (order,) = repaired(scene_of(5, target), is_overdue=True).intents
    assert (order.leg, order.side, order.quantity) == (Leg.CLOSE, Side.SELL, 5)


def test_a_position_past_its_stop_is_closed():
    (order,) = repaired(scene_of(5, entries={"A": 120.0})).intents
    assert order.leg is Leg.CLOSE
    (order,) = repaired(scene_of(-5, entries={"A": 80.0})).intents
    assert (order.leg, order.side) == (Leg.CLOSE, Side.BUY)


def test_the_engine_sees_when_an_exit_is_reached():
    terms = terms_of(**GUARDED)
    long, short = Decimal(5), Decimal(-5)
    assert breached(terms, long, 100.0, 90.0) is Leg.STOP_LOSS
    assert breached(terms, long, 100.0, 120.1) is Leg.TAKE_PROFIT
    assert breached(terms, short, 100.0, 110.1) is Leg.STOP_LOSS
    assert breached(terms, short, 100.0, 79.0) is Leg.TAKE_PROFIT
    for price in (90.1, 119.9, float("nan"), 0.0):
        assert breached(terms, long, 100.0, price) is None
    assert breached(terms, Decimal(0), 100.0, 50.0) is None
    assert breached(terms_of(), long, 100.0, 50.0) is None
