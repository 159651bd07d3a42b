"""rejax 0.1 trains on Trading-v0 through the five-value adapter: the real client."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.envs.adapters.five_value import FiveValue
from jaxtrade.envs.wrappers import FlattenObservation
from tests.clients.swings import BEST, STEPS, swinging

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    rejax = pytest.importorskip("rejax", reason="rejax is not installed: see pyproject.toml")

# Of JAX's names that rejax and what it imports still use.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

EVALUATIONS = 128
SETTINGS = {
    "ppo": {"num_envs": 32, "num_steps": 16, "num_minibatches": 4, "num_epochs": 4},
    "dqn": {"num_envs": 16, "buffer_size": 4096, "fill_buffer": 512, "batch_size": 64},
}
EVERY = {"eval_freq": 4096, "total_timesteps": 16_384, "learning_rate": 1e-3, "gamma": 0.9}


@pytest.fixture(scope="module")
def trading():
    return swinging()


@pytest.fixture(scope="module", params=SETTINGS)
def trained(request, trading):
    env, params = trading
    adapted = FiveValue(FlattenObservation(env))
    settings = {"env": adapted, "env_params": params, **EVERY, **SETTINGS[request.param]}
    algorithm = rejax.get_algo(request.param).create(**settings)
    state, (lengths, returns) = jax.jit(algorithm.train)(jax.random.key(0))
    return algorithm, state, np.asarray(lengths), np.asarray(returns)


def test_it_learns_to_follow_the_swings(trained):
    _, _, lengths, returns = trained
    assert returns.shape == (EVERY["total_timesteps"] // EVERY["eval_freq"] + 1, EVALUATIONS)
    assert (lengths == STEPS).all()
    untrained, learnt = returns[0].mean(), returns[-1].mean()
    assert untrained < 0.3 * BEST
    assert learnt > 0.4 * BEST


def test_its_returns_are_those_of_our_environment(trained, trading):
    # rejax ends by evaluating the final policy with the final key; here with six values, on the
    # environment itself, of which the observation is flattened by hand.
    algorithm, state, _, returns = trained
    env, params = trading
    act = algorithm.make_act(state)

    def one_return(key):
        reset_key, key = jax.random.split(key)
        obs, env_state = env.reset(reset_key, params)

        def step(carry, _):
            obs, env_state, key = carry
            key, act_key, step_key = jax.random.split(key, 3)
            vector = jnp.concatenate([obs.market.reshape(-1), obs.account])
            obs, env_state, reward, _, truncated, _ = env.step(
                step_key, env_state, act(vector, act_key), params
            )
            return (obs, env_state, key), (reward, truncated)

        _, (rewards, truncated) = jax.lax.scan(step, (obs, env_state, key), None, STEPS)
        return rewards.sum(), truncated

    keys = jax.random.split(state.rng, EVALUATIONS)
    expected, truncated = jax.jit(jax.vmap(one_return))(keys)
    assert truncated[:, -1].all()
    assert not truncated[:, :-1].any()
    np.testing.assert_allclose(returns[-1], expected, rtol=1e-4, atol=1e-5)


def test_it_reads_the_spaces_of_the_adapter(trained, trading):
    algorithm = trained[0]
    assert algorithm.discrete
    assert algorithm.action_dim == 3
    assert algorithm.obs_space.shape == (2 * 1 + 6,)
