"""Stops and targets of positions, bar by bar, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.brackets import NO_EXIT, STOP, TARGET, make_brackets
from jaxtrade.costs import make_costs
from jaxtrade.margin import make_margin
from jaxtrade.orders import Order
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from tests.plays import FREE
from tests.steps import free_rules, once

STILL = [0.0, 0.0, 0.0, 0.0]
TEN = make_brackets(stop_loss=0.1, take_profit=0.2)
RULES = free_rules(brackets=TEN)


def hold(bar, rules=RULES, side=1, account=None, **columns):
    """One bar of a position of half the equity that a still bar opened: (account, code, price)."""
    if account is None:
        account, _ = once(rules, [0.5 * side], [STILL], **columns)
    account, move = once(rules, [0.0], [bar], account=account, **columns)
    return account, int(move.exit_code[0]), float(move.exit_price[0])


# A long entered at 1 with the stop at 0.9 and the target at 1.2; a short the other way round
LONGS = {
    "nothing": ([0.05, 0.15, -0.05, 0.1], NO_EXIT, 0.1),
    "stop": ([0.0, 0.05, -0.15, 0.05], STOP, -0.1),
    "stop at its level": ([0.0, 0.05, -0.1, 0.05], STOP, -0.1),
    "gap through the stop": ([-0.3, 0.3, -0.35, 0.3], STOP, -0.3),
    "target": ([0.0, 0.25, -0.05, 0.0], TARGET, 0.2),
    "target only touched": ([0.0, 0.2, -0.05, 0.0], NO_EXIT, 0.0),
    "gap above the target": ([0.3, 0.35, -0.5, 0.0], TARGET, 0.3),
    "both: the stop": ([0.0, 0.25, -0.15, 0.2], STOP, -0.1),
}
SHORTS = {
    "nothing": ([-0.05, 0.05, -0.15, -0.1], NO_EXIT, -0.1),
    "stop": ([0.0, 0.15, -0.05, -0.05], STOP, 0.1),
    "gap through the stop": ([0.3, 0.35, -0.3, -0.3], STOP, 0.3),
    "target": ([0.0, 0.05, -0.25, 0.0], TARGET, -0.2),
    "gap below the target": ([-0.3, 0.5, -0.35, 0.0], TARGET, -0.3),
    "both: the stop": ([0.0, 0.15, -0.25, 0.2], STOP, 0.1),
}


@pytest.mark.parametrize("case", LONGS)
def test_a_long_position(case):
    bar, code, price = LONGS[case]
    account, found, at = hold(bar)
    assert found == code
    assert at == pytest.approx(price, abs=1e-6)
    assert float(account.last_return) == pytest.approx(0.5 * price, abs=1e-6)
    assert (float(account.weights[0]) == 0) == (code != NO_EXIT)


@pytest.mark.parametrize("case", SHORTS)
def test_a_short_position(case):
    bar, code, price = SHORTS[case]
    account, found, at = hold(bar, side=-1)
    assert found == code
    assert at == pytest.approx(price, abs=1e-6)
    assert float(account.last_return) == pytest.approx(-0.5 * price, abs=1e-6)


def test_the_bar_of_the_entry_can_stop_it():
    # Bought at the open, 1.1: stop 0.99, which the low of 0.95 meets.
    _, move = once(RULES, [0.5], [[0.1, 0.15, -0.05, 0.1]])
    assert int(move.exit_code[0]) == STOP
    assert float(move.exit_price[0]) == pytest.approx(-0.01, abs=1e-6)
    assert float(move.gain) == pytest.approx(0.5 * -0.11, rel=1e-5)


def test_levels_stay_where_they_were_while_the_position_changes():
    account, _ = once(RULES, [0.5], [STILL])
    for _ in range(3):
        account, _ = once(RULES, [0.1], [[0.0, 0.05, 0.0, 0.05]], account=account)
    # The stop is 0.9 of the first price, which is now 0.9 / 1.157625 of the last.
    assert float(account.levels.stop[0]) == pytest.approx(0.9 / 1.05**3 - 1, rel=1e-5)
    assert float(account.levels.target[0]) == pytest.approx(1.2 / 1.05**3 - 1, rel=1e-4)
    account, _ = once(RULES, -2 * account.weights, [STILL], account=account)  # turned round
    assert float(account.levels.stop[0]) == pytest.approx(0.1, rel=1e-5)
    assert float(account.levels.target[0]) == pytest.approx(-0.2, rel=1e-5)


@pytest.mark.parametrize("side", [1, -1])
def test_a_trailing_stop_follows_the_best_price_after_each_bar(side):
    rules = free_rules(brackets=make_brackets(trailing=0.1))
    account, _ = once(rules, [0.5 * side], [STILL])
    # The best of the first bar is 1.2 (0.8), which counts from the next one: a stop at 1.08
    # (0.88), 8 % above (12 % below) where it closes.
    first = [0.0, 0.2, -0.05, 0.0] if side > 0 else [0.0, 0.05, -0.2, 0.0]
    account, code, _ = hold(first, rules, account=account)
    assert code == NO_EXIT
    assert float(account.levels.best[0]) == pytest.approx(0.2 * side, rel=1e-5)
    level = 1.2 * 0.9 - 1 if side > 0 else 0.8 * 1.1 - 1
    opening = 0.15 if side > 0 else -0.15
    second = [opening, max(opening, level + 0.02), min(opening, level - 0.02), opening]
    _, code, price = hold(second, rules, account=account)
    assert code == STOP
    assert price == pytest.approx(level, rel=1e-4)


def test_the_nearer_of_two_stops_counts():
    rules = free_rules(brackets=make_brackets(stop_loss=0.05, trailing=0.1))
    _, code, price = hold([0.0, 0.0, -0.2, 0.0], rules)
    assert (code, price) == (STOP, pytest.approx(-0.05, abs=1e-6))
    account, _, _ = hold([0.0, 0.3, 0.0, 0.3], rules)
    _, code, price = hold([0.0, 0.0, -0.2, 0.0], rules, account=account)
    assert (code, price) == (STOP, pytest.approx(-0.1, abs=1e-6))


def test_under_next_close_levels_begin_with_the_next_bar():
    rules = free_rules(brackets=TEN, fill="next_close")
    account, move = once(rules, [0.5], [[0.0, 0.5, -0.5, 0.0]])
    assert int(move.exit_code[0]) == NO_EXIT
    _, code, price = hold([0.0, 0.0, -0.2, 0.1], rules, account=account)
    assert (code, price) == (STOP, pytest.approx(-0.1, abs=1e-6))
    # An order of a bar in which the position left is cancelled.
    after, move = once(rules, [0.3], [[0.0, 0.0, -0.2, 0.1]], account=account)
    assert not after.weights.any()
    assert not move.traded.any()


# Quotes and costs


def test_a_long_leaves_at_the_bid_and_pays_no_other_spread():
    # Half a spread of 1 %: the bid is 0.99 of the middle. The stop at 0.9 is met once the middle
    # is below 0.909; the target at 1.2 once it is above 1.2121.
    rates = {**FREE, "half_spread": 0.01, "commission_rate": 0.002, "maker_rate": 0.001}
    rules = make_rules(costs=make_costs(**rates, slippage=0.003), brackets=TEN)
    account, _ = once(rules, [0.5], [STILL])
    weight = float(account.weights[0])
    for low, code in ((-0.0905, NO_EXIT), (-0.0915, STOP)):
        _, move = once(rules, [0.0], [[0.0, 0.0, low, 0.0]], account=account)
        assert int(move.exit_code[0]) == code
    assert float(move.exit_price[0]) == pytest.approx(-0.1, abs=1e-6)
    assert float(move.cost) == pytest.approx(weight * 0.9 * 0.005, rel=1e-4)
    assert float(move.gain) == pytest.approx(weight * (-0.1 - 0.9 * 0.005), rel=1e-4)
    for high, code in ((0.2115, NO_EXIT), (0.213, TARGET)):
        _, move = once(rules, [0.0], [[0.0, high, 0.0, 0.0]], account=account)
        assert int(move.exit_code[0]) == code
    assert float(move.cost) == pytest.approx(weight * 1.2 * 0.001, rel=1e-4)


def test_a_limit_filled_inside_the_bar_cannot_take_a_profit_made_before():
    rules = free_rules(brackets=make_brackets(take_profit=0.05))
    order = Order(quantity=jnp.float32([0.5]), limit=jnp.float32([-0.1]))
    account, move = once(rules, order, [[0.0, 0.2, -0.15, -0.08]])
    assert int(move.exit_code[0]) == NO_EXIT
    assert float(move.gain) == pytest.approx(0.5 * 0.02, rel=1e-4)
    account, move = once(rules, order, [[0.0, 0.2, -0.15, 0.0]])  # the close is above it
    assert int(move.exit_code[0]) == TARGET
    assert not account.weights.any()


def test_distances_in_the_currency_and_whole_ticks():
    brackets = make_brackets(stop_loss=3.2, take_profit=7.1, in_price=True)
    rules = free_rules(brackets=brackets, tick_size=0.5)
    account, _ = once(rules, [0.5], [STILL], price=100.0)
    # 96.8 down to 96.5, 107.1 up to 107.5: away from the entry.
    assert float(account.levels.stop[0]) == pytest.approx(-0.035, rel=1e-4)
    assert float(account.levels.target[0]) == pytest.approx(0.075, rel=1e-4)
    account, _ = once(rules, [-0.5], [STILL], price=100.0)
    assert float(account.levels.stop[0]) == pytest.approx(0.035, rel=1e-4)
    assert float(account.levels.target[0]) == pytest.approx(-0.075, rel=1e-4)


def test_an_exit_cancels_what_is_under_way():
    rules = free_rules(brackets=TEN, latency=1, margin=make_margin(max_leverage=9.0))
    account, _ = once(rules, [0.5], [STILL])
    account, _ = once(rules, [0.2], [STILL], account=account)
    assert account.waiting[0, 0] == pytest.approx(0.2)
    account, move = once(rules, [0.3], [[0.0, 0.0, -0.2, 0.0]], account=account)
    assert int(move.exit_code[0]) == STOP
    assert not account.waiting.any()
    assert not account.weights.any()


def test_compiled_is_plain_and_promotes_nothing():
    rules = free_rules(
        brackets=make_brackets(stop_loss=0.1, take_profit=0.2, trailing=[0.1, 0.2]), tick_size=0.01
    )
    account, _ = once(rules, [0.5, -0.5], [STILL, STILL], price=50.0)
    bars = [[0.0, 0.05, -0.15, 0.0], [0.0, 0.3, -0.05, 0.1]]
    compiled = once(rules, [0.1, 0.1], bars, account=account, price=50.0)
    with (
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
        jax.disable_jit(),
    ):
        plain = once(rules, [0.1, 0.1], bars, account=account, price=50.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, compiled)
    assert (np.asarray(plain[1].exit_code) == STOP).all()


BAD = {
    "none": ({"stop_loss": 0.0}, "stop_loss is 0.0: give a distance above 0 and below 1"),
    "all": ({"trailing": 1.0}, "trailing is 1.0: give a distance above 0 and below 1"),
    "negative": ({"take_profit": -0.1}, "take_profit is -0.1: give a distance above 0, or one"),
    "nan": ({"stop_loss": [0.1, np.nan]}, "stop_loss is .*: give a distance"),
    "pips": ({"stop_loss": -3.0, "in_price": True}, "stop_loss is -3.0: give a distance above 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_distances(case):
    options, message = BAD[case]
    with pytest.raises(JaxtradeError, match=message) as error:
        make_brackets(**options)
    assert "\n" not in str(error.value)


def test_no_distance_is_no_brackets():
    assert make_brackets() is None
    assert float(make_brackets(take_profit=2.0).take_profit) == 2.0
