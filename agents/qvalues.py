"""Action values: how actions of one or several branches read them, and targets for them.

Values are f32[B, K, num_outputs]: K quantiles of the return of each action, or K = 1, its mean; the
actions lie as the head reads them, one branch after the other. The value of a joint action is the
mean over its branches (Tavakoli et al. 2018).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.agents.distributions import Categorical, Head, MultiCategorical
from jaxtrade.specs import JaxtradeError


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


def split(outputs: jax.Array, counts: tuple[int, ...]) -> list[jax.Array]:
    """What belongs to each branch, [..., count] of [..., sum(counts)]."""
    return jnp.split(outputs, np.cumsum(counts)[:-1].tolist(), axis=-1)


def greedy_value(outputs: jax.Array, counts: tuple[int, ...]) -> jax.Array:
    """The mean over branches of the best value, f32[...] of f32[..., sum(counts)]."""
    best = [part.max(axis=-1) for part in split(outputs, counts)]
    return jnp.stack(best).mean(axis=0)


def taken(values: jax.Array, action: jax.Array, counts: tuple[int, ...]) -> jax.Array:
    """The values of the actions taken, f32[B, K, branches]; action: i32[B] or i32[B, branches]."""
    first = jnp.asarray((0, *np.cumsum(counts)[:-1].tolist()), jnp.int32)
    place = action.reshape(-1, 1, len(counts), 1) + first[:, None]
    # A sum of one and zeros: faster here than a gather, and so is its gradient.
    is_taken = place == jnp.arange(values.shape[2], dtype=jnp.int32)
    return jnp.where(is_taken, values[:, :, None, :], 0.0).sum(axis=3)


def explore(head: Head, outputs: jax.Array, epsilon: jax.Array, key: jax.Array) -> jax.Array:
    """The best actions of values f32[N, num_outputs], each instead, with probability `epsilon`
    f32[], one of all actions.
    """
    coin_key, action_key = jax.random.split(key)
    any_action = head.uniform(outputs, action_key)
    best = head.mode(outputs)
    coin = jax.random.uniform(coin_key, outputs.shape[:1]) < epsilon
    return jnp.where(coin.reshape(-1, *(1,) * (best.ndim - 1)), any_action, best)


def q_target(
    reward: jax.Array,
    discount: jax.Array,
    values: jax.Array,
    action: jax.Array,
    counts: tuple[int, ...],
) -> jax.Array:
    """What n steps are worth, f32[B, K]: their reward f32[B], and then the action i32[B, ...].

    values: f32[B, K, sum(counts)], the target network's of what the steps led to; discount: f32[B].
    The action is the online network's best (double Q-learning, van Hasselt et al. 2016) or the
    target network's own.
    """
    following = taken(values, action, counts).mean(axis=2)
    return reward[:, None] + discount[:, None] * following
