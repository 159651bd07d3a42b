"""Wrappers: an environment made of another, in the same interface."""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxtrade.envs.base import Environment, Info


@dataclasses.dataclass(frozen=True)
class FlattenObservation(Environment[Any, Any]):
    """An environment that shows one vector, for clients that want no tree.

    Observation: f32[n], `market` row by row, then `account`; so is `final_observation` in `info`.
    Everything else is the wrapped environment's: states, parameters, actions, rewards, ends.

    Networks here need no such vector, and building it costs: the two leaves are gathered apart and
    multiplied apart.

    Usage:
        env = FlattenObservation(env)
        obs, state = env.reset(key, params)  # obs: f32[n]
    """

    env: Environment[Any, Any]

    def reset_state(self, key: jax.Array, params: Any) -> Any:
        """The state at the start of a first episode."""
        return self.env.reset_state(key, params)

    def restart(self, state: Any, params: Any) -> Any:
        """The state at the start of the next episode."""
        return self.env.restart(state, params)

    def advance(
        self, state: Any, action: jax.Array, params: Any
    ) -> tuple[Any, jax.Array, jax.Array, Info]:
        """One step without observing."""
        return self.env.advance(state, action, params)

    def observation(self, state: Any, params: Any) -> jax.Array:
        """What an agent sees in this state, f32[n]."""
        obs = self.env.observation(state, params)
        return _join({"market": obs.market, "account": obs.account})

    def observation_space(self, params: Any = None) -> spaces.Box:
        """The bounds of the two leaves, in the order of the vector."""
        parts = self.env.observation_space(params).spaces
        low = _join({name: jnp.broadcast_to(box.low, box.shape) for name, box in parts.items()})
        high = _join({name: jnp.broadcast_to(box.high, box.shape) for name, box in parts.items()})
        return spaces.Box(low, high, low.shape, jnp.float32)

    def action_space(self, params: Any = None) -> spaces.Space:
        """The wrapped environment's actions."""
        return self.env.action_space(params)

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        """The clock has run out, or the data has."""
        return self.env.is_truncated(state, params)

    def is_terminated(self, state: Any, params: Any) -> jax.Array:
        """Ruin."""
        return self.env.is_terminated(state, params)

    @property
    def supports_transition_gradients(self) -> bool:
        """Whether the wrapped environment's step can be differentiated."""
        return self.env.supports_transition_gradients

    @property
    def transition_gradients_enabled(self) -> bool:
        """Whether its observations and states keep their gradients."""
        return self.env.transition_gradients_enabled

    def with_transition_gradients(self) -> Self:
        """The same, whose observations and states keep their gradients."""
        return dataclasses.replace(self, env=self.env.with_transition_gradients())

    @property
    def default_params(self) -> Any:
        """The wrapped environment's default parameters."""
        return self.env.default_params

    @property
    def name(self) -> str:
        """The wrapped environment's name."""
        return self.env.name

    @property
    def num_actions(self) -> int:
        """Number of actions."""
        return self.env.num_actions


def _join(leaves: dict[str, jax.Array]) -> jax.Array:
    """The vector f32[n] of the two leaves: `market` in row-major order, then `account`."""
    return jnp.concatenate([leaves["market"].reshape(-1), leaves["account"].reshape(-1)])
