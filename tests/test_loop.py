import contextlib
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrade import agents
from jaxtrade.agents import PPO, loop, optimise
from jaxtrade.envs.trading import Trading
from jaxtrade.specs import JaxtradeError
from tests import probes
from tests.probes import PER_ITERATION, PROBES, StateTable, Table

ENV = Table()
PARAMS = PROBES["a smaller reward sooner"].params
AGENT = jax.device_put(probes.AGENT)
COMPILE_EVENTS = ("jaxpr_trace_duration", "backend_compile_duration")


def start(seed=0, *, iterations=8, agent=AGENT, env=ENV, params=PARAMS):
    return loop.init(
        agent, env, params, jax.random.key(seed), total_steps=iterations * PER_ITERATION
    )


def train(state, *, size=8, params=PARAMS):
    """The last state and the metrics of each chunk."""
    history = []
    for latest, means in loop.chunks(AGENT, ENV, params, state, chunk_iterations=size):
        state = latest
        history.append(means)
    return state, history


def numbers(state):
    """All of a state as NumPy arrays."""
    return [
        np.asarray(
            jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        )
        for leaf in jax.tree.leaves(state)
    ]


def assert_same(one, other):
    for left, right in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_array_equal(left, right)


def differ(one, other):
    return any(
        (left != right).any() for left, right in zip(numbers(one), numbers(other), strict=True)
    )


@contextlib.contextmanager
def counted_compiles():
    """The list of what was traced or compiled within the block."""
    found = []

    def listen(event, duration, **names):
        if event.endswith(COMPILE_EVENTS):
            found.append((event, names.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_seed_gives_the_same_to_the_last_bit():
    first, history = train(start(seed=1))
    second, again = train(start(seed=1))
    assert_same(first, second)
    assert history == again
    assert differ(first.learner, train(start(seed=2))[0].learner)


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_how_iterations_are_cut_into_chunks_changes_nothing(size):
    whole, (expected,) = train(start())
    cut, history = train(start(), size=size)
    assert_same(whole, cut)
    counts = [min(size, 8 - done) for done in range(0, 8, size)]
    assert len(history) == len(counts)
    for name in ("policy_loss", "value_loss", "entropy", "grad_norm"):
        mean = np.average([means[name] for means in history], weights=counts)
        assert mean == pytest.approx(expected[name], rel=1e-4, abs=1e-6)
    assert sum(means["episodes"] for means in history) == expected["episodes"]


def test_training_goes_on_from_a_copy_on_disk(tmp_path):
    whole, _ = train(start())
    state, _ = loop.train_chunk(AGENT, ENV, PARAMS, start(), jnp.int32(3))
    np.savez(tmp_path / "state.npz", *numbers(state))
    template = jax.tree.leaves(start(seed=9))
    structure = jax.tree.structure(state)
    del state
    with np.load(tmp_path / "state.npz") as saved:
        leaves = [
            jax.random.wrap_key_data(array)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else jnp.asarray(array)
            for array, leaf in zip(saved.values(), template, strict=True)
        ]
    resumed, history = train(jax.tree.unflatten(structure, leaves), size=2)
    assert len(history) == 3
    assert_same(whole, resumed)


def test_total_steps_are_rounded_up_to_iterations():
    assert [loop.count_iterations(AGENT, steps) for steps in (0, 1, 256, 257, 2560)] == [
        0,
        1,
        1,
        2,
        10,
    ]
    state, history = agents.train(
        AGENT, ENV, PARAMS, jax.random.key(0), total_steps=257, chunk_iterations=16
    )
    assert (int(state.iteration), int(state.num_iterations), len(history)) == (2, 2, 1)


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(JaxtradeError, match=r"^chunk_iterations is 0: give 1 or more$"):
        next(loop.chunks(AGENT, ENV, PARAMS, start(), chunk_iterations=0))


def test_a_state_is_used_up_by_the_next():
    state = start()
    later, _ = loop.train_chunk(AGENT, ENV, PARAMS, state, jnp.int32(1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.learner))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(later))


def test_metrics_are_finite_and_of_what_they_say():
    params = PARAMS.replace(reward=jnp.full((2, 2), 2.0, jnp.float32))
    _, (means,) = train(start(), params=params)
    assert all(math.isfinite(value) for value in means.values())
    assert 0 < means["entropy"] <= math.log(2) + 1e-6
    assert 0 <= means["clip_fraction"] <= 1
    assert means["approx_kl"] >= 0
    # An episode is one step in cell 0 and, if it got there, one in cell 1: 2 for each.
    assert means["episode_return"] == pytest.approx(2 * means["episode_length"], rel=1e-6)
    assert 1 <= means["episode_length"] <= 2
    steps = means["episodes"] * means["episode_length"]
    assert 8 * PER_ITERATION - AGENT.num_envs <= steps <= 8 * PER_ITERATION


def test_a_chunk_without_an_end_has_no_mean_episode():
    endless = PARAMS.replace(
        terminates=jnp.zeros((2, 2), bool), max_steps_in_episode=jnp.int32(9999)
    )
    _, (means,) = train(start(iterations=2), params=endless)
    assert means["episodes"] == 0
    assert math.isnan(means["episode_return"])
    assert math.isnan(means["episode_length"])


def test_other_hyperparameters_and_other_parameters_compile_nothing():
    one = jnp.int32(1)
    state, _ = loop.train_chunk(AGENT, ENV, PARAMS, start(), one)
    others = {"learning_rate": 1e-3, "gamma": 0.5, "gae_lambda": 0.1, "clip_ratio": 0.1}
    others |= {"entropy_coefficient": 0.5, "value_coefficient": 0.1, "max_grad_norm": 9.0}
    others |= {"final_entropy_share": 0.5, "target_kl": 0.1}
    other_agent = AGENT.replace(**{name: np.float32(value) for name, value in others.items()})
    traced = [
        name
        for name, field in PPO.__dataclass_fields__.items()
        if field.metadata.get("pytree_node", True)
    ]
    assert set(traced) == set(others)
    other_params = PROBES["a reward that the clock cuts off"].params
    with counted_compiles() as found:
        state, first = loop.train_chunk(other_agent, ENV, PARAMS, state, one)
        state, second = loop.train_chunk(AGENT, ENV, other_params, state, jnp.int32(2))
    assert found == []
    assert first["policy_loss"] != second["policy_loss"]
    with counted_compiles() as found:
        jax.jit(lambda x: x * 1.2345 + 6)(jnp.float32(1)).block_until_ready()
    assert {event.split("/")[-1] for event, _ in found} == set(COMPILE_EVENTS)


def test_nothing_goes_to_the_device_or_back_while_it_trains():
    count = jnp.int32(2)
    state, _ = loop.train_chunk(AGENT, ENV, PARAMS, start(), count)
    with jax.transfer_guard("disallow"):
        state, sums = loop.train_chunk(AGENT, ENV, PARAMS, state, count)
        jax.block_until_ready(sums)
        with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device"):
            loop.train_chunk(AGENT, ENV, PARAMS, state, np.int32(2))


@pytest.mark.parametrize("env", [ENV, StateTable()], ids=["observations", "states"])
def test_a_key_is_used_once(env):
    def run(key):
        state = loop.init(AGENT, env, PARAMS, key, total_steps=100)
        return loop.train_chunk(AGENT, env, PARAMS, state, jnp.int32(1))

    key = jax.random.key(0)
    with jax.debug_key_reuse(True):
        jax.jit(run).lower(key)
        with pytest.raises(jax.errors.KeyReuseError):
            jax.jit(lambda key: (jax.random.bits(key), run(key))).lower(key)


@pytest.mark.parametrize("env", [StateTable(), Trading()], ids=["probe", "trading"])
@pytest.mark.parametrize(
    "strict",
    [
        functools.partial(jax.numpy_dtype_promotion, "strict"),
        functools.partial(jax.numpy_rank_promotion, "raise"),
    ],
    ids=["types", "ranks"],
)
def test_nothing_is_promoted_in_silence(strict, env, monkeypatch):
    # Plain gradient descent: Optax's Adam mixes types itself.
    monkeypatch.setattr(optimise, "optimiser", lambda max_grad_norm: optax.identity())
    params = PARAMS if isinstance(env, StateTable) else env.default_params

    def run(key):
        state = loop.init(AGENT, env, params, key, total_steps=100)
        return loop.train_chunk(AGENT, env, params, state, jnp.int32(1))

    key = jax.random.key(0)
    with strict():
        jax.eval_shape(run, key)
        with pytest.raises((ValueError, TypeError)):
            jnp.zeros((2, 3), jnp.int32) + jnp.zeros(3, jnp.float32)
