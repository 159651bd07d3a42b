"""The kit passes what is right, and each of its checks fails on an environment broken for it."""

import dataclasses
import re
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces

from jaxtrade.envs.base import Environment
from tests import kit

KEY = jax.random.key(0)
LIMIT = 4.0


@flax.struct.dataclass(kw_only=True)
class Params(environment.EnvParams):
    """data: f32[4096]; stride: f32[], of one step; unit: a static choice."""

    data: jax.Array
    stride: jax.Array
    unit: str = flax.struct.field(pytree_node=False, default="metre")


@flax.struct.dataclass(kw_only=True)
class State(environment.EnvState):
    """position: f32[]; time: i32[]; seed: u32[], of the next start."""

    position: jax.Array
    seed: jax.Array


def params_of(**values: Any) -> Params:
    default = {
        "max_steps_in_episode": jnp.int32(50),
        "data": jnp.arange(4096, dtype=jnp.float32),
        "stride": jnp.float32(1.0),
    }
    return Params(**{**default, **values})


@dataclasses.dataclass(frozen=True)
class Walk(Environment[State, Params]):
    """A walk to the left or right that terminates at +-LIMIT. Observation: f32[2]."""

    num_actions = 2

    def reset_state(self, key: jax.Array, params: Params) -> State:
        return self.begin(jax.random.bits(key, dtype=jnp.uint32))

    def restart(self, state: State, params: Params) -> State:
        return self.begin(state.seed * jnp.uint32(747796405) + jnp.uint32(1))

    def begin(self, seed: jax.Array) -> State:
        start = (seed >> 30).astype(jnp.float32) - 1.5
        return State(position=start, time=jnp.int32(0), seed=seed)

    def advance(self, state: State, action: jax.Array, params: Params) -> Any:
        moved = state.position + params.stride * (2 * action - 1).astype(jnp.float32)
        following = state.replace(position=moved, time=state.time + 1)
        return following, moved, jnp.abs(moved) >= LIMIT, {}

    def observation(self, state: State, params: Params) -> jax.Array:
        row = params.data[state.time] * 0.0
        return jnp.stack([state.position + row, jnp.cos(state.position)])

    def action_space(self, params: Params | None = None) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: Params | None = None) -> spaces.Box:
        return spaces.Box(-5.0, 5.0, (2,), jnp.float32)


class Keyed(environment.Environment):
    """The same on gymnax's own base: the reset draws from the step's key; `==` is identity."""

    num_actions = 2
    inner = Walk()
    action_space = inner.action_space
    observation_space = inner.observation_space

    def reset_env(self, key: jax.Array, params: Params) -> Any:
        return self.inner.reset_env(key, params)

    def step_env(self, key: jax.Array, state: State, action: jax.Array, params: Params) -> Any:
        obs, state, reward, terminated, info = self.inner.step_env(key, state, action, params)
        return obs, state, reward, terminated, info

    def observe(self, key: jax.Array, state: State, action: Any, params: Params) -> Any:
        return self.inner.observation(state, params)

    def is_truncated(self, state: State, params: Params) -> jax.Array:
        return self.inner.is_truncated(state, params) & (jnp.abs(state.position) < LIMIT)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return 1


def test_a_right_environment_passes() -> None:
    kit.check_environment(Walk(), params_of(), KEY, ignores_key=True)


def test_a_right_environment_on_gymnax_s_own_base_passes() -> None:
    kit.check_environment(Keyed(), params_of(), KEY)


# One environment or more for each check, broken in the one way that the check is there for


class WeakState(Walk):
    def reset_state(self, key, params):
        return super().reset_state(key, params).replace(time=0)


class GrowingObservation(Walk):
    def step_env(self, key, state, action, params):
        obs, *rest = super().step_env(key, state, action, params)
        return jnp.append(obs, 0.0), *rest


class IntegerReward(Walk):
    def advance(self, state, action, params):
        following, reward, terminated, info = super().advance(state, action, params)
        return following, reward.astype(jnp.int32), terminated, info


class WrongInfo(Walk):
    def step(self, key, state, action, params=None):
        *outcome, info = super().step(key, state, action, params)
        return *outcome, {**info, "truncated": info["terminated"]}


class NarrowSpace(Walk):
    def observation_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)


class FlatSpace(Walk):
    def observation_space(self, params=None):
        return spaces.Box(-5.0, 5.0, (), jnp.float32)


class NoDiscrete(spaces.Discrete):
    def contains(self, x):
        return x < 0


class OtherActions(Walk):
    def action_space(self, params=None):
        return NoDiscrete(2)


class Infinite(Walk):
    def advance(self, state, action, params):
        following, _, terminated, info = super().advance(state, action, params)
        return following, jnp.log(jnp.where(terminated, 0.0, 1.0)), terminated, info


class BothFlags(Walk):
    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        truncated = truncated | terminated
        return obs, state, reward, terminated, truncated, {**info, "truncated": truncated}


class Timeless(Walk):
    def is_truncated(self, state, params):
        return state.time >= 20


class Hasty(Walk):
    def is_truncated(self, state, params):
        return state.time >= params.max_steps_in_episode - 1


class NeverTruncated(Walk):
    def is_truncated(self, state, params):
        return jnp.bool_(False)


class LateObservation(Walk):
    """After a last step, the observation is still the old episode's."""

    def step(self, key, state, action, params=None):
        _, *outcome, info = super().step(key, state, action, params)
        return info["final_observation"], *outcome, info


class WrongFinalObservation(Walk):
    def step(self, key, state, action, params=None):
        obs, *outcome, info = super().step(key, state, action, params)
        return obs, *outcome, {**info, "final_observation": obs}


class WrongFinalState(Walk):
    def step(self, key, state, action, params=None):
        obs, state, *outcome, info = super().step(key, state, action, params)
        return obs, state, *outcome, {**info, "final_state": state}


class RunningClock(Walk):
    def restart(self, state, params):
        return super().restart(state, params).replace(time=jnp.int32(1))


class OtherStepEnv(Walk):
    def step_env(self, key, state, action, params):
        obs, state, reward, terminated, info = super().step_env(key, state, action, params)
        return obs, state, reward + 1.0, terminated, info


class UsesKey(Walk):
    def step(self, key, state, action, params=None):
        obs, state, reward, *rest = super().step(key, state, action, params)
        return obs, state, reward + jax.random.uniform(key), *rest


@jax.custom_batching.custom_vmap
def same(x):
    return x


@same.def_vmap
def _mixed(axis_size, in_batched, x):
    return jnp.roll(x, 1, axis=0), True


class Mixed(Walk):
    def advance(self, state, action, params):
        return super().advance(state.replace(position=same(state.position)), action, params)


class CompiledOnly(Walk):
    def advance(self, state, action, params):
        following, reward, terminated, info = super().advance(state, action, params)
        traced = isinstance(action, jax.core.Tracer)
        return following, reward + jnp.float32(traced), terminated, info


class Moody(Walk):
    def advance(self, state, action, params):
        following, reward, terminated, info = super().advance(state, action, params)
        mood = jax.pure_callback(
            lambda: np.float32(np.random.default_rng().random()), jnp.float32(0)
        )
        return following, reward + mood, terminated, info


class Identity(Walk):
    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


class Salted(Walk):
    __eq__ = Walk.__eq__
    __hash__ = object.__hash__


class ClosedOver(Walk):
    def observation(self, state, params):
        data = jnp.asarray(np.random.default_rng(0).random(4096, np.float32))
        return super().observation(state, params) + data[state.time]


@flax.struct.dataclass(kw_only=True)
class HeavyState(State):
    data: jax.Array


class DataInState(Walk):
    def reset_state(self, key, params):
        state = super().reset_state(key, params)
        fields = {name: getattr(state, name) for name in ("position", "time", "seed")}
        return HeavyState(**fields, data=params.data)

    def restart(self, state, params):
        begun = super().restart(state, params)
        return state.replace(position=begun.position, time=begun.time, seed=begun.seed)


BROKEN = [
    ("structure", WeakState, "state.time is"),
    ("structure", GrowingObservation, "step_env[0] is ((2,), 'float32', False) after reset"),
    ("scalars", IntegerReward, "reward is ('int32', ())"),
    ("scalars", WrongInfo, "info['truncated']"),
    ("spaces", NarrowSpace, "an observation is not in Box"),
    ("spaces", FlatSpace, "an observation is not in Box"),
    ("spaces", OtherActions, "sampled actions are not in Discrete"),
    ("finite", Infinite, "reward is not finite"),
    ("flags", BothFlags, "is both terminated and truncated"),
    ("clock", Timeless, "goes on after 16 steps"),
    ("clock", Hasty, "truncated before the limit"),
    ("clock", NeverTruncated, "after 16 steps"),
    ("reset", LateObservation, "obs of a reset"),
    ("reset", RunningClock, "state.time"),
    ("step_env", WrongFinalObservation, "final_observation"),
    ("step_env", WrongFinalState, "final_state.time differs"),
    ("step_env", OtherStepEnv, "step_env[0]"),
    ("key", UsesKey, "step['reward']"),
    ("batch", Mixed, "in a batch"),
    ("equality", Identity, "a copy is not equal"),
    ("equality", Salted, "a copy has another hash"),
    ("data", ClosedOver, "bytes of constants are in the program"),
    ("data", DataInState, "the state holds 16384 bytes of data"),
    ("compiled", CompiledOnly, "plain[1][2]"),
    ("deterministic", Moody, "again['reward']"),
]


@pytest.mark.parametrize(
    ("check", "broken", "message"), BROKEN, ids=[broken.__name__ for _, broken, _ in BROKEN]
)
def test_a_check_fails_on_what_it_is_there_for(check: str, broken: type, message: str) -> None:
    case = kit.Case(env=broken(), params=params_of(), key=KEY, ignores_key=True)
    with pytest.raises(AssertionError, match=re.escape(message)):
        kit.CHECKS[check](case)


def test_a_static_choice_among_the_parameters_is_compiled_anew() -> None:
    other = params_of(unit="foot")
    case = kit.Case(env=Walk(), params=params_of(), key=KEY, other_params=other)
    with pytest.raises(AssertionError, match="compiled anew for other values"):
        kit.CHECKS["retrace"](case)


def test_every_check_has_something_that_fails_it() -> None:
    assert {check for check, _, _ in BROKEN} | {"retrace"} == set(kit.CHECKS)


def test_the_failure_names_the_check() -> None:
    with pytest.raises(AssertionError, match=r"^clock: an episode goes on after 16 steps"):
        kit.check_environment(Timeless(), params_of(), KEY)


def test_a_key_may_be_used_where_nothing_else_is_promised() -> None:
    kit.CHECKS["key"](kit.Case(env=UsesKey(), params=params_of(), key=KEY))
