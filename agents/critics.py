"""Networks of agents that keep policy and critics apart, and targets that follow slowly."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrade.agents.torsos import Dense, Torso

NUM_CRITICS = 2


class Policy(nn.Module):
    """A torso and a head of outputs f32[B, num_outputs]."""

    torso: Torso
    num_outputs: int

    @nn.compact
    def __call__(self, obs: Any) -> jax.Array:
        """Outputs for observations [B, ...]."""
        return Dense(self.num_outputs, 0.01, name="policy")(_features(self.torso, obs))


class Critic(nn.Module):
    """A torso and a head of values f32[B, num_values]."""

    torso: Torso
    num_values: int

    @nn.compact
    def __call__(self, inputs: Any) -> jax.Array:
        """Values of observations [B, ...], or of pairs of them and actions [B, ...]."""
        return Dense(self.num_values, 1.0, name="critic")(_features(self.torso, inputs))


def init_twins(critic: Critic, key: jax.Array, inputs: Any) -> tuple[Any, ...]:
    """Parameters of two critics, alike in all but their key."""
    return tuple(critic.init(each, inputs) for each in jax.random.split(key, NUM_CRITICS))


def twin_values(critic: Critic, params: tuple[Any, ...], inputs: Any) -> jax.Array:
    """What each critic says, f32[2, B, num_values].

    One after the other: a product of stacked matrices takes longer on a processor.
    """
    return jnp.stack([critic.apply(each, inputs) for each in params])


def follow(target: Any, params: Any, rate: Any) -> Any:
    """The target moved by the fraction `rate` of its way to the parameters."""
    return jax.tree.map(lambda old, new: old + rate * (new - old), target, params)


def _features(torso: Torso, inputs: Any) -> jax.Array:
    no_memory = jnp.zeros((jax.tree.leaves(inputs)[0].shape[0], 0), jnp.float32)
    return torso(inputs, no_memory)[0]
