"""Margin: what orders it backs, and where in a bar it ends an account, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.brackets import LIQUIDATION, NO_EXIT, STOP, TARGET, make_brackets
from jaxtrade.costs import make_costs
from jaxtrade.margin import affordable, free_equity, liquidation_point, make_margin
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from tests.plays import FREE
from tests.steps import free_rules, once

STILL = [0.0, 0.0, 0.0, 0.0]
FIVE = make_margin(initial=0.2, maintenance=0.1)


def array(*values):
    return jnp.asarray(values, jnp.float32)


def plainly(function, *arguments):
    """A result, which is the same compiled and not, without implicit promotion."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        plain, compiled = function(*arguments), jax.jit(function)(*arguments)
    np.testing.assert_allclose(plain, compiled, rtol=1e-5, atol=1e-7)
    return np.asarray(plain)


# What can be backed: a fifth of the value

ORDERS = {
    # held, orders, equity: what is left of the orders
    "enough": ((0.0, 0.0), (3.0, -2.0), 1.0, (3.0, -2.0)),
    "too much, all by the same share": ((0.0, 0.0), (8.0, -2.0), 1.0, (4.0, -1.0)),
    "beside what is held": ((3.0, 0.0), (0.0, 4.0), 1.0, (0.0, 2.0)),
    "a reduction always": ((9.0, 0.0), (-2.0, 0.0), 1.0, (-2.0, 0.0)),
    "a reduction makes room": ((5.0, 0.0), (-3.0, 4.0), 1.0, (-3.0, 3.0)),
    "a turn: the close whole": ((5.0, 0.0), (-13.0, 0.0), 1.0, (-10.0, 0.0)),
    "nothing left": ((2.0, 0.0), (1.0, 0.0), 0.3, (0.0, 0.0)),
    "below 0": ((2.0, 0.0), (-1.0, 1.0), -0.3, (-1.0, 0.0)),
}


@pytest.mark.parametrize("case", ORDERS)
def test_what_equity_backs(case):
    held, orders, equity, expected = ORDERS[case]
    given = (FIVE, array(*held), array(*orders), array(0.0, 0.0), jnp.float32(equity))
    np.testing.assert_allclose(plainly(affordable, *given), expected, rtol=1e-5, atol=1e-6)


def test_requirements_are_of_the_value_now_and_of_each_asset():
    each = make_margin(initial=[0.2, 0.5], maintenance=[0.1, 0.4])
    # 0.2 * 1.1 * 2 = 0.44 and 0.5 * 0.9 * 2 = 0.9 needed of 0.67: half of it.
    given = (each, array(0, 0), array(2, -2), array(0.1, -0.1), jnp.float32(0.67))
    np.testing.assert_allclose(plainly(affordable, *given), [1, -1], rtol=1e-5)
    given = (each, array(2, -1), array(0.1, -0.1), jnp.float32(1.0))
    assert plainly(free_equity, *given) == pytest.approx(1 - 0.1 * 2.2 - 0.4 * 0.9, rel=1e-5)


# The point of the path

NEVER = 2.0
PATHS = {
    # held, start, adverse, equity, exit point, exit gain: the point
    # 1 - 3 * 0.5 x = 0.1 * 3 (1 - 0.5 x): x = 0.7 / 1.35.
    "one asset": (((3, 0), (0, 0), (-0.5, 0), 1, (2, 2), (0, 0)), 0.7 / 1.35),
    "a short": (((-3, 0), (0, 0), (0.5, 0), 1, (2, 2), (0, 0)), 0.7 / 1.65),
    # 1 - 1.5 x - 1 x = 0.1 (3 (1 - 0.5 x) + 2 (1 + 0.5 x)): 0.5 = (2.5 - 0.05) x
    "two together": (((3, -2), (0, 0), (-0.5, 0.5), 1, (2, 2), (0, 0)), 0.5 / 2.45),
    "not reached": (((1, 0), (0, 0), (-0.5, 0), 1, (2, 2), (0, 0)), NEVER),
    "at once": (((3, 0), (0, 0), (-0.5, 0), 0.3, (2, 2), (0, 0)), 0),
    "nothing held": (((0, 0), (0, 0), (0, 0), 1, (2, 2), (0, 0)), NEVER),
    "a stop comes first": (((3, 0), (0, 0), (-0.5, 0), 1, (0.4, 2), (-0.6, 0)), NEVER),
    "a stop comes too late": (((3, 0), (0, 0), (-0.5, 0), 1, (0.6, 2), (-0.9, 0)), 0.7 / 1.35),
    # The first leaves at 0.2 with -0.3: then 0.7 - x = 0.1 * 2 (1 - 0.5 x)
    "a stop makes room": (((3, 2), (0, 0), (-0.5, -0.5), 1, (0.2, 2), (-0.3, 0)), 0.5 / 0.9),
    # The exit's own cost takes what was left.
    "a stop that costs": (((3, 1), (0, 0), (-0.5, 0), 1, (0.4, 2), (-0.95, 0)), 0.4),
}


@pytest.mark.parametrize("case", PATHS)
def test_where_on_the_path_an_account_ends(case):
    (held, start, adverse, equity, points, gains), expected = PATHS[case]
    given = (array(*held), array(*start), array(*adverse), jnp.float32(equity))
    found = plainly(liquidation_point, FIVE, *given, array(*points), array(*gains))
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_point_is_where_a_fine_walk_first_finds_no_free_equity():
    generator = np.random.default_rng(0)
    point_of = jax.jit(liquidation_point)
    steps = np.linspace(0, 1, 20_001)
    reached = 0
    for _ in range(40):
        held = generator.uniform(-2, 2, 3)
        reach = -np.sign(held) * generator.uniform(0, 0.5, 3)
        points = np.where(generator.random(3) < 0.5, generator.uniform(0, 1, 3), NEVER)
        gains = held * reach * np.minimum(points, 1) - 0.01 * np.abs(held)
        left = points <= steps[:, None]
        gain = np.where(left, gains, held * reach * steps[:, None])
        value = np.where(left, 0, np.abs(held) * (1 + reach * steps[:, None]))
        free = 1 + (gain - 0.1 * value).sum(1)
        expected = steps[np.argmax(free <= 0)] if (free <= 0).any() else NEVER
        given = [array(*part) for part in (held, np.zeros(3), reach)]
        found = point_of(FIVE, *given, jnp.float32(1), array(*points), array(*gains))
        assert float(found) == pytest.approx(expected, abs=2e-4)
        reached += expected < NEVER
    assert 5 < reached < 35


# In the step


def test_an_order_is_cut_to_what_the_equity_backs():
    rules = free_rules(margin=FIVE)
    account, move = once(rules, [8.0], [STILL])
    assert float(account.weights[0]) == pytest.approx(5, rel=1e-5)
    assert bool(move.margin_bound)
    account, move = once(rules, [4.0], [STILL])
    assert float(account.weights[0]) == pytest.approx(4, rel=1e-5)
    assert not bool(move.margin_bound)


def test_a_cut_order_is_whole_lots():
    # Equity 1,000, lots worth 90: 5,000 at most are 55 lots.
    rules = free_rules(margin=FIVE, lot_size=1.0, deposit=1_000.0)
    account, _ = once(rules, [0.09 * 80], [STILL], price=90.0)
    assert int(account.lots[0]) == 55


def test_a_liquidation_inside_a_bar_pays_its_fees_there():
    costs = make_costs(**{**FREE, "commission_rate": 0.002})
    margin = make_margin(initial=0.2, maintenance=0.1, liquidation_fee=0.01)
    rules = make_rules(costs=costs, margin=margin)
    account, _ = once(rules, [3.0], [STILL])
    weight = float(account.weights[0])
    fall = (1 - 0.1 * weight) / (0.9 * weight)
    account, move = once(rules, [0.0], [[0.0, 0.1, -0.5, 0.1]], account=account)
    assert int(move.exit_code[0]) == LIQUIDATION
    assert float(move.exit_price[0]) == pytest.approx(-fall, rel=1e-5)
    paid = 0.012 * weight * (1 - fall)
    assert float(move.gain) == pytest.approx(-weight * fall - paid, rel=1e-5)
    assert not account.weights.any()
    assert not bool(account.is_ruined)


def test_a_gap_liquidates_at_the_open_and_cancels_the_order():
    rules = free_rules(margin=FIVE)
    account, _ = once(rules, [3.0], [STILL])
    account, move = once(rules, [0.5], [[-0.3, 0.5, -0.3, 0.5]], account=account)
    assert int(move.exit_code[0]) == LIQUIDATION
    assert float(move.gain) == pytest.approx(-0.9, rel=1e-5)
    assert not move.traded.any()
    assert not account.weights.any()


def test_a_gap_beyond_the_equity_is_ruin():
    account, _ = once(free_rules(margin=FIVE), [3.0], [STILL])
    account, move = once(free_rules(margin=FIVE), [0.0], [[-0.4, 0.5, -0.4, 0.5]], account=account)
    assert bool(account.is_ruined)
    assert float(move.gain) == pytest.approx(-0.999, rel=1e-5)


@pytest.mark.parametrize("fill", ["next_open", "next_close", "close"])
@pytest.mark.parametrize(("stop", "code"), [(0.2, STOP), (0.3, LIQUIDATION)])
def test_a_stop_before_the_point_saves_what_is_left(fill, stop, code):
    # The point of three times the equity is a fall of 0.7 / 2.7 = 0.259.
    rules = free_rules(fill=fill, margin=FIVE, brackets=make_brackets(stop_loss=stop))
    account, _ = once(rules, [3.0], [STILL])
    account, move = once(rules, [0.0], [[0.0, 0.0, -0.32, 0.0]], account=account)
    assert int(move.exit_code[0]) == code
    assert float(move.exit_price[0]) == pytest.approx(-min(stop, 0.7 / 2.7), rel=1e-4)


def test_a_target_does_not_save_from_liquidation():
    rules = free_rules(margin=FIVE, brackets=make_brackets(take_profit=0.05))
    account, _ = once(rules, [3.0], [STILL])
    for low, code in ((-0.1, TARGET), (-0.3, LIQUIDATION)):
        _, move = once(rules, [0.0], [[0.0, 0.1, low, 0.0]], account=account)
        assert int(move.exit_code[0]) == code
    _, move = once(rules, [0.0], [[0.2, 0.3, -0.4, 0.0]], account=account)  # gone at the open
    assert int(move.exit_code[0]) == TARGET


def test_all_assets_fall_together():
    rules = free_rules(margin=FIVE)
    account, _ = once(rules, [2.0, -2.0], [STILL, STILL])
    bars = [[0.0, 0.1, -0.3, 0.0], [0.0, 0.3, -0.1, 0.0]]
    account, move = once(rules, [0.0, 0.0], bars, account=account)
    # 1 - 0.6 x - 0.6 x = 0.1 * 2 (1 - 0.3 x + 1 + 0.3 x) = 0.4: x = 0.5.
    np.testing.assert_array_equal(move.exit_code, [LIQUIDATION] * 2)
    np.testing.assert_allclose(move.exit_price, [-0.15, 0.15], rtol=1e-4)
    account, _ = once(rules, [2.0, -2.0], [STILL, STILL])
    _, move = once(rules, [0.0, 0.0], [[0.0, 0.1, -0.25, 0.0], STILL], account=account)
    np.testing.assert_array_equal(move.exit_code, [NO_EXIT] * 2)


BAD = {
    "neither": ({}, "margin: give either max_leverage or initial"),
    "both": ({"max_leverage": 5.0, "initial": 0.2}, "margin: give either max_leverage or initial"),
    "leverage": ({"max_leverage": 0.0}, "max_leverage is 0.0: give a number above 0"),
    "initial": ({"initial": [0.1, -0.1]}, "initial margin is .*: give a fraction above 0"),
    "above": ({"initial": 0.1, "maintenance": 0.2}, "maintenance margin is 0.2: give a fraction"),
    "fee": ({"initial": 0.1, "liquidation_fee": 1.0}, "liquidation_fee is 1.0: give 0 to below 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_margin(case):
    options, message = BAD[case]
    with pytest.raises(JaxtradeError, match=message) as error:
        make_margin(**options)
    assert "\n" not in str(error.value)


def test_leverage_is_the_inverse_and_maintenance_half():
    margin = make_margin(max_leverage=[4.0, 20.0])
    np.testing.assert_allclose(margin.initial, [0.25, 0.05], rtol=1e-6)
    np.testing.assert_allclose(margin.maintenance, [0.125, 0.025], rtol=1e-6)
