"""Networks: Flax modules over observations of several leaves.

The forward pass is plain `jnp` on the parameters, so that the exported graph, its derivative and
training share one definition. Inputs carry one leading batch axis: dense layers get rank 2. What a
network remembers is f32[B, H]; H is 0 where it remembers nothing.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


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


class Torso(nn.Module):
    """Dense layers: observations [B, ...] to f32[B, hidden_sizes[-1]]."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"

    @nn.compact
    def __call__(self, obs: Any, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the heads see, and the memory after it."""
        x = obs
        for number, size in enumerate(self.hidden_sizes):
            x = ACTIVATIONS[self.activation](Dense(size, name=f"torso_{number}")(x))
        return x, hidden


class ActorCritic(nn.Module):
    """One torso, a head of outputs f32[B, num_outputs] and one of values f32[B]."""

    torso: Torso
    num_outputs: int

    @nn.compact
    def __call__(self, obs: Any, hidden: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Outputs, values and the next memory of observations [B, ...]."""
        x, hidden = self.torso(obs, hidden)
        outputs = Dense(self.num_outputs, 0.01, name="actor")(x)
        return outputs, Dense(1, 1.0, name="critic")(x)[:, 0], hidden
