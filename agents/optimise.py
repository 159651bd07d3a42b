"""Gradient steps: Adam on clipped gradients, with a learning rate that may change in training."""

from typing import Any

import jax
import optax


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
    updates, state = optimiser(max_grad_norm).update(grads, state, params)
    updates = jax.tree.map(lambda update: -learning_rate * update, updates)
    return optax.apply_updates(params, updates), state, optax.tree.norm(grads)


def linear(progress: jax.Array, first: Any, last: Any, *, over: Any = 1.0) -> jax.Array:
    """From `first` to `last` over the fraction `over` of the training, then `last`."""
    return optax.linear_schedule(first, last, 1)(progress / over)
