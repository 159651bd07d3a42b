"""Many random numbers at once, by a hash of a counter.

`jax.random` loops over the rounds of its cipher, and on a processor every round of a loop costs
more than the numbers themselves; here they come of one pass. For what training draws in each of its
steps; not for making keys.
"""

import math

import jax
import jax.numpy as jnp

WEYL = 0x9E3779B9
"""An odd number near 2^32 over the golden ratio: its multiples spread evenly."""


def bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Whole numbers u32[*shape], all alike."""
    first, second = jax.random.bits(key, (2,))
    count = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return _mix(_mix(count * jnp.uint32(WEYL) + first) ^ second)


def _mix(word: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3, u32 to u32, one to one."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)
