"""What every environment here shares: the gymnax 1.x interface over a small state.

A subclass is a frozen dataclass of static choices, hashed by value, and says five things:
`reset_state`, `restart`, `advance`, `observation` and `is_truncated`. Resets happen on the state,
before anything is observed, so that a finished episode costs no second observation; and an
observation is a pure function of the state, so that a learner may keep states and observe later.
"""

import functools
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from gymnax.environments import environment

State = TypeVar("State", bound="environment.EnvState")
Params = TypeVar("Params", bound="environment.EnvParams")
Info = dict[str, Any]


class Environment(environment.Environment[State, Params], Generic[State, Params]):
    """A gymnax environment whose observation is a function of its state."""

    def reset_state(self, key: jax.Array, params: Params) -> State:
        """The state at the start of a first episode."""
        raise NotImplementedError

    def restart(self, state: State, params: Params) -> State:
        """The state at the start of the next episode; draws from the state's own counter."""
        raise NotImplementedError

    def advance(
        self, state: State, action: jax.Array, params: Params
    ) -> tuple[State, jax.Array, jax.Array, Info]:
        """One step without observing: the next state, reward f32[], terminated bool[], info."""
        raise NotImplementedError

    def observation(self, state: State, params: Params) -> Any:
        """What an agent sees in this state."""
        raise NotImplementedError

    @functools.partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: jax.Array, state: State, action: Any, params: Params | None = None
    ) -> tuple[Any, State, jax.Array, jax.Array, jax.Array, Info]:
        """One step with automatic reset; `key` is not used, episodes draw from their state.

        Returns (obs, state, reward, terminated, truncated, info). After a last step `obs` and
        `state` are those of the next episode; `info` holds `final_observation` and `final_state`
        of the step itself. At most one of `terminated` and `truncated` is set.
        """
        del key
        if params is None:
            params = self.default_params
        final, reward, terminated, info = self._advance(state, action, params)
        truncated = self.is_truncated(final, params) & ~terminated
        done = terminated | truncated
        following = jax.tree.map(
            lambda fresh, same: jnp.where(done, fresh, same), self.restart(final, params), final
        )
        info = {
            **info,
            "terminated": terminated,
            "truncated": truncated,
            "final_state": final,
            "final_observation": self.observation(final, params),
        }
        return self.observation(following, params), following, reward, terminated, truncated, info

    def step_env(
        self, key: jax.Array, state: State, action: Any, params: Params
    ) -> tuple[Any, State, jax.Array, jax.Array, Info]:
        """One step without reset: (obs, state, reward, terminated, info)."""
        del key
        state, reward, terminated, info = self._advance(state, action, params)
        return self.observation(state, params), state, reward, terminated, info

    def _advance(
        self, state: State, action: Any, params: Params
    ) -> tuple[State, jax.Array, jax.Array, Info]:
        """`advance`, whose state keeps its gradients only where they were asked for."""
        state, reward, terminated, info = self.advance(state, action, params)
        if not self.transition_gradients_enabled:
            state = jax.tree.map(jax.lax.stop_gradient, state)
        return state, reward, terminated, info

    def reset_env(self, key: jax.Array, params: Params) -> tuple[Any, State]:
        """A first episode: (obs, state)."""
        state = self.reset_state(key, params)
        return self.observation(state, params), state

    def observe(self, key: jax.Array, state: State, action: Any, params: Params) -> Any:
        """Gymnax's form of `observation`; `key` and `action` are not used."""
        del key, action
        return self.observation(state, params)
