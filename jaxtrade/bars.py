"""The numbers of a bar: its relative prices, its clock, its length.

This module imports no JAX: live trading calls the very functions of the loader.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxtrade.specs import JaxtradeError

DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
YEAR_SECONDS = 365.25 * DAY_SECONDS
BREAK_SECONDS = 10 * DAY_SECONDS
"""A longer step between two bars is a break in the record, not time in the market."""


def relative_bars(prices: ArrayLike, previous_close: ArrayLike) -> NDArray[np.float32]:
    """Prices over the previous close, minus one, computed in float64.

    Args:
        prices: f64[T, 4], open, high, low, close in quote currency, above 0.
        previous_close: f64[T], the close before each bar; a series' first bar takes its own open.

    Returns:
        f32[T, 4].
    """
    before = np.asarray(previous_close, np.float64)[:, None]
    with np.errstate(over="ignore"):
        return _relative(np.asarray(prices, np.float64), before).astype(np.float32)


def relative_bar(prices: Iterable[float], previous_close: float) -> list[float]:
    """`relative_bars` of one bar in plain numbers: a tenth of the time, the same as float32."""
    return [_relative(price, previous_close) for price in prices]


def clock_rows(timestamps: ArrayLike, *, bar_seconds: int | None = None) -> NDArray[np.float32]:
    """The clock of each bar, in the order of `specs.CLOCK_FIELDS`, computed in float64.

    The first row's elapsed time is the bar's own length, and so is that after a break of more
    than ten days. Live, pass the stamps of the bar before and of the new bar, and keep the last
    row.

    Args:
        timestamps: datetime64[T] or i64[T] seconds since 1970-01-01, UTC starts of bars, rising.
        bar_seconds: length of a bar; by default the most frequent step (T >= 2).

    Returns:
        f32[T, 3]: fraction of the day, of the week (Monday 00:00 UTC is 0), and the years of
        365.25 days since the bar before.

    Raises:
        JaxtradeError: no `bar_seconds` and fewer than two stamps.
    """
    seconds = _seconds(timestamps)
    length = bar_length(timestamps) if bar_seconds is None else bar_seconds
    elapsed = np.diff(seconds, prepend=seconds[:1] - length)
    elapsed = np.where(elapsed > _longest_step(length), length, elapsed)
    return np.stack(_clock(seconds, elapsed), axis=-1).astype(np.float32)


def clock_row(start_s: int, previous_s: int | None, *, bar_seconds: int) -> tuple[float, ...]:
    """`clock_rows` of one bar in plain numbers, after the one that started at `previous_s`; None
    where there is none.
    """
    elapsed = bar_seconds if previous_s is None else start_s - previous_s
    return _clock(start_s, bar_seconds if elapsed > _longest_step(bar_seconds) else elapsed)


def bar_length(timestamps: ArrayLike) -> int:
    """Seconds of the most frequent step between stamps; of equally frequent ones the smallest.

    Raises:
        JaxtradeError: fewer than two stamps.
    """
    steps, counts = np.unique(np.diff(_seconds(timestamps)), return_counts=True)
    if not len(steps):
        raise JaxtradeError("bar_seconds is needed: one stamp does not tell the length of a bar")
    return int(steps[counts.argmax()])


def bars_per_year(timestamps: ArrayLike, *, bar_seconds: int) -> float:
    """Bars in a year of 365.25 days, from the steps that are no break in the record."""
    steps = np.diff(_seconds(timestamps))
    steps = steps[steps <= _longest_step(bar_seconds)]
    mean_step = float(steps.mean()) if len(steps) else bar_seconds
    return YEAR_SECONDS / mean_step


def _relative(price: Any, before: Any) -> Any:
    return (price - before) / before


def _clock(seconds: Any, elapsed: Any) -> tuple[Any, Any, Any]:
    """Fractions of the day and of the week, years since the bar before; of numbers or arrays."""
    monday = seconds + 3 * DAY_SECONDS  # 1970-01-01 was a Thursday
    fractions = (seconds % DAY_SECONDS / DAY_SECONDS, monday % WEEK_SECONDS / WEEK_SECONDS)
    return (*fractions, elapsed / YEAR_SECONDS)


def _longest_step(bar_seconds: int) -> int:
    """Ten days, or one bar where bars are longer than that (months)."""
    return max(BREAK_SECONDS, bar_seconds)


def _seconds(timestamps: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(timestamps, "datetime64[s]").astype(np.int64)
