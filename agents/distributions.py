"""Categorical distributions given by logits f32[..., num_actions]."""

import jax
import jax.numpy as jnp


def sample(logits: jax.Array, key: jax.Array) -> jax.Array:
    """One draw each, i32[...]."""
    return jax.random.categorical(key, logits).astype(jnp.int32)


def mode(logits: jax.Array) -> jax.Array:
    """The most probable action, the first of equals, i32[...]."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    """Log probability of actions i32[...], f32[...]."""
    logs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(logs, action[..., None], axis=-1)[..., 0]


def entropy(logits: jax.Array) -> jax.Array:
    """In nats, f32[...]."""
    logs = jax.nn.log_softmax(logits)
    return -(jnp.exp(logs) * logs).sum(axis=-1)
