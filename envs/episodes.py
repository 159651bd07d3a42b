"""Where episodes begin and end: drawn from a counter in the state, see `mixing`."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray


def scale(draw: jax.Array, count: jax.Array) -> jax.Array:
    """floor(draw * count / 2**32), i32[] in 0 .. count - 1, from a u32 draw without 64 bits."""
    half, low = jnp.uint32(16), jnp.uint32(0xFFFF)
    size = count.astype(jnp.uint32)
    upper, lower = (draw >> half) * (size & low), (draw & low) * (size >> half)
    carry = (((draw & low) * (size & low)) >> half) + (upper & low) + (lower & low)
    high = (draw >> half) * (size >> half) + (upper >> half) + (lower >> half)
    return (high + (carry >> half)).astype(jnp.int32)


def possible_starts(
    spans: Sequence[tuple[int, int]],
    steps: int | None,
    weights: Sequence[float] | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Every row i32[S] at which an episode may begin, and the row i32[S] at which its data end.

    spans: first and last row of each market; steps: of an episode, None for all of a market, from
    its first row; weights: how often each market is drawn, by default as it has rows to begin at;
    allowed: bool[T], rows that may begin one. Weights are kept by repeating rows, or leaving some
    out of a long market that is to be drawn seldom, to within one part in some thousand.
    """
    starts = []
    for first, last in spans:
        rows = np.arange(first, first + 1 if steps is None else max(last - steps, first) + 1)
        starts.append(rows if allowed is None else rows[allowed[rows]])
    if weights is not None:
        share = (np.asarray(weights, np.float64) / np.sum(weights)).tolist()
        pairs = list(zip(starts, share, strict=True))
        enough = max(len(rows) / part for rows, part in pairs if part)
        total = max(min(enough, 8 * sum(map(len, starts))), 2_000)
        starts = [_as_often(rows, round(part * total)) for rows, part in pairs]
    ends = [np.full(len(rows), last) for rows, (_, last) in zip(starts, spans, strict=True)]
    return np.concatenate(starts).astype(np.int32), np.concatenate(ends).astype(np.int32)


def _as_often(rows: NDArray[np.int_], count: int) -> NDArray[np.int_]:
    """As many of some rows: each as often as the others or, of too many, evenly spaced ones."""
    return rows[np.arange(count) * len(rows) // max(count, 1)] if len(rows) else rows
