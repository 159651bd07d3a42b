"""Our environments as gymnasium 1.x environments: one at a time, or many in one vmapped step.

A seed decides a whole sequence of episodes: `reset(seed=s)` draws the first, and each later one
follows from the state, whether `reset()` asks for it or a vector environment begins it by itself.
Environment i of a vector environment reset with seed s plays what a single one with s + i plays.

Importing this file registers every environment of ours with gymnasium, as `jaxtrade/<name>`:

    gymnasium.make("jaxtrade/Trading-v0", market=market, window=32)
    gymnasium.make_vec("jaxtrade/Trading-v0", num_envs=64, market=market)
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np
from flax.serialization import to_state_dict
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from gymnax.environments.spaces import gymnax_space_to_gym_space as to_gymnasium_space

from jaxtrade import envs
from jaxtrade.envs.base import Environment, Info
from jaxtrade.envs.wrappers import FlattenObservation
from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError

REPEATED = ("terminated", "truncated", "final_state", "final_observation")
"""Keys of `info` that repeat a step's other results; gymnasium's infos go without."""


class GymnasiumEnv(gymnasium.Env[Any, Any]):
    """One environment, stepped from Python: NumPy in, NumPy out, no automatic reset.

    Observation: {"market": f32[W, F], "account": f32[k]}, or with `flatten` one vector f32[n], see
        `FlattenObservation`.
    Action: an element of `action_space`; JaxtradeError for anything else.
    Reward: float. `terminated` (ruin), `truncated` (clock or end of data): bool, never both.
    Info: that of the environment, structures as dictionaries, numbers as Python's, arrays as
        NumPy's; empty after a reset.

    `params` may be set to others of the same shapes at any time.

    Usage:
        env = GymnasiumEnv(*jaxtrade.make("Trading-v0", market=market), flatten=True, seed=0)
        obs, info = env.reset()
        obs, reward, terminated, truncated, info = env.step(2)
    """

    def __init__(
        self,
        env: Environment[Any, Any],
        params: Any,
        *,
        flatten: bool = False,
        seed: int | None = None,
    ) -> None:
        env = FlattenObservation(env) if flatten else env
        self.params = params
        self.observation_space = to_gymnasium_space(env.observation_space(params))
        self.action_space = to_gymnasium_space(env.action_space(params))
        self.metadata = {"render_modes": []}
        self._programs = _compiled(env)
        self._state: Any = None
        self._is_over = True
        if seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Info]:
        """The sequence's next episode; with a seed, the first of its sequence."""
        super().reset(seed=seed)
        if seed is None and self._state is not None:
            self._state, obs = self._programs.follow(self._state, self.params)
        else:
            self._state, obs = self._programs.begin(_draw(self.np_random), self.params)
        self._is_over = False
        return jax.tree.map(np.array, obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        """One step: (obs, reward, terminated, truncated, info).

        Raises:
            JaxtradeError: no such action, or the episode is over or not begun.
        """
        if self._is_over:
            raise JaxtradeError("step: no episode is running, call reset first")
        action = _checked(action, self.action_space)
        self._state, *outcome = self._programs.step(self._state, action, self.params)
        obs, reward, terminated, truncated, info = jax.tree.map(_plain, outcome)
        self._is_over = terminated or truncated
        return obs, reward, terminated, truncated, info


class GymnasiumVectorEnv(VectorEnv[Any, Any, Any]):
    """N environments in one compiled step, each beginning its next episode by itself.

    Observations: leaves [N, ...]. Rewards: f64[N]. `terminated`, `truncated`: bool[N]. Infos:
    leaves [N, ...], each key with the mask of the environments it holds for, `_key`, and absent
    where it holds for none.

    Autoreset mode SAME_STEP: the observation after a last step is the next episode's. The step's
    own is in `infos["final_obs"]` (an object array, None for the others) and its info in
    `infos["final_info"]` instead of `infos` itself.

    Usage:
        envs = GymnasiumVectorEnv(*jaxtrade.make("Trading-v0", market=market), 64, seed=0)
        obs, infos = envs.reset()
        obs, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
    """

    def __init__(
        self,
        env: Environment[Any, Any],
        params: Any,
        num_envs: int,
        *,
        flatten: bool = False,
        seed: int | None = None,
    ) -> None:
        if num_envs < 1:
            raise JaxtradeError(f"num_envs is {num_envs}: give 1 or more")
        env = FlattenObservation(env) if flatten else env
        self.params = params
        self.num_envs = num_envs
        self.single_observation_space = to_gymnasium_space(env.observation_space(params))
        self.single_action_space = to_gymnasium_space(env.action_space(params))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
        self._programs = _compiled_for_many(env)
        self._state: Any = None
        self._first_seed = seed

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, Info]:
        """The sequences' next episodes; with seeds, the first of theirs.

        seed: of environment 0, environment i has seed + i; or all N of them.

        Raises:
            JaxtradeError: not N seeds, or only some environments are to be reset.
        """
        if options and "reset_mask" in options:
            raise JaxtradeError("reset_mask: episodes begin by themselves here, reset all or none")
        if seed is None and self._state is not None:
            self._state, obs = self._programs.follow(self._state, self.params)
        else:
            seeds = self._seeds(self._first_seed if seed is None else seed)
            draws = np.array([_draw(seeding.np_random(each)[0]) for each in seeds])
            self._state, obs = self._programs.begin(draws, self.params)
        return jax.tree.map(np.array, obs), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Info]:
        """One step of all: (obs, rewards, terminated, truncated, infos).

        Raises:
            JaxtradeError: no such actions, or not reset yet.
        """
        if self._state is None:
            raise JaxtradeError("step: no episode is running, call reset first")
        actions = _checked(actions, self.action_space)
        self._state, final_obs, *outcome = self._programs.step(self._state, actions, self.params)
        obs, rewards, terminated, truncated, info = jax.tree.map(np.array, outcome)
        done = terminated | truncated
        infos = {} if done.all() else _with_masks(info, ~done)
        if done.any():
            infos |= _with_masks({"final_info": info}, done)
            infos |= {"final_obs": _rows(final_obs, done), "_final_obs": done}
        return obs, rewards.astype(np.float64), terminated, truncated, infos

    def _seeds(self, seed: int | Sequence[int] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        seeds = seed if isinstance(seed, Sequence) else range(seed, seed + self.num_envs)
        if len(seeds) != self.num_envs:
            raise JaxtradeError(f"{len(seeds)} seeds: give one for each of {self.num_envs}")

        return seeds


def make(env_id: str, *, market: Market, flatten: bool = False, **options: Any) -> GymnasiumEnv:
    """What `gymnasium.make("jaxtrade/<env_id>", ...)` calls; `options` are those of `envs.make`."""
    return GymnasiumEnv(*envs.make(env_id, market=market, **options), flatten=flatten)


def make_vec(
    env_id: str, *, num_envs: int, market: Market, flatten: bool = False, **options: Any
) -> GymnasiumVectorEnv:
    """What `gymnasium.make_vec("jaxtrade/<env_id>", num_envs, ...)` calls."""
    return GymnasiumVectorEnv(
        *envs.make(env_id, market=market, **options), num_envs, flatten=flatten
    )


for _name in envs.MAKERS:
    gymnasium.register(
        f"jaxtrade/{_name}",
        entry_point=f"{__name__}:make",
        vector_entry_point=f"{__name__}:make_vec",
        kwargs={"env_id": _name},
    )


# The compiled parts, shared by all equal environments


class _Programs(NamedTuple):
    """begin(draw u32[], params) and follow(state, params) give (state, obs); step: see below."""

    begin: Callable[..., Any]
    follow: Callable[..., Any]
    step: Callable[..., Any]


@functools.lru_cache(maxsize=32)
def _compiled(env: Environment[Any, Any]) -> _Programs:
    """`step`, without reset, gives (state, obs, reward, terminated, truncated, info)."""

    def step(state: Any, action: jax.Array, params: Any) -> tuple[Any, ...]:
        state, reward, terminated, info = env.advance(state, action, params)
        truncated = env.is_truncated(state, params) & ~terminated
        obs = env.observation(state, params)
        return state, to_state_dict(obs), reward, terminated, truncated, to_state_dict(info)

    return _Programs(*map(jax.jit, (*_episodes(env), step)))


@functools.lru_cache(maxsize=32)
def _compiled_for_many(env: Environment[Any, Any]) -> _Programs:
    """`step`, with reset, gives (state, final obs, obs, reward, terminated, truncated, info)."""
    unused_key = jax.random.key(0)

    def step(state: Any, action: jax.Array, params: Any) -> tuple[Any, ...]:
        obs, state, *outcome, info = env.step(unused_key, state, action, params)
        final_obs = to_state_dict(info["final_observation"])
        info = {name: value for name, value in info.items() if name not in REPEATED}
        return state, final_obs, to_state_dict(obs), *outcome, to_state_dict(info)

    axes = ((0, None), (0, None), (0, 0, None))
    functions = zip((*_episodes(env), step), axes, strict=True)
    return _Programs(*(jax.jit(jax.vmap(each, in_axes)) for each, in_axes in functions))


def _episodes(env: Environment[Any, Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """How a sequence of episodes begins, and how it goes on."""

    def begin(draw: jax.Array, params: Any) -> tuple[Any, Any]:
        state = env.reset_state(jax.random.key(draw), params)
        return state, to_state_dict(env.observation(state, params))

    def follow(state: Any, params: Any) -> tuple[Any, Any]:
        state = env.restart(state, params)
        return state, to_state_dict(env.observation(state, params))

    return begin, follow


# Between NumPy and JAX


def _draw(generator: np.random.Generator) -> np.uint32:
    """What a first episode is drawn from."""
    return generator.integers(2**32, dtype=np.uint32)


def _checked(action: Any, space: gymnasium.Space[Any]) -> np.ndarray:
    """The action as an array; JaxtradeError if the space does not hold it."""
    array = np.asarray(action)
    if array.dtype == np.float64 and isinstance(space, gymnasium.spaces.Box):
        array = array.astype(space.dtype)
    if not space.contains(array):
        raise JaxtradeError(f"action {action!r} is not in {space}")
    return array


def _plain(leaf: jax.Array) -> Any:
    """A Python number, or a NumPy array that may be written to."""
    return np.array(leaf) if leaf.ndim else leaf.item()


def _with_masks(info: Info, mask: np.ndarray) -> Info:
    """The keys of `info`, each with the mask of the environments it holds for."""
    result: Info = {}
    for name, value in info.items():
        result[name] = _with_masks(value, mask) if isinstance(value, dict) else value
        result[f"_{name}"] = mask
    return result


def _rows(obs: Any, mask: np.ndarray) -> np.ndarray:
    """The observations of the environments in the mask, each apart; None for the others."""
    chosen = jax.tree.map(lambda leaf: np.asarray(leaf)[mask], obs)
    rows = np.full(len(mask), None, dtype=object)
    for number, index in enumerate(np.flatnonzero(mask)):
        rows[index] = jax.tree.map(operator.itemgetter(number), chosen)
    return rows
