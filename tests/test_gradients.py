"""Gradients through episodes: right where nothing jumps, finite everywhere, only if asked for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrade
from jaxtrade.brackets import make_brackets
from jaxtrade.costs import make_costs
from jaxtrade.envs import Exposure, Levels, Weights
from jaxtrade.impact import make_impact
from jaxtrade.margin import make_margin
from jaxtrade.rules import make_rules
from jaxtrade.specs import FeatureSpec, RiskLimits
from tests.markets import random_frame
from tests.plays import KEY
from tests.steps import RATES

STEPS = 20
RETURNS = FeatureSpec(names=("log_return",), window=2)
REWARDS = {
    "log_return": 1.0,
    "differential_sharpe": 0.1,
    "differential_sortino": 0.1,
    "drawdown": 0.1,
    "drawdown_increase": 1.0,
    "volatility": 1.0,
    "turnover": 0.01,
    "cost": 1.0,
    "carry": 1.0,
}
SMOOTH = {
    "commission_rate": 5e-4,
    "half_spread": 2e-4,
    "slippage": 1e-4,
    "volatility_slippage": 0.02,
    "borrow_rate": 0.1,
    "margin_rate": 0.07,
    "idle_rate": 0.01,
}


@functools.cache
def market_of(deviation=0.01):
    frame = random_frame(64, seed=3, deviation=deviation)
    frame["volume"] = 1_000
    return jaxtrade.Market.from_frame(frame)


def make(rules, *, deviation=0.01, actions=None, gradients=True, **options):
    env, params = jaxtrade.make(
        "Trading-v0",
        market=market_of(deviation),
        actions=actions or Exposure(-3.0, 3.0),
        features=RETURNS,
        rules=rules,
        first=4,
        episode_steps=None,
        no_trade_band=0.0,
        limits=RiskLimits(max_exposure=9.0, max_gross=9.0, max_net=9.0),
        **options,
    )
    return (env.with_transition_gradients() if gradients else env), params


def play(policy, env, params):
    """Log equity and sum of rewards of an episode under a policy linear in what it sees.

    With a policy in float64 everything is, and the exposures go past `Exposure.read`, which makes
    them float32.
    """
    is_exact = policy["bias"].dtype == "float64"
    start = env.reset_env(KEY, params)

    def step(carry, _):
        obs, state = carry
        seen = jnp.concatenate([obs.market.reshape(-1), obs.account])
        action = 1.5 * jnp.tanh(policy["weights"] @ seen + policy["bias"])
        if is_exact:
            state, reward, _, _ = env.advance_to(state, action, params)
            return (env.observation(state, params), state), reward
        obs, state, reward, _, _ = env.step_env(KEY, state, action, params)
        return (obs, state), reward

    carry = exact(start) if is_exact else start
    (_, state), rewards = jax.lax.scan(step, carry, length=STEPS)
    return state.account.log_equity, rewards.sum()


def policy_of(env, params, *, bias=0.1, scale=0.3, seed=0):
    obs, _ = env.reset_env(KEY, params)
    size = obs.market.size + obs.account.size
    (count,) = env.action_space(params).shape
    weights = scale * np.random.default_rng(seed).standard_normal((count, size))
    return {"weights": jnp.asarray(weights, jnp.float32), "bias": jnp.full(count, bias)}


@functools.partial(jax.jit, static_argnums=1)
def slopes(policy, env, params):
    """Log equity and reward f32[2], and the slopes of both by the policy's leaves [2, ...]."""
    values = lambda policy: jnp.stack(play(policy, env, params))  # noqa: E731
    return values(policy), jax.jacrev(values)(policy)


def exact(tree):
    """Float leaves in float64."""
    is_float = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.floating)  # noqa: E731
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64") if is_float(leaf) else leaf, tree)


@pytest.mark.slow
def test_gradients_agree_with_differences():
    rules = make_rules(costs=make_costs(**SMOOTH), impact=make_impact("almgren_chriss"))
    env, params = make(rules, rewards={"log_return": 1.0, "volatility": 1.0})
    with jax.enable_x64(True):
        params, policy = exact(params), exact(policy_of(env, params))
        found = slopes(policy, env, params)[1]
        values = jax.jit(lambda policy: jnp.stack(play(policy, env, params)))
        by, generator = 1e-6, np.random.default_rng(0)
        for _ in range(8):
            way = jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape), policy)
            there = jax.tree.map(lambda leaf, step: leaf + by * step, policy, way)
            back = jax.tree.map(lambda leaf, step: leaf - by * step, policy, way)
            expected = np.asarray(values(there) - values(back)) / (2 * by)
            along = sum((found[name] * way[name]).reshape(2, -1).sum(1) for name in way)
            np.testing.assert_allclose(along, expected, rtol=1e-5)
            assert (np.abs(expected) > 1e-4).all()


# Finite, whatever happens on the way

EVERYTHING = {
    "impact at no trade": {"impact": make_impact("square_root", permanent=0.5)},
    "transient impact": {"impact": make_impact("obizhaeva_wang")},
    "stops": {
        "brackets": make_brackets(stop_loss=0.01, take_profit=0.015, trailing=0.012),
        "costs": make_costs(**RATES),
    },
    "liquidation": {"margin": make_margin(max_leverage=1.2, maintenance=0.8, liquidation_fee=0.01)},
    "volume": {"participation": 0.1, "deposit": 1e5, "latency": 1, "delay": 0.3},
    "lots": {"lot_size": 10.0, "tick_size": 0.01},
    "next close": {
        "fill": "next_close",
        "margin": make_margin(max_leverage=2.0),
        "brackets": make_brackets(stop_loss=0.01, take_profit=0.015, trailing=0.012),
    },
    "close": {
        "fill": "close",
        "margin": make_margin(max_leverage=2.0),
        "brackets": make_brackets(stop_loss=0.01, take_profit=0.015, trailing=0.012),
        "impact": make_impact("almgren_chriss"),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("case", EVERYTHING)
def test_gradients_are_finite(case):
    rules = make_rules(**{"costs": make_costs(**SMOOTH), **EVERYTHING[case]})
    env, params = make(rules, rewards=REWARDS, deviation=0.02)
    at_rest = policy_of(env, params, bias=0.0, scale=0.0)  # never trades: |x|, sqrt and 0 / 0 at 0
    for policy in (policy_of(env, params), at_rest):
        values, found = slopes(policy, env, params)
        assert np.isfinite(values).all()
        for name, leaf in found.items():
            assert np.isfinite(leaf).all(), (name, leaf)
    if case != "lots":  # whole numbers have no slope
        assert np.abs(slopes(policy_of(env, params), env, params)[1]["bias"][0]).max() > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("has_margin", [False, True])
def test_gradients_are_finite_through_ruin(has_margin):
    rules = make_rules(margin=make_margin(max_leverage=50.0) if has_margin else None)
    env, params = make(rules, deviation=0.6, rewards={**REWARDS, "ruin": 1.0})
    policy = policy_of(env, params, bias=3.0)
    values, found = slopes(policy, env, params)
    assert values[0] < np.log(1e-2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.slow
def test_gradients_are_finite_with_caps_sizing_and_breakers():
    limits = RiskLimits(
        max_exposure=0.5,
        max_gross=0.4,
        max_drawdown=0.03,
        max_daily_loss=0.02,
        target_volatility=0.1,
        drawdown_resume=0.01,
        drawdown_scale=0.3,
    )
    env, params = make(make_rules(), rewards=REWARDS, deviation=0.02)
    full = env.params(
        market_of(0.02), first=4, episode_steps=None, rewards=REWARDS, limits=limits, caps=[0.45]
    )
    for policy in (policy_of(env, full), policy_of(env, full, bias=0.0, scale=0.0)):
        _, found = slopes(policy, env, full)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    del params


# Only if asked for


def test_without_transition_gradients_a_step_does_not_reach_the_next():
    rules = make_rules(costs=make_costs(**SMOOTH))
    env, params = make(rules, gradients=False)
    _, found = slopes(policy_of(env, params), env, params)
    assert not any(leaf[0].any() for leaf in jax.tree.leaves(found))

    @functools.partial(jax.jit, static_argnums=1)
    @jax.grad
    def slope(action, env):
        _, state = env.reset_env(KEY, params)
        _, state, *_ = env.step_env(KEY, state, action, params)
        return env.step_env(KEY, state, jnp.ones(1), params)[2]

    first = jnp.full(1, 0.5)
    assert not slope(first, env).any()
    assert slope(first, env.with_transition_gradients()).any()


@pytest.mark.parametrize("actions", [Levels((-1.0, 1.0)), Levels((0.0, 1.0))], ids=str)
def test_discrete_levels_have_no_transition_gradients(actions):
    env, _ = make(make_rules(), actions=actions, gradients=False)
    assert not env.supports_transition_gradients
    with pytest.raises(ValueError, match="does not support gradients"):
        env.with_transition_gradients()


def test_portfolio_weights_have_transition_gradients():
    env, params = make(make_rules(), actions=Weights(long_short=True))
    _, found = slopes(policy_of(env, params), env, params)
    assert env.transition_gradients_enabled
    assert np.abs(found["bias"]).max() > 1e-5
