"""Random arrays, drawn by NumPy: at once, where JAX compiles a program for each shape."""

import jax
import jax.numpy as jnp
import numpy as np


def normal(*shape, seed=0):
    """Standard normal numbers, f32."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def uniform(*shape, seed=0):
    """Numbers from 0 to below 1, f32."""
    return jnp.asarray(np.random.default_rng(seed).random(shape, np.float32))


def parameters(module, *inputs, seed=0):
    """Parameters in the shapes of a Flax module's own: normal, over the root of the last axis."""
    generator = np.random.default_rng(seed)

    def draw(leaf):
        scale = leaf.shape[-1] ** -0.5 if leaf.ndim else 1.0
        return jnp.asarray(scale * generator.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(draw, jax.eval_shape(module.init, jax.random.key(0), *inputs))
