"""Calibration by moments and least squares, float64 NumPy: bars, gbm, heston, pair."""

import numpy as np
from numpy.typing import NDArray

from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic.bars import BarParams, make_bar_params
from jaxtrade.synthetic.diffusions import (
    MIN_FELLER,
    GBMParams,
    HestonParams,
    make_gbm,
    make_heston,
)
from jaxtrade.synthetic.pair import PairParams, make_pair

Array = NDArray[np.float64]

SMOOTHING = 0.94
"""Memory of the moving average of squares that stands for the volatility (RiskMetrics, 1996)."""

HESTON_LAGS = 100
WINSOR = 5.0
"""Heston's moments see returns cut at so many deviations: a single crash would be all of them."""

MIN_VOLUMES = 100


def fit_bars(logs: Array, volume: NDArray[np.float32]) -> BarParams:
    """Gap and volume, all assets together.

    The gap is the open's part of the variance. Log volume is regressed on the log of the moving
    deviation up to the bar before and on log(1 + |return| / deviation); what is left is the noise.

    Args:
        logs: f64[T, A, 2], log returns on the last close of open and close.
        volume: f32[T, A], 0 = none known; with hardly any known the defaults stand.
    """
    outside = logs[..., 0].var()
    gap = float(np.sqrt(outside / (outside + (logs[..., 1] - logs[..., 0]).var())))
    fits = [
        _fit_volume(logs[:, asset, 1], volume[:, asset].astype(np.float64))
        for asset in range(logs.shape[1])
        if (volume[:, asset] > 0).sum() >= MIN_VOLUMES
    ]
    if not fits:
        return make_bar_params(gap=gap)
    median, volatility, move, noise, memory = np.mean(fits, axis=0)
    return make_bar_params(
        gap=gap,
        volume=float(np.clip(np.exp(median), 1e-3, 1e12)),
        volume_volatility=float(np.clip(volatility, -5.0, 5.0)),
        volume_move=float(np.clip(move, -5.0, 5.0)),
        volume_noise=float(min(noise, 5.0)),
        volume_memory=float(np.clip(memory, 0.0, 0.999)),
    )


def _fit_volume(returns: Array, volume: Array) -> tuple[float, float, float, float, float]:
    """Log median, the two slopes, deviation and autocorrelation of the noise."""
    usual = returns.std()
    deviation = np.maximum(moving_deviation(returns), 1e-3 * usual)
    size = np.log1p(np.abs(returns) / deviation)
    known = volume > 0
    terms = np.stack([np.ones_like(size), np.log(deviation / usual), size], axis=1)[known]
    level = np.log(volume[known])
    weights = np.linalg.lstsq(terms, level, rcond=None)[0]
    noise = level - terms @ weights
    deviation_of_noise = noise.std()
    memory = (noise[1:] * noise[:-1]).mean() / max(deviation_of_noise**2, 1e-12)
    return (*weights.tolist(), float(deviation_of_noise), float(memory))


def moving_deviation(returns: Array) -> Array:
    """Root of the exponential mean of squares up to the bar before, f64[T]."""
    variance, deviations = returns.var(), np.empty_like(returns)
    for row, value in enumerate(returns):
        deviations[row] = variance
        variance = SMOOTHING * variance + (1.0 - SMOOTHING) * value * value
    return np.sqrt(deviations)


def fit_gbm(returns: Array, bars: BarParams) -> GBMParams:
    """Mean and variance of log returns f64[T]."""
    volatility = float(returns.std())
    return make_gbm(
        drift=float(returns.mean()) + volatility**2 / 2.0, volatility=volatility, bars=bars
    )


def fit_heston(returns: Array, bars: BarParams) -> HestonParams:
    """Moments of log returns f64[T] at up to HESTON_LAGS lags.

    With v the variance, theta its long-run mean and h = ((1 - exp(-kappa)) / kappa)**2, for k >= 1

        Cov(r[t]**2, r[t+k]**2) = xi**2 theta / (2 kappa) h exp(-kappa (k - 1))
        Cov(r[t], r[t+k]**2)    = rho xi theta h exp(-kappa (k - 1))

    up to terms of a higher order in the returns. kappa is the rate that fits the first line best
    in least squares, over a grid; the heights of both lines give xi and rho.
    """
    centred = returns - returns.mean()
    deviation = centred.std()
    moves = np.clip(centred / deviation, -WINSOR, WINSOR)
    theta = float((moves**2).mean())  # in units of the deviation; 1 but for the cut
    squares = moves**2 - theta
    lags = np.arange(1, min(HESTON_LAGS, len(moves) // 4) + 1)
    clustering = np.array([(squares[k:] * squares[:-k]).mean() for k in lags])
    leverage = np.array([(squares[k:] * moves[:-k]).mean() for k in lags])

    rates = np.geomspace(1e-3, 1.0, 200)
    shapes = (-np.expm1(-rates) / rates)[:, None] ** 2 * np.exp(-rates[:, None] * (lags - 1))
    heights = (shapes @ clustering) / (shapes**2).sum(axis=1)
    errors = ((heights[:, None] * shapes - clustering) ** 2).sum(axis=1)
    best = int(errors.argmin())
    rate, shape = float(rates[best]), shapes[best]
    if heights[best] <= 0:
        raise JaxtradeError("its volatility does not cluster: give bars whose volatility does")
    xi = float(np.sqrt(2.0 * rate * heights[best] / theta))
    xi = min(xi, 0.999 * float(np.sqrt(2.0 * rate * theta / MIN_FELLER)))
    rho = float((shape @ leverage) / (shape**2).sum()) / (xi * theta)
    volatility = float(deviation)  # the cut shapes the variance's path, not its mean
    return make_heston(
        drift=float(returns.mean()) + volatility**2 / 2.0,
        volatility=volatility,
        reversion=rate,
        variance_volatility=xi / float(np.sqrt(theta)) * volatility,
        correlation=float(np.clip(rho, -0.99, 0.99)),
        bars=bars,
    )


def fit_pair(log_prices: Array, bars: BarParams) -> PairParams:
    """Least squares on log closes f64[T, 2] (Engle and Granger's two steps).

    Raises:
        JaxtradeError: the spread does not return.
    """
    first, second = (log_prices - log_prices.mean(axis=0)).T
    hedge_ratio = float((first @ second) / (second @ second))
    spread = first - hedge_ratio * second
    kept = float((spread[1:] @ spread[:-1]) / (spread[:-1] @ spread[:-1]))
    if not 0.0 < kept < 1.0:
        raise JaxtradeError(
            f"the spread keeps {kept:.4g} of itself from bar to bar: give a pair whose spread "
            "returns (above 0, below 1)"
        )
    returns = np.diff(second)
    volatility = float(returns.std())
    fresh = float((spread[1:] - kept * spread[:-1]).std())
    return make_pair(
        drift=float(returns.mean()) + volatility**2 / 2.0,
        volatility=volatility,
        hedge_ratio=hedge_ratio,
        half_life=float(np.log(0.5) / np.log(kept)),
        spread_volatility=fresh / float(np.sqrt(1.0 - kept**2)),
        bars=bars,
    )
