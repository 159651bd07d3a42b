import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.agents.distributions import Categorical
from jaxtrade.agents.evaluate import evaluate
from jaxtrade.agents.types import Actor, Assessment
from tests import draws
from tests.probes import PROBES, StateTable, Table

# Cell 0 pays 0.25 for action 0 and ends; action 1 pays -1 and goes to cell 1, which pays 2 or 4;
# after 4 it ends, after 2 it goes on in cell 1.
PARAMS = PROBES["a constant reward"].params.replace(
    following=jnp.int32([[0, 1], [1, 0]]),
    reward=jnp.float32([[0.25, -1.0], [2.0, 4.0]]),
    terminates=jnp.asarray([[True, False], [False, True]]),
    max_steps_in_episode=jnp.int32(6),
)
TABLES = pytest.mark.parametrize("env", [Table(), StateTable()], ids=["observations", "states"])


@flax.struct.dataclass
class Fixed:
    """Acts by a table of logits f32[cells, actions], its actor's parameters; remembers nothing."""

    hidden_size = 0

    def assess(self, actor, obs, hidden):
        return Assessment(obs[:, :2] @ actor.params, jnp.zeros(len(obs)), hidden)


@flax.struct.dataclass
class Counting(Fixed):
    """Counts the steps of its episode; takes action 0 for `actor.params` i32[] of them, then 1."""

    hidden_size = 1

    def assess(self, actor, obs, hidden):
        is_late = hidden[:, 0] >= actor.params
        logits = jnp.stack([~is_late, is_late], axis=1).astype(jnp.float32)
        return Assessment(logits, jnp.zeros(len(obs)), hidden + 1)


def actor_of(params):
    return Actor(params=params, head=Categorical(2))


def run(agent, params, env, *, env_params=PARAMS, num_envs=3, num_steps=12, seed=0):
    key = jax.random.key(seed)
    found = evaluate(
        agent, actor_of(params), env, env_params, key, num_envs=num_envs, num_steps=num_steps
    )
    assert all((x.shape, x.dtype) == ((), np.float32) for x in found.values())
    return {name: float(value) for name, value in found.items()}


@TABLES
def test_it_is_the_mean_over_first_episodes(env):
    # The slight preferences decide: 0, then 4 at the second step of each episode.
    logits = jnp.float32([[0.0, 0.1], [0.0, 0.1]])
    found = run(Fixed(), logits, env)
    assert found == {"episode_return": -1.0 + 4.0, "episode_length": 2.0, "episodes": 3}
    # And 2 until the clock cuts it off.
    found = run(Fixed(), jnp.float32([[0.0, 0.1], [0.1, 0.0]]), env)
    assert found == {"episode_return": -1.0 + 5 * 2.0, "episode_length": 6.0, "episodes": 3}


def test_an_episode_that_does_not_end_does_not_count():
    params = PARAMS.replace(max_steps_in_episode=jnp.int32(13))
    found = run(Fixed(), jnp.float32([[0.0, 0.1], [0.1, 0.0]]), Table(), env_params=params)
    assert found["episodes"] == 0
    assert math.isnan(found["episode_return"])
    assert math.isnan(found["episode_length"])


@TABLES
def test_a_memory_starts_with_zeros(env):
    # In cell 1 at once: 2 twice, 4 at the fourth step.
    params = PARAMS.replace(
        following=jnp.int32([[1, 1], [1, 0]]),
        terminates=jnp.asarray([[False, False], [False, True]]),
    )
    found = run(Counting(), jnp.float32(3), env, env_params=params)
    assert found == {"episode_return": 0.25 + 2 * 2.0 + 4.0, "episode_length": 4.0, "episodes": 3}


def test_the_key_decides_where_episodes_start():
    params = PARAMS.replace(num_starts=jnp.int32(2), terminates=jnp.ones((2, 2), bool))
    logits = jnp.float32([[1.0, 0.0], [1.0, 0.0]])  # 0.25 from cell 0, 2 from cell 1
    means = [
        run(Fixed(), logits, Table(), env_params=params, seed=seed, num_envs=36)["episode_return"]
        for seed in (0, 0, 1)
    ]
    assert means[0] == means[1] != means[2]
    in_one = (np.asarray(means) - 0.25) / (2 - 0.25) * 36
    np.testing.assert_allclose(in_one, in_one.round(), atol=1e-4)
    assert ((in_one > 5) & (in_one < 31)).all()


def test_actors_are_evaluated_side_by_side_as_each_alone():
    tables = draws.normal(4, 2, 2)

    def each(logits):
        key = jax.random.key(1)
        return evaluate(Fixed(), actor_of(logits), Table(), PARAMS, key, num_envs=3, num_steps=12)

    together = jax.vmap(each)(tables)
    for row, logits in enumerate(tables):
        for name, value in each(logits).items():
            np.testing.assert_allclose(together[name][row], value, rtol=1e-6)
    assert len(set(np.asarray(together["episode_return"]).tolist())) > 1


def test_other_parameters_compile_nothing():
    def each(logits, env_params):
        key = jax.random.key(1)
        return evaluate(
            Fixed(), actor_of(logits), Table(), env_params, key, num_envs=3, num_steps=12
        )

    each(jnp.zeros((2, 2)), PARAMS)
    before = evaluate._cache_size()
    each(jnp.ones((2, 2)), PARAMS.replace(max_steps_in_episode=jnp.int32(2)))
    assert evaluate._cache_size() == before
