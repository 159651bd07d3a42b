"""Action values: their network, and how actions of one or several branches read them.

Values are f32[B, K, num_outputs]: K quantiles of the return of each action, or K = 1, its mean; the
actions lie as the head reads them, one branch after the other. The value of a joint action is the
mean over its branches (Tavakoli et al. 2018).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.agents.distributions import Categorical, Head, MultiCategorical
from jaxtrade.agents.networks import Dense, Torso
from jaxtrade.specs import JaxtradeError


class QNetwork(nn.Module):
    """A torso, and the values of the actions in each branch.

    dueling: they are a common value plus advantages whose mean over a branch is 0 (Wang et al.
    2016). num_quantiles: 0 for one mean instead.
    """

    torso: Torso
    counts: tuple[int, ...]
    dueling: bool = True
    num_quantiles: int = 0

    @nn.compact
    def __call__(self, obs: Any, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Values f32[B, K, sum(counts)] and the next memory of observations [B, ...]."""
        x, hidden = self.torso(obs, hidden)
        depth, width = max(self.num_quantiles, 1), sum(self.counts)
        values = Dense(depth * width, 0.01, name="advantage")(x).reshape(-1, depth, width)
        if self.dueling:
            parts = jnp.split(values, _bounds(self.counts), axis=2)
            parts = [part - part.mean(axis=2, keepdims=True) for part in parts]
            common = Dense(depth, 0.01, name="value")(x)
            values = common[:, :, None] + jnp.concatenate(parts, axis=2)
        return values, hidden


def branch_counts(head: Head) -> tuple[int, ...]:
    """How many actions each branch of a head has.

    Raises:
        JaxtradeError: its actions are no indices.
    """
    if isinstance(head, Categorical):
        return (head.num_actions,)
    if isinstance(head, MultiCategorical):
        return head.counts
    raise JaxtradeError(f"action values need actions that are indices, these are {head}")


def greedy_value(outputs: jax.Array, counts: tuple[int, ...]) -> jax.Array:
    """The mean over branches of the best value, f32[...] of f32[..., sum(counts)]."""
    parts = jnp.split(outputs, _bounds(counts), axis=-1)
    return jnp.stack([part.max(axis=-1) for part in parts]).mean(axis=0)


def taken(values: jax.Array, action: jax.Array, counts: tuple[int, ...]) -> jax.Array:
    """The values of the actions taken, f32[B, K, branches]; action: i32[B] or i32[B, branches]."""
    first = jnp.asarray((0, *_bounds(counts)), jnp.int32)
    place = action.reshape(action.shape[0], 1, len(counts)) + first
    place = jnp.broadcast_to(place, (*values.shape[:2], len(counts)))
    return jnp.take_along_axis(values, place, axis=2)


def explore(head: Head, outputs: jax.Array, epsilon: jax.Array, key: jax.Array) -> jax.Array:
    """The best actions of values f32[N, num_outputs], each instead, with probability `epsilon`
    f32[], one of all actions.
    """
    coin_key, action_key = jax.random.split(key)
    any_action, _ = head.sample(jnp.zeros_like(outputs), action_key)
    best = head.mode(outputs)
    coin = jax.random.uniform(coin_key, outputs.shape[:1]) < epsilon
    return jnp.where(coin.reshape(-1, *(1,) * (best.ndim - 1)), any_action, best)


def _bounds(counts: tuple[int, ...]) -> list[int]:
    """Where each branch but the first begins."""
    return np.cumsum(counts)[:-1].tolist()
