import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import agents
from jaxtrade.agents import loop
from jaxtrade.agents.rollout import collect, keeps_state, next_values, see
from jaxtrade.agents.types import Batch
from jaxtrade.envs import make_trading
from jaxtrade.synthetic import make_market
from tests import draws
from tests.probes import AGENT, NUM_CELLS, PROBES, StateTable, Table


@dataclasses.dataclass(frozen=True)
class Stored:
    """An environment of which it is not known that it observes its state."""

    env: object

    def reset(self, key, params):
        return self.env.reset(key, params)

    def step(self, key, state, action, params):
        return self.env.step(key, state, action, params)

    def action_space(self, params):
        return self.env.action_space(params)


@dataclasses.dataclass(frozen=True)
class Narrow(StateTable):
    """An observation of one number: smaller than the state."""

    def observation(self, state, params):
        return super().observation(state, params)[:1]


@functools.partial(jax.jit, static_argnames="env")
def jitted_collect(env, env_params, state, key):
    return collect(AGENT, env, env_params, state, key)


def rollouts(env, env_params):
    """Two rollouts after one another, each one's batch and sums; and the state at the end."""
    state = loop.init(AGENT, env, env_params, jax.random.key(0), total_steps=1000)
    state, *first = jitted_collect(env, env_params, state, jax.random.key(1))
    state, *second = jitted_collect(env, env_params, state, jax.random.key(2))
    return first, second, state


# Not the truncated probe alone: a process that both ends and is cut off, with unequal rewards.
MIXED = PROBES["a smaller reward sooner"].params.replace(
    following=jnp.int32([[0, 1], [1, 0]]),
    reward=jnp.float32([[0.25, -1.0], [2.0, 4.0]]),
    terminates=jnp.asarray([[True, False], [False, False]]),
    max_steps_in_episode=jnp.int32(5),
    num_starts=jnp.int32(2),
)


def replay(batches, env, params):
    """Walk the table in NumPy along a batch's actions and check each number that it recorded.

    Yields, for each batch, the sums over the episodes that ended in it.
    """
    table = jax.tree.map(np.asarray, params)
    num_envs = AGENT.num_envs
    cell = [None] * num_envs
    length, total = np.zeros(num_envs, int), np.zeros(num_envs)
    for batch in batches:
        seen, final = (cells_of(env, params, kept) for kept in (batch.seen, batch.final))
        sums = {"episodes": 0, "episode_return": 0.0, "episode_length": 0}
        for t in range(AGENT.rollout_steps):
            for n in range(num_envs):
                here, action = seen[t, n], batch.action[t, n]
                assert cell[n] in (None, here)
                length[n] += 1
                total[n] += table.reward[here, action]
                terminated = table.terminates[here, action]
                is_over = length[n] >= table.max_steps_in_episode
                assert batch.reward[t, n] == table.reward[here, action]
                assert batch.terminated[t, n] == terminated
                assert batch.truncated[t, n] | terminated == is_over | terminated
                assert final[t, n] == table.following[here, action]
                cell[n] = final[t, n]
                if terminated or is_over:
                    sums["episodes"] += 1
                    sums["episode_return"] += total[n]
                    sums["episode_length"] += length[n]
                    cell[n], length[n], total[n] = None, 0, 0.0
        last = cells_of(env, params, batch.last)
        assert all(cell[n] in (None, last[n]) for n in range(num_envs))
        yield sums


def cells_of(env, params, kept):
    """The cells that were seen, from one-hot observations."""
    shape = jax.tree.leaves(kept)[0].shape[: -1 if not keeps_state(env, params) else None]
    rows = jax.tree.map(
        lambda leaf: leaf.reshape(int(np.prod(shape)), *leaf.shape[len(shape) :]), kept
    )
    obs = np.asarray(see(env, params, rows))
    assert (obs[:, :NUM_CELLS].sum(axis=1) == 1).all()
    return obs[:, :NUM_CELLS].argmax(axis=1).reshape(shape)


@pytest.mark.parametrize("env", [Table(), StateTable()], ids=["observations", "states"])
def test_a_rollout_replayed(env):
    *parts, state = rollouts(env, MIXED)
    batches = [jax.tree.map(np.asarray, batch) for batch, _ in parts]
    assert sum(batch.terminated.sum() for batch in batches) > 10
    assert sum(batch.truncated.sum() for batch in batches) > 5
    for expected, (_, sums) in zip(replay(batches, env, MIXED), parts, strict=True):
        assert {name: float(value) for name, value in sums.items()} == expected
        assert 0 < expected["episodes"] < AGENT.num_envs * AGENT.rollout_steps
    assert jax.tree.leaves(state.obs)[0].shape[0] == AGENT.num_envs


def test_extras_are_what_the_policy_made_of_what_it_saw():
    state = loop.init(AGENT, Table(), MIXED, jax.random.key(0), total_steps=1000)
    _, batch, _ = jitted_collect(Table(), MIXED, state, jax.random.key(1))
    rows = batch.seen.reshape(-1, 2 * NUM_CELLS)
    none = jnp.zeros((len(rows), 0))
    logits, value, _ = AGENT.assess(state.learner.actor, rows, none)
    log_prob = jax.nn.log_softmax(logits)[jnp.arange(len(logits)), batch.action.ravel()]
    np.testing.assert_allclose(batch.extras[0].ravel(), log_prob, atol=1e-6)
    np.testing.assert_allclose(batch.extras[1].ravel(), value, atol=1e-6)


def test_environments_and_steps_draw_apart():
    (batch, _), (following, _), state = rollouts(Table(), MIXED)
    rows = [row.tobytes() for row in np.concatenate([batch.action.T, following.action.T])]
    assert len(set(rows)) == len(rows)
    columns = [column.tobytes() for column in np.asarray(batch.action)]
    assert len(set(columns)) > AGENT.rollout_steps / 2
    starts = {int(cell) for cell in np.asarray(state.env_state.cell)}
    assert starts == {0, 1}


def test_states_are_kept_where_they_are_known_and_smaller():
    assert keeps_state(StateTable(), MIXED)
    assert not keeps_state(Narrow(), MIXED)
    assert not keeps_state(Table(), MIXED)
    assert not keeps_state(Stored(StateTable()), MIXED)


def value_of(rows):
    """A value for each row of two leaves."""
    return jnp.sin(rows["a"]) + rows["b"].sum(axis=-1)


def random_batch(truncated):
    """A batch, or several, whose final rows say nothing about the values of the next steps."""
    *lead, _, num_envs = shape = truncated.shape
    final = {"a": draws.normal(*shape, seed=1), "b": draws.normal(*shape, 3, seed=2)}
    none = jnp.zeros_like(truncated)
    batch = Batch(
        seen=None,
        final=final,
        last=None,
        hidden=None,
        action=None,
        extras=None,
        reward=None,
        terminated=none,
        truncated=truncated,
        progress=None,
    )
    return batch, draws.normal(*shape, seed=3), draws.normal(*lead, num_envs, seed=4)


jitted_next_values = jax.jit(next_values, static_argnums=0, static_argnames="block")


def expected_next_values(batch, value, last_value):
    following = np.append(value[1:], last_value[None], axis=0)
    return np.where(batch.truncated, value_of(batch.final), following)


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 1.0])
def test_next_values_are_those_of_asking_about_every_row(share, block):
    truncated = draws.uniform(9, 5) < share
    batch, value, last_value = random_batch(truncated)
    found = jitted_next_values(value_of, batch, value, last_value, block=block)
    np.testing.assert_allclose(found, expected_next_values(batch, value, last_value), atol=1e-6)


def test_next_values_ask_only_where_an_episode_was_cut_off():
    def refuse(rows):
        return jnp.full_like(rows["a"], jnp.nan)

    nowhere = jnp.zeros((9, 5), bool)
    batch, value, last_value = random_batch(nowhere)
    assert np.isfinite(jitted_next_values(refuse, batch, value, last_value, block=4)).all()
    batch = batch.replace(truncated=nowhere.at[3, 2].set(True))
    missing = np.isnan(jitted_next_values(refuse, batch, value, last_value, block=4))
    assert np.argwhere(missing).tolist() == [[3, 2]]


@pytest.mark.slow
def test_next_values_of_several_batches_at_once():
    shares = jnp.float32([0.0, 0.2, 1.0])
    truncated = draws.uniform(3, 9, 5) < shares[:, None, None]
    batches, value, last_value = random_batch(truncated)
    found = jax.vmap(functools.partial(jitted_next_values, value_of, block=4))(
        batches, value, last_value
    )
    for row in range(3):
        one = jax.tree.map(lambda leaf, row=row: leaf[row], batches)
        expected = expected_next_values(one, value[row], last_value[row])
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


@pytest.mark.slow
def test_training_on_kept_states_is_training_on_kept_observations():
    market = make_market(num_bars=400)
    env, params = make_trading(market, window=8, episode_steps=10)
    assert keeps_state(env, params)
    agent = agents.make("ppo", num_envs=8, rollout_steps=16, num_minibatches=4, hidden_sizes=(16,))
    kept, stored = (
        agents.train(agent, each, params, jax.random.key(3), total_steps=3 * 128)[0]
        for each in (env, Stored(env))
    )
    fresh = loop.init(agent, env, params, jax.random.key(3), total_steps=3 * 128)
    for name in ("learner", "obs", "env_state"):
        one, other = (jax.tree.leaves(getattr(state, name)) for state in (kept, stored))
        for left, right in zip(one, other, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    moved = jax.tree.map(
        lambda now, then: np.abs(now - then).max(),
        kept.learner.actor.params,
        fresh.learner.actor.params,
    )
    assert all(distance > 1e-4 for distance in jax.tree.leaves(moved))
