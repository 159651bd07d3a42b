import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import agents
from jaxtrade.agents import DQN, loop
from jaxtrade.spaces import MultiDiscrete
from jaxtrade.specs import JaxtradeError
from tests.probes import GAMMA, PROBES, StateTable, Table, trained

CELLS = jnp.concatenate([jnp.eye(2), jnp.eye(2)], axis=1)
SMALL = {
    "num_envs": 8,
    "rollout_steps": 4,
    "num_updates": 16,
    "batch_size": 64,
    "replay_size": 1024,
    "learning_starts": 128,
    "learning_rate": 5e-3,
    "target_period": 40,
    "gamma": GAMMA,
    "hidden_sizes": (16,),
    "n_step": 1,
}
AGENT = jax.device_put(agents.make("dqn", **SMALL))
ALL = jax.device_put(
    agents.make("dqn", **{**SMALL, "n_step": 2, "prioritised": True, "num_quantiles": 5})
)
PER_ITERATION, ITERATIONS = 32, 120
PARAMS = PROBES["a smaller reward sooner"].params


def check(probe, learner, agent):
    outputs, value, _ = agent.assess(learner.actor, CELLS, jnp.zeros((2, 0)))
    value = np.asarray(value * learner.reward_scale.deviation)
    np.testing.assert_allclose(value[: len(probe.values)], probe.values, atol=0.1)
    for cell, best in enumerate(probe.actions):
        if best is not None:
            assert learner.actor.head.mode(outputs)[cell] == best


@pytest.mark.parametrize("name", PROBES)
def test_it_solves_the_probe_environments(name):
    check(PROBES[name], trained(AGENT, Table(), PROBES[name].params, ITERATIONS), AGENT)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a smaller reward sooner", "a reward that the clock cuts off"])
def test_it_solves_them_from_states_with_everything(name):
    learner = trained(ALL, StateTable(), PROBES[name].params, ITERATIONS)
    assert learner.replay.rows.seen.cell.shape == (128, 8)
    check(PROBES[name], learner, ALL)


@dataclasses.dataclass(frozen=True)
class Lock(Table):
    """One step: half a reward for each index that is right."""

    def step_env(self, key, state, action, params):
        reward = 0.5 * (action == jnp.int32([1, 2])).sum()
        obs, state, _, _, info = super().step_env(key, state, jnp.int32(0), params)
        return obs, state, reward, jnp.array(True), info

    def action_space(self, params=None):
        return MultiDiscrete((2, 3))


@pytest.mark.slow
def test_branches_are_learnt_side_by_side():
    learner = trained(AGENT, Lock(), PARAMS, ITERATIONS)
    outputs, value, _ = AGENT.assess(learner.actor, CELLS[:1], jnp.zeros((1, 0)))
    assert outputs.shape == (1, 5)
    np.testing.assert_array_equal(learner.actor.head.mode(outputs)[0], [1, 2])
    assert value[0] * learner.reward_scale.deviation == pytest.approx(1.0, abs=0.15)


def start(agent=ALL, iterations=8):
    total = iterations * PER_ITERATION
    return loop.init(agent, StateTable(), PARAMS, jax.random.key(0), total_steps=total)


def run(state, counts, agent=ALL):
    for count in counts:
        state, sums = loop.train_chunk(agent, StateTable(), PARAMS, state, jnp.int32(count))
    return state, sums


def numbers(tree):
    leaves = jax.tree.leaves(dataclasses.replace(tree, key=jax.random.key_data(tree.key)))
    return [np.asarray(leaf) for leaf in leaves]


def test_how_iterations_are_cut_into_chunks_changes_nothing():
    whole, _ = run(start(), [8])
    cut, _ = run(start(), [1, 3, 4])
    for left, right in zip(numbers(whole), numbers(cut), strict=True):
        np.testing.assert_array_equal(left, right)


def test_other_hyperparameters_compile_nothing_and_change_what_is_learnt():
    run(start(), [6])
    before = loop.train_chunk._cache_size()
    plain, _ = run(start(), [6])
    traced = [
        name
        for name, field in DQN.__dataclass_fields__.items()
        if field.metadata.get("pytree_node", True)
    ]
    assert len(traced) == 9
    for name in traced:
        other = ALL.replace(**{name: jnp.float32(0.3)})
        state, _ = run(start(other), [6], other)
        pairs = zip(numbers(plain), numbers(state), strict=True)
        assert any((one != two).any() for one, two in pairs), name
    assert loop.train_chunk._cache_size() == before


@pytest.mark.slow
def test_a_population_trains_as_its_members_alone():
    keys, rates = jax.random.split(jax.random.key(5), 2), jnp.float32([1e-3, 1e-2])

    def train(key, learning_rate):
        agent = ALL.replace(learning_rate=learning_rate)
        state = loop.init_state(agent, StateTable(), PARAMS, key, jnp.int32(6))
        return loop.train_chunk(agent, StateTable(), PARAMS, state, jnp.int32(6))

    together, sums = jax.jit(jax.vmap(train))(keys, rates)
    for row in range(2):
        alone, expected = train(keys[row], rates[row])
        for left, right in zip(
            jax.tree.leaves(together.learner.actor),
            jax.tree.leaves(alone.learner.actor),
            strict=True,
        ):
            np.testing.assert_allclose(left[row], right, rtol=1e-3, atol=1e-4)
        assert sums["td_error"][row] == pytest.approx(float(expected["td_error"]), rel=1e-3)


def test_nothing_is_learnt_before_enough_is_kept():
    # 128 steps are kept after four iterations of 32.
    state, sums = run(start(), [3])
    assert (state.learner.updates, sums["loss"], state.learner.replay.size) == (0, 0.0, 96)
    fresh = start().learner
    for left, right in zip(
        jax.tree.leaves(state.learner.actor.params),
        jax.tree.leaves(fresh.actor.params),
        strict=True,
    ):
        np.testing.assert_array_equal(left, right)
    flat = state.learner.replay.priorities.flat
    np.testing.assert_array_equal(flat, np.repeat([1.0, 0.0], [96, len(flat) - 96]))
    state, sums = run(state, [1])
    assert state.learner.updates == ALL.num_updates
    assert sums["loss"] > 0
    assert sums["replay_fill"] == 0.125
    assert sums["epsilon"] == pytest.approx(0.05, abs=1e-6)  # 3 of 8 is beyond a quarter


def test_the_target_follows_when_it_is_due():
    state, _ = run(start(), [4])  # 16 updates of 40
    before = jax.tree.map(np.asarray, state.learner.target)
    fresh = start().learner.actor.params
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, fresh))
    state, _ = run(state, [2])  # 48
    jax.tree.map(np.testing.assert_array_equal, state.learner.target, state.learner.actor.params)
    soft = ALL.replace(tau=jnp.float32(0.25), target_period=4)
    moved = soft._move_target(state.learner.replace(target=jax.tree.map(np.asarray, fresh)))
    # Four times a quarter of the way: 1 - (3/4)^4 of it.
    way = 1 - 0.75**4

    def check(start, end, found):
        np.testing.assert_allclose(found, start + way * (end - start), rtol=1e-5, atol=1e-6)

    jax.tree.map(check, jax.tree.map(np.asarray, fresh), state.learner.actor.params, moved.target)


def test_errors_become_priorities():
    state, _ = run(start(), [8])
    flat = np.asarray(state.learner.replay.priorities.flat)
    assert (flat[:256] > 0).all()
    assert not flat[256:1024].any()
    assert len(np.unique(flat[:256])) > 20
    assert state.learner.replay.priorities.highest >= 1.0


def test_one_gradient_step_by_hand():
    """Of a linear network without dueling: the target, the loss and the slope."""
    agent = agents.make(
        "dqn", hidden_sizes=(), dueling=False, learning_rate=0.0, normalise_reward=False
    )
    learner = jax.jit(lambda key: agent.init(key, Table(), PARAMS))(jax.random.key(0))
    kernel = jnp.float32([[1, 3, 0, 0], [2, 4, 0, 0]])  # of each action
    params = {"params": {"advantage": {"kernel_0": kernel, "bias": jnp.zeros(2)}}}
    shapes = jax.tree.map(jnp.shape, learner.actor.params)
    assert jax.tree.map(jnp.shape, params) == shapes
    actor = dataclasses.replace(learner.actor, params=params)
    obs, next_obs = CELLS[:1], CELLS[1:]
    # The online network prefers action 1 in cell 1; the target network says that it is worth 5.
    target_values = jnp.float32([[[7.0, 5.0]]])
    rows = (obs, jnp.int32([0]), jnp.float32([2.0]), jnp.float32([0.5]), next_obs, target_values)
    learner = dataclasses.replace(learner, actor=actor, replay=None)
    _, (error, metrics) = agent._descend(learner, (*rows, jnp.float32([0.25])), jnp.float32(0))
    # 2 + 5 / 2 = 4.5 against 1: an error of 3.5, Huber 3; the weight makes it 3/4.
    assert error[0] == pytest.approx(3.5)
    assert metrics["loss"] == pytest.approx(0.75)
    assert metrics["q_mean"] == 1.0
    # A slope of -1/4 in the bias and in the two leaves of the observation that are 1.
    assert metrics["grad_norm"] == pytest.approx(0.25 * np.sqrt(3), rel=1e-5)
    single = agent.replace(double=False)
    _, (error, _) = single._descend(learner, (*rows, jnp.float32([1.0])), jnp.float32(0))
    assert error[0] == pytest.approx(2 + 7 / 2 - 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replay_size", 100),
        ("learning_starts", 10_000_000),
        ("epsilon_fraction", 0.0),
        ("tau", 1.5),
        ("n_step", 0),
        ("num_quantiles", -1),
        ("target_period", 0),
    ],
)
def test_what_is_out_of_range_is_refused(name, value):
    with pytest.raises(JaxtradeError, match=f"agent setting {name} is .*: give "):
        agents.make("dqn", **{name: value})


@pytest.mark.parametrize("prioritised", [False, True])
def test_the_replay_is_written_in_place(prioritised):
    """No instruction of the compiled loop copies anything as large as a leaf of the replay."""
    agent = agents.make("dqn", **{**SMALL, "replay_size": 99_840, "prioritised": prioritised})
    shapes = jax.eval_shape(functools.partial(start, agent))
    text = loop.train_chunk.lower(agent, StateTable(), PARAMS, shapes, jnp.int32(1)).compile()
    copies = [
        line
        for line in text.as_text().splitlines()
        if " copy(" in line and ("[12480,8" in line or "[99840]" in line or "[6240," in line)
    ]
    assert "[12480,8" in text.as_text()
    assert not copies
