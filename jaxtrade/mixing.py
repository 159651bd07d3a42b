"""Random numbers out of a count: a hash, which needs no key."""

import jax
import jax.numpy as jnp

WEYL = 0x9E3779B9
"""An odd number near 2^32 over the golden ratio: its multiples spread evenly, and over them `mix`
draws like random.
"""


def mix(word: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3, u32 to u32, one to one."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)
