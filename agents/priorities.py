"""Numbers, one for each row of a replay, in proportion to which rows are drawn.

They lie in blocks; each level above holds the sums of the blocks below. What changes is summed anew
instead of corrected by differences, so that rounding does not add up over training.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp

FANOUT = 16


@flax.struct.dataclass(kw_only=True)
class Priorities:
    """levels: f32[blocks, FANOUT] each, first the numbers themselves (0 beyond their count), last
    one block; highest: f32[], ever given, which new rows get.
    """

    levels: tuple[jax.Array, ...]
    highest: jax.Array

    @property
    def total(self) -> jax.Array:
        """Sum of all, f32[]."""
        return self.levels[-1].sum()

    @property
    def flat(self) -> jax.Array:
        """The numbers themselves, f32[size] and some zeros."""
        return self.levels[0].reshape(-1)


def init_priorities(size: int) -> Priorities:
    """Zeros for `size` rows."""
    levels: list[jax.Array] = []
    while not levels or size > 1:
        size = math.ceil(size / FANOUT)
        levels.append(jnp.zeros((size, FANOUT), jnp.float32))
    return Priorities(levels=tuple(levels), highest=jnp.float32(1))


def put_new(priorities: Priorities, start: jax.Array, count: int) -> Priorities:
    """With the highest priority in `count` rows from `start` i32[]; they lie within the size."""
    values = jnp.broadcast_to(priorities.highest, (count,))
    levels = []
    for level in priorities.levels:
        # The blocks that so many neighbours touch, wherever they begin: read, changed, written.
        blocks = min((values.size + FANOUT - 2) // FANOUT + 1, level.shape[0])
        first = jnp.minimum(start // FANOUT, level.shape[0] - blocks)
        window = jax.lax.dynamic_slice(level, (first, 0), (blocks, FANOUT)).reshape(-1)
        window = jax.lax.dynamic_update_slice(window, values, (start - first * FANOUT,))
        window = window.reshape(blocks, FANOUT)
        levels.append(jax.lax.dynamic_update_slice(level, window, (first, 0)))
        start, values = first, window.sum(axis=1)
    return priorities.replace(levels=tuple(levels))  # type: ignore[attr-defined]


def put(priorities: Priorities, index: jax.Array, values: jax.Array) -> Priorities:
    """With values f32[B] in rows index i32[B]; of a row named twice, one of its values."""
    highest = jnp.maximum(priorities.highest, values.max())
    levels = []
    for level in priorities.levels:
        block = index // FANOUT
        level = level.at[block, index % FANOUT].set(values)
        levels.append(level)
        index, values = block, level[block].sum(axis=1)
    return Priorities(levels=tuple(levels), highest=highest)


def draw(
    priorities: Priorities, key: jax.Array, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Rows i32[*shape] drawn in proportion to their priorities, and with which probability.

    The last axis is stratified: each of its entries draws from its own equal part of the total
    (Schaul et al. 2016, section 3.3). Which of a block is taken, is drawn anew: a float32 tells
    apart the rows of a block, but not those of a million.
    """
    strata_key, last_key = jax.random.split(key)
    strata = jnp.arange(shape[-1], dtype=jnp.float32)
    share = (strata + jax.random.uniform(strata_key, shape)) / shape[-1]
    index = jnp.zeros(shape, jnp.int32)
    for number, level in reversed(list(enumerate(priorities.levels))):
        if number == 0 and len(priorities.levels) > 1:
            share = jax.random.uniform(last_key, shape)
        child, value, share = _pick(level[index], share)
        index = index * FANOUT + child
    return index, value / priorities.total


def _pick(block: jax.Array, share: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where a share of a block's sum lies: in which of its numbers, that number, and how far in it.

    block: f32[..., FANOUT], not all 0; share: f32[...], from 0 to 1. Never a number that is 0, no
    matter how the sums are rounded.
    """
    upto = jnp.triu(jnp.ones((FANOUT, FANOUT), jnp.float32))
    sums = jnp.where(block > 0, jnp.matmul(block, upto, precision="highest"), -jnp.inf)
    most = sums.max(axis=-1)
    point = jnp.minimum(share * most, jnp.nextafter(most, jnp.float32(0)))
    places = jnp.arange(FANOUT, dtype=jnp.int32)
    child = jnp.where(sums > point[..., None], places, FANOUT).min(axis=-1)
    value = jnp.take_along_axis(block, child[..., None], axis=-1)[..., 0]
    above = jnp.take_along_axis(sums, child[..., None], axis=-1)[..., 0]
    return child, value, jnp.clip(1.0 - (above - point) / value, 0.0, 1.0)
