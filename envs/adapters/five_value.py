"""The interface of gymnax before 1.0, spoken by rejax 0.1 and PureJaxRL: a step gives five values.

What is lost: `done` does not say whether an episode was ruined or merely cut off. Clients of this
interface take every end for the former and bootstrap with a value of zero, which is wrong for a
truncated episode: the value of its last state is not zero, and in these environments nearly every
episode ends so. rejax does this in PPO (`calculate_gae`) and DQN (`next_obs` is the next episode's,
masked by `done`), and so does PureJaxRL. The error fades with longer episodes (a share of about
1 / (steps * (1 - discount)) of the targets is touched) and cannot be mended from here: `info` keeps
what a client would need, `terminated`, `truncated` and `final_observation`.
"""

import dataclasses
from typing import Any

import jax
from gymnax.environments import spaces


@dataclasses.dataclass(frozen=True)
class FiveValue:
    """Any gymnax 1.x environment with `step -> obs, state, reward, done, info`.

    done: bool[], terminated or truncated; the next episode has then begun. Of `info` only the keys
    in `info_keys` are kept: PureJaxRL returns all of it for every step of a run, so there give
    `info_keys=()`. These clients want one vector: wrap the environment in `FlattenObservation`.

    Usage:
        env = FiveValue(FlattenObservation(env))
        algorithm = rejax.PPO.create(env=env, env_params=params, total_timesteps=100_000)
        train_state, (lengths, returns) = jax.jit(algorithm.train)(key)
    """

    env: Any
    info_keys: tuple[str, ...] = ("terminated", "truncated", "final_observation")

    def reset(self, key: jax.Array, params: Any = None) -> tuple[Any, Any]:
        """A first episode: (obs, state)."""
        return self.env.reset(key, params)

    def step(
        self, key: jax.Array, state: Any, action: Any, params: Any = None
    ) -> tuple[Any, Any, jax.Array, jax.Array, dict[str, Any]]:
        """One step with automatic reset: (obs, state, reward, done, info)."""
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        kept = {name: info[name] for name in self.info_keys}
        return obs, state, reward, terminated | truncated, kept

    def action_space(self, params: Any = None) -> spaces.Space:
        """The environment's actions."""
        return self.env.action_space(params)

    def observation_space(self, params: Any = None) -> spaces.Space:
        """The environment's observations."""
        return self.env.observation_space(params)

    @property
    def default_params(self) -> Any:
        """The environment's default parameters."""
        return self.env.default_params

    @property
    def name(self) -> str:
        """The environment's name."""
        return self.env.name

    @property
    def num_actions(self) -> int:
        """Number of actions."""
        return self.env.num_actions
