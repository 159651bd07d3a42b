"""Environments shared out over devices: the same training, wherever its parts lie."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from jaxtrade.agents import devices, loop
from jaxtrade.specs import JaxtradeError
from tests.probes import AGENT, PROBES, Table

ROOT = pathlib.Path(__file__).parent.parent
EACH, SHARED = PartitionSpec(), PartitionSpec("envs")


def command(*arguments, num_devices, **variables):
    """What runs `tests.on_devices` with virtual devices, for `subprocess`."""
    fast = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    flags = f"--xla_force_host_platform_device_count={num_devices} {fast}"
    names = {**os.environ, "XLA_FLAGS": flags, **variables}
    return {
        "args": [sys.executable, ROOT / "tests" / "on_devices.py", *map(str, arguments)],
        "env": {**names, "JAX_PLATFORMS": "cpu"},
        "text": True,
    }


def answer_of(*arguments, num_devices):
    done = subprocess.run(
        **command(*arguments, num_devices=num_devices), capture_output=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def three_devices(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda platform=None: [None] * 3)


def test_what_belongs_to_environments_is_shared_out_and_the_rest_is_copied():
    params = PROBES["a constant reward"].params
    state = jax.eval_shape(
        lambda: loop.init(AGENT, Table(), params, jax.random.key(0), total_steps=100)
    )
    layout = devices._layout(state, None)
    assert jax.tree.structure(layout) == jax.tree.structure(state)
    shared = layout.env_state, layout.obs, layout.hidden, layout.episode_length
    assert set(jax.tree.leaves(shared)) == {SHARED}
    assert layout.learner.reward_scale.discounted == SHARED
    alone = layout.learner.actor, layout.learner.optimiser, layout.key, layout.iteration
    assert set(jax.tree.leaves((alone, layout.learner.reward_scale.moments))) == {EACH}


def test_one_device_divides_nothing():
    tree = {"x": jnp.arange(3)}
    with devices.divided(devices.ENVS, 3):
        assert not devices.is_divided(devices.ENVS)
        assert devices.spread(tree) is tree
        assert devices.place(tree) is tree


def test_environments_that_the_devices_do_not_divide_are_refused(three_devices):
    message = r"^16 envs do not divide among 3 devices: give a multiple of 3$"
    with pytest.raises(JaxtradeError, match=message), devices.divided(devices.ENVS, 16):
        pass


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(
        JaxtradeError, match=r"^device is 'tpu': this machine has \w+; give device=auto$"
    ):
        devices.use_device("tpu")


def test_one_process_joins_nobody(monkeypatch):
    monkeypatch.delenv("JAXTRADE_COORDINATOR", raising=False)
    devices.connect()
    assert not jax.distributed.is_initialized()
    assert devices.is_main()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "JAXTRADE_NUM_PROCESSES is '': give a number from 1 to inf"),
        (
            {"JAXTRADE_NUM_PROCESSES": "2", "JAXTRADE_PROCESS_ID": "first"},
            "JAXTRADE_PROCESS_ID is 'first': give a number from 0 to 1",
        ),
        (
            {"JAXTRADE_NUM_PROCESSES": "2", "JAXTRADE_PROCESS_ID": "2"},
            "JAXTRADE_PROCESS_ID is '2': give a number from 0 to 1",
        ),
    ],
)
def test_hosts_that_do_not_know_each_other_are_refused(monkeypatch, variables, message):
    monkeypatch.setenv("JAXTRADE_COORDINATOR", "127.0.0.1:1")
    for name in ("JAXTRADE_NUM_PROCESSES", "JAXTRADE_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(JaxtradeError) as error:
        devices.connect()
    assert str(error.value) == message


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("ppo", marks=pytest.mark.slow),
        pytest.param("sac", marks=pytest.mark.soak),
        pytest.param("dqn", marks=pytest.mark.soak),
    ],
)
def test_eight_devices_train_as_one(name, tmp_path):
    answer = answer_of(name, tmp_path, num_devices=8)
    assert answer["devices"] == 8
    assert len(answer["one"]) == len(answer["all"]) == 5
    for one, all_of_them in zip(answer["one"], answer["all"], strict=True):
        assert one == pytest.approx(all_of_them, rel=1e-5, abs=1e-5, nan_ok=True)
    assert answer["shares"][".obs"] == [2, 4]
    assert answer["shares"].get(".learner.replay.rows.reward", [32, 2]) == [32, 2]
    assert answer["moved"] == [4, 1]
