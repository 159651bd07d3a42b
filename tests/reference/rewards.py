"""Reward terms of a whole episode in float64, from weighted sums over the past.

Shares no formula with `jaxtrade.rewards`: nothing recurses, and the differential ratios are in
their published form.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def average(series: Array, decay: float) -> Array:
    """f64[T + 1]: the moving average before each step and after the last; before any, 0.

    Value k has the weight rate_k times what the later ones left of it; the first 1 / decay values
    weigh the same.
    """
    rates = np.maximum(decay, 1 / np.arange(1, len(series) + 1))
    averages = [0.0]
    for t in range(1, len(series) + 1):
        left = np.cumprod(np.append(1 - rates[1:t], 1.0)[::-1])[::-1]
        averages.append(float((rates[:t] * left) @ series[:t]))
    return np.array(averages)


def sharpe(returns: Array, decay: float) -> tuple[Array, Array]:
    """The differential Sharpe ratio of each step f64[T], and the ratio itself f64[T + 1]."""
    a, b = average(returns, decay), average(returns**2, decay)
    change_a, change_b = returns - a[:-1], returns**2 - b[:-1]
    variance = (b - a**2)[:-1]
    rates = np.maximum(decay, 1 / np.arange(1, len(returns) + 1))
    floor = rates * (change_a**2 + a[:-1] ** 2)
    # where the floor binds it is the variance, and B is what goes with it
    variance = np.maximum(variance, floor)
    b_known = variance + a[:-1] ** 2
    change_b = returns**2 - b_known
    differential = _over(b_known * change_a - a[:-1] * change_b / 2, variance**1.5)
    return differential, _over(a, np.sqrt(np.maximum(b - a**2, 0)))


def sortino(returns: Array, decay: float) -> tuple[Array, Array]:
    """The differential downside deviation ratio f64[T], and the ratio itself f64[T + 1]."""
    a, squares = average(returns, decay), average(np.minimum(returns, 0) ** 2, decay)
    rates = np.maximum(decay, 1 / np.arange(1, len(returns) + 1))
    known = np.maximum(squares[:-1], rates * (returns**2 + a[:-1] ** 2))
    before = a[:-1]
    gain = _over(returns - before / 2, np.sqrt(known))
    loss = _over(known * (returns - before / 2) - before * returns**2 / 2, known**1.5)
    return np.where(returns > 0, gain, loss), _over(a, np.sqrt(squares))


def terms(facts: dict[str, Array], decay: float) -> dict[str, Array]:
    """Every term's value f64[T] from facts f64[T]."""
    returns = facts["simple_return"]
    growth = facts["drawdown"] - facts["previous_drawdown"]
    at_end = (facts["is_last"] + facts["is_ruined"]) > 0
    return {
        "log_return": facts["log_return"],
        "simple_return": returns,
        "differential_sharpe": sharpe(returns, decay)[0],
        "differential_sortino": sortino(returns, decay)[0],
        "drawdown": -facts["drawdown"],
        "drawdown_increase": -np.where(growth > 0, growth, 0),
        "volatility": -((returns - average(returns, decay)[:-1]) ** 2),
        "turnover": -facts["turnover"],
        "cost": -facts["cost"],
        "carry": -facts["carry"],
        "idle": -1.0 * (facts["gross"] == 0),
        "terminal_log_equity": at_end * facts["log_equity"],
        "ruin": -1.0 * facts["is_ruined"],
    }


def _over(numerator: Array, denominator: Array) -> Array:
    """The quotient, 0 where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
