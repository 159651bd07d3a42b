"""Gradient steps: Adam on clipped gradients, with a learning rate that may change in training."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import flax.struct
import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from jaxtrade.agents.distributions import Head
from jaxtrade.agents.normalise import RewardScale, init_reward_scale
from jaxtrade.agents.types import Actor, Metrics

L = TypeVar("L", bound=Any)


@flax.struct.dataclass(kw_only=True)
class Learner:
    """What agents keep that learn from their last rollout alone. actor: all that learns; optimiser:
    Adam's state; reward_scale.
    """

    actor: Actor
    optimiser: Any
    reward_scale: RewardScale


def on_policy_learner(agent: Any, params: Any, head: Head) -> Learner:
    """Before training; agent: its settings."""
    return Learner(
        actor=Actor(params=params, head=head),
        optimiser=optimiser(agent.max_grad_norm).init(params),
        reward_scale=init_reward_scale(agent.num_envs),
    )


def optimiser(max_grad_norm: Any) -> optax.GradientTransformation:
    """Clip by the global norm, then Adam, all in one vector: a few operations instead of as many a
    leaf. The learning rate, being traced, is applied by `descend`.
    """
    return optax.flatten(
        optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.scale_by_adam(eps=1e-5))
    )


def descend(
    params: Any, state: Any, grads: Any, *, learning_rate: Any, max_grad_norm: Any
) -> tuple[Any, Any, jax.Array]:
    """One step: the parameters, the optimiser's state, and the gradients' norm before clipping."""
    flat, unravel = jax.flatten_util.ravel_pytree(grads)
    updates, state = optimiser(max_grad_norm).update(flat, state)
    moves = unravel(-learning_rate * updates)
    return optax.apply_updates(params, moves), state, optax.tree.norm(flat)


def improve(
    learner: L, grads: Any, *, learning_rate: Any, max_grad_norm: Any
) -> tuple[L, jax.Array]:
    """`descend` for a learner whose `actor` is all that learns, with its `optimiser`."""
    params, state, grad_norm = descend(
        learner.actor.params,
        learner.optimiser,
        grads,
        learning_rate=learning_rate,
        max_grad_norm=max_grad_norm,
    )
    actor = dataclasses.replace(learner.actor, params=params)
    return dataclasses.replace(learner, actor=actor, optimiser=state), grad_norm


def linear(progress: jax.Array, first: Any, last: Any, *, over: Any = 1.0) -> jax.Array:
    """From `first` to `last` over the fraction `over` of the training, then `last`."""
    return optax.linear_schedule(first, last, 1)(progress / over)


def shuffles(key: jax.Array, size: int, count: int) -> jax.Array:
    """`count` orders of the numbers below `size`, i32[count, size], to be cut into minibatches.

    Numbers are sorted together with as many random bits above them as a word has room for: a
    fraction of the cost of an argsort. Where bits are equal, the lower comes first.
    """
    bits = max(size - 1, 1).bit_length()
    words = jax.random.bits(key, (count, size)) << bits | jnp.arange(size, dtype=jnp.uint32)[None]
    return (jnp.sort(words, axis=1) & ((1 << bits) - 1)).astype(jnp.int32)


def descend_until(
    step: Callable[[Any, jax.Array], tuple[Any, Metrics]],
    learner: Any,
    orders: jax.Array,
    *,
    metric: str,
    limit: Any,
) -> tuple[Any, Metrics]:
    """`step(learner, rows)` for one minibatch after the other, rows i32[B] of `orders` i32[M, B].

    After one whose `metric` is above `limit` there are no more. Returns the learner, and the means
    of the metrics over those that there were, `minibatches`.
    """
    step = jax.jit(step)  # so that its shapes and the loop's body come from one tracing
    _, shapes = jax.eval_shape(step, learner, orders[0])
    sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def goes_on(carry: tuple[jax.Array, jax.Array, Any, Metrics]) -> jax.Array:
        number, is_over, _, _ = carry
        return (number < len(orders)) & ~is_over

    def forward(carry: tuple[jax.Array, jax.Array, Any, Metrics]) -> Any:
        number, _, learner, sums = carry
        learner, metrics = step(learner, orders[number])
        sums = jax.tree.map(jnp.add, sums, metrics)
        return number + 1, metrics[metric] > limit, learner, sums

    start = (jnp.int32(0), jnp.bool_(False), learner, sums)
    count, _, learner, sums = jax.lax.while_loop(goes_on, forward, start)
    minibatches = count.astype(jnp.float32)
    means = jax.tree.map(lambda x: x / minibatches, sums)
    return learner, {**means, "minibatches": minibatches}
