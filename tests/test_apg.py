import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces

import jaxtrade
from jaxtrade import agents
from jaxtrade.agents import loop
from jaxtrade.costs import make_costs
from jaxtrade.envs import Exposure, Levels, Weights
from jaxtrade.envs.base import Environment
from jaxtrade.specs import FeatureSpec, JaxtradeError
from tests.markets import random_frame
from tests.probes import Table

# A linear system with a quadratic cost: x' = DRIFT x + GAIN a, reward -(x^2 + PRICE a^2).
DRIFT, GAIN, PRICE, GAMMA = 0.9, 0.5, 0.3, 0.9


@flax.struct.dataclass(kw_only=True)
class State(environment.EnvState):
    """x: f32[]; time: i32[]; start: i32[], how many episodes went before."""

    x: jax.Array
    start: jax.Array


@dataclasses.dataclass(frozen=True)
class Linear(Environment[State, Any]):
    """Observation: x, f32[1]. Action: f32[1], -4 to 4. Episodes start from -1 to 1."""

    num_actions = 1
    supports_transition_gradients = True
    transition_gradients_enabled: bool = False

    def with_transition_gradients(self):
        return dataclasses.replace(self, transition_gradients_enabled=True)

    def reset_state(self, key, params):
        return self._begin(jax.random.randint(key, (), 0, 1000))

    def restart(self, state, params):
        return self._begin(state.start + 1)

    def _begin(self, start):
        x = jnp.sin(start.astype(jnp.float32))
        return State(x=x, start=start, time=jnp.int32(0))

    def advance(self, state, action, params):
        (a,) = action
        after = state.replace(x=DRIFT * state.x + GAIN * a, time=state.time + 1)
        return after, -(state.x**2 + PRICE * a**2), jnp.bool_(False), {}

    def observation(self, state, params):
        return state.x[None]

    def action_space(self, params=None):
        return spaces.Box(-4.0, 4.0, (1,), jnp.float32)


def riccati():
    """The best feedback a = -k x under the discount, and the value v of -v x^2 (Bertsekas 3.1)."""
    v = 1.0
    for _ in range(200):
        k = GAMMA * GAIN * DRIFT * v / (PRICE + GAMMA * GAIN**2 * v)
        v = 1.0 + PRICE * k**2 + GAMMA * v * (DRIFT - GAIN * k) ** 2
    return k, v


PARAMS = environment.EnvParams(max_steps_in_episode=jnp.int32(20))
SETTINGS = {
    "num_envs": 16,
    "rollout_steps": 16,
    "gamma": GAMMA,
    "hidden_sizes": (),
    "entropy_coefficient": 0.0,
    "learning_rate": 2e-2,
}


@pytest.mark.slow
def test_it_finds_the_best_feedback_of_a_linear_system():
    agent = agents.make("apg", **SETTINGS)
    state, history = agents.train(
        agent, Linear(), PARAMS, jax.random.key(0), total_steps=400 * 256, chunk_iterations=400
    )
    actor = state.learner.actor
    obs = jnp.linspace(-1, 1, 9)[:, None]
    outputs = agent.assess(actor, obs, jnp.zeros((9, 0))).outputs
    k, _ = riccati()
    np.testing.assert_allclose(actor.head.mode(outputs), -k * obs, atol=0.03)
    assert history[0]["grad_norm"] > 0


@pytest.mark.slow
def test_it_learns_through_the_end_of_an_episode():
    # Windows of 16 steps over episodes of 5: the slope must not leak from one into the next.
    agent = agents.make("apg", **SETTINGS)
    params = PARAMS.replace(max_steps_in_episode=jnp.int32(5))
    state, _ = agents.train(
        agent, Linear(), params, jax.random.key(0), total_steps=400 * 256, chunk_iterations=400
    )
    outputs = agent.assess(state.learner.actor, jnp.ones((1, 1)), jnp.zeros((1, 0))).outputs
    (action,) = state.learner.actor.head.mode(outputs)[0]
    # The best feedback differs with the steps left; the one for all lies between them.
    k, _ = riccati()
    assert 0.5 * k < -action < 1.02 * k


# The slope


def market_env(actions=None):
    return jaxtrade.make(
        "Trading-v0",
        market=jaxtrade.Market.from_frame(random_frame(64, seed=3)),
        features=FeatureSpec(names=("log_return",), window=2),
        actions=actions or Exposure(-1.0, 1.0),
        costs=make_costs(commission_rate=5e-4, half_spread=2e-4),
        no_trade_band=0.0,
        episode_steps=6,
    )


BY = np.float32(2e-3)


@pytest.mark.slow
def test_the_slope_is_that_of_the_reward():
    env, params = market_env()
    agent = agents.make("apg", num_envs=4, rollout_steps=8, hidden_sizes=(4,))
    state = loop.init(agent, env, params, jax.random.key(0), total_steps=100)
    actor = state.learner.actor

    # A policy with opinions, so that no trade is so small that its cost has a kink nearby.
    def shifted(x):
        return x + 0.3 * jnp.cos(x.size + jnp.arange(x.size).reshape(x.shape))

    actor = actor.replace(params=jax.tree.map(shifted, actor.params))
    begin = (state.obs, state.env_state, state.hidden)

    @jax.jit
    def value(params_of_actor):
        moved = actor.replace(params=params_of_actor)
        return agent.window_value(moved, begin, jax.random.key(7), env, params)[0]

    slope = jax.jit(jax.grad(value))(actor.params)
    generator = np.random.default_rng(0)
    for _ in range(6):
        way = jax.tree.map(
            lambda x: generator.standard_normal(x.shape).astype(np.float32), actor.params
        )
        there, back = (
            value(jax.tree.map(lambda x, step, by=by: x + by * step, actor.params, way))
            for by in (BY, -BY)
        )
        along = sum(
            (a * b).sum() for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(way), strict=True)
        )
        assert along == pytest.approx(float(there - back) / (2 * BY), rel=0.03, abs=2e-5)


def test_the_window_is_worth_its_discounted_reward():
    agent = agents.make("apg", **{**SETTINGS, "num_envs": 2, "rollout_steps": 5})
    params = PARAMS.replace(max_steps_in_episode=jnp.int32(3))
    state = loop.init(agent, Linear(), params, jax.random.key(0), total_steps=100)
    # Means 0 and the least deviations: actions of next to nothing.
    still = jax.tree.map(jnp.zeros_like, state.learner.actor.params)
    still["params"]["actor"]["bias"] = jnp.float32([0.0, -100.0])
    actor = state.learner.actor.replace(params=still)
    begin = (state.obs, state.env_state, state.hidden)
    value, entropy = agent.window_value(actor, begin, jax.random.key(1), Linear(), params)
    total = 0.0
    for x, start in zip(state.env_state.x, state.env_state.start, strict=True):
        following = np.sin(float(start) + 1)
        # Three steps of the first episode, two of the next, discounted anew.
        total -= float(x) ** 2 * sum((GAMMA * DRIFT**2) ** t for t in range(3))
        total -= following**2 * sum((GAMMA * DRIFT**2) ** t for t in range(2))
    assert value == pytest.approx(total / 2, rel=0.02)
    narrow = -5.0 + 0.5 * np.log(2 * np.pi * np.e) + np.log(4.0)  # 4: half the box
    assert entropy == pytest.approx(narrow, rel=1e-3)


@pytest.mark.slow
def test_weights_have_slopes_too():
    env, params = market_env(Weights())
    agent = agents.make("apg", num_envs=4, rollout_steps=4, hidden_sizes=(4,))
    state, (means,) = agents.train(agent, env, params, jax.random.key(0), total_steps=16)
    assert means["grad_norm"] > 1e-4
    fresh = loop.init(agent, env, params, jax.random.key(0), total_steps=16)
    before, after = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(each.learner.actor)])
        for each in (fresh, state)
    )
    assert np.isfinite(after).all()
    assert (before != after).any()


@pytest.mark.slow
def test_a_memory_goes_through_the_window():
    agent = agents.make("apg", **SETTINGS, torso="gru", hidden_size=3)
    state = loop.init(agent, Linear(), PARAMS, jax.random.key(0), total_steps=256)
    assert state.hidden.shape == (16, 3)
    actor = state.learner.actor
    kicked = actor.replace(params=jax.tree.map(lambda x: x + 0.5, actor.params))

    @jax.jit
    def value(hidden):
        begin = (state.obs, state.env_state, hidden)
        return agent.window_value(kicked, begin, jax.random.key(1), Linear(), PARAMS)[0]

    assert value(state.hidden) != value(state.hidden + 1.0)


def test_environments_without_gradients_are_refused():
    agent = agents.make("apg")
    for env, params in (market_env(Levels((0.0, 1.0))), (Table(), None)):
        with pytest.raises(JaxtradeError, match=r"^apg needs an environment with gradients, .*$"):
            agent.init(jax.random.key(0), env, params)


@pytest.mark.parametrize(
    ("name", "value"), [("num_updates", 0), ("entropy_coefficient", -1.0), ("gamma", 1.5)]
)
def test_a_value_out_of_range_is_refused(name, value):
    with pytest.raises(JaxtradeError, match=rf"^agent setting {name} is .*: give "):
        agents.make("apg", **{name: value})
