"""Networks: Flax modules over observations of several leaves.

The forward pass is plain `jnp` on the parameters, so that the exported graph, its derivative and
training share one definition. Inputs carry one leading batch axis: dense layers get rank 2.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dense(nn.Module):
    """Linear layers of several inputs [B, ...], one matrix each, added up: f32[B, features].

    Leaves are multiplied apart and never concatenated. Orthogonal initial weights times `scale`.
    """

    features: int
    scale: float = math.sqrt(2)

    @nn.compact
    def __call__(self, inputs: Any) -> jax.Array:
        """Sum of x W over the leaves of `inputs`, plus a bias."""
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        out = bias[None]
        leaves = jax.tree.leaves(inputs)
        orthogonal = nn.initializers.orthogonal(self.scale / math.sqrt(len(leaves)))
        for number, leaf in enumerate(leaves):
            flat = leaf.reshape(leaf.shape[0], -1)
            shape = (flat.shape[1], self.features)
            out = out + flat @ self.param(f"kernel_{number}", orthogonal, shape, jnp.float32)
        return out


class ActorCritic(nn.Module):
    """One tanh torso, a head of logits f32[B, num_actions] and one of values f32[B]."""

    num_actions: int
    hidden_sizes: tuple[int, ...] = (64, 64)

    @nn.compact
    def __call__(self, obs: Any) -> tuple[jax.Array, jax.Array]:
        """Logits and values of observations [B, ...]."""
        x = obs
        for number, size in enumerate(self.hidden_sizes):
            x = jnp.tanh(Dense(size, name=f"torso_{number}")(x))
        logits = Dense(self.num_actions, 0.01, name="actor")(x)
        return logits, Dense(1, 1.0, name="critic")(x)[:, 0]
