"""Masks of actions: which choices an environment allows, beside what an agent observes."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from jaxtrade.agents.distributions import Head
from jaxtrade.agents.types import ObservesState
from jaxtrade.specs import JaxtradeError


class Masked(NamedTuple):
    """An observation; allowed: bool[..., num_outputs], which of the head's choices there are."""

    obs: Any
    allowed: jax.Array


@runtime_checkable
class MasksActions(Protocol):
    """An agent that may want to be shown `Masked` observations."""

    @property
    def mask_actions(self) -> bool:
        """Whether it does."""


@runtime_checkable
class OffersMasks(ObservesState, Protocol):
    """An environment that knows of each state what can be done in it."""

    def action_mask(self, state: Any, params: Any) -> jax.Array:
        """The allowed actions, bool[num_outputs]."""


def show(agent: Any, env: Any, env_params: Any, obs: Any, env_state: Any) -> Any:
    """What an agent acts on, of observations [B, ...] and the states they are of."""
    if not (isinstance(agent, MasksActions) and agent.mask_actions):
        return obs
    return Masked(obs, jax.vmap(env.action_mask, in_axes=(0, None))(env_state, env_params))


def unmask(obs: Any) -> tuple[Any, jax.Array | None]:
    """What was observed, and the mask, None where there is none."""
    return obs if isinstance(obs, Masked) else (obs, None)


def require_masks(env: Any, env_params: Any, head: Head) -> None:
    """Raise JaxtradeError if an environment offers no masks of this head's outputs."""
    wrong = f"mask_actions: {env.name} offers no mask of its actions"
    if not isinstance(env, OffersMasks):
        raise JaxtradeError(wrong)
    mask = jax.eval_shape(
        lambda: env.action_mask(env.reset(jax.random.key(0), env_params)[1], env_params)
    )
    if mask.shape != (head.num_outputs,):
        raise JaxtradeError(f"{wrong}: {mask.shape} is not ({head.num_outputs},)")
