"""Many random numbers at once, by a hash of a counter.

`jax.random` loops over the rounds of its cipher, and on a processor every round of a loop costs
more than the numbers themselves; here they come of one pass. For what training draws in each of its
steps; not for making keys.
"""

import math

import jax
import jax.numpy as jnp

from jaxtrade.mixing import WEYL, mix


def bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Whole numbers u32[*shape], all alike."""
    first, second = jax.random.bits(key, (2,))
    count = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return mix(mix(count * jnp.uint32(WEYL) + first) ^ second)
