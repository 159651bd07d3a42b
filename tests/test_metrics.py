import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtrade import metrics

BARS = 252.0


def return_arrays(low: float = -0.9, high: float = 2.0, min_size: int = 1) -> st.SearchStrategy:
    return hnp.arrays(
        np.float64,
        st.integers(min_size, 60),
        elements=st.floats(low, high).map(lambda value: round(value, 6)),
    )


def summarise(returns: np.ndarray, trips: tuple[float, ...] = ()) -> dict[str, float]:
    zeros = np.zeros(len(returns))
    return metrics.summary(
        returns,
        bars_per_year=BARS,
        trip_returns=trips,
        turnover=zeros,
        exposure=zeros,
        costs=zeros,
    )


def test_ratios_by_hand() -> None:
    # mean 0.01; deviations 0.01, -0.03, 0.02: std = sqrt(0.0014 / 2); downside sqrt(0.0004 / 3)
    returns = [0.02, -0.02, 0.03]
    std = math.sqrt(0.0007)
    assert metrics.sharpe(returns, 4.0) == pytest.approx(0.01 / std * 2)
    assert metrics.volatility(returns, 4.0) == pytest.approx(std * 2)
    assert metrics.sortino(returns, 4.0) == pytest.approx(0.01 / math.sqrt(0.0004 / 3) * 2)


def test_growth_and_drawdown_by_hand() -> None:
    # equity 1, 1.1, 0.88, 0.99, 1.1, 1.32, 1.188
    returns = [0.1, -0.2, 0.125, 1 / 9, 0.2, -0.1]
    assert metrics.total_return(returns) == pytest.approx(0.188)
    assert metrics.cagr(returns, 12.0) == pytest.approx(1.188**2 - 1)
    assert metrics.max_drawdown(returns) == pytest.approx(0.2)
    assert metrics.max_drawdown_bars(returns) == 3  # regained only up to rounding, at bar 4
    assert metrics.calmar(returns, 12.0) == pytest.approx((1.188**2 - 1) / 0.2)
    expected = [0, 0, 0.2, 0.1, 0, 0, 0.1]
    np.testing.assert_allclose(metrics.drawdown(returns), expected, atol=1e-15)


def test_time_under_water_counts_to_the_end_and_not_while_standing_still() -> None:
    assert metrics.max_drawdown_bars([0.1, 0.0, 0.0, 0.1]) == 0
    assert metrics.max_drawdown_bars([0.0, -0.1, 0.0, 0.0]) == 3
    assert metrics.max_drawdown_bars([-0.5, 1.0, -0.1]) == 2


def test_trips_by_hand() -> None:
    trips = [0.2, -0.1, 0.0, 0.1]
    assert metrics.win_rate(trips) == 0.5
    assert metrics.profit_factor(trips) == pytest.approx(3.0)
    assert metrics.profit_factor([0.1]) == math.inf
    assert metrics.profit_factor([-0.1]) == 0.0
    assert metrics.profit_factor([]) == metrics.win_rate([]) == 0.0


def test_summary_has_the_documented_order_and_the_activity_figures() -> None:
    result = metrics.summary(
        [0.1, 0.0],
        bars_per_year=100.0,
        trip_returns=[0.1],
        turnover=[1.0, 0.5],
        exposure=[-1.0, 0.5],
        costs=[0.01, 0.002],
    )
    assert tuple(result) == metrics.METRICS
    assert all(type(value) is float for value in result.values())
    assert result["trades"] == 1
    assert result["turnover"] == pytest.approx(75.0)
    assert result["exposure"] == pytest.approx(0.75)
    assert result["costs"] == pytest.approx(0.012)


@pytest.mark.parametrize(
    "returns",
    [
        [],
        [0.0],
        [0.5],
        [0.01] * 9,
        [0.0] * 9,
        [0.02, 1e-3 - 1],
        [-1.0, 0.0, 0.1],
        [-1.5],
        [1e9] * 99,
    ],
)
def test_degenerate_spans_are_never_nan(returns: list[float]) -> None:
    result = summarise(np.array(returns))
    assert not any(math.isnan(value) for value in result.values())
    assert 0 <= result["max_drawdown"] <= 1


def test_ratios_without_deviation_are_zero() -> None:
    constant = [1.1 * 1.1 - 1.21 + 1e-4] + [1e-4] * 5  # equal but for rounding
    for returns in ([0.0] * 5, constant, [0.3]):
        assert metrics.sharpe(returns, BARS) == 0.0
        assert metrics.volatility(returns, BARS) == 0.0
        assert metrics.sortino(returns, BARS) == 0.0
        assert metrics.calmar(returns, BARS) == 0.0


def test_ruin_and_overflow() -> None:
    ruined = summarise(np.array([0.1, 1e-3 - 1]))
    assert ruined["max_drawdown"] == pytest.approx(0.999)
    assert ruined["cagr"] == pytest.approx(-1.0)
    assert summarise(np.array([-1.0, 0.5]))["total_return"] == -1.0
    assert metrics.cagr([0.1], 525_600.0) == math.inf


@hypothesis.given(returns=return_arrays(), scale=st.floats(1e-3, 1e6))
def test_scaling_equity_changes_nothing(returns: np.ndarray, scale: float) -> None:
    equity = scale * np.concatenate([[1.0], np.cumprod(1 + returns)])
    scaled = summarise(equity[1:] / equity[:-1] - 1)
    # Sortino and Calmar may divide by a deviation that is rounding on one side only.
    for name in ("total_return", "volatility", "max_drawdown", "max_drawdown_bars"):
        assert scaled[name] == pytest.approx(summarise(returns)[name], rel=1e-9, abs=1e-9)


@hypothesis.given(returns=return_arrays(low=-1.0, high=1.0))
def test_sharpe_flips_with_the_sign_and_drawdown_is_a_fraction(returns: np.ndarray) -> None:
    assert metrics.sharpe(-returns, BARS) == -metrics.sharpe(returns, BARS)
    assert 0 <= metrics.max_drawdown(returns) <= 1
    assert 0 <= metrics.max_drawdown_bars(returns) <= len(returns)


@hypothesis.given(returns=return_arrays(min_size=2))
def test_agreement_with_plain_loops(returns: np.ndarray) -> None:
    r = [float(value) for value in returns]
    mean = sum(r) / len(r)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in r) / (len(r) - 1))
    downside = math.sqrt(sum(value**2 for value in r if value < 0) / len(r))
    equity = peak = 1.0
    peak_bar = longest = 0
    deepest = 0.0
    for bar, value in enumerate(r, start=1):
        equity *= 1 + value
        if equity >= peak * (1 - 1e-12):
            longest = max(longest, bar - peak_bar if bar - peak_bar > 1 else 0)
            peak, peak_bar = max(peak, equity), bar
        deepest = max(deepest, 1 - equity / peak)
    longest = max(longest, len(r) - peak_bar)

    result = summarise(returns)
    assert result["total_return"] == pytest.approx(equity - 1, rel=1e-9, abs=1e-12)
    assert result["cagr"] == pytest.approx(equity ** (BARS / len(r)) - 1, rel=1e-9, abs=1e-9)
    assert result["max_drawdown"] == pytest.approx(deepest, abs=1e-12)
    assert result["max_drawdown_bars"] == longest
    assert result["volatility"] == pytest.approx(deviation * math.sqrt(BARS), abs=1e-9)
    if deviation > 1e-9:
        assert result["sharpe"] == pytest.approx(mean / deviation * math.sqrt(BARS), abs=1e-9)
    if downside > 1e-9:
        assert result["sortino"] == pytest.approx(mean / downside * math.sqrt(BARS), abs=1e-9)
    if deepest > 1e-9:
        assert result["calmar"] == pytest.approx(result["cagr"] / deepest, rel=1e-9)


def test_sharpe_error_by_hand_and_by_resampling():
    # 100 bars of deviation 1 and mean 0: sqrt(1 / 100) a bar, times sqrt(250) a year.
    assert metrics.sharpe_error(np.tile([0.01, -0.01], 50), 250) == pytest.approx(
        np.sqrt(250 / 100), rel=1e-6
    )
    assert metrics.sharpe_error([], 250) == np.inf
    generator = np.random.default_rng(0)
    draws = generator.normal(0.0005, 0.01, (400, 500))
    spread = np.std([metrics.sharpe(row, 250) for row in draws])
    assert metrics.sharpe_error(draws[0], 250) == pytest.approx(spread, rel=0.15)
