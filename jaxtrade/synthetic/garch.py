"""GARCH(1,1) and GJR-GARCH with Student t shocks.

    log return of bar t  r = drift + e,  e = sigma z,  z Student t of variance 1
    sigma'**2 = omega + (alpha + gamma [e < 0]) e**2 + beta sigma**2

Bollerslev, "A conditionally heteroskedastic time series model for speculative prices and rates of
return", Review of Economics and Statistics 69, 1987; Glosten, Jagannathan and Runkle, Journal of
Finance 48, 1993. Rates are per bar. A Student t is a normal of random deviation: inside the bar
the price is a Brownian path of that deviation, so close, high and low belong together.
"""

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic.bars import BarParams, Moves, Path, durations, make_bar_params, path_of
from jaxtrade.synthetic.checks import scalars

WARM_BARS = 512
"""Bars before the first, from the long-run variance, so that it is drawn from its own law."""

MAX_VARIANCE = 1.0

_BOUNDS = {
    "drift": (-0.1, 0.1),
    "volatility": (1e-6, 0.5),
    "alpha": (0.0, 1.0),
    "gamma": (-1.0, 1.0),
    "beta": (0.0, 1.0),
    "degrees": (2.05, 1e6),
}


@flax.struct.dataclass(kw_only=True)
class GARCHParams:
    """Every leaf f32[], traced.

    drift: mean log return of a bar; volatility: root of the long-run variance of a bar's log
    return (omega is volatility**2 times 1 - persistence); alpha, gamma, beta: weights of the last
    square, of the last square when it was a fall, and of the last variance; degrees: of freedom of
    the Student t, above 2.
    """

    drift: jax.Array
    volatility: jax.Array
    alpha: jax.Array
    gamma: jax.Array
    beta: jax.Array
    degrees: jax.Array
    bars: BarParams


def make_garch(
    *,
    drift: float = 0.0,
    volatility: float = 5e-3,
    alpha: float = 0.08,
    beta: float = 0.9,
    degrees: float = 6.0,
    bars: BarParams | None = None,
) -> GARCHParams:
    """Parameters of the symmetric model, gamma = 0.

    Raises:
        JaxtradeError: a value out of bounds, or no number; a variance with no long-run mean.
    """
    return make_gjr(
        drift=drift,
        volatility=volatility,
        alpha=alpha,
        gamma=0.0,
        beta=beta,
        degrees=degrees,
        bars=bars,
    )


def make_gjr(
    *,
    drift: float = 0.0,
    volatility: float = 5e-3,
    alpha: float = 0.03,
    gamma: float = 0.1,
    beta: float = 0.9,
    degrees: float = 6.0,
    bars: BarParams | None = None,
) -> GARCHParams:
    """Parameters of the model in which falls raise the variance more than rises.

    Raises:
        JaxtradeError: a value out of bounds, or no number; a variance with no long-run mean, or
            one that a fall would make negative.
    """
    values = {
        "drift": drift,
        "volatility": volatility,
        "alpha": alpha,
        "gamma": gamma,
        "beta": beta,
        "degrees": degrees,
    }
    leaves = scalars(_BOUNDS, values)
    if not alpha + gamma >= 0.0:
        raise JaxtradeError(
            f"synthetic market: alpha + gamma is {alpha + gamma:g}: give 0 or more, "
            "or a fall makes the variance negative"
        )
    total = alpha + gamma / 2.0 + beta
    if not total < 1.0:
        raise JaxtradeError(
            f"synthetic market: alpha + gamma / 2 + beta is {total:g}: give less than 1, "
            "or the variance has no long-run mean"
        )
    return GARCHParams(**leaves, bars=bars or make_bar_params())


def persistence(params: GARCHParams) -> jax.Array:
    """f32[], part of the variance's distance from its long-run mean that one bar leaves."""
    return params.alpha + params.gamma / 2.0 + params.beta


def sample_garch(params: GARCHParams, key: jax.Array, num_bars: int) -> Path:
    """Draw a path of either model."""
    mix_key, normal_key, bar_key = jax.random.split(key, 3)
    lengths = durations(params.bars)[None]
    half = params.degrees / 2.0
    mix = jax.random.gamma(mix_key, half, (WARM_BARS + num_bars, 1), jnp.float32)
    deviation = jnp.sqrt((half - 1.0) / mix * lengths)
    shocks = deviation * jax.random.normal(normal_key, deviation.shape, jnp.float32)
    variances = _variances(params, shocks.sum(axis=1))

    shocks, deviation = shocks[WARM_BARS:], deviation[WARM_BARS:]
    volatility = jnp.sqrt(variances[WARM_BARS:])[:, None]
    moves = Moves(
        diffusion=(volatility * shocks + params.drift * lengths)[..., None],
        deviation=(volatility * deviation)[..., None],
        jump=jnp.zeros_like(shocks)[..., None],
        drift=jnp.full((num_bars, 1), params.drift),
        volatility=volatility,
        usual=params.volatility[None],
    )
    return path_of(moves, params.bars, bar_key)


def _variances(params: GARCHParams, shocks: jax.Array) -> jax.Array:
    """The variance of each bar f32[T], from the long-run variance, under shocks f32[T]."""
    long_run = params.volatility**2
    omega = long_run * (1.0 - persistence(params))
    weights = params.alpha + jnp.where(shocks < 0.0, params.gamma, 0.0)
    factors = weights * shocks**2 + params.beta

    def step(variance: jax.Array, factor: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.minimum(omega + factor * variance, MAX_VARIANCE), variance

    return jax.lax.scan(step, long_run, factors)[1]
