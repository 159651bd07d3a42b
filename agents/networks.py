"""Networks: a torso and its heads, as Flax modules over observations of several leaves."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrade.agents.torsos import Dense, Torso


class Policy(nn.Module):
    """A torso and a head of outputs f32[B, num_outputs]."""

    torso: Torso
    num_outputs: int

    @nn.compact
    def __call__(self, obs: Any, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Outputs and the next memory of observations [B, ...]."""
        x, hidden = self.torso(obs, hidden)
        return Dense(self.num_outputs, 0.01, name="actor")(x), hidden


class ActorCritic(nn.Module):
    """One torso, a head of outputs f32[B, num_outputs] and one of values f32[B]."""

    torso: Torso
    num_outputs: int

    @nn.compact
    def __call__(
        self, obs: Any, hidden: jax.Array, begins: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Outputs, values and the next memory of observations [B, ...]; `begins` as in `Torso`."""
        x, hidden = self.torso(obs, hidden, begins)
        outputs = Dense(self.num_outputs, 0.01, name="actor")(x)
        return outputs, Dense(1, 1.0, name="critic")(x)[:, 0], hidden


def no_memory(obs: Any) -> jax.Array:
    """The memory f32[B, 0] of a network that has none, for observations [B, ...]."""
    return jnp.zeros((jax.tree.leaves(obs)[0].shape[0], 0), jnp.float32)


def dead_units(network: nn.Module, params: Any, *inputs: Any) -> jax.Array:
    """The share of a network's torso units that do nothing for a batch of inputs, f32[].

    That is, for every row, a relu at 0, a tanh beyond 0.99 either way, a silu near 0.
    """
    _, sown = network.apply(params, *inputs, mutable=["units"])
    idle = [layer.reshape(-1) for layer in jax.tree.leaves(sown)]
    return jnp.concatenate(idle or [jnp.zeros(1)]).astype(jnp.float32).mean()
