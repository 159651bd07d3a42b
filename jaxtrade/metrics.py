"""Performance figures of one policy over one span, in NumPy float64. This module imports no JAX.

Everywhere `returns: f64[T]` are simple returns per bar (equity after the bar over equity before
it, minus one; -1 or less is the loss of everything) and `bars_per_year` annualises. The ratios of
Sharpe and Sortino are of what they are given: of returns beyond a risk-free rate, if that is it.
No figure is ever NaN: one whose denominator vanishes is 0 by definition.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

METRICS = (
    "total_return",
    "cagr",
    "sharpe",
    "sortino",
    "volatility",
    "max_drawdown",
    "max_drawdown_bars",
    "calmar",
    "win_rate",
    "profit_factor",
    "trades",
    "turnover",
    "exposure",
    "costs",
)
"""The keys of `summary`, in its order."""

ROUNDING = 1e-12
"""Deviations of returns, and distances from a peak, up to here are rounding and count as zero."""


def total_return(returns: ArrayLike) -> float:
    """Product of (1 + r) minus one; infinite where float64 cannot hold it."""
    return _expm1(float(_log_growth(returns).sum()))


def cagr(returns: ArrayLike, bars_per_year: float) -> float:
    """Compound annual growth rate: (product of (1 + r)) ** (bars_per_year / T) - 1.

    A span shorter than a year is extrapolated; infinite where float64 cannot hold the result.
    """
    log_growth = _log_growth(returns)
    if log_growth.size == 0:
        return 0.0
    return _expm1(float(log_growth.sum()) * bars_per_year / log_growth.size)


def volatility(returns: ArrayLike, bars_per_year: float) -> float:
    """Annualised sample deviation: std(r, ddof=1) * sqrt(bars_per_year)."""
    return _deviation(_as_returns(returns)) * math.sqrt(bars_per_year)


def sharpe(returns: ArrayLike, bars_per_year: float) -> float:
    """Sharpe ratio: mean(r) / std(r, ddof=1) * sqrt(bars_per_year); 0 without deviation.

    Source: Sharpe, "The Sharpe Ratio", Journal of Portfolio Management 21 (1994); annualised as if
    returns were uncorrelated (Lo, "The Statistics of Sharpe Ratios", 2002, equation 20).
    """
    r = _as_returns(returns)
    deviation = _deviation(r)
    return float(r.mean()) / deviation * math.sqrt(bars_per_year) if deviation else 0.0


def sharpe_error(returns: ArrayLike, bars_per_year: float) -> float:
    """Standard error of `sharpe` for independent returns (Lo 2002, equation 9); inf for no bars."""
    count = len(_as_returns(returns))
    if not count:
        return math.inf
    per_bar = sharpe(returns, bars_per_year) / math.sqrt(bars_per_year)
    return math.sqrt((1.0 + 0.5 * per_bar**2) / count * bars_per_year)


def sortino(returns: ArrayLike, bars_per_year: float) -> float:
    """Sortino ratio: mean(r) / sqrt(mean(min(r, 0)**2)) * sqrt(bars_per_year); 0 without a loss.

    The downside deviation is against a target of zero and counts all bars, those without a loss
    as zeros. Source: Sortino & Price, "Performance Measurement in a Downside Risk Framework",
    Journal of Investing 3 (1994).
    """
    r = _as_returns(returns)
    if r.size == 0:
        return 0.0
    downside = math.sqrt(float(np.mean(np.minimum(r, 0.0) ** 2)))
    return float(r.mean()) / downside * math.sqrt(bars_per_year) if downside > ROUNDING else 0.0


def drawdown(returns: ArrayLike) -> NDArray[np.float64]:
    """Fraction of equity lost since its highest value so far: f64[T + 1], each in [0, 1].

    Element k is after k bars; element 0 is the start, which counts as a peak.
    """
    return -np.expm1(_log_distance(returns)) + 0.0


def max_drawdown(returns: ArrayLike) -> float:
    """Deepest fall of equity below an earlier value, as a positive fraction of that value.

    max over s <= t of 1 - equity[t] / equity[s]; in [0, 1], and the start counts as a value.
    """
    return float(drawdown(returns).max())


def max_drawdown_bars(returns: ArrayLike) -> int:
    """Longest time in bars from a peak of equity to the bar that regains it, or to the end.

    A peak that lasts counts from its last bar, so that standing still is no drawdown.
    """
    distance = _log_distance(returns)
    at_peak = np.flatnonzero(distance >= -ROUNDING)
    spells = np.diff(at_peak)
    unrecovered = distance.size - 1 - int(at_peak[-1])
    return max(int(spells[spells > 1].max(initial=0)), unrecovered)


def calmar(returns: ArrayLike, bars_per_year: float) -> float:
    """Calmar ratio: CAGR over the deepest drawdown, of the whole span; 0 without a drawdown.

    Source: Young, "Calmar Ratio: A Smoother Tool", Futures magazine (October 1991).
    """
    deepest = max_drawdown(returns)
    return cagr(returns, bars_per_year) / deepest if deepest > ROUNDING else 0.0


def win_rate(trip_returns: ArrayLike) -> float:
    """Share of round trips with a return above zero; 0 without trips."""
    trips = _as_returns(trip_returns)
    return float(np.mean(trips > 0)) if trips.size else 0.0


def profit_factor(trip_returns: ArrayLike) -> float:
    """Sum of the gains over the sum of the losses of round trips.

    Infinite with some gain and no loss, 0 with no gain (and so without trips).
    """
    trips = _as_returns(trip_returns)
    gains = float(trips[trips > 0].sum())
    losses = -float(trips[trips < 0].sum())
    if losses == 0:
        return math.inf if gains > 0 else 0.0
    return gains / losses


def summary(
    returns: ArrayLike,
    *,
    bars_per_year: float,
    trip_returns: ArrayLike,
    turnover: ArrayLike,
    exposure: ArrayLike,
    costs: ArrayLike,
    risk_free: ArrayLike = 0.0,
) -> dict[str, float]:
    """All figures under the names and in the order of `METRICS`.

    `risk_free`, f64[] or f64[T], is what the ratios of Sharpe and Sortino take off each return.
    `trip_returns` is one simple return per round trip, an open one as marked at the end;
    `turnover` (traded value over equity), `exposure` (signed) and `costs` (fraction of equity
    paid) are f64[T], one number per bar. `turnover` becomes traded value over equity per year,
    `exposure` its mean absolute value, `costs` their plain sum over the span.
    """
    excess = _as_returns(returns) - np.asarray(risk_free, np.float64)
    values = {
        "total_return": total_return(returns),
        "cagr": cagr(returns, bars_per_year),
        "sharpe": sharpe(excess, bars_per_year),
        "sortino": sortino(excess, bars_per_year),
        "volatility": volatility(returns, bars_per_year),
        "max_drawdown": max_drawdown(returns),
        "max_drawdown_bars": float(max_drawdown_bars(returns)),
        "calmar": calmar(returns, bars_per_year),
        "win_rate": win_rate(trip_returns),
        "profit_factor": profit_factor(trip_returns),
        "trades": float(_as_returns(trip_returns).size),
        "turnover": _mean(turnover) * bars_per_year,
        "exposure": _mean(np.abs(np.asarray(exposure, np.float64))),
        "costs": float(np.sum(np.asarray(costs, np.float64))),
    }
    return {name: values[name] for name in METRICS}


def _as_returns(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(-1)


def _log_growth(returns: ArrayLike) -> NDArray[np.float64]:
    """log(1 + r), minus infinity where everything is lost."""
    with np.errstate(divide="ignore"):
        return np.log1p(np.maximum(_as_returns(returns), -1.0))


def _log_distance(returns: ArrayLike) -> NDArray[np.float64]:
    """Log of equity over its highest value so far, f64[T + 1], at most 0; logs do not overflow."""
    log_equity = np.concatenate([np.zeros(1), np.cumsum(_log_growth(returns))])
    return log_equity - np.maximum.accumulate(log_equity)


def _deviation(r: NDArray[np.float64]) -> float:
    """Sample deviation, exactly 0 for a single bar and where only rounding is left of it."""
    if r.size < 2:
        return 0.0
    deviation = float(r.std(ddof=1))
    return deviation if deviation > ROUNDING else 0.0


def _mean(values: ArrayLike) -> float:
    array = np.asarray(values, np.float64)
    return float(array.mean()) if array.size else 0.0


def _expm1(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.expm1(value))
