"""Our environments in the interface of Stoix: `stoa.Environment` of the package stoa-env 0.1."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.serialization import to_state_dict
from gymnax.environments import spaces

from jaxtrade.envs.base import Environment

try:
    import stoa
    from stoa.env_adapters.base import AdapterStateWithKey
except ModuleNotFoundError as error:
    raise ImportError(
        "jaxtrade.envs.adapters.stoa needs the package stoa-env: pip install 'stoa-env>=0.1.2,<0.2'"
    ) from error


class StoaEnv(stoa.Environment):
    """One environment without automatic reset; Stoa's wrappers reset, batch and count.

    Observation: {"market": f32[W, F], "account": f32[k]}; most of Stoa's wrappers want one vector,
        so wrap the environment in `FlattenObservation` first.
    TimeStep: `step_type` TERMINATED for ruin, TRUNCATED for the clock or the end of data; discount
        f32[], 0 after ruin and 1 else, so that a truncated episode is bootstrapped from its last
        observation (`next_obs_in_extras=True` keeps it across a reset); `extras` is empty.
    State: the environment's, and the key that a reset by Stoa's wrappers draws from.

    Stoa passes parameters along as an argument, but its auto-reset wrappers leave them out, and so
    they are a constant of the program there: of the size of the market, once per compilation.

    Usage:
        env = StoaEnv(FlattenObservation(env), params)
        env = stoa.AutoResetWrapper(stoa.RecordEpisodeMetrics(env), next_obs_in_extras=True)
        env = VmapWrapper(env, num_envs)  # from stoa.core_wrappers.vmap
        state, timestep = env.reset(key)
        state, timestep = env.step(state, action)
    """

    def __init__(self, env: Environment[Any, Any], params: Any) -> None:
        super().__init__()
        self._env = env
        self._params = params

    def reset(self, rng_key: jax.Array, env_params: Any = None) -> tuple[Any, stoa.TimeStep]:
        """A first episode."""
        params = self._params if env_params is None else env_params
        reset_key, state_key = jax.random.split(rng_key)
        state = self._env.reset_state(reset_key, params)
        timestep = stoa.TimeStep(
            step_type=stoa.StepType.FIRST,
            reward=jnp.float32(0.0),
            discount=jnp.float32(1.0),
            observation=to_state_dict(self._env.observation(state, params)),
            extras={},
        )
        return AdapterStateWithKey(base_env_state=state, rng_key=state_key), timestep

    def step(
        self, state: Any, action: jax.Array, env_params: Any = None
    ) -> tuple[Any, stoa.TimeStep]:
        """One step; the key is not used, and stays."""
        params = self._params if env_params is None else env_params
        inner, reward, terminated, _ = self._env.advance(state.base_env_state, action, params)
        truncated = self._env.is_truncated(inner, params) & ~terminated
        ended = jnp.where(terminated, stoa.StepType.TERMINATED, stoa.StepType.TRUNCATED)
        timestep = stoa.TimeStep(
            step_type=jnp.where(terminated | truncated, ended, stoa.StepType.MID),
            reward=reward,
            discount=1.0 - terminated.astype(jnp.float32),
            observation=to_state_dict(self._env.observation(inner, params)),
            extras={},
        )
        return AdapterStateWithKey(base_env_state=inner, rng_key=state.rng_key), timestep

    def observation_space(self, env_params: Any = None) -> stoa.Space:
        """Bounds of what is observed."""
        params = self._params if env_params is None else env_params
        return to_stoa_space(self._env.observation_space(params))

    def action_space(self, env_params: Any = None) -> stoa.Space:
        """The environment's actions."""
        params = self._params if env_params is None else env_params
        return to_stoa_space(self._env.action_space(params))

    def state_space(self, env_params: Any = None) -> stoa.Space:
        """Not described, as in Stoa's own adapter of gymnax."""
        raise NotImplementedError("the space of states is not described: use observation_space")


def to_stoa_space(space: spaces.Space) -> stoa.Space:
    """Stoa's form of a gymnax space."""
    match space:
        case spaces.Discrete():
            return stoa.DiscreteSpace(num_values=space.n, dtype=space.dtype)
        case spaces.Box():
            return stoa.BoundedArraySpace(space.shape, space.dtype, space.low, space.high)
        case spaces.Dict():
            parts = space.spaces.items()
            return stoa.DictSpace({name: to_stoa_space(each) for name, each in parts})
        case spaces.Tuple():
            return stoa.TupleSpace([to_stoa_space(each) for each in space.spaces])
        case _:
            raise NotImplementedError(f"no Stoa form of the space {space}")
