"""PPO on tasks of gymnax: what the greedy policy earns in the end, the median over seeds."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import agents
from jaxtrade.agents import loop
from jaxtrade.agents.evaluate import evaluate

SEEDS = 3
CARTPOLE = {"num_envs": 16, "rollout_steps": 128, "learning_rate": 1e-3, "num_minibatches": 4}
PENDULUM = {
    "num_envs": 32,
    "rollout_steps": 64,
    "learning_rate": 1e-3,
    "gamma": 0.9,
    "gae_lambda": 0.9,
    "entropy_coefficient": 0.0,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "settings", "total_steps", "length", "threshold"),
    [
        ("CartPole-v1", CARTPOLE, 500_000, 500, 475.0),
        ("Pendulum-v1", PENDULUM, 1_000_000, 200, -250.0),
    ],
)
def test_the_median_final_return_is_above(task, settings, total_steps, length, threshold):
    env, params = gymnax.make(task)
    agent = agents.make("ppo", **settings)
    count = jnp.int32(loop.count_iterations(agent, total_steps))

    @jax.jit
    @jax.vmap
    def final_return(key):
        train_key, test_key = jax.random.split(key)
        state = loop.init_state(agent, env, params, train_key, count)
        state, _ = loop.train_chunk(agent, env, params, state, count)
        actor = state.learner.actor
        found = evaluate(agent, actor, env, params, test_key, num_envs=16, num_steps=length)
        return found["episode_return"]

    returns = final_return(jax.random.split(jax.random.key(0), SEEDS))
    assert np.median(returns) >= threshold
