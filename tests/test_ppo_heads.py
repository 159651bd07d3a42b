"""PPO with every family of actions, on probes whose best action is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import agents
from jaxtrade.spaces import MultiDiscrete
from tests.probes import AGENT, PER_ITERATION, Table, see
from tests.probes import PROBES as CHOICES
from tests.probes import State as Cell
from tests.probes_continuous import PROBES, Numbers, probe

CELLS = jnp.concatenate([jnp.eye(2), jnp.eye(2)], axis=1)
BEST = ((0, 2), (1, 1))
ITERATIONS = 150


@dataclasses.dataclass(frozen=True)
class TwoKnobs(Table):
    """Two knobs of two and three settings; each that is as the cell wants it pays a half."""

    def step_env(self, key, state, action, params):
        matches = action == jnp.asarray(BEST)[state.cell]
        following = Cell(cell=state.cell, time=state.time + 1)
        return see(following), following, 0.5 * matches.sum(), jnp.bool_(True), {}

    def action_space(self, params=None):
        return MultiDiscrete((2, 3))


def trained(env, params):
    """The value and the greedy action in each cell."""
    total = ITERATIONS * PER_ITERATION
    state, _ = agents.train(
        AGENT, env, params, jax.random.key(0), total_steps=total, chunk_iterations=ITERATIONS
    )
    actor = state.learner.actor
    outputs, value, _ = AGENT.assess(actor, CELLS, jnp.zeros((2, 0)))
    return value * state.learner.reward_scale.deviation, actor.head.mode(outputs)


@pytest.mark.slow
def test_branches():
    value, action = trained(TwoKnobs(), CHOICES["a reward that is seen"].params)
    np.testing.assert_array_equal(action, BEST)
    np.testing.assert_allclose(value, 1.0, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBES)
def test_numbers(name):
    value, action = trained(Numbers(), PROBES[name].params)
    scale = max(abs(number) for number in PROBES[name].values)
    count = len(PROBES[name].values)
    # The policy still explores, which costs the square of its deviation.
    np.testing.assert_allclose(value[:count], PROBES[name].values, atol=0.1 * scale)
    for place, best in zip(action, PROBES[name].best, strict=False):
        if best is not None:
            np.testing.assert_allclose(place, best, atol=0.1)


@pytest.mark.slow
def test_shares():
    wanted = ((0.7, 0.3), (0.2, 0.8))
    shares = probe((1.0, -1.0), cost=1.0, best=wanted, num_starts=2, values=(1.0, -1.0))
    value, action = trained(Numbers(shares=True), shares.params)
    np.testing.assert_allclose(action, wanted, atol=0.1)
    np.testing.assert_allclose(value, shares.values, atol=0.15)
