"""From the path of a log price to bars: open, high, low, close and volume.

A bar is a unit of time in two parts: a gap, when nothing trades, and `SUBSTEPS` equal steps. A
process moves the log price in each part; between the ends of a step the price is a Brownian path,
so that high and low have the law of the extremes of a continuous path and not of a few points.
"""

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.synthetic.checks import scalars

SUBSTEPS = 8
"""Steps of a bar from open to close."""

MAX_MOVE = 1.0
"""No price of a bar is further than this from the last close, in logarithms: returns stay above
-1 whatever the parameters. Sensible parameters come nowhere near it."""

MAX_LOG_VOLUME = 80.0  # exp of it is a float32

_BOUNDS = {
    "gap": (0.0, 1.0),
    "volume": (1e-3, 1e12),
    "volume_volatility": (-5.0, 5.0),
    "volume_move": (-5.0, 5.0),
    "volume_noise": (0.0, 5.0),
    "volume_memory": (0.0, 0.9999),
}


@flax.struct.dataclass(kw_only=True)
class BarParams:
    """What every process needs to make bars of a price; every leaf f32[], traced.

    gap: part of a bar's deviation that falls between the last close and the open, so gap**2 of its
    variance; volume: median of a still bar at the process's usual volatility. The log of volume
    grows by volume_volatility for each unit of the log volatility, and by volume_move for each of
    log(1 + |return| / volatility); its noise is a first-order autoregression of deviation
    volume_noise and autocorrelation volume_memory.
    """

    gap: jax.Array
    volume: jax.Array
    volume_volatility: jax.Array
    volume_move: jax.Array
    volume_noise: jax.Array
    volume_memory: jax.Array


def make_bar_params(
    *,
    gap: float = 0.1,
    volume: float = 1_000.0,
    volume_volatility: float = 1.0,
    volume_move: float = 1.0,
    volume_noise: float = 0.5,
    volume_memory: float = 0.5,
) -> BarParams:
    """Bar parameters from plain numbers.

    Raises:
        JaxtradeError: a value out of bounds, or no number.
    """
    values = {
        "gap": gap,
        "volume": volume,
        "volume_volatility": volume_volatility,
        "volume_move": volume_move,
        "volume_noise": volume_noise,
        "volume_memory": volume_memory,
    }
    return BarParams(**scalars(_BOUNDS, values))


@flax.struct.dataclass(kw_only=True)
class Path:
    """T bars of A assets, and what no agent sees of them.

    bars: f32[T, A, 4], open, high, low, close over the previous close, minus one
    volume: f32[T, A], above 0
    drift: f32[T, A], mean of the bar's log return, given the hidden state at its start
    volatility: f32[T, A], deviation of the bar's log return, given the same
    """

    bars: jax.Array
    volume: jax.Array
    drift: jax.Array
    volatility: jax.Array


@flax.struct.dataclass(kw_only=True)
class Moves:
    """What a process makes of T bars of S + 1 parts, the gap and then S steps, all in logarithms.

    diffusion: f32[T, S + 1, A], what the continuous path adds in a part
    deviation: f32[T, S + 1, A], deviation of that
    jump: f32[T, S + 1, A], a jump at the end of the part
    drift, volatility: f32[T, A], as in `Path`
    usual: f32[A], volatility at which `BarParams.volume` is meant
    """

    diffusion: jax.Array
    deviation: jax.Array
    jump: jax.Array
    drift: jax.Array
    volatility: jax.Array
    usual: jax.Array


def durations(params: BarParams) -> jax.Array:
    """Lengths f32[S + 1] of the parts of a bar, in bars; they add up to 1.

    Time is measured by variance, so the gap is as long as its part of the variance.
    """
    share = params.gap**2
    return jnp.concatenate([share[None], jnp.full((SUBSTEPS,), (1.0 - share) / SUBSTEPS)])


def path_of(moves: Moves, params: BarParams, key: jax.Array) -> Path:
    """The bars of a process's moves."""
    range_key, volume_key = jax.random.split(key)
    num_bars, _, num_assets = moves.diffusion.shape
    chance = jax.random.uniform(range_key, (num_bars, SUBSTEPS, num_assets, 2), jnp.float32)
    opening = moves.diffusion[:, 0] + moves.jump[:, 0]
    closing = high = low = opening
    for part in range(1, SUBSTEPS + 1):  # written out, it is one pass: ten times as fast on CPU
        before, after = closing, closing + moves.diffusion[:, part]
        extremes = bridge_extremes(before, after, moves.deviation[:, part], chance[:, part - 1])
        closing = after + moves.jump[:, part]
        high, low = jnp.maximum(high, extremes[0]), jnp.minimum(low, extremes[1])
        high, low = jnp.maximum(high, closing), jnp.minimum(low, closing)
    return Path(
        bars=relative_prices(opening, high, low, closing),
        volume=_volume(jnp.clip(closing, -MAX_MOVE, MAX_MOVE), moves, params, volume_key),
        drift=moves.drift,
        volatility=moves.volatility,
    )


def bridge_extremes(
    start: jax.Array, end: jax.Array, deviation: jax.Array, chance: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Highest and lowest point of Brownian paths f32[...] between two ends, drawn apart.

    deviation: f32[...], of the end seen from the start; chance: f32[..., 2], uniform. With u
    uniform, the maximum from a to b is (a + b + sqrt((b - a)**2 - 2 deviation**2 ln u)) / 2
    (Karatzas and Shreve, "Brownian Motion and Stochastic Calculus", section 4.3).
    """
    stretch = -2.0 * jnp.log1p(-chance) * deviation[..., None] ** 2
    reach = jnp.sqrt((end - start)[..., None] ** 2 + stretch)
    middle = start + end
    return (middle + reach[..., 0]) / 2.0, (middle - reach[..., 1]) / 2.0


def relative_prices(
    opening: jax.Array, high: jax.Array, low: jax.Array, closing: jax.Array
) -> jax.Array:
    """Relative bars f32[..., 4] from log returns f32[...] on the last close."""
    logs = jnp.clip(jnp.stack([opening, high, low, closing]), -MAX_MOVE, MAX_MOVE)
    opening, high, low, closing = jnp.expm1(logs)
    high = jnp.maximum(high, jnp.maximum(opening, closing))  # rounding must not undo the order
    low = jnp.minimum(low, jnp.minimum(opening, closing))
    return jnp.stack([opening, high, low, closing], axis=-1)


def _volume(closing: jax.Array, moves: Moves, params: BarParams, key: jax.Array) -> jax.Array:
    """Volume f32[T, A], positive and finite."""
    num_bars, num_assets = closing.shape
    usual = moves.usual[None]
    shocks = jax.random.normal(key, (num_bars + 1, num_assets), jnp.float32)
    level = (
        jnp.log(params.volume)
        + params.volume_volatility * jnp.log(moves.volatility / usual)
        + params.volume_move * jnp.log1p(jnp.abs(closing) / moves.volatility)
        + params.volume_noise * _autoregression(shocks, params.volume_memory)
    )
    return jnp.exp(jnp.clip(level, -MAX_LOG_VOLUME, MAX_LOG_VOLUME))


def _autoregression(shocks: jax.Array, memory: jax.Array) -> jax.Array:
    """A stationary first-order autoregression f32[T, A] of variance 1, from normal f32[T + 1, A].

    The first row is where it starts.
    """
    fresh = jnp.sqrt(1.0 - memory**2)

    def step(level: jax.Array, shock: jax.Array) -> tuple[jax.Array, jax.Array]:
        level = memory * level + fresh * shock
        return level, level

    return jax.lax.scan(step, shocks[0], shocks[1:])[1]
