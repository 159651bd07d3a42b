"""Indicators as scale-free recursions of relative returns: an `init`/`update` pair each.

No price level enters: a moving average is carried as its distance from the close, an average gain
as a fraction of the close, so float32 is enough on any instrument. Every carry is f32[K, A] and
every update returns f32[columns, A]; both are written with plain `jnp` so that the very same
functions run in the feature table's scan and in the exported graph.

To add one: `INDICATORS["name"] = Indicator(columns=..., lookback=..., memory=..., init=...,
update=...)` before the environment is made, and switch it on by name.
"""

import dataclasses
import math
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass(kw_only=True)
class Bar:
    """One finished bar of A assets.

    open, high, low, close: f32[A], over the previous close minus one; volume: f32[A], 0 = none
    known; context: f32[C]; clock: f32[3], see `specs.CLOCK_FIELDS`.
    """

    open: jax.Array
    high: jax.Array
    low: jax.Array
    close: jax.Array
    volume: jax.Array
    context: jax.Array
    clock: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Indicator:
    """A recursion over bars.

    `columns` names what it emits. `lookback` is how many bars its definition reaches back;
    `memory` after how many bars the effect of its starting value is below 1e-5 of it.
    `init(A)` gives the carry f32[K, A]; `update(carry, bar)` the next carry and f32[columns, A].
    """

    columns: tuple[str, ...]
    lookback: int
    memory: int
    init: Callable[[int], jax.Array]
    update: Callable[[jax.Array, Bar], tuple[jax.Array, jax.Array]]


def log_growth(r: jax.Array) -> jax.Array:
    """ln(1 + r) to float32 accuracy for any r > -1, from operations that ONNX has.

    Near 0 by the series 2 artanh(r / (2 + r)); `log1p` itself exports as log(1 + r), which is
    wrong by 1e-3 of a minute return. No term takes 1 from 1 + r: compilers cancel the two.
    """
    is_small = jnp.abs(r) < 0.25
    s = jnp.where(is_small, r / (2.0 + r), 0.0)
    square = s * s
    tail = square * (1 / 3 + square * (1 / 5 + square * (1 / 7)))
    return jnp.where(is_small, 2.0 * (s + s * tail), jnp.log(jnp.where(is_small, 1.0, 1.0 + r)))


def log_return() -> Indicator:
    """Log return of the bar, close over previous close."""

    def update(carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
        return carry, log_growth(bar.close)[None]

    return Indicator(columns=("log_return",), lookback=1, memory=1, init=_zeros(0), update=update)


def ema(period: int) -> Indicator:
    """Exponential moving average of the close, as its distance EMA / close - 1."""
    alpha = 2.0 / (period + 1)

    def update(carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
        carry = _ema_step(carry, bar.close[None], alpha)
        return carry, carry

    return Indicator(
        columns=(f"ema_{period}",),
        lookback=period,
        memory=_memory(1 - alpha),
        init=_zeros(1),
        update=update,
    )


def macd(fast: int = 12, slow: int = 26, signal: int = 9) -> Indicator:
    """Appel's MACD line and its signal line, both over the close.

    The carry is the slow average's distance, the line, the signal. The line moves by a recursion
    of its own: as the difference of two distances it would inherit their rounding.
    """
    alpha_fast, alpha_slow, alpha_signal = (2.0 / (n + 1) for n in (fast, slow, signal))

    def update(carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
        r = bar.close[None]
        distance, line, smoothed = carry[:1], carry[1:2], carry[2:]
        pull = (alpha_slow - alpha_fast) * (distance - r)
        line = ((1.0 - alpha_fast) * line + pull) / (1.0 + r)
        smoothed = smoothed / (1.0 + r)
        smoothed = smoothed + alpha_signal * (line - smoothed)
        columns = jnp.concatenate([line, smoothed])
        return jnp.concatenate([_ema_step(distance, r, alpha_slow), columns]), columns

    return Indicator(
        columns=("macd", "macd_signal"),
        lookback=slow + signal,
        memory=_memory(1 - 2.0 / (slow + 1)) + _memory(1 - alpha_signal),
        init=_zeros(3),
        update=update,
    )


def rsi(period: int = 14) -> Indicator:
    """Wilder's relative strength index in points, 0 to 100; 50 while nothing has moved."""
    alpha = 1.0 / period

    def update(carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
        r = bar.close[None]
        moves = jnp.concatenate([jnp.maximum(r, 0.0), jnp.maximum(-r, 0.0)])
        averages = ((1 - alpha) * carry + alpha * moves) / (1.0 + r)
        total = averages[:1] + averages[1:]
        moved = total > 0
        share = jnp.where(moved, averages[:1] / jnp.where(moved, total, 1.0), 0.5)
        return averages, 100.0 * share

    return Indicator(
        columns=("rsi",),
        lookback=period,
        memory=_memory(1 - alpha),
        init=_zeros(2),
        update=update,
    )


def volatility(period: int = 20) -> Indicator:
    """Population deviation of the last `period` log returns."""

    def update(carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
        carry = jnp.concatenate([carry[1:], log_growth(bar.close)[None]])
        centred = carry - carry.mean(axis=0, keepdims=True)
        return carry, jnp.sqrt((centred * centred).mean(axis=0, keepdims=True))

    return Indicator(
        columns=("volatility",),
        lookback=period,
        memory=period,
        init=_zeros(period),
        update=update,
    )


def relative_volume(period: int = 20) -> Indicator:
    """Volume over its exponential average before this bar, and whether it is known.

    Where the volume is 0, none is known: the first column is 1, the second 0, and the average
    stands still.
    """
    alpha = 2.0 / (period + 1)

    def update(carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
        volume = bar.volume[None]
        known = volume > 0
        average = jnp.where(carry > 0, carry, volume)
        ratio = jnp.where(known, volume / jnp.where(average > 0, average, 1.0), 1.0)
        carry = jnp.where(known, average + alpha * (volume - average), carry)
        return carry, jnp.concatenate([ratio, known.astype(jnp.float32)])

    return Indicator(
        columns=("relative_volume", "volume_known"),
        lookback=period,
        memory=_memory(1 - alpha),
        init=_zeros(1),
        update=update,
    )


def clock_phase(name: str, field: int) -> Indicator:
    """Sine and cosine of one cyclic clock field, a fraction in [0, 1) of its period."""

    def update(carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
        angle = 2.0 * math.pi * bar.clock[field : field + 1]
        phase = jnp.stack([jnp.sin(angle), jnp.cos(angle)])
        return carry, jnp.broadcast_to(phase, (2, bar.close.shape[0]))

    return Indicator(
        columns=(f"{name}_sin", f"{name}_cos"),
        lookback=1,
        memory=1,
        init=_zeros(0),
        update=update,
    )


def _ema_step(distance: jax.Array, r: jax.Array, alpha: float) -> jax.Array:
    """The next EMA / close - 1 after a return r: (1 - alpha) (e - r) / (1 + r)."""
    return (1.0 - alpha) * ((distance - r) / (1.0 + r))


def _zeros(rows: int) -> Callable[[int], jax.Array]:
    return lambda num_assets: jnp.zeros((rows, num_assets), jnp.float32)


def _memory(decay: float) -> int:
    """Bars until `decay` to their power is below 1e-5."""
    return math.ceil(math.log(1e-5) / math.log(decay))


INDICATORS: dict[str, Indicator] = {
    "log_return": log_return(),
    "rsi": rsi(14),
    "macd": macd(12, 26, 9),
    "ema_10": ema(10),
    "ema_50": ema(50),
    "volatility": volatility(20),
    "relative_volume": relative_volume(20),
    "time_of_day": clock_phase("time_of_day", 0),
    "time_of_week": clock_phase("time_of_week", 1),
}
