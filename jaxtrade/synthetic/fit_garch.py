"""Maximum likelihood for GARCH and GJR-GARCH with Student t shocks."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from numpy.typing import NDArray

from jaxtrade.synthetic.bars import BarParams
from jaxtrade.synthetic.garch import GARCHParams, make_garch, make_gjr, persistence
from jaxtrade.synthetic.likelihood import Array, minimise

BACKCAST_BARS, BACKCAST_MEMORY = 75, 0.94
"""The variance before the first bar is an exponential mean of the first squares."""

MAX_PERSISTENCE = 0.9995
"""Real series of high frequency reach for 1, where the variance has no long-run mean: a shock may
take 1,400 bars to halve, and no longer."""


def fit_garch(returns: Array, bars: BarParams, *, target_variance: bool = False) -> GARCHParams:
    """The symmetric model on log returns f64[T]; see `calibrate` for target_variance."""
    drift, omega, alpha, _, beta, degrees = _fit(
        returns, symmetric=True, target_variance=target_variance
    )
    return make_garch(
        drift=drift,
        volatility=float(np.sqrt(omega / (1.0 - alpha - beta))),
        alpha=alpha,
        beta=beta,
        degrees=degrees,
        bars=bars,
    )


def fit_gjr(returns: Array, bars: BarParams, *, target_variance: bool = False) -> GARCHParams:
    """The model with leverage on log returns f64[T]; see `calibrate` for target_variance."""
    drift, omega, alpha, gamma, beta, degrees = _fit(
        returns, symmetric=False, target_variance=target_variance
    )
    return make_gjr(
        drift=drift,
        volatility=float(np.sqrt(omega / (1.0 - alpha - gamma / 2.0 - beta))),
        alpha=alpha,
        gamma=gamma,
        beta=beta,
        degrees=degrees,
        bars=bars,
    )


def log_likelihood(params: GARCHParams, returns: NDArray[np.floating]) -> float:
    """Of log returns [T] under either model, in float64."""
    names = ("drift", "volatility", "alpha", "gamma", "beta", "degrees")
    with jax.enable_x64(True):
        exact = params.replace(  # type: ignore[attr-defined]
            **{name: jnp.float64(float(getattr(params, name))) for name in names}
        )
        omega = exact.volatility**2 * (1.0 - persistence(exact))
        numbers = (exact.drift, omega, exact.alpha, exact.gamma, exact.beta, exact.degrees)
        mean = _mean_log_density(jnp.stack(numbers), jnp.asarray(returns, jnp.float64))
        return float(mean) * len(returns)


def _fit(returns: Array, *, symmetric: bool, target_variance: bool) -> tuple[float, ...]:
    """drift, omega, alpha, gamma, beta, degrees; searched on returns of deviation 1."""
    scale = float(returns.std())

    def loss(raw: jax.Array, data: jax.Array) -> jax.Array:
        return -_mean_log_density(_coefficients(raw, symmetric, target_variance), data)

    starts = [
        _start(persistence=total, alpha=alpha, degrees=degrees)
        for total in (0.8, 0.95, 0.99)
        for alpha in (0.04, 0.1)
        for degrees in (4.0, 10.0)
    ]
    bounds = [(-1.0, 1.0), (-16.0, 2.0), (-20.0, 15.0), (-20.0, 15.0), (-20.0, 15.0), (-3.0, 6.0)]
    raw = minimise(loss, starts, returns / scale, bounds)
    with jax.enable_x64(True):
        numbers = _coefficients(jnp.asarray(raw, jnp.float64), symmetric, target_variance)
        drift, omega, *others = (float(number) for number in numbers)
    return (drift * scale, omega * scale**2, *others)


def _start(*, persistence: float, alpha: float, degrees: float) -> tuple[float, ...]:
    """Raw numbers of a symmetric model whose long-run variance is 1: variance targeting."""
    rest = MAX_PERSISTENCE - persistence
    logs = np.log(np.array([alpha / 2.0, alpha / 2.0, persistence - alpha]) / rest)
    return (0.0, float(np.log(1.0 - persistence)), *logs.tolist(), float(np.log(degrees - 2.05)))


def _coefficients(raw: jax.Array, symmetric: bool, target_variance: bool) -> jax.Array:
    """drift, omega, alpha, gamma, beta, degrees f64[6] of any raw numbers f64[6].

    The persistence is shared out between rises, falls and the last variance by a softmax, so the
    variance stays positive and has a long-run mean.
    """
    rise, fall = raw[2], raw[2] if symmetric else raw[3]
    shares = MAX_PERSISTENCE * jax.nn.softmax(jnp.stack([rise, fall, raw[4], jnp.zeros_like(rise)]))
    alpha, gamma = 2.0 * shares[0], 2.0 * (shares[1] - shares[0])
    degrees = 2.05 + jnp.exp(raw[5])
    omega = 1.0 - shares[:3].sum() if target_variance else jnp.exp(raw[1])
    return jnp.stack([raw[0], omega, alpha, gamma, shares[2], degrees])


def _mean_log_density(numbers: jax.Array, returns: jax.Array) -> jax.Array:
    """Mean log density f64[] of returns f64[T] under Student t shocks of variance 1."""
    drift, omega, alpha, gamma, beta, degrees = numbers
    shocks = returns - drift
    squares = shocks**2
    weights = jnp.power(BACKCAST_MEMORY, jnp.arange(min(BACKCAST_BARS, len(returns))))
    before = (weights * squares[: len(weights)]).sum() / weights.sum()
    news = (alpha + gamma * (shocks < 0.0)) * squares

    def step(variance: jax.Array, news: jax.Array) -> tuple[jax.Array, jax.Array]:
        return omega + news + beta * variance, variance

    start = omega + (alpha + gamma / 2.0 + beta) * before
    variances = jax.lax.scan(step, start, news)[1]
    half = (degrees + 1.0) / 2.0
    constant = gammaln(half) - gammaln(degrees / 2.0) - jnp.log(jnp.pi * (degrees - 2.0)) / 2.0
    tails = jnp.log1p(squares / (variances * (degrees - 2.0)))
    return constant - (jnp.log(variances) / 2.0 + half * tails).mean()
