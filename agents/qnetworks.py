"""Networks of action values; see `qvalues` for how these lie and are read."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrade.agents.qvalues import split
from jaxtrade.agents.torsos import Dense, Torso


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
            parts = split(values, self.counts)
            parts = [part - part.mean(axis=2, keepdims=True) for part in parts]
            common = Dense(depth, 0.01, name="value")(x)
            values = common[:, :, None] + jnp.concatenate(parts, axis=2)
        return values, hidden
