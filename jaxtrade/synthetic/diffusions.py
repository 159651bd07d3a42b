"""Price processes in continuous time: geometric Brownian motion, Merton's jumps, Heston's variance.

Every rate is per bar: nothing is annualised. `drift` is the growth of the mean price,
E[price after a bar / price before] = exp(drift), so the log return has a lower mean.
"""

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic.bars import (
    SUBSTEPS,
    BarParams,
    Moves,
    Path,
    durations,
    make_bar_params,
    path_of,
)
from jaxtrade.synthetic.checks import Bounds, scalars

DRIFT = (-0.1, 0.1)
VOLATILITY = (1e-6, 0.5)

MAX_JUMPS = 12
"""Jumps counted in one part of a bar; at the highest intensity one part in 1e10 has more."""


# Geometric Brownian motion


@flax.struct.dataclass(kw_only=True)
class GBMParams:
    """Independent normal log returns; every leaf f32[], traced.

    drift: log growth of the mean price per bar; volatility: deviation of a bar's log return.
    """

    drift: jax.Array
    volatility: jax.Array
    bars: BarParams


def make_gbm(
    *, drift: float = 0.0, volatility: float = 5e-3, bars: BarParams | None = None
) -> GBMParams:
    """Parameters of geometric Brownian motion.

    Raises:
        JaxtradeError: a value out of bounds, or no number.
    """
    bounds: Bounds = {"drift": DRIFT, "volatility": VOLATILITY}
    leaves = scalars(bounds, {"drift": drift, "volatility": volatility})
    return GBMParams(**leaves, bars=bars or make_bar_params())


def sample_gbm(params: GBMParams, key: jax.Array, num_bars: int) -> Path:
    """Normal log returns: d log S = (drift - volatility**2 / 2) dt + volatility dW."""
    shock_key, bar_key = jax.random.split(key)
    moves = _constant_diffusion(params, params.drift, shock_key, num_bars)
    return path_of(moves, params.bars, bar_key)


def _constant_diffusion(
    params: "GBMParams | MertonParams", drift: jax.Array, key: jax.Array, num_bars: int
) -> Moves:
    """The moves of a geometric Brownian motion of that drift."""
    lengths = durations(params.bars)[None, :, None]
    shocks = jax.random.normal(key, (num_bars, *lengths.shape[1:]), jnp.float32)
    mean = drift - params.volatility**2 / 2.0
    deviation = params.volatility * jnp.sqrt(lengths)
    return Moves(
        diffusion=mean * lengths + deviation * shocks,
        deviation=jnp.broadcast_to(deviation, shocks.shape),
        jump=jnp.zeros_like(shocks),
        drift=jnp.full((num_bars, 1), mean),
        volatility=jnp.full((num_bars, 1), params.volatility),
        usual=params.volatility[None],
    )


# Merton: jumps


@flax.struct.dataclass(kw_only=True)
class MertonParams:
    """Geometric Brownian motion with normal jumps of the log price; every leaf f32[], traced.

    drift: log growth of the mean price per bar, jumps included; volatility: deviation of a bar's
    log return without jumps; intensity: mean number of jumps per bar; jump_mean, jump_deviation:
    of the log size of a jump.
    """

    drift: jax.Array
    volatility: jax.Array
    intensity: jax.Array
    jump_mean: jax.Array
    jump_deviation: jax.Array
    bars: BarParams


def make_merton(
    *,
    drift: float = 0.0,
    volatility: float = 4e-3,
    intensity: float = 0.02,
    jump_mean: float = -2e-3,
    jump_deviation: float = 0.02,
    bars: BarParams | None = None,
) -> MertonParams:
    """Parameters of Merton's jump diffusion.

    Raises:
        JaxtradeError: a value out of bounds, or no number.
    """
    bounds = {
        "drift": DRIFT,
        "volatility": VOLATILITY,
        "intensity": (0.0, 1.0),
        "jump_mean": (-0.5, 0.5),
        "jump_deviation": (0.0, 0.5),
    }
    values = {
        "drift": drift,
        "volatility": volatility,
        "intensity": intensity,
        "jump_mean": jump_mean,
        "jump_deviation": jump_deviation,
    }
    return MertonParams(**scalars(bounds, values), bars=bars or make_bar_params())


def merton_moments(params: MertonParams) -> tuple[jax.Array, jax.Array]:
    """Mean and variance f32[] of a bar's log return."""
    mean_square = params.jump_mean**2 + params.jump_deviation**2
    return (
        _merton_diffusion_drift(params)
        - params.volatility**2 / 2.0
        + params.intensity * params.jump_mean,
        params.volatility**2 + params.intensity * mean_square,
    )


def sample_merton(params: MertonParams, key: jax.Array, num_bars: int) -> Path:
    """Diffusion and Poisson many normal jumps (Merton, J. of Financial Economics 3, 1976)."""
    shock_key, count_key, size_key, bar_key = jax.random.split(key, 4)
    moves = _constant_diffusion(params, _merton_diffusion_drift(params), shock_key, num_bars)
    shape = moves.diffusion.shape
    chance = jax.random.uniform(count_key, shape, jnp.float32)
    count = _poisson(params.intensity * durations(params.bars)[None, :, None], chance)
    size = jax.random.normal(size_key, shape, jnp.float32)
    mean, variance = merton_moments(params)
    deviation = jnp.sqrt(variance)
    moves = moves.replace(  # type: ignore[attr-defined]
        jump=count * params.jump_mean + jnp.sqrt(count) * params.jump_deviation * size,
        drift=jnp.full((num_bars, 1), mean),
        volatility=jnp.full((num_bars, 1), deviation),
        usual=deviation[None],
    )
    return path_of(moves, params.bars, bar_key)


def _merton_diffusion_drift(params: MertonParams) -> jax.Array:
    """Drift f32[] between jumps that leaves the mean price growing at `drift`."""
    growth = jnp.expm1(params.jump_mean + params.jump_deviation**2 / 2.0)
    return params.drift - params.intensity * growth


def _poisson(mean: jax.Array, chance: jax.Array) -> jax.Array:
    """Poisson numbers f32[...] up to MAX_JUMPS of small means, by inversion of a uniform."""
    terms = [jnp.exp(-mean)]
    for number in range(1, MAX_JUMPS + 1):
        terms.append(terms[-1] * mean / number)
    chance = chance + 2.0**-24  # a uniform of zero stands for those up to 2**-23, not for none
    count = jnp.zeros_like(chance)
    at_least = jnp.zeros_like(mean)
    for term in terms[:0:-1]:  # the small terms first, which keeps their digits
        at_least = at_least + term
        count = count + (chance < at_least).astype(jnp.float32)
    return count


# Heston: the variance is a square-root process


@flax.struct.dataclass(kw_only=True)
class HestonParams:
    """Log price and its variance, driven by correlated Brownian motions; every leaf f32[], traced.

    dv = reversion (volatility**2 - v) dt + variance_volatility sqrt(v) dW'

    drift: log growth of the mean price per bar; volatility: root of the long-run variance of a
    bar; reversion: rate per bar at which the variance returns there; variance_volatility: xi, per
    bar; correlation: of dW' with the price's own dW, below 0 when falls raise the variance.
    """

    drift: jax.Array
    volatility: jax.Array
    reversion: jax.Array
    variance_volatility: jax.Array
    correlation: jax.Array
    bars: BarParams


MIN_FELLER = 0.1
"""Below this the variance spends its time at zero, with bursts, and the scheme has bias. Down to
here the long-run variance of 640,000 bars came out right within two standard errors.
"""


def make_heston(
    *,
    drift: float = 0.0,
    volatility: float = 5e-3,
    reversion: float = 0.02,
    variance_volatility: float = 8e-4,
    correlation: float = -0.6,
    bars: BarParams | None = None,
) -> HestonParams:
    """Parameters of Heston's model.

    The Feller ratio, 2 reversion volatility**2 / variance_volatility**2, may be below 1: the
    variance then touches zero, and the scheme stays a good one: see MIN_FELLER.

    Raises:
        JaxtradeError: a value out of bounds, or no number; a Feller ratio below MIN_FELLER.
    """
    bounds = {
        "drift": DRIFT,
        "volatility": VOLATILITY,
        "reversion": (1e-5, 1.0),
        "variance_volatility": (1e-9, 1.0),
        "correlation": (-1.0, 1.0),
    }
    values = {
        "drift": drift,
        "volatility": volatility,
        "reversion": reversion,
        "variance_volatility": variance_volatility,
        "correlation": correlation,
    }
    leaves = scalars(bounds, values)
    ratio = 2.0 * reversion * volatility**2 / variance_volatility**2
    if ratio < MIN_FELLER:
        highest = variance_volatility * (ratio / MIN_FELLER) ** 0.5
        raise JaxtradeError(
            f"synthetic market: variance_volatility is {variance_volatility:g}: give at most "
            f"{highest:.3g} (a Feller ratio of {MIN_FELLER:g}), or the variance hardly leaves zero"
        )
    return HestonParams(**leaves, bars=bars or make_bar_params())


def feller_ratio(params: HestonParams) -> jax.Array:
    """f32[], at least 1 where the variance never touches zero (Feller's condition)."""
    return 2.0 * params.reversion * params.volatility**2 / params.variance_volatility**2


def sample_heston(params: HestonParams, key: jax.Array, num_bars: int) -> Path:
    """Heston's model by the Euler scheme with full truncation.

    Heston, Review of Financial Studies 6, 1993; the scheme: Lord, Koekkoek and van Dijk,
    Quantitative Finance 10, 2010: drift and deviation see max(v, 0), v itself may be negative. The
    first variance is drawn from the stationary law, a gamma distribution.
    """
    start_key, shock_key, bar_key = jax.random.split(key, 3)
    lengths = durations(params.bars)
    shape = feller_ratio(params)
    start = jax.random.gamma(start_key, shape, (), jnp.float32) * params.volatility**2 / shape
    own = jnp.sqrt(1.0 - params.correlation**2)

    def bar(variance: jax.Array, shocks: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One bar, from shocks f32[S + 1, 2], of the price and of the variance alone."""
        variances = []
        for part in range(SUBSTEPS + 1):
            felt = jnp.maximum(variance, 0.0)
            variances.append(felt)
            shock = params.correlation * shocks[part, 0] + own * shocks[part, 1]
            pull = params.reversion * (params.volatility**2 - felt) * lengths[part]
            push = params.variance_volatility * jnp.sqrt(felt * lengths[part]) * shock
            variance = variance + pull + push
        return variance, jnp.stack(variances)

    shocks = jax.random.normal(shock_key, (num_bars, SUBSTEPS + 1, 2), jnp.float32)
    felt = jax.lax.scan(bar, start, shocks)[1]  # f32[T, S + 1], at the start of each part
    parts = lengths[None]
    variance = felt * parts
    deviation = jnp.sqrt(variance)
    kept = -jnp.expm1(-params.reversion) / params.reversion
    expected = params.volatility**2 + (felt[:, :1] - params.volatility**2) * kept
    moves = Moves(
        diffusion=(params.drift * parts - variance / 2.0 + deviation * shocks[..., 0])[..., None],
        deviation=deviation[..., None],
        jump=jnp.zeros_like(deviation)[..., None],
        drift=params.drift - expected / 2.0,
        volatility=jnp.sqrt(expected),
        usual=params.volatility[None],
    )
    return path_of(moves, params.bars, bar_key)
