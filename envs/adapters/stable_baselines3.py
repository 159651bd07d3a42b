"""Many environments for Stable-Baselines3: its own form of a vector environment."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxtrade.envs.adapters.gymnasium import GymnasiumVectorEnv
from jaxtrade.envs.base import Environment

try:
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as error:
    raise ImportError(
        "jaxtrade.envs.adapters.stable_baselines3 needs the package stable-baselines3: "
        "pip install 'stable-baselines3>=2.9,<3'"
    ) from error

Indices = None | int | Iterable[int]


class StableBaselines3VecEnv(VecEnv):
    """N environments in one compiled step, each beginning its next episode by itself.

    Observation: f32[N, n]; without `flatten` a dictionary, for "MultiInputPolicy". Infos: one
    dictionary each, empty but after a last step, where `terminal_observation` is the step's own
    observation, and `TimeLimit.truncated` tells a truncated episode, which Stable-Baselines3's
    on-policy algorithms then bootstrap, from a ruined one. Returns are reported with its
    `VecMonitor`. A single environment needs no more than `GymnasiumEnv(..., flatten=True)`.

    Usage:
        envs = VecMonitor(StableBaselines3VecEnv(env, params, num_envs=64))
        model = stable_baselines3.PPO("MlpPolicy", envs, seed=0).learn(100_000)
    """

    def __init__(
        self,
        env: Environment[Any, Any],
        params: Any,
        num_envs: int,
        *,
        flatten: bool = True,
        seed: int | None = None,
    ) -> None:
        self.envs = GymnasiumVectorEnv(env, params, num_envs, flatten=flatten, seed=seed)
        self._actions: Any = None
        spaces = self.envs.single_observation_space, self.envs.single_action_space
        super().__init__(num_envs, *spaces)

    def reset(self) -> Any:
        """The next episodes; the first ones of other sequences after `seed`."""
        seeds = [each for each in self._seeds if each is not None]
        obs, _ = self.envs.reset(seed=seeds or None)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions i64[N] for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One step of all: (obs, rewards f32[N], done bool[N], infos)."""
        obs, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        done = terminated | truncated
        each: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(done):
            each[index]["terminal_observation"] = infos["final_obs"][index]
            each[index]["TimeLimit.truncated"] = bool(truncated[index])
        return obs, rewards.astype(np.float32), done, each

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute of the vector environment, which all share, once for each."""
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Refused: there is one program, not N objects."""
        raise NotImplementedError("one program runs all environments: none has attributes to set")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refused: there is one program, not N objects."""
        raise NotImplementedError("one program runs all environments: none has methods to call")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """No environment is wrapped by itself."""
        return [False for _ in self._get_indices(indices)]
