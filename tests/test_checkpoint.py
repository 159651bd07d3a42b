"""Checkpoints: whole, in the background, resumed bit for bit, on any number of devices."""

import dataclasses
import functools
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrade
from jaxtrade import agents
from jaxtrade.agents import TrainState, loop
from jaxtrade.experiments.checkpoint import Checkpoints, Progress
from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic import make_market
from tests import draws


@dataclasses.dataclass(frozen=True)
class Learner:
    """What an algorithm may keep: numbers, keys, nothing."""

    actor: dict[str, jax.Array]
    noise: jax.Array
    memory: jax.Array


jax.tree_util.register_dataclass(Learner, ["actor", "noise", "memory"], [])


def state(value: float = 1.0, size: int = 3) -> TrainState:
    actor = {"kernel": jnp.full((size, 2), value, jnp.float32)}
    return TrainState(
        learner=Learner(actor=actor, noise=jax.random.key(5), memory=jnp.zeros((2, 0))),
        env_state=jnp.arange(3) + int(value),
        obs=jnp.full(3, value, jnp.float32),
        hidden=jnp.zeros((3, 0)),
        episode_return=jnp.zeros(3),
        episode_length=jnp.zeros(3, jnp.int32),
        key=jax.random.key(int(value)),
        iteration=jnp.int32(value),
        num_iterations=jnp.int32(9),
    )


def same(one: object, other: object) -> None:
    """Bit for bit, keys included."""
    ours, theirs = jax.tree.leaves(one), jax.tree.leaves(other)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        is_key = jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
        pair = (jax.random.key_data(a), jax.random.key_data(b)) if is_key else (a, b)
        np.testing.assert_array_equal(*pair)


def save(folder, *values: float, keep: int = 2) -> None:
    with Checkpoints(folder, keep=keep) as checkpoints:
        for value in values:
            one = state(value)
            progress = Progress(best_sharpe=value)
            checkpoints.save(int(value), one, one.learner.actor, progress)


def test_what_is_saved_comes_back(tmp_path) -> None:
    save(tmp_path, 4)
    with Checkpoints(tmp_path) as checkpoints:
        restored, best, progress = checkpoints.restore(state(0))
    same(restored, state(4))
    same(best, state(4).learner.actor)
    assert progress == Progress(best_sharpe=4)


def test_the_newest_are_kept(tmp_path) -> None:
    save(tmp_path, 1, 2, 3, 4, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3", "4"]


@functools.partial(jax.jit, donate_argnums=0)
def spoil(tree):
    return jax.tree.map(lambda leaf: leaf * 0 - 7, tree)


def test_training_goes_on_in_the_buffers_that_are_being_saved(tmp_path) -> None:
    one = state(3, size=1_000_000)
    kernel = one.learner.actor["kernel"]
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, one, {"kernel": jnp.ones((1_000_000, 2))}, Progress())
        spoiled = spoil((one.obs, kernel))
        jax.block_until_ready(spoiled)
    with Checkpoints(tmp_path) as checkpoints:
        restored, *_ = checkpoints.restore(state(0, size=1_000_000))
    same(restored, state(3, size=1_000_000))


def test_a_save_that_was_cut_short_is_not_there(tmp_path) -> None:
    save(tmp_path, 1, 2)
    half = tmp_path / "3.orbax-checkpoint-tmp-17"
    shutil.copytree(tmp_path / "2", half)
    shutil.rmtree(half / "best")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 2
        restored, *_ = checkpoints.restore(state(0))
    same(restored, state(2))


def test_a_failed_save_is_one_line_at_the_next_or_at_the_end(tmp_path) -> None:
    """A limit on the size of files, for this process and a moment, stands in for a full disk."""
    noise = {"kernel": draws.normal(50_000, 2)}  # does not compress
    one = dataclasses.replace(state(1), learner=dataclasses.replace(state(1).learner, actor=noise))
    arguments = (one, noise, Progress())
    save(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        with pytest.raises(JaxtradeError) as error, Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(2, *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot write a checkpoint: " in str(error.value)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 1
        same(checkpoints.restore(state(0))[0], state(1))


def test_what_went_wrong_in_training_is_what_is_said(tmp_path) -> None:
    folder = tmp_path / "checkpoints"
    one = state(1)
    with pytest.raises(KeyError, match="the cause"), Checkpoints(folder) as checkpoints:
        checkpoints.save(1, one, one.learner.actor, Progress())
        raise KeyError("the cause")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest == 1


@functools.cache
def market_env():
    market = make_market(num_bars=400)
    ids = {"exposure": "LeveragedETF-v0", "levels": "StockTrading-v0"}
    options = {"market": market, "window": 3, "episode_steps": 32}
    return {actions: jaxtrade.make(env_id, **options) for actions, env_id in ids.items()}


OFF_POLICY = {"num_envs": 4, "num_updates": 2, "batch_size": 8, "learning_starts": 8}
SMALL = {
    "ppo": ("exposure", {"num_envs": 4, "rollout_steps": 8, "num_minibatches": 2}),
    "sac": ("exposure", {**OFF_POLICY, "replay_size": 32}),
    "dqn": ("levels", {**OFF_POLICY, "replay_size": 128, "prioritised": True}),
    "pqn": ("levels", {"num_envs": 4, "rollout_steps": 8, "num_minibatches": 2}),
    "apg": ("exposure", {"num_envs": 4, "rollout_steps": 8}),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "dqn" else pytest.mark.soak)
        for name in SMALL
    ],
)
def test_resumed_an_algorithm_goes_on_bit_for_bit(name, tmp_path) -> None:
    actions, settings = SMALL[name]
    env, params = market_env()[actions]
    agent = agents.make(name, hidden_sizes=(8,), **settings)
    steps = 6 * agent.num_envs * agent.rollout_steps

    def begin():
        return loop.init(agent, env, params, jax.random.key(1), total_steps=steps)

    def three(state):
        return next(loop.chunks(agent, env, params, state, chunk_iterations=3))[0]

    half = three(begin())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, half, half.learner.actor, Progress())
        wanted = three(half)
    with Checkpoints(tmp_path) as checkpoints:
        restored, *_ = checkpoints.restore(begin())
    same(three(restored), wanted)


ROOT = pathlib.Path(__file__).parents[1]
IMPORTS = """
import pathlib, sys
sys.path.append(".")  # for tests
"""
KILLED = """
from jaxtrade.experiments.checkpoint import Checkpoints, Progress
from tests.test_checkpoint import state
with Checkpoints(pathlib.Path(sys.argv[1])) as checkpoints:
    for iteration in range(1, 10_000):
        one = state(iteration, size=2_000_000)
        checkpoints.save(iteration, one, one.learner.actor, Progress())
        print(iteration, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", [5, 30, 80, 200])
def test_killed_in_the_middle_of_a_save_the_one_before_is_there(tmp_path, milliseconds) -> None:
    command = [sys.executable, "-c", IMPORTS + KILLED, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    for line in process.stdout:
        if int(line) == 3:
            break
    time.sleep(milliseconds / 1e3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with Checkpoints(tmp_path) as checkpoints:
        newest = checkpoints.latest
        assert newest is not None and newest >= 2
        restored, *_ = checkpoints.restore(state(0, size=2_000_000))
    same(restored, state(newest, size=2_000_000))


SPREAD = """
import dataclasses
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jaxtrade.experiments.checkpoint import Checkpoints, Progress
from tests.test_checkpoint import state, same
folder, count, saves = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "save"
assert len(jax.devices()) == count
mesh = jax.make_mesh((count,), ("envs",), axis_types=(AxisType.Auto,))
def spread(one):
    whole, cut = NamedSharding(mesh, P()), NamedSharding(mesh, P("envs"))
    one = jax.device_put(one, whole)
    kernel = jax.device_put(one.learner.actor["kernel"], cut)
    learner = dataclasses.replace(one.learner, actor={"kernel": kernel})
    return dataclasses.replace(one, learner=learner)
with Checkpoints(folder) as checkpoints:
    if saves:
        one = spread(state(5, size=8))
        checkpoints.save(5, one, one.learner.actor, Progress())
    else:
        template = spread(state(0, size=8))
        restored, best, _ = checkpoints.restore(template)
        same(restored, state(5, size=8))
        for a, b in zip(*map(jax.tree.leaves, (template, restored)), strict=True):
            assert a.sharding == b.sharding
        assert best["kernel"].sharding == template.learner.actor["kernel"].sharding
"""


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(8, 2), (1, 4)], ids=str)
def test_a_state_lies_where_the_template_lies(tmp_path, counts) -> None:
    for count, what in zip(counts, ("save", "restore"), strict=True):
        flags = f"--xla_force_host_platform_device_count={count}"
        command = [
            sys.executable,
            "-W",
            "error",
            "-c",
            IMPORTS + SPREAD,
            str(tmp_path),
            str(count),
            what,
        ]
        environment = {**os.environ, "XLA_FLAGS": flags}
        subprocess.run(command, check=True, env=environment, cwd=ROOT)
