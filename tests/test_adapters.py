"""Adapters without their clients: the same numbers as the environment's own, in another dress."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.envs import Trading
from jaxtrade.envs.adapters.five_value import FiveValue
from jaxtrade.envs.wrappers import FlattenObservation
from tests.plays import KEY, play, random_actions
from tests.wild import short_and_wild

LONG = 2


@pytest.fixture(scope="module")
def trading():
    return short_and_wild()


# Five values


def test_five_values_are_the_six_with_one_flag(trading):
    env, params = trading
    five = FiveValue(env)
    actions = random_actions(env, 40)
    (obs, state), steps = play(env, params, actions)
    assert steps["terminated"].any()
    assert steps["truncated"].any()

    def step(state, action):
        obs, state, reward, done, info = five.step(KEY, state, action, params)
        return state, {"obs": obs, "state": state, "reward": reward, "done": done, "info": info}

    first = five.reset(KEY, params)
    _, got = jax.lax.scan(step, first[1], actions)
    expected = {name: steps[name] for name in ("obs", "state", "reward")}
    expected["done"] = steps["terminated"] | steps["truncated"]
    names = ("terminated", "truncated", "final_observation")
    expected["info"] = {name: steps["info"][name] for name in names}
    jax.tree.map(np.testing.assert_array_equal, (first, got), ((obs, state), expected))


def test_five_values_keep_only_the_wanted_info(trading):
    env, params = trading
    _, state = env.reset(KEY, params)
    *_, info = FiveValue(env, info_keys=()).step(KEY, state, jnp.int32(1), params)
    assert info == {}
    *_, info = FiveValue(env, info_keys=("target",)).step(KEY, state, jnp.int32(LONG), params)
    assert info["target"] == 25.0


def test_five_values_on_the_default_parameters():
    env = Trading()
    five = FiveValue(env)
    obs, state = five.reset(KEY)
    jax.tree.map(np.testing.assert_array_equal, (obs, state), env.reset(KEY))
    assert five.default_params is env.default_params
    assert five.step(KEY, state, jnp.int32(0))[1].time == 1


def test_five_values_describe_the_environment(trading):
    env, params = trading
    five = FiveValue(FlattenObservation(env))
    assert (five.name, five.num_actions, five.action_space(params).n) == ("Trading-v0", 3, 3)
    assert five.observation_space(params).shape == five.reset(KEY, params)[0].shape
    assert hash(five) == hash(FiveValue(FlattenObservation(env)))  # one program for equal ones


# What importing brings along


def test_importing_the_environments_imports_no_client() -> None:
    code = "import sys, jaxtrade.envs; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    modules = set(done.stdout.split())
    assert not {"stoa", "stable_baselines3", "torch", "rejax"} & modules
    assert not [name for name in modules if name.startswith("jaxtrade.envs.adapters")]


@pytest.mark.parametrize(
    ("name", "package"), [("stoa", "stoa-env"), ("stable_baselines3", "stable-baselines3")]
)
def test_an_absent_package_is_named(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"jaxtrade.envs.adapters.{name}", raising=False)
    message = f"^jaxtrade.envs.adapters.{name} needs the package {package}: pip install '{package}"
    with pytest.raises(ImportError, match=message):
        __import__(f"jaxtrade.envs.adapters.{name}")
