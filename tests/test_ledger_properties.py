"""What must hold of the ledger whatever the bars and orders, under rules that make it true."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.brackets import make_brackets
from jaxtrade.costs import make_costs
from jaxtrade.impact import make_impact
from jaxtrade.margin import make_margin
from jaxtrade.orders import Order
from jaxtrade.rules import FILLS, make_rules
from tests.plays import FREE
from tests.steps import (
    NUM_BARS,
    RATES,
    bars_of,
    equity_of,
    every_rule,
    free_rules,
    random_bars,
    random_returns,
    random_targets,
    still,
    trade_all,
    walk,
)

EVERY = ("lots", "obizhaeva_wang", "next_close", "close")
EARNED = ("dividend", "funding", "half_spread_open", "half_spread_close")


def leaves_close(first, second, **tolerance):
    paths = jax.tree_util.tree_leaves_with_path(first)
    for (path, one), other in zip(paths, jax.tree.leaves(second), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(one, other, err_msg=name, **tolerance)


# Conservation


@pytest.mark.parametrize("fill", FILLS)
def test_without_costs_and_moves_equity_stays(fill):
    options = {
        "participation": 0.1,
        "latency": 1,
        "margin": make_margin(max_leverage=3.0),
        "brackets": make_brackets(stop_loss=0.01, trailing=0.02),
    }
    bars = still(NUM_BARS, 3, volume_value=5e4)
    for seed in range(5):
        account, move = walk(random_targets(seed), bars, free_rules(fill=fill, **options))
        np.testing.assert_array_equal(account.log_equity, 0)
        assert np.abs(account.weights).max() > 0.1
        np.testing.assert_array_equal(move.gain, 0)


@pytest.mark.parametrize("name", EVERY)
def test_equity_is_the_sum_of_the_gains_and_the_peak_is_above_it(name):
    account, move = walk(random_targets(3), random_bars(3), every_rule()[name])
    total = np.cumsum(np.log1p(np.asarray(move.gain, np.float64)))
    np.testing.assert_allclose(account.log_equity, total, atol=1e-6)
    assert (np.asarray(account.peak_log_equity) >= np.maximum(0, total) - 1e-6).all()


# Costs


@pytest.mark.parametrize("rate", [name for name in RATES if name != "maker_rate"])
def test_a_cost_never_helps_and_is_what_it_says(rate):
    # At the last close, so that the exposure is the same whatever it has cost to come there.
    none = dict.fromkeys(RATES, 0.0)
    size = {"minimum_ticket": 10.0, "swap_long": -0.01, "swap_short": -0.01}.get(rate, 0.01)
    dear = {**none, rate: size}
    bars, targets = random_bars(7), jnp.nan_to_num(random_targets(7, exposure=6.0))
    (_, paid), (_, free) = (
        walk(targets, bars, make_rules(costs=make_costs(**rates), fill="close"))
        for rates in (dear, none)
    )
    sign = -1 if rate == "idle_rate" else 1  # which is earned
    difference = sign * (np.asarray(free.gain) - np.asarray(paid.gain))
    assert (difference >= -1e-7).all()
    assert difference.max() > 1e-6
    costs = [np.asarray(move.cost) + np.asarray(move.carry) for move in (paid, free)]
    np.testing.assert_allclose(difference, sign * (costs[0] - costs[1]), atol=5e-7)


# Symmetries


@pytest.mark.parametrize("name", EVERY)
def test_permuting_assets_permutes_results(name):
    order = np.array([2, 0, 1])
    rules, bars, targets = every_rule()[name], random_bars(5), random_targets(5)

    def permuted(tree):
        per_asset = lambda leaf: leaf.ndim > 1 and leaf.shape[-1] == 3  # noqa: E731
        return jax.tree.map(lambda leaf: leaf[..., order] if per_asset(leaf) else leaf, tree)

    straight = permuted(walk(targets, bars, rules))
    crossed = walk(permuted(targets), permuted(bars), rules)
    assert (np.asarray(straight[1].exit_code) > 0).any()
    leaves_close(straight, crossed, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_another_currency_leaves_returns(name):
    # One unit of the old currency is eight of the new one: all amounts in it are eight times so.
    rules, bars, targets = every_rule()[name], random_bars(6), random_targets(6)
    costs, amounts = (
        rules.costs,
        ("commission_per_unit", "minimum_ticket", "swap_long", "swap_short"),
    )
    costs = costs.replace(**{amount: 8 * getattr(costs, amount) for amount in amounts})
    tick = 8 * rules.tick_size
    changed = rules.replace(costs=costs, deposit=8 * rules.deposit, tick_size=tick)
    columns = ("price", "volume_value", "average_value")
    dearer = bars.replace(**{column: 8 * getattr(bars, column) for column in columns})
    leaves_close(walk(targets, bars, rules), walk(targets, dearer, changed), atol=1e-7, rtol=1e-6)


def test_with_proportional_costs_prices_and_deposit_are_only_a_unit():
    bars, targets = random_bars(9), random_targets(9)
    rates = {name: RATES[name] for name in (*FREE, "slippage", "volatility_slippage")}
    rules = make_rules(costs=make_costs(**rates))
    other = bars.replace(price=3 * bars.price)
    expected = walk(targets, bars, rules)
    leaves_close(expected, walk(targets, other, rules), rtol=0)
    leaves_close(expected, walk(targets, bars, rules.replace(deposit=jnp.float32(7.0))), rtol=0)


def test_two_half_orders_are_one():
    # In bars that do not move and take no time; what is held is a share of an equity that costs
    # have made smaller, so the second half is that much larger.
    rules = make_rules(costs=make_costs(commission_rate=0.004, half_spread=0.001))
    generator = np.random.default_rng(0)
    for size in generator.uniform(-2, 2, (10, 3)):
        first = np.asarray([size / 2, np.zeros(3)])
        paid = 0.005 * np.abs(size / 2).sum()
        halves = np.asarray([size / 2, size / 2 / (1 - paid)])
        whole = np.asarray([size, np.zeros(3)])
        bars = still(2, 3, years=0.0)
        ends = [
            trade_all(Order(quantity=jnp.asarray(each, jnp.float32)), bars, rules)[0]
            for each in (halves, whole, first)
        ]
        leaves_close(ends[0].weights[-1], ends[1].weights[-1], rtol=1e-5)
        leaves_close(ends[0].log_equity[-1], ends[1].log_equity[-1], rtol=1e-5)
        assert abs(float(ends[2].weights[-1, 0] - ends[1].weights[-1, 0])) > 1e-3


PROPORTIONAL = {
    name: rate for name, rate in RATES.items() if name not in ("minimum_ticket", "maker_rate")
}


@pytest.mark.parametrize(
    "fill", ["next_open", *(pytest.param(fill, marks=pytest.mark.slow) for fill in FILLS[1:])]
)
def test_identical_assets_with_equal_shares_are_one_asset(fill):
    rules = make_rules(
        costs=make_costs(**PROPORTIONAL),
        fill=fill,
        latency=2,
        margin=make_margin(max_leverage=4.0, liquidation_fee=0.01),
        brackets=make_brackets(stop_loss=0.03, take_profit=0.05, trailing=0.04),
    )
    alone = random_bars(11, num_assets=1, deviation=0.03)
    three = jax.tree.map(lambda leaf: jnp.tile(leaf, 3) if leaf.ndim == 2 else leaf, alone)
    three = jax.tree.map(lambda x: x if x.ndim == 1 else x.reshape(NUM_BARS, 3), three)
    target = random_targets(11, num_assets=1, exposure=3.0)
    one, _ = walk(target, alone, rules)
    account, move = walk(jnp.tile(target / 3, (1, 3)), three, rules)
    np.testing.assert_allclose(account.log_equity, one.log_equity, atol=2e-6)
    np.testing.assert_allclose(account.weights.sum(1), one.weights[:, 0], atol=1e-5)
    assert (np.asarray(move.exit_code) > 0).any()


# Rules that are there but do not bind

INACTIVE = {
    "exits": {
        "margin": make_margin(max_leverage=1e4, maintenance=0.0),
        "brackets": make_brackets(stop_loss=0.999, take_profit=1e3, trailing=0.999),
        "tick_size": 0.01,
    },
    "fills": {"participation": 1.0, "latency": 0, "delay": 0.0},
    "impact": {"impact": make_impact("obizhaeva_wang", permanent=0.0, transient=0.0)},
    "small lots": {"lot_size": 1e-3},
    "deposit": {"deposit": 1.0},
}


@pytest.mark.parametrize("rule", INACTIVE)
def test_a_rule_that_does_not_bind_changes_nothing(rule):
    rates = {name: RATES[name] for name in (*FREE, "slippage", "idle_rate")}
    bars = random_bars(13, num_assets=1).replace(volume_value=jnp.full((NUM_BARS, 1), 1e9))
    targets = random_targets(13, num_assets=1)
    plain, plain_move = walk(targets, bars, make_rules(costs=make_costs(**rates)))
    account, move = walk(targets, bars, make_rules(costs=make_costs(**rates), **INACTIVE[rule]))
    lots = rule == "small lots"
    names = ("weights", "open_return", "bars_held", "log_equity", "peak_log_equity", "last_return")
    for name in names:
        expected, got = getattr(plain, name), getattr(account, name)
        np.testing.assert_allclose(got, expected, atol=2e-5 if lots else 2e-6, err_msg=name)
    np.testing.assert_allclose(move.cost, plain_move.cost, atol=1e-5 if lots else 1e-7)
    np.testing.assert_array_equal(move.exit_code, 0)


# Extremes


def wild_bars(generator, num_bars, num_assets):
    """Bars in which prices lose or win almost everything, with every column."""
    base = random_bars(int(generator.integers(1e6)), num_bars, num_assets)
    wild = random_returns(generator, num_bars, num_assets, deviation=1.5)
    calm = generator.random((num_bars, num_assets, 1)) < 0.5
    prices = bars_of(np.where(calm, 0.01 * wild, wild))
    thin = jnp.asarray(generator.choice([0.0, 1.0, 1e4, 1e8], (num_bars, num_assets)), jnp.float32)
    return base.replace(
        open=prices.open,
        high=prices.high,
        low=prices.low,
        close=prices.close,
        volume_value=thin,
        average_value=thin,
        dividend=base.dividend * 30,
        funding=base.funding * 300,
    )


@pytest.mark.parametrize(
    "name", [*EVERY[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in EVERY[2:])]
)
def test_no_order_and_no_bar_breaks_the_books(name):
    rules = every_rule()[name]
    ruins = 0
    for seed in range(40):
        generator = np.random.default_rng([seed, 4])
        size = 10.0 ** generator.integers(-2, 4)
        shape = (NUM_BARS, 3)
        orders = jnp.asarray(size * generator.standard_normal(shape), jnp.float32)
        traded = trade_all(Order(quantity=orders), wild_bars(generator, *shape), rules)
        account, move = jax.device_get(traded)
        end = int(np.argmax(np.append(account.is_ruined, True)))  # the first ruin ends an episode
        account, move = jax.tree.map(lambda leaf, end=end: leaf[: end + 1], (account, move))
        for path, leaf in jax.tree_util.tree_leaves_with_path((account, move)):
            where = f"{jax.tree_util.keystr(path)}, seed {seed}"
            assert np.isfinite(leaf).all(), where
        assert (np.asarray(move.gain) >= -0.999 - 1e-6).all()
        after, held = np.sign(move.weights_after), np.sign(account.weights)
        assert ((held == after) | (held == 0)).all(), "a price below 0"
        if end < NUM_BARS:
            assert move.gain[end] == pytest.approx(-0.999, abs=1e-6)
            assert not held[end].any()
            ruins += 1
    assert ruins > 5


def test_ruin_is_booked_as_the_least_growth_and_leaves_nothing():
    generator = np.random.default_rng(0)
    orders = jnp.full((NUM_BARS, 2), 3.0)
    bars = bars_of(random_returns(generator, NUM_BARS, 2, deviation=0.4))
    account, move = trade_all(Order(quantity=orders), bars, free_rules())
    first = int(np.argmax(account.is_ruined))
    assert account.is_ruined[first]
    assert move.gain[first] == pytest.approx(-0.999, abs=1e-6)
    assert not account.weights[first].any()
    assert np.diff(equity_of(account))[first - 1] < 0
