"""Critics of agents that keep them apart from the policy, and targets that follow slowly."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrade.agents.networks import no_memory
from jaxtrade.agents.torsos import Dense, Torso

NUM_CRITICS = 2


class Critic(nn.Module):
    """A torso and a head of values f32[B, num_values]."""

    torso: Torso
    num_values: int

    @nn.compact
    def __call__(self, inputs: Any) -> jax.Array:
        """Values of observations [B, ...], or of pairs of them and actions [B, ...]."""
        x, _ = self.torso(inputs, no_memory(inputs))
        return Dense(self.num_values, 1.0, name="critic")(x)


def init_twins(critic: Critic, key: jax.Array, inputs: Any) -> tuple[Any, ...]:
    """Parameters of two critics, alike in all but their key."""
    return tuple(critic.init(each, inputs) for each in jax.random.split(key, NUM_CRITICS))


def twin_values(critic: Critic, params: tuple[Any, ...], inputs: Any) -> jax.Array:
    """What each critic says, f32[2, B, num_values].

    One after the other: a product of stacked matrices takes longer on a processor.
    """
    values: list[Any] = [critic.apply(each, inputs) for each in params]
    return jnp.stack(values)


def follow(target: Any, params: Any, rate: Any) -> Any:
    """The target moved by the fraction `rate` of its way to the parameters."""
    return jax.tree.map(lambda old, new: old + rate * (new - old), target, params)
