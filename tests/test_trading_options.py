"""Trading under its options: what is seen, odd actions, and nothing of the future."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from jaxtrade.costs import make_costs
from jaxtrade.envs import Exposure, PricedOrders, Weights
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from tests import kit
from tests.options import OPTIONS, make, market_of, play, random_actions, walk
from tests.plays import FREE, KEY

CASES = [
    pytest.param(name, marks=pytest.mark.slow if name == "stop orders" else ()) for name in OPTIONS
]

# The account's leaf


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_is_seen_lies_in_its_space_and_is_finite(name):
    env, params, _, steps = walk(name)
    space = env.observation_space(params)
    for obs in (steps["obs"], steps["info"]["final_observation"]):
        assert kit._contains(space, obs)
    move = steps["info"]["move"]
    assert (np.abs(move.traded).sum(0) > 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((steps["reward"], move)))
    assert steps["obs"].account.shape[1:] == space.spaces["account"].shape


def test_the_account_s_leaf_grows_by_what_options_add():
    # 6 as ever; under way 1, cooldown 1, breaker 1; three rows of action and return.
    sizes = []
    for name in ("plain", "lots"):
        env, params = make(market_of(), **OPTIONS[name])
        sizes.append(env.observation_space(params).spaces["account"].shape)
    assert sizes == [(6,), (6 + 3 + 3 * 2,)]


def test_history_shows_the_last_actions_and_returns():
    env, params = make(market_of(columns=False), history=2, costs=make_costs(**FREE))
    steps = play(env, params, jnp.int32([3, 1, 2, 4]))
    asked, returned = [1.0, -1.0, 0.0], np.asarray(steps["info"]["final_state"].account.last_return)
    scaled = np.clip(20 * returned, -3, 3)
    seen = np.asarray(steps["obs"].account)[:, -4:]
    np.testing.assert_allclose(seen[0], [0, 0, asked[0], scaled[0]], rtol=1e-6)
    np.testing.assert_allclose(seen[2], [asked[1], scaled[1], asked[2], scaled[2]], rtol=1e-6)


# Odd actions


def test_exposures_that_are_none_hold_and_those_out_of_range_are_clipped():
    env, params = make(
        market_of(columns=False),
        actions=Exposure(-1.0, 1.0),
        costs=make_costs(**FREE),
        no_trade_band=0.0,
    )
    actions = jnp.float32([[0.5], [np.nan], [np.inf], [-np.inf], [7.0], [-7.0]])
    steps = jax.tree.map(np.asarray, play(env, params, actions))
    info = steps["info"]
    np.testing.assert_array_equal(info["invalid_actions"], [0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(info["clipped_actions"], [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(info["move"].traded[1:4], 0)
    np.testing.assert_allclose(info["target"][[0, 4, 5], 0], [0.5, 1, -1], rtol=1e-6)
    assert np.isfinite(steps["reward"]).all()
    assert np.isfinite(steps["obs"].account).all()


@pytest.mark.parametrize("action", [[-1, 0], [0, 5], [4, 0], [2**31 - 1, 1]])
def test_priced_orders_that_are_none_hold(action):
    env, params = make(market_of(columns=False), actions=PricedOrders())
    steps = play(env, params, jnp.int32([[0, 4], action]))
    np.testing.assert_array_equal(steps["info"]["invalid_actions"], [0, 1])
    np.testing.assert_array_equal(steps["info"]["move"].traded[1], 0)
    assert np.isfinite(steps["reward"]).all()


@pytest.mark.parametrize("options", [{"fill": "next_close"}, {"fill": "close"}, {"latency": 1}])
def test_priced_orders_need_a_bar_to_wait_in(options):
    with pytest.raises(JaxtradeError, match="give fill='next_open' and latency=0"):
        make(market_of(columns=False), actions=PricedOrders(), rules=make_rules(**options))


def test_debugging_makes_an_action_that_is_none_an_error():
    market = market_of(columns=False)
    env, params = make(market, actions=Exposure(-1.0, 1.0), debug=True)
    _, state = env.reset(KEY, params)
    step = jax.jit(checkify.checkify(lambda state, a: env.step(KEY, state, a, params)[2]))
    assert step(state, jnp.float32([0.3]))[0].get() is None
    assert "not a number" in step(state, jnp.float32([np.nan]))[0].get()


# The future


@pytest.mark.parametrize("name", CASES)
def test_the_future_changes_nothing_before_it(name):
    market, change = market_of(), 50
    other, is_after = market_of(seed=77), np.arange(96) > change

    def mixed(now, then):
        return np.where(is_after.reshape(-1, *[1] * (now.ndim - 1)), then, now)

    arrays = {key: mixed(getattr(market, key), getattr(other, key)) for key in ("bars", "volume")}
    arrays["context"] = mixed(market.context, other.context)
    changed = market.replace(**arrays)
    env, params = make(market, **OPTIONS[name])
    fixed = {"normaliser": params.normaliser, **OPTIONS[name]}
    _, other_params = make(changed, **fixed)
    actions = random_actions(env, params, 80, seed=2)
    first, second = (
        jax.tree.map(np.asarray, play(env, p, actions)) for p in (params, other_params)
    )
    seen = np.asarray(first["info"]["final_state"].index)
    known = np.cumprod(seen <= change).astype(bool)
    assert 10 < known.sum() < 80
    for path, leaf in jax.tree_util.tree_leaves_with_path(first):
        now = dict(jax.tree_util.tree_leaves_with_path(second))[path]
        np.testing.assert_array_equal(leaf[known], now[known], jax.tree_util.keystr(path))
    assert not np.array_equal(first["reward"][~known], second["reward"][~known])


# Several assets


def test_a_portfolio_s_weights_add_up_and_none_holds():
    env, params = make(
        market_of(assets=3, columns=False),
        actions=Weights(),
        no_trade_band=0.0,
        costs=make_costs(**FREE),
    )
    actions = jnp.float32([[1, 1, 1, 1], [0, 0, 0, 0], [2, -1, 0, 1], [1, np.nan, 0, 0]])
    steps = play(env, params, actions)
    targets = np.asarray(steps["info"]["target"])
    np.testing.assert_allclose(targets[0], [0.25] * 3, rtol=1e-6)
    np.testing.assert_array_equal(targets[1], 0)
    np.testing.assert_allclose(targets[2], [0.5, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(steps["info"]["clipped_actions"], [0, 0, 2, 0])
    np.testing.assert_array_equal(steps["info"]["invalid_actions"], [0, 0, 0, 1])
    np.testing.assert_array_equal(steps["info"]["move"].traded[3], 0)
