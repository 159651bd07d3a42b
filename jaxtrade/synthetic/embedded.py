"""The embedded market: seeded hourly bars with clustered volatility and a weak trend to learn.

Version 1 (it rises when the same seed gives other numbers). Usage:

    market = make_market(seed=0)                         # 50,000 bars, on the host
    paths = jax.vmap(sample, in_axes=(0, None, None))(keys, 4_096, make_params())

The model of a bar's log return, from the last close:

- A hidden Markov chain of three regimes, up, none and down. One lasts 150 bars in the mean and is
  followed by either of the others, equally likely. Up and down add a drift of +-0.12 of the bar's
  deviation: hard to see in one bar, worth learning over a hundred. Nothing else can be learned of
  the direction, but for a slow return of the log price to its start (a thousandth of the distance
  per bar), which keeps prices in range and buying and holding worth little.
- A log volatility that follows a first-order autoregression (Taylor, "Modelling Financial Time
  Series", 1986), about 0.5 % per bar, half forgotten in 34 bars. Single shocks have a random size
  besides, for fat tails: kurtosis about 7. Neither tells the direction.
- A gap of a tenth of the deviation to the open; high and low as a Brownian path between open and
  close reaches them; volume that grows with the volatility and with the size of the move.

What can be earned: Sharpe ratios of the last 10,000 of 50,000 bars, 8,766 bars a year, after
2e-4 of traded value, orders filled at the next open, exposure -1 to 1:

    seed                        0     1     2     3     4   0-99, mean and deviation
    oracle                   8.16  8.00  9.04  8.90  8.18   7.61 +- 1.13
    filter                   3.77  3.00  3.83  4.98  3.28   3.08 +- 1.23
    sign of close - EMA 50   2.74  2.33  3.64  2.91  2.42   2.25 +- 1.14
    buy and hold             0.13  1.12 -0.17  0.14  0.76   0.23 +- 0.49

The oracle is told the regime of every bar so far. The filter holds the probability of up less that
of down given the returns so far; it knows the model's drift and durations, estimates the volatility
by a moving average, and gives no thought to costs: a yardstick for a student, not a bound. A span
of 10,000 bars is 1.14 years, so chance alone moves a ratio by nearly 1; the filter stays below 1 in
6 seeds of 100. Buying and holding has half the variance as its mean return, 0.2 in these units.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.synthetic.bars import MAX_MOVE, Path, bridge_extremes, relative_prices
from jaxtrade.synthetic.checks import scalars

_BOUNDS = {
    "drift": (0.0, 1.0),
    "regime_bars": (1.0, 1e6),
    "reversion": (0.0, 1.0),
    "volatility": (1e-5, 0.1),
    "volatility_memory": (0.0, 0.9999),
    "volatility_spread": (0.0, 1.0),
    "tail": (0.0, 1.0),
    "gap": (0.0, 1.0),
    "volume": (1e-3, 1e9),
}


@flax.struct.dataclass(kw_only=True)
class SyntheticParams:
    """What a path is drawn from; every leaf f32[], traced. `make_params` builds it.

    drift: of a bar in a trend, in deviations of that bar; regime_bars: mean length of a regime;
    reversion: part of the log price's distance from its start that one bar takes back;
    volatility: root mean square of a bar's log return; volatility_memory, volatility_spread:
    autocorrelation and deviation of the log volatility; tail: deviation of the log size of a
    single shock; gap: part of a bar's deviation that falls between the last close and the open;
    volume: of a still bar at `volatility`.
    """

    drift: jax.Array
    regime_bars: jax.Array
    reversion: jax.Array
    volatility: jax.Array
    volatility_memory: jax.Array
    volatility_spread: jax.Array
    tail: jax.Array
    gap: jax.Array
    volume: jax.Array


@flax.struct.dataclass(kw_only=True)
class EmbeddedPath:
    """One path of T bars, and what no agent sees of it.

    bars: f32[T, 4], open, high, low, close over the previous close, minus one
    volume: f32[T], above 0
    trend: i32[T], regime of the bar: -1 down, 0 none, 1 up
    volatility: f32[T], deviation of the bar's log return around its drift
    """

    bars: jax.Array
    volume: jax.Array
    trend: jax.Array
    volatility: jax.Array


def make_params(
    *,
    drift: float = 0.12,
    regime_bars: float = 150.0,
    reversion: float = 1e-3,
    volatility: float = 5e-3,
    volatility_memory: float = 0.98,
    volatility_spread: float = 0.35,
    tail: float = 0.3,
    gap: float = 0.1,
    volume: float = 1_000.0,
) -> SyntheticParams:
    """Parameters from plain numbers; the defaults are the embedded market's.

    Raises:
        JaxtradeError: a value out of bounds, or no number.
    """
    values = {
        "drift": drift,
        "regime_bars": regime_bars,
        "reversion": reversion,
        "volatility": volatility,
        "volatility_memory": volatility_memory,
        "volatility_spread": volatility_spread,
        "tail": tail,
        "gap": gap,
        "volume": volume,
    }
    return SyntheticParams(**scalars(_BOUNDS, values))


@functools.partial(jax.jit, static_argnames="num_bars")
def sample(key: jax.Array, num_bars: int, params: SyntheticParams) -> EmbeddedPath:
    """Draw a path. Pure: map it over keys, over params or over both.

    A longer path of the same key begins with the shorter one.
    """
    start_key, regime_key, shock_key, range_key, volume_key = jax.random.split(key, 5)
    draws = (
        jax.random.uniform(regime_key, (num_bars, 2), jnp.float32),
        jax.random.normal(shock_key, (num_bars, 4), jnp.float32),
    )
    step = functools.partial(_step, params)
    trend, level, opening, closing = jax.lax.scan(step, _start(params, start_key), draws)[1]
    volatility = params.volatility * jnp.exp(level)
    inside = volatility * jnp.sqrt(1.0 - params.gap**2)
    size = jnp.abs(closing) / volatility
    chance = jax.random.uniform(range_key, (num_bars, 2), jnp.float32)
    high, low = bridge_extremes(opening, closing, inside, chance)
    noise = 0.5 * jax.random.normal(volume_key, (num_bars,), jnp.float32)
    return EmbeddedPath(
        bars=relative_prices(opening, high, low, closing),
        volume=params.volume * (1.0 + size) * jnp.exp(level + noise),
        trend=trend,
        volatility=volatility,
    )


def _start(params: SyntheticParams, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Trend, log volatility and distance of the log price from its start, before the first bar."""
    trend_key, level_key = jax.random.split(key)
    trend = jax.random.randint(trend_key, (), -1, 2, jnp.int32)
    spread = params.volatility_spread
    level = spread * jax.random.normal(level_key, (), jnp.float32) - spread**2
    return trend, level, jnp.zeros_like(level)


def _step(
    params: SyntheticParams,
    carry: tuple[jax.Array, jax.Array, jax.Array],
    draws: tuple[jax.Array, jax.Array],
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    """One bar of the model: all that has memory.

    The log volatility is centred at minus its variance, so that volatility**2 is the mean square;
    so is the log size of the shock.
    """
    trend, level, distance = carry
    (chance, side), (wave, gap, shock, tail) = draws
    other = (trend + jnp.where(side < 0.5, 2, 3)) % 3 - 1  # one of the two other regimes
    trend = jnp.where(chance * params.regime_bars < 1.0, other, trend)

    memory, spread = params.volatility_memory, params.volatility_spread
    centre = -(spread**2)
    level = centre + memory * (level - centre) + spread * jnp.sqrt(1.0 - memory**2) * wave
    volatility = params.volatility * jnp.exp(level)

    opening = params.gap * volatility * gap
    shock = jnp.sqrt(1.0 - params.gap**2) * shock * jnp.exp(params.tail * tail - params.tail**2)
    drift = params.drift * trend.astype(jnp.float32)
    closing = opening + volatility * (drift + shock) - params.reversion * distance
    closing = jnp.clip(closing, -MAX_MOVE, MAX_MOVE)
    return (trend, level, distance + closing), (trend, level, opening, closing)


def sample_embedded(params: SyntheticParams, key: jax.Array, num_bars: int) -> Path:
    """The path of `sample` in the form of the other processes.

    The drift counts the return of the log price to its start.
    """
    path = sample(key, num_bars, params)
    closing = jnp.log1p(path.bars[:, 3])
    distance = jnp.cumsum(closing) - closing
    trend = params.drift * path.trend.astype(jnp.float32)
    return Path(
        bars=path.bars[:, None],
        volume=path.volume[:, None],
        drift=(trend * path.volatility - params.reversion * distance)[:, None],
        volatility=path.volatility[:, None],
    )
