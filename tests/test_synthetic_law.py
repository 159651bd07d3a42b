"""The law of the embedded market and what can be earned on it, in float64 NumPy."""

import jax
import numpy as np
import pytest

from jaxtrade import features, metrics
from jaxtrade.spans import split
from jaxtrade.specs import FeatureSpec
from jaxtrade.synthetic import embedded, make_market, make_params
from tests.synthetic_paths import NUM_PATHS, autocorrelation, draw, keys, kurtosis, log_returns

DRIFT, REGIME_BARS, VOLATILITY = 0.12, 150, 0.005  # the defaults, as the docstring states them
TEST = slice(40_000, None)


@pytest.fixture(scope="module")
def paths():
    return draw()


# The law of the returns


def test_volatility_clusters_and_direction_does_not(paths):
    returns = log_returns(paths)
    squares = {lag: autocorrelation(returns**2, lag) for lag in (1, 10, 50)}
    assert squares[1] > squares[10] > squares[50] > 0.01
    assert squares[1] > 0.05
    assert all(abs(autocorrelation(returns, lag)) < 0.02 for lag in (1, 2, 5, 10, 50))
    flat = log_returns(draw(volatility_spread=0.0))
    assert abs(autocorrelation(flat**2, 1)) < 0.01


def test_tails_are_fat_and_the_scale_is_the_parameter(paths):
    returns = log_returns(paths)
    assert 5.5 < kurtosis(returns) < 8.5
    np.testing.assert_allclose(np.sqrt((returns**2).mean()), VOLATILITY, rtol=0.03)
    normal = log_returns(draw(volatility_spread=0.0, tail=0.0, drift=0.0))
    np.testing.assert_allclose(kurtosis(normal), 3.0, atol=0.15)


def test_log_volatility_has_its_memory_and_spread(paths):
    level = np.log(paths.volatility)
    np.testing.assert_allclose(level.std(), 0.35, rtol=0.03)
    np.testing.assert_allclose(autocorrelation(level, 34), 0.98**34, atol=0.03)


def test_regimes_last_and_change_as_stated(paths):
    changes = paths.trend[:, 1:] != paths.trend[:, :-1]
    lengths = np.concatenate([np.diff(np.flatnonzero(row)) for row in changes])
    assert len(lengths) > 4_000
    np.testing.assert_allclose(lengths.mean(), REGIME_BARS, rtol=0.05)
    np.testing.assert_allclose(lengths.std(), REGIME_BARS, rtol=0.08)  # geometric
    share = [(paths.trend == trend).mean() for trend in (-1, 0, 1)]
    np.testing.assert_allclose(share, 1 / 3, atol=0.03)
    before, after = paths.trend[:, :-1][changes], paths.trend[:, 1:][changes]
    for trend in (-1, 0, 1):
        following = after[before == trend]
        np.testing.assert_allclose((following == following.max()).mean(), 0.5, atol=0.05)


def test_first_regime_is_any_of_the_three():
    start = jax.vmap(embedded._start, in_axes=(None, 0))
    first = np.asarray(start(make_params(), keys(600))[0])
    assert all(150 < (first == trend).sum() < 250 for trend in (-1, 0, 1))


def test_drift_is_weak_and_as_stated():
    free = draw(reversion=0.0)
    moves = log_returns(free) / free.volatility
    for trend in (-1, 0, 1):
        chosen = moves[free.trend == trend]
        np.testing.assert_allclose(chosen.mean(), trend * DRIFT, atol=0.008)
        np.testing.assert_allclose(chosen.std(), 1.0, rtol=0.01)


def test_log_price_returns_to_its_start(paths):
    last = np.abs(log_returns(paths).cumsum(axis=1))
    assert last.max() < 1.2
    free = np.abs(log_returns(draw(reversion=0.0)).cumsum(axis=1))
    assert free.max() > 2 * last.max()


# What can be earned


def net_sharpe(exposure, opening, closing):
    """Sharpe ratio of each path: exposure f64[T, N] of bar t trades at the open of t + 1.

    opening, closing: f64[T, N] over the previous close; costs 2e-4 of the traded value.
    """
    before = np.concatenate([np.zeros_like(exposure[:1]), exposure[:-2]])
    after = exposure[:-1]
    gap = before * opening[1:]
    inside = after * ((1 + closing[1:]) / (1 + opening[1:]) - 1)
    returns = gap + inside - 2e-4 * np.abs(after - before)
    return np.array([metrics.sharpe(column, 8766.0) for column in returns.T])


def filter_lean(closing):
    """P(up) - P(down) f64[T, N] by Hamilton's filter of the returns up to each bar.

    The volatility is an exponential average of squares up to the bar before.
    """
    stay, leave = 1 - 1 / REGIME_BARS, 0.5 / REGIME_BARS
    transition = np.full((3, 3), leave) + (stay - leave) * np.eye(3)
    drift = DRIFT * np.array([[-1.0], [0.0], [1.0]])
    variance = np.full(closing.shape[1], VOLATILITY**2)
    belief = np.full((3, closing.shape[1]), 1 / 3)
    lean = np.empty_like(closing)
    for t, r in enumerate(closing):
        move = np.clip(r / np.sqrt(variance), -4, 4)
        belief = (transition @ belief) * np.exp(move * drift - drift**2 / 2)
        belief /= belief.sum(axis=0)
        lean[t] = belief[2] - belief[0]
        variance = 0.94 * variance + 0.06 * r**2
    return lean


def side_of_average(closing, period=50):
    """Sign of close - EMA f64[T, N], the average starting at the first close."""
    price = np.cumprod(1 + closing, axis=0)
    average, side = price[0], np.empty_like(closing)
    for t, close in enumerate(price):
        average = average + 2 / (period + 1) * (close - average)
        side[t] = np.sign(close - average)
    return side


def last_bars(paths):
    """Opening, closing of the last fifth, f64[T, N], and all closing."""
    opening, closing = (paths.bars[..., field].astype(np.float64).T for field in (0, 3))
    return opening[TEST], closing[TEST], closing


def test_a_causal_filter_earns_less_than_the_oracle_and_more_than_holding(paths):
    opening, closing, all_closing = last_bars(paths)
    oracle = net_sharpe(paths.trend.astype(np.float64).T[TEST], opening, closing)
    filtered = net_sharpe(filter_lean(all_closing)[TEST], opening, closing)
    average = net_sharpe(side_of_average(all_closing)[TEST], opening, closing)
    holding = net_sharpe(np.ones_like(closing), opening, closing)
    generator = np.random.default_rng(0)
    guesses = generator.integers(-1, 2, (len(closing) // 100, NUM_PATHS)).repeat(100, axis=0)
    guessing = net_sharpe(guesses.astype(np.float64), opening, closing)

    # The table of the module's docstring
    np.testing.assert_allclose(oracle[:5], (8.16, 8.00, 9.04, 8.90, 8.18), atol=0.02)
    np.testing.assert_allclose(filtered[:5], (3.77, 3.00, 3.83, 4.98, 3.28), atol=0.02)
    np.testing.assert_allclose(average[:5], (2.74, 2.33, 3.64, 2.91, 2.42), atol=0.02)
    np.testing.assert_allclose(holding[:5], (0.13, 1.12, -0.17, 0.14, 0.76), atol=0.02)
    assert (filtered[:5] > 1.5).all() and (holding[:5] < 1.5).all()
    assert (oracle > filtered + 1).all()
    assert 2 < filtered.mean() < 4.5 < oracle.mean()
    assert abs(holding.mean()) < 0.7 and abs(guessing.mean()) < 1


def test_without_drift_nothing_is_earned():
    opening, closing, all_closing = last_bars(draw(drift=0.0))
    filtered = net_sharpe(filter_lean(all_closing)[TEST], opening, closing)
    assert filtered.mean() < 0


@pytest.mark.parametrize("seed", range(5))
def test_a_line_through_the_features_earns_out_of_sample(seed):
    market = make_market(seed=seed)
    spec = FeatureSpec(names=("rsi", "macd", "ema_10", "ema_50", "volatility"))
    table = np.asarray(features.raw_table(spec, market))[:, 0].astype(np.float64)
    assert np.isfinite(table).all()
    spans = split(market.num_bars, first=64, embargo=64)
    volatility = table[:, -1:]
    scaled = np.concatenate([table[:, :1] / 50 - 1, table[:, 1:-1] / (volatility + 1e-4)], axis=1)

    train = slice(spans.train.first, spans.train.last)
    opening, closing = (market.bars[:, 0, [field]].astype(np.float64) for field in (0, 3))
    ahead = np.clip(closing[1:] / volatility[:-1].clip(1e-4), -5, 5)
    weights = np.linalg.lstsq(scaled[train], ahead[train], rcond=None)[0]
    forecast = scaled @ weights
    exposure = np.tanh(2 * forecast / forecast[train].std())
    test = slice(spans.test.first, spans.test.last + 1)
    sharpe = net_sharpe(exposure[test], opening[test], closing[test])
    backwards = net_sharpe(-exposure[test], opening[test], closing[test])
    assert sharpe > 1 > backwards
