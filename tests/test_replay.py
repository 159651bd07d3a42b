import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.agents import priorities, replay
from jaxtrade.agents.distributions import head_for
from jaxtrade.agents.replay import Rows
from jaxtrade.agents.rollout import keeps_state
from jaxtrade.agents.types import Batch
from jaxtrade.envs import make_trading
from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic import make_market
from tests.probes import PROBES, StateTable, Table

NUM_ENVS, STEPS, CAPACITY, GAMMA = 10, 10, 40, 0.9
NUM_BATCHES = 10_000  # of 100 steps each: a million
NUMBER = jax.ShapeDtypeStruct((), jnp.int32)
EXAMPLE = Rows(
    seen=NUMBER,
    final=NUMBER,
    action=NUMBER,
    reward=jax.ShapeDtypeStruct((), jnp.float32),
    terminated=jax.ShapeDtypeStruct((), jnp.bool_),
    truncated=jax.ShapeDtypeStruct((), jnp.bool_),
)


def batch_of(seen, final, reward, terminated, truncated):
    return Batch(
        seen=seen,
        final=final,
        last=None,
        hidden=None,
        action=seen % 7,
        extras=None,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        progress=jnp.float32(0),
    )


def facts(time, env):
    """A process known in closed form: reward f32, terminated and truncated bool, of i32 steps."""
    mixed = (time * 7919 + env * 104729) % 1009
    terminated, truncated = mixed % 11 == 0, mixed % 13 == 0
    return (mixed % 5).astype(jnp.float32), terminated, truncated & ~terminated


def push(kept, number):
    """Batch `number` i32[]; what is seen at time t by environment n is N t + n, and less after."""
    time = number * STEPS + jnp.arange(STEPS, dtype=jnp.int32)[:, None]
    env = jnp.arange(NUM_ENVS, dtype=jnp.int32)[None]
    seen = time * NUM_ENVS + env
    return replay.add(kept, batch_of(seen, -1 - seen, *facts(time, env)))


def faults(kept, drawn, num_pushed, n_step):
    """How many of a sample f[B] are not what the process says, i32[]."""
    time, env = drawn.seen // NUM_ENVS, drawn.seen % NUM_ENVS
    newest = num_pushed * STEPS - 1
    reward, discount, goes_on, last = 0.0, 1.0, True, time
    for step in range(n_step):
        goes_on = goes_on & (time + step <= newest)
        earned, terminated, truncated = facts(time + step, env)
        reward = jnp.where(goes_on, reward + discount * earned, reward)
        discount = jnp.where(goes_on, discount * GAMMA * (1 - terminated), discount)
        last = jnp.where(goes_on, time + step, last)
        goes_on = goes_on & ~terminated & ~truncated
    wrong = (
        (time < jnp.maximum(0, newest + 1 - CAPACITY))
        | (time > newest)
        | (drawn.action != drawn.seen % 7)
        | (jnp.abs(drawn.reward - reward) > 1e-5)
        | (jnp.abs(drawn.discount - discount) > 1e-6)
        | (drawn.final != -1 - (last * NUM_ENVS + env))
        | (drawn.index != time % CAPACITY * NUM_ENVS + env)
    )
    return wrong.sum()


@functools.partial(jax.jit, static_argnames=("prioritised", "n_step"))
def run(key, *, prioritised, n_step):
    """A million pushes and as many draws: faults, and how often each row was drawn."""
    kept = replay.init(EXAMPLE, capacity=CAPACITY, num_envs=NUM_ENVS, prioritised=prioritised)

    def step(number, carry):
        kept, wrong, count = carry
        draw_key, value_key = jax.random.split(jax.random.fold_in(key, number))
        kept = push(kept, number)
        drawn = replay.sample(kept, draw_key, (100,), n_step=n_step, gamma=GAMMA)
        wrong += faults(kept, drawn, number + 1, n_step)
        if prioritised:
            values = jax.random.uniform(value_key, (100,))
            kept = kept.replace(priorities=priorities.put(kept.priorities, drawn.index, values))
        count = count.at[drawn.index].add(number >= CAPACITY // STEPS)
        return kept, wrong, count

    count = jnp.zeros(CAPACITY * NUM_ENVS, jnp.int32)
    return jax.lax.fori_loop(0, NUM_BATCHES, step, (kept, jnp.int32(0), count))


@pytest.mark.parametrize(("prioritised", "n_step"), [(False, 3), (True, 4)])
def test_a_million_steps_come_back_in_order_and_by_episode(prioritised, n_step):
    kept, wrong, count = run(jax.random.key(0), prioritised=prioritised, n_step=n_step)
    assert wrong == 0
    assert (kept.filled, kept.head) == (CAPACITY, NUM_BATCHES * STEPS % CAPACITY)
    times = np.sort(np.asarray(kept.rows.seen)[:, 0]) // NUM_ENVS
    newest = NUM_BATCHES * STEPS
    np.testing.assert_array_equal(times, np.arange(newest - CAPACITY, newest))
    if not prioritised:
        # 2 500 of each, with a standard deviation of 2 %.
        np.testing.assert_allclose(count, count.sum() / count.size, rtol=0.1)
        assert np.std(count / count.mean()) == pytest.approx(1 / np.sqrt(count.mean()), rel=0.2)


add = jax.jit(replay.add)
sample = jax.jit(replay.sample, static_argnums=2, static_argnames="n_step")
push_one = jax.jit(push)


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="prioritised")
def init(capacity, num_envs, prioritised=False):
    return replay.init(EXAMPLE, capacity=capacity, num_envs=num_envs, prioritised=prioritised)


def window(rows, *, n_step, gamma=0.5, pushes=1):
    """The sample of every start in a replay of one environment that holds `rows`, by start."""
    reward, terminated, truncated = (jnp.asarray(each)[:, None] for each in rows)
    seen = jnp.arange(len(reward), dtype=jnp.int32)[:, None]
    kept = init(len(reward), 1)
    new = batch_of(seen, seen + 100, jnp.float32(reward), terminated == 1, truncated == 1)
    for _ in range(pushes):
        kept = add(kept, new)
    drawn = sample(kept, jax.random.key(0), (500,), n_step=n_step, gamma=gamma)
    _, first = np.unique(drawn.seen, return_index=True)
    assert len(first) == len(reward)
    return jax.tree.map(lambda x: np.asarray(x)[first], drawn)


def test_n_step_returns_by_hand():
    # gamma = 1/2. Step 2 is an end for good, step 4 one by the clock, step 6 the newest.
    reward = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    terminated, truncated = [0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]
    drawn = window((reward, terminated, truncated), n_step=3)
    # 1 + 2/2 + 4/4; 2 + 4/2; 4; 8 + 16/2; 16; 32 + 64/2; 64
    np.testing.assert_array_equal(drawn.reward, [3.0, 4.0, 4.0, 16.0, 16.0, 64.0, 64.0])
    np.testing.assert_array_equal(drawn.discount, [0.0, 0.0, 0.0, 0.25, 0.5, 0.25, 0.5])
    np.testing.assert_array_equal(drawn.final, [102, 102, 102, 104, 104, 106, 106])
    one = window((reward, terminated, truncated), n_step=1)
    np.testing.assert_array_equal(one.reward, reward)
    np.testing.assert_array_equal(one.discount, [0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(one.final, 100 + np.arange(7))


def test_what_ends_at_every_step_is_bootstrapped_from_its_own_end():
    drawn = window(([1.0, 2.0, 3.0], [0, 0, 0], [1, 1, 1]), n_step=3, pushes=2)
    np.testing.assert_array_equal(drawn.reward, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(drawn.final, [100, 101, 102])


draw = jax.jit(priorities.draw, static_argnums=2)
put = jax.jit(priorities.put)


def filled(values):
    """Priorities of given numbers."""
    empty = priorities.init_priorities(len(values))
    return put(empty, jnp.arange(len(values)), jnp.float32(values))


@pytest.mark.parametrize(("size", "fanout"), [(5, 16), (70, 4)], ids=["a block", "four levels"])
def test_rows_are_drawn_in_proportion_to_one_per_cent(size, fanout, monkeypatch):
    monkeypatch.setattr(priorities, "FANOUT", fanout)
    generator = np.random.default_rng(size)
    values = generator.uniform(0.5, 2.0, size)
    values[generator.random(size) < 0.2] = 0.0
    values[0] = 3.0
    expected = values / values.sum()
    state = priorities.init_priorities(size)
    state = priorities.put(state, jnp.arange(size), jnp.float32(values))
    draw = jax.jit(lambda key: priorities.draw(state, key, (4, 25_000)))
    counts, num_draws = np.zeros(size), 20 * 100_000
    for seed in range(20):
        index, probability = draw(jax.random.key(seed))
        counts += np.bincount(np.asarray(index).ravel(), minlength=size)
    np.testing.assert_allclose(probability, expected[np.asarray(index)], rtol=1e-5)
    assert not counts[values == 0].any()
    errors = (counts / num_draws / np.maximum(expected, 1e-9) - 1)[values > 0]
    assert np.sqrt(np.mean(errors**2)) < 0.01
    # Four standard errors of the rarest, drawn 14 000 times.
    assert np.abs(errors).max() < 0.034


def test_each_stratum_is_drawn_from_once():
    index, _ = draw(filled(np.ones(16)), jax.random.key(0), (100, 16))
    np.testing.assert_array_equal(index, np.broadcast_to(np.arange(16), (100, 16)))


def test_sums_are_exact_after_many_changes():
    size = 1000
    state = filled(np.zeros(size))

    def change(number, state):
        start_key, index_key, value_key = jax.random.split(
            jax.random.fold_in(jax.random.key(0), number), 3
        )
        state = priorities.put_new(state, jax.random.randint(start_key, (), 0, size - 37), 37)
        index = jax.random.randint(index_key, (50,), 0, size)
        values = 1e4 ** jax.random.uniform(value_key, (50,), minval=-1.0, maxval=1.0)
        return priorities.put(state, index, values)

    state = jax.jit(lambda state: jax.lax.fori_loop(0, 2000, change, state))(state)
    assert state.highest > 9000
    for below, above in zip(state.levels[:-1], state.levels[1:], strict=True):
        sums = np.asarray(below).sum(axis=1)
        np.testing.assert_allclose(np.asarray(above).ravel()[: len(sums)], sums, rtol=1e-6)
        assert not np.asarray(above).ravel()[len(sums) :].any()
    assert state.total == pytest.approx(float(np.asarray(state.flat, np.float64).sum()), rel=1e-5)


def test_a_row_without_priority_is_never_drawn_whatever_is_rounded():
    values = np.zeros(300)
    values[[3, 4, 150, 299]] = [1e-30, 1e7, 1.0, 1e-7]
    index, probability = draw(filled(values), jax.random.key(0), (200_000,))
    assert set(np.unique(index)) <= {3, 4, 150, 299}
    assert (np.asarray(probability) > 0).all()


def test_new_rows_get_the_highest_priority_and_nothing_else_has_any():
    kept = init(CAPACITY, NUM_ENVS, prioritised=True)
    kept = push_one(kept, jnp.int32(0))
    expected = np.zeros(CAPACITY * NUM_ENVS)
    expected[:100] = 1.0
    np.testing.assert_array_equal(kept.priorities.flat[: expected.size], expected)
    kept = kept.replace(
        priorities=priorities.put(kept.priorities, jnp.int32([3, 7]), jnp.float32([5, 0.1]))
    )
    kept = push_one(kept, jnp.int32(1))
    expected[[3, 7]], expected[100:200] = [5.0, 0.1], 5.0
    np.testing.assert_allclose(kept.priorities.flat[: expected.size], expected, rtol=1e-6)


def test_importance_weights_by_hand():
    kept = init(CAPACITY, NUM_ENVS, prioritised=True)
    kept = push_one(kept, jnp.int32(0))  # 100 rows
    probability = jnp.float32([[0.01, 0.04], [0.04, 0.16]])
    # 1 / (100 x 0.01, 100 x 0.04) = 1, 1/4; and 1/4, 1/16; over the highest of each.
    weight = replay.importance(kept, probability, 1.0)
    np.testing.assert_allclose(weight, [[1.0, 0.25], [1.0, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(replay.importance(kept, probability, 0.5)[0], [1.0, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(replay.importance(kept, probability, 0.0), 1.0)


@pytest.mark.parametrize("env", [Table(), StateTable()], ids=["observations", "states"])
def test_it_keeps_states_where_batches_do(env):
    params = PROBES["a constant reward"].params
    example = replay.example_row(env, params, head_for(env.action_space(params)))
    obs, state = jax.eval_shape(lambda: env.reset(jax.random.key(0), params))
    kept = state if keeps_state(env, params) else obs
    assert jax.tree.structure(example.seen) == jax.tree.structure(kept)
    assert (example.action.shape, example.action.dtype) == ((), jnp.int32)


def test_a_million_windows_fit_into_a_hundred_megabytes():
    env, params = make_trading(make_market(num_bars=400), window=64)
    example = replay.example_row(env, params, head_for(env.action_space(params)))
    kept = jax.eval_shape(lambda: replay.init(example, capacity=10_000, num_envs=100))
    num_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))
    assert num_bytes <= 100e6 + 8


def test_a_capacity_that_batches_do_not_divide_is_refused():
    kept = replay.init(EXAMPLE, capacity=12, num_envs=NUM_ENVS)
    with pytest.raises(JaxtradeError, match=r"^a replay of 12 steps is written 10 at a time: give"):
        push(kept, jnp.int32(0))
