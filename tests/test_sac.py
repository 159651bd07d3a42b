import math

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import agents
from jaxtrade.agents import loop, sac
from jaxtrade.agents.critics import follow
from jaxtrade.agents.dirichlet import Dirichlet
from jaxtrade.agents.distributions import Categorical, TanhNormal
from jaxtrade.agents.replay import Sample
from jaxtrade.specs import JaxtradeError
from tests import probes, probes_continuous
from tests.probes import GAMMA, StateTable, Table
from tests.probes_continuous import Numbers

CELLS = jnp.concatenate([jnp.eye(2), jnp.eye(2)], axis=1)
# A temperature that starts near nothing and falls: values are those of rewards alone.
GREEDY = {"initial_temperature": 1e-4, "target_entropy": -9.0, "target_entropy_share": 0.0}
SMALL = {
    "num_envs": 8,
    "rollout_steps": 4,
    "num_updates": 32,
    "batch_size": 64,
    "replay_size": 4096,
    "learning_starts": 256,
    "learning_rate": 3e-3,
    "target_rate": 0.05,
    "gamma": GAMMA,
    "hidden_sizes": (32,),
}
AGENT = jax.device_put(agents.make("sac", **SMALL, **GREEDY))
PER_ITERATION = 32
ITERATIONS = 60


def trained(env, params, *, agent=AGENT, iterations=ITERATIONS):
    state, _ = agents.train(
        agent,
        env,
        params,
        jax.random.key(0),
        total_steps=iterations * PER_ITERATION,
        chunk_iterations=iterations,
    )
    return state.learner


@jax.jit
def assess(agent, actor, obs):
    return agent.assess(actor, obs, jnp.zeros((len(obs), 0)))


def values(learner, agent=AGENT):
    """Of both cells, in units of the reward."""
    return assess(agent, learner.actor, CELLS).value * learner.reward_scale.deviation


@pytest.mark.parametrize("name", probes.PROBES)
def test_it_solves_the_probe_environments(name):
    probe = probes.PROBES[name]
    learner = trained(Table(), probe.params)
    scale = max(abs(number) for number in probe.values)
    found = values(learner)[: len(probe.values)]
    np.testing.assert_allclose(found, probe.values, atol=0.1 * min(scale, 1.0))
    logits = assess(AGENT, learner.actor, CELLS).outputs
    for cell, best in enumerate(probe.actions):
        if best is not None:
            assert jax.nn.softmax(logits)[cell, best] > 0.95


def test_it_learns_from_states_as_from_observations():
    probe = probes.PROBES["a smaller reward sooner"]
    learner = trained(StateTable(), probe.params)
    assert learner.replay.rows.seen.cell.shape == (512, 8)
    np.testing.assert_allclose(values(learner), probe.values, atol=0.1)


@pytest.mark.parametrize("name", probes_continuous.PROBES)
def test_it_solves_the_probes_of_numbers(name):
    probe = probes_continuous.PROBES[name]
    learner = trained(Numbers(), probe.params)
    found = values(learner)[: len(probe.values)]
    np.testing.assert_allclose(found, probe.values, atol=0.1)
    mode = learner.actor.head.mode(assess(AGENT, learner.actor, CELLS).outputs)
    for cell, best in enumerate(probe.best):
        if best is not None:
            np.testing.assert_allclose(mode[cell], best, atol=0.1)
