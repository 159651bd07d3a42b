import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import agents
from jaxtrade.agents import PQN, loop
from jaxtrade.agents.rollout import collect
from jaxtrade.specs import JaxtradeError
from tests.probes import GAMMA, PROBES, StateTable, Table, trained

CELLS = jnp.concatenate([jnp.eye(2), jnp.eye(2)], axis=1)
AGENT = jax.device_put(
    agents.make(
        "pqn",
        num_envs=16,
        rollout_steps=16,
        num_minibatches=4,
        learning_rate=5e-3,
        gamma=GAMMA,
        trace_lambda=0.3,
        epsilon_fraction=0.5,
        epsilon_end=0.02,
        hidden_sizes=(16,),
    )
)
PER_ITERATION, ITERATIONS = 256, 150
PARAMS = PROBES["a smaller reward sooner"].params


@pytest.mark.parametrize(
    "env",
    [pytest.param(Table(), marks=pytest.mark.slow), StateTable()],
    ids=["observations", "states"],
)
@pytest.mark.parametrize("name", PROBES)
def test_it_solves_the_probe_environments(name, env):
    probe = PROBES[name]
    learner = trained(AGENT, env, probe.params, ITERATIONS)
    actor = learner.actor
    outputs, value, _ = AGENT.assess(actor, CELLS, jnp.zeros((2, 0)))
    value = np.asarray(value * learner.reward_scale.deviation)
    np.testing.assert_allclose(value[: len(probe.values)], probe.values, atol=0.1)
    for cell, best in enumerate(probe.actions):
        if best is not None:
            assert actor.head.mode(outputs)[cell] == best


def run(counts, agent=AGENT):
    state = loop.init(agent, Table(), PARAMS, jax.random.key(3), total_steps=8 * PER_ITERATION)
    for count in counts:
        state, sums = loop.train_chunk(agent, Table(), PARAMS, state, jnp.int32(count))
    return state, sums


def numbers(tree):
    leaves = jax.tree.leaves(dataclasses.replace(tree, key=jax.random.key_data(tree.key)))
    return [np.asarray(leaf) for leaf in leaves]


@pytest.mark.slow
def test_how_iterations_are_cut_into_chunks_changes_nothing():
    whole, _ = run([8])
    cut, _ = run([1, 3, 4])
    for left, right in zip(numbers(whole), numbers(cut), strict=True):
        np.testing.assert_array_equal(left, right)


def test_other_hyperparameters_compile_nothing_and_change_what_is_learnt():
    plain, sums = run([4])
    assert sums["epsilon"] / 4 == pytest.approx(1.0 - 0.98 * 1.5 / 8 / 0.5, rel=1e-5)
    before = loop.train_chunk._cache_size()
    traced = [
        name
        for name, field in PQN.__dataclass_fields__.items()
        if field.metadata.get("pytree_node", True)
    ]
    assert len(traced) == 7
    for name in traced:
        state, _ = run([4], AGENT.replace(**{name: jnp.float32(0.1)}))
        pairs = zip(numbers(plain), numbers(state), strict=True)
        assert any((one != two).any() for one, two in pairs), name
    assert loop.train_chunk._cache_size() == before


def test_returns_are_those_of_the_best_actions_by_hand():
    """One gradient step that changes nothing, on three steps of one environment."""
    agent = agents.make(
        "pqn",
        num_envs=1,
        rollout_steps=3,
        num_minibatches=1,
        num_epochs=1,
        hidden_sizes=(),
        learning_rate=0.0,
        gamma=0.5,
        trace_lambda=0.5,
        normalise_reward=False,
    )
    state = loop.init(agent, Table(), PARAMS, jax.random.key(0), total_steps=3)
    learner = state.learner
    # Of cell 0 the actions are worth 1 and 2, of cell 1 3 and 8.
    kernel = jnp.float32([[1, 3, 0, 0], [2, 8, 0, 0]])
    params = {"params": {"advantage": {"kernel_0": kernel, "bias": jnp.zeros(2)}}}
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, learner.actor.params)
    learner = dataclasses.replace(learner, actor=dataclasses.replace(learner.actor, params=params))
    _, batch, _ = jax.eval_shape(lambda: collect(agent, Table(), PARAMS, state, jax.random.key(0)))
    cells = CELLS[jnp.int32([0, 1, 0])][:, None]
    batch = batch.replace(
        seen=cells,
        final=CELLS[jnp.int32([1, 1, 1])][:, None],
        last=CELLS[:1],
        action=jnp.int32([[0], [1], [1]]),
        extras=jnp.float32([[2], [8], [2]]),
        reward=jnp.float32([[1], [2], [4]]),
        terminated=jnp.zeros((3, 1), bool),
        truncated=jnp.bool_([[False], [True], [False]]),
    )
    batch = batch.replace(hidden=jnp.zeros((1, 0)), progress=jnp.float32(0))
    learn = jax.jit(lambda *state: agent.learn(*state, jax.random.key(0), Table(), PARAMS))
    _, metrics = learn(learner, batch)
    # The last step: 4 + 2 / 2 = 5. The second is cut off in cell 1: 2 + 8 / 2 = 6. The first:
    # 1 + (8 + 6) / 2 / 2 = 4.5. Taken were 1, 8 and 2: errors of 3.5, 2 and 3.
    assert metrics["td_error"] == pytest.approx((3.5 + 2 + 3) / 3)
    assert metrics["loss"] == pytest.approx((3.0 + 1.5 + 2.5) / 3)
    assert metrics["q_mean"] == pytest.approx(11 / 3)


@pytest.mark.parametrize(
    ("name", "value"), [("trace_lambda", 1.1), ("num_minibatches", 5), ("epsilon_fraction", 0.0)]
)
def test_what_is_out_of_range_is_refused(name, value):
    with pytest.raises(JaxtradeError, match=f"agent setting {name} is .*: give "):
        agents.make("pqn", **{name: value})
