"""Several time frames at once: indicators on bars of a slower frame of the same market.

A feature name may carry a frame, `rsi@15m` or `ema_10@1d`: it is that indicator on slower bars, of
which only completed ones count. At each bar it shows the value after the last slow bar that ended
no later than this one.

A slow bar holds the bars that start within its frame. Frames are aligned to midnight UTC, weeks to
Monday. It is complete when a bar ends on or beyond its boundary; where bars are missing there, the
first bar that starts beyond it closes it. A frame without bars is no slow bar; where a market
begins within a frame, the first slow bar is of what it has.

What frame a bar is in follows from its clock row alone, so that the table's scan and the exported
graph need nothing else. Steps of more than ten days count as one bar there (`bars.clock_rows`): a
slow bar that such a break leaves open is closed by it, unless the next bar starts at the very place
in its frame where the missing one would have.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade import indicators
from jaxtrade.bars import DAY_SECONDS, WEEK_SECONDS, YEAR_SECONDS
from jaxtrade.indicators import Bar, Frame, Indicator
from jaxtrade.specs import JaxtradeError

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": DAY_SECONDS}


class _SlowBar(NamedTuple):
    """A slow bar in the making, as rows of the carry, each f32[A].

    Prices are over the close of the slow bar before, minus one. `position`: seconds from the start
    of its frame to the start of its last bar; `elapsed`: from the start of the slow bar before to
    its own, never less than the frame.
    """

    open: jax.Array
    high: jax.Array
    low: jax.Array
    close: jax.Array
    volume: jax.Array
    position: jax.Array
    elapsed: jax.Array


def split_name(name: str) -> tuple[str, int]:
    """A feature's name without its frame, and the frame in seconds, 0 where it has none.

    Raises:
        JaxtradeError: what follows the @ is no frame.
    """
    base, at, label = name.partition("@")
    if not at:
        return name, 0
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", label)
    if not match:
        raise JaxtradeError(
            f"feature {name!r}: {label!r} is no frame: give a number and s, m, h or d, like "
            f"{base}@15m"
        )
    return base, int(match[1]) * UNITS[match[2]]


def frame_label(seconds: int) -> str:
    """A frame as it is written in a name: 900 is 15m."""
    unit = max((unit for unit in UNITS if seconds % UNITS[unit] == 0), key=UNITS.__getitem__)
    return f"{seconds // UNITS[unit]}{unit}"


def check_frame(frame_seconds: int, bar_seconds: int) -> None:
    """Whether bars of one length make up bars of another, aligned to midnight UTC or Monday.

    Raises:
        JaxtradeError: they do not.
    """
    if bar_seconds <= 0:
        raise JaxtradeError(f"bar_seconds is {bar_seconds}: give the length of the market's bars")
    where = f"a frame of {frame_seconds} s over bars of {bar_seconds} s"
    if frame_seconds <= bar_seconds or frame_seconds % bar_seconds:
        raise JaxtradeError(f"{where}: give a whole multiple of a bar, twice its length or more")
    if DAY_SECONDS % frame_seconds and frame_seconds != WEEK_SECONDS:
        raise JaxtradeError(f"{where}: give one that divides a day, or a week (7d)")


@functools.cache
def at_frame(indicator: Indicator, frame_seconds: int, bar_seconds: int) -> Indicator:
    """An indicator on slower bars, shown at every bar.

    Its carry is the indicator's carry and columns without the slow bar in the making, both with it,
    and that bar. It reaches back and remembers as many slow bars as the indicator, and one more;
    before the first one it shows what a bar without any move would give. A slow bar has a clock but
    no context.

    Raises:
        JaxtradeError: the frame is not a whole multiple of the bar, not longer, or does not divide
            a day and is no week.
    """
    check_frame(frame_seconds, bar_seconds)
    if indicator.frame:
        raise JaxtradeError(f"{indicator.columns[0]}: is on a slower frame already: give one frame")
    ratio, label = frame_seconds // bar_seconds, frame_label(frame_seconds)
    frame = Frame(indicator=indicator, frame_seconds=frame_seconds, bar_seconds=bar_seconds)
    return Indicator(
        columns=tuple(f"{column}@{label}" for column in indicator.columns),
        lookback=(indicator.lookback + 1) * ratio,
        memory=(indicator.memory + 1) * ratio,
        init=functools.partial(_init, frame),
        update=functools.partial(_update, frame),
        frame=frame,
    )


def init_all(members: Sequence[Indicator], num_assets: int) -> jax.Array:
    """The carry of `update_all` before the first bar, f32[K, A]."""
    return indicators.init_all(_by_frame(tuple(members))[0], num_assets)


def update_all(
    members: Sequence[Indicator], carry: jax.Array, bar: Bar
) -> tuple[jax.Array, list[jax.Array]]:
    """`indicators.update_all`, with one slow bar in the making for all members of a frame."""
    merged, places = _by_frame(tuple(members))
    carry, blocks = indicators.update_all(merged, carry, bar)
    return carry, [blocks[block][rows] for block, rows in places]


@functools.cache
def _by_frame(
    members: tuple[Indicator, ...],
) -> tuple[tuple[Indicator, ...], tuple[tuple[int, slice], ...]]:
    """The members with those of a frame made one, and where the columns of each are in these."""
    blocks: dict[object, list[Indicator]] = {}
    places = []
    for each in members:
        frame = each.frame
        key = (frame.frame_seconds, frame.bar_seconds) if frame else each
        block = blocks.setdefault(key, [])
        start = sum(len(before.columns) for before in block) if frame else 0
        block.append(each)
        places.append((list(blocks).index(key), slice(start, start + len(each.columns))))
    return tuple(_together(tuple(block)) for block in blocks.values()), tuple(places)


def _together(members: tuple[Indicator, ...]) -> Indicator:
    """Indicators of one frame as one; a single one as it is."""
    first = members[0].frame
    if len(members) == 1 or first is None:
        return members[0]
    inner = tuple(each.frame.indicator for each in members if each.frame)

    def update(carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
        carry, blocks = indicators.update_all(inner, carry, bar)
        return carry, jnp.concatenate(blocks)

    joint = Indicator(
        columns=tuple(column for each in inner for column in each.columns),
        lookback=max(each.lookback for each in inner),
        memory=max(each.memory for each in inner),
        init=functools.partial(indicators.init_all, inner),
        update=update,
    )
    return at_frame(joint, first.frame_seconds, first.bar_seconds)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _init(frame: Frame, num_assets: int) -> jax.Array:
    """The carry before the first bar: no slow bar in the making, the last one just complete."""
    none = jnp.zeros(num_assets, jnp.float32)
    position = jnp.full(num_assets, frame.frame_seconds - frame.bar_seconds, jnp.float32)
    empty = _SlowBar(none, none, none, none, none, position=position, elapsed=none)
    known = _seen(frame, frame.indicator.init(num_assets), empty, start=jnp.zeros(1, jnp.float32))
    inner = known.shape[0] - len(frame.indicator.columns)
    known = jnp.concatenate([frame.indicator.init(num_assets), known[inner:]])
    return jnp.concatenate([known, known, jnp.stack(empty)])


def _update(frame: Frame, carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
    """One bar further: the next carry, and the columns shown.

    What is known without the slow bar in the making, and what will be once it is over, are carried
    side by side: so it takes one update of the indicator, whichever bar completes or closes it.
    """
    length, bar_length = np.float32(frame.frame_seconds), np.float32(frame.bar_seconds)
    columns, rows = len(frame.indicator.columns), len(_SlowBar._fields)
    size = (carry.shape[0] - rows) // 2
    known, pending, slow = carry[:size], carry[size : 2 * size], _SlowBar(*carry[2 * size :])

    second = jnp.round(bar.clock[1:2] * np.float32(WEEK_SECONDS))  # exact; 0 is Monday 00:00
    position = jax.lax.rem(second, length)
    since = slow.position + jnp.round(bar.clock[2:3] * np.float32(YEAR_SECONDS))
    is_first = (since != position) | (slow.position + bar_length >= length)
    is_last = position + bar_length >= length

    elapsed = jnp.where(is_first, jnp.maximum(since - position, length), slow.elapsed)
    slow = _longer(slow, bar, is_first)._replace(
        position=jnp.broadcast_to(position, elapsed.shape), elapsed=elapsed
    )
    known = jnp.where(is_first[None], pending, known)
    pending = _seen(frame, known[: size - columns], slow, start=second - position)
    shown = jnp.where(is_last[None], pending[size - columns :], known[size - columns :])
    return jnp.concatenate([known, pending, jnp.stack(slow)]), shown


def _longer(slow: _SlowBar, bar: Bar, is_first: jax.Array) -> _SlowBar:
    """The slow bar with this bar at its end, or with this as its first; its times as before."""
    close, volume = (jnp.where(is_first, np.float32(0), x) for x in (slow.close, slow.volume))
    growth = np.float32(1) + close
    opened, high, low = (close + growth * x for x in (bar.open, bar.high, bar.low))
    return slow._replace(
        open=jnp.where(is_first, opened, slow.open),
        high=jnp.where(is_first, high, jnp.maximum(slow.high, high)),
        low=jnp.where(is_first, low, jnp.minimum(slow.low, low)),
        close=close + growth * bar.close,
        volume=volume + bar.volume,
    )


def _seen(frame: Frame, inner: jax.Array, slow: _SlowBar, *, start: jax.Array) -> jax.Array:
    """The indicator's next carry and its columns, f32[K + columns, A], after a slow bar.

    start: f32[1], seconds from Monday to the start of its frame.
    """
    day = jax.lax.rem(start, np.float32(DAY_SECONDS)) / np.float32(DAY_SECONDS)
    week, years = start / np.float32(WEEK_SECONDS), slow.elapsed[:1] / np.float32(YEAR_SECONDS)
    bar = Bar(
        open=slow.open,
        high=slow.high,
        low=slow.low,
        close=slow.close,
        volume=slow.volume,
        context=jnp.zeros(0, jnp.float32),
        clock=jnp.concatenate([day, week, years]),
    )
    return jnp.concatenate(frame.indicator.update(inner, bar))
