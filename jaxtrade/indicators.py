"""Indicators as scale-free recursions of relative returns: an `init`/`update` pair each.

No price level enters: a moving average is carried as its distance from the close, an average gain
as a fraction of the close, so float32 is enough on any instrument. Every carry is f32[K, A] and
every update returns f32[columns, A]; both are written with plain `jnp` so that the very same
functions run in the feature table's scan and in the exported graph.

To add one: `INDICATORS["name"] = Indicator(columns=..., lookback=..., memory=..., init=...,
update=...)` before the environment is made, and switch it on by name.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


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
class Recursion:
    """A carry x f32[K, A] that a bar of return r moves linearly, to
    (decay @ x + by_return r + by_size |r|) / (1 + r).

    decay: [K][K]; by_return, by_size: [K], 0 where not given. The division makes a fraction of the
    close one of the new close. `emit` gives the columns f32[columns, A] that a carry stands for.
    """

    emit: Callable[[jax.Array], jax.Array]
    decay: tuple[tuple[float, ...], ...]
    by_return: tuple[float, ...] = ()
    by_size: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """An indicator of bars of `frame_seconds` made from bars of `bar_seconds`, see `frames`."""

    indicator: "Indicator"
    frame_seconds: int
    bar_seconds: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Indicator:
    """A recursion over bars.

    `columns` names what it emits. `lookback` is how many bars its definition reaches back;
    `memory` after how many bars the effect of its starting value is below 1e-5 of it.
    `init(A)` gives the carry f32[K, A]; `update(carry, bar)` the next carry and f32[columns, A].
    Where the carry follows a linear `recursion`, `update` is that and its `emit`; where the bars
    are of a slower `frame`, it is `frames.at_frame`'s.
    """

    columns: tuple[str, ...]
    lookback: int
    memory: int
    init: Callable[[int], jax.Array]
    update: Callable[[jax.Array, Bar], tuple[jax.Array, jax.Array]]
    recursion: Recursion | None = None
    frame: Frame | None = None


def init_all(indicators: Sequence[Indicator], num_assets: int) -> jax.Array:
    """The carries of several indicators before the first bar, f32[K, A]; linear ones come first."""
    ordered = sorted(indicators, key=lambda indicator: indicator.recursion is None)
    parts = [indicator.init(num_assets) for indicator in ordered]
    return jnp.concatenate([jnp.zeros((0, num_assets), jnp.float32), *parts])


def update_all(
    indicators: Sequence[Indicator], carry: jax.Array, bar: Bar
) -> tuple[jax.Array, list[jax.Array]]:
    """The next carry f32[K, A], and the columns f32[columns, A] of each indicator.

    It is `update` of one after the other, but linear recursions go in one matrix product.
    """
    linear = [each for each in indicators if each.recursion]
    others = [each for each in indicators if not each.recursion]
    ends = list(itertools.accumulate(_size(each) for each in (*linear, *others)))
    recursions = [each.recursion for each in linear if each.recursion]
    num_linear = sum(len(each.decay) for each in recursions)
    carries = [advance(recursions, carry[:num_linear], bar)] if linear else []
    columns = {}
    for each, end in zip((*linear, *others), ends, strict=True):
        rows = slice(end - _size(each), end)
        if each.recursion:
            columns[each] = each.recursion.emit(carries[0][rows])
        else:
            part, columns[each] = each.update(carry[rows], bar)
            carries += [part] if _size(each) else []
    return jnp.concatenate(carries) if carries else carry, [columns[each] for each in indicators]


def advance(recursions: Sequence[Recursion], carry: jax.Array, bar: Bar) -> jax.Array:
    """The carries f32[K, A] of linear recursions, one below the other, one bar further."""
    r, rows = bar.close[None], carry.shape[0]
    matrix = np.zeros((rows, rows + 2), np.float32)
    start = 0
    for each in recursions:
        own = slice(start, start + len(each.decay))
        matrix[own, own] = each.decay
        matrix[own, rows] = each.by_return or 0.0
        matrix[own, rows + 1] = each.by_size or 0.0
        start = own.stop
    moved = jnp.concatenate([carry, r, jnp.abs(r)])
    return jnp.matmul(matrix, moved, precision=jax.lax.Precision.HIGHEST) / (1.0 + r)


def _size(indicator: Indicator) -> int:
    """K, the rows of its carry."""
    return int(jax.eval_shape(lambda: indicator.init(1)).shape[0])


@jax.custom_jvp
def log_growth(r: jax.Array) -> jax.Array:
    """ln(1 + r) to float32 accuracy for any r > -1, from operations that ONNX has.

    With u = 1 + r it is asinh((u - 1/u) / 2), where u - 1/u = r + r/u takes nothing away from
    anything; `log1p` itself exports as log(1 + r), which is wrong by 1e-3 of a minute return.
    """
    return jnp.arcsinh(0.5 * (r + r / (1.0 + r)))


@log_growth.defjvp
def _log_growth_slope(r: tuple[jax.Array], dr: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return log_growth(*r), dr[0] / (1.0 + r[0])


def log_return() -> Indicator:
    """Log return of the bar, close over previous close."""

    def update(carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
        return carry, log_growth(bar.close[None])

    return Indicator(columns=("log_return",), lookback=1, memory=1, init=_zeros(0), update=update)


def ema(period: int) -> Indicator:
    """Exponential moving average of the close, as its distance EMA / close - 1."""
    keep = 1.0 - 2.0 / (period + 1)
    return _linear(
        columns=(f"ema_{period}",),
        lookback=period,
        memory=_memory(keep),
        recursion=Recursion(emit=lambda carry: carry, decay=((keep,),), by_return=(-keep,)),
    )


def macd(fast: int = 12, slow: int = 26, signal: int = 9) -> Indicator:
    """Appel's MACD line and its signal line, both over the close.

    The carry is the slow average's distance, the line, the signal. The line moves by a recursion
    of its own: as the difference of two distances it would inherit their rounding.
    """
    alpha_fast, alpha_slow, alpha = (2.0 / (n + 1) for n in (fast, slow, signal))
    keep, pull = 1.0 - alpha_slow, alpha_slow - alpha_fast
    line = (pull, 1.0 - alpha_fast, 0.0)
    smoothed = (alpha * line[0], alpha * line[1], 1.0 - alpha)
    return _linear(
        columns=("macd", "macd_signal"),
        lookback=slow + signal,
        memory=_memory(keep) + _memory(1 - alpha),
        recursion=Recursion(
            emit=lambda carry: carry[1:],
            decay=((keep, 0.0, 0.0), line, smoothed),
            by_return=(-keep, -pull, -alpha * pull),
        ),
    )


def rsi(period: int = 14) -> Indicator:
    """Wilder's relative strength index in points, 0 to 100; 50 while nothing has moved.

    The carry is the average return and the average of its size, gains less and plus losses.
    """
    alpha = 1.0 / period
    keep = 1.0 - alpha

    def emit(carry: jax.Array) -> jax.Array:
        return 50.0 + 50.0 * (carry[:1] / (carry[1:] + 1e-30))

    return _linear(
        columns=("rsi",),
        lookback=period,
        memory=_memory(keep),
        recursion=Recursion(
            emit=emit,
            decay=((keep, 0.0), (0.0, keep)),
            by_return=(alpha, 0.0),
            by_size=(0.0, alpha),
        ),
    )


def volatility(period: int = 20) -> Indicator:
    """Population deviation of the last `period` log returns."""
    centre = np.float32((np.eye(period) - 1 / period) / period**0.5)

    def update(carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
        carry = jnp.concatenate([carry[1:], log_growth(bar.close[None])])
        deviations = jnp.matmul(centre, carry, precision=jax.lax.Precision.HIGHEST)
        return carry, jnp.sqrt((deviations * deviations).sum(axis=0))[None]

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
        known = jnp.sign(volume)  # 1, or 0 where none is known
        unknown = 1.0 - known
        average = carry + (1.0 - jnp.sign(carry)) * volume
        ratio = volume / (average + unknown) + unknown
        carry = average * ((1.0 - alpha) + alpha * ratio)
        return carry, jnp.concatenate([ratio, known])

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
        phase = _phases(bar.clock)[2 * field : 2 * field + 2]
        return carry, jnp.broadcast_to(phase, (2, bar.close.shape[0]))

    return Indicator(
        columns=(f"{name}_sin", f"{name}_cos"),
        lookback=1,
        memory=1,
        init=_zeros(0),
        update=update,
    )


def _phases(clock: jax.Array) -> jax.Array:
    """Sine and cosine of the clock's two cyclic fields, f32[4, 1]."""
    turns = np.float32(2 * math.pi * np.repeat(np.eye(2, 3), 2, axis=0))
    angles = jnp.matmul(turns, clock[:, None], precision=jax.lax.Precision.HIGHEST)
    return jnp.sin(angles + np.asarray([[0.0], [math.pi / 2]] * 2, np.float32))


def _linear(
    *, columns: tuple[str, ...], lookback: int, memory: int, recursion: Recursion
) -> Indicator:
    """An indicator whose carry starts at 0 and follows a linear recursion."""

    def update(carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
        carry = advance([recursion], carry, bar)
        return carry, recursion.emit(carry)

    return Indicator(
        columns=columns,
        lookback=lookback,
        memory=memory,
        init=_zeros(len(recursion.decay)),
        update=update,
        recursion=recursion,
    )


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
