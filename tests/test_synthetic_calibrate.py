"""Calibration: parameters come back from their own markets; the hopeless is refused."""

import functools

import numpy as np
import pytest
from scipy import stats

from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic import (
    PROCESSES,
    calibrate,
    make_bar_params,
    make_gbm,
    make_gjr,
    make_market,
)
from jaxtrade.synthetic.fit_garch import log_likelihood
from jaxtrade.synthetic.fit_moments import moving_deviation

NUM_BARS = 10_000


@functools.cache
def market_of(kind, seed=0, **changes):
    return make_market(
        kind=kind, seed=seed, num_bars=NUM_BARS, params=PROCESSES[kind].make_params(**changes)
    )


def returns_of(market):
    return np.log1p(market.bars[1:, 0, 3].astype(np.float64))


def assert_close(params, **expected):
    """Each expected value with the relative or absolute error that is allowed it."""
    for name, (value, error) in expected.items():
        np.testing.assert_allclose(getattr(params, name), value, atol=error, err_msg=name)


def test_gbm_by_its_moments():
    market = market_of("gbm", drift=2e-4, volatility=0.01)
    assert_close(calibrate("gbm", market), drift=(2e-4, 2e-4), volatility=(0.01, 1e-4))


def test_gbm_by_hand():
    bars = np.zeros((301, 1, 4), np.float32)
    bars[1::2, 0, 3], bars[2::2, 0, 3] = np.expm1(0.03), np.expm1(-0.01)
    market = market_of("gbm").rows(0, 300).replace(bars=bars)
    # log returns 0.03 and -0.01 in turn: mean 0.01, deviation 0.02
    assert_close(
        calibrate("gbm", market), drift=(0.01 + 0.02**2 / 2, 1e-7), volatility=(0.02, 1e-7)
    )


@pytest.mark.slow
def test_garch_by_maximum_likelihood():
    params = calibrate("garch", market_of("garch", drift=1e-4))
    assert_close(
        params,
        drift=(1e-4, 8e-5),
        volatility=(5e-3, 5e-4),
        alpha=(0.08, 0.015),
        gamma=(0.0, 0.0),
        beta=(0.9, 0.02),
        degrees=(6.0, 1.2),
    )


@pytest.mark.slow
def test_gjr_by_maximum_likelihood():
    market = market_of("gjr")
    params = calibrate("gjr", market)
    assert_close(
        params,
        volatility=(5e-3, 5e-4),
        alpha=(0.03, 0.015),
        gamma=(0.1, 0.03),
        beta=(0.9, 0.02),
        degrees=(6.0, 1.2),
    )
    best = log_likelihood(params, returns_of(market))
    true = log_likelihood(PROCESSES["gjr"].make_params(), returns_of(market))
    assert true < best < true + 15  # twice the gain is a chi square of six degrees
    symmetric = log_likelihood(calibrate("garch", market), returns_of(market))
    assert symmetric < best - 20
    targeted = calibrate("gjr", market, target_variance=True)
    assert best - 3 < log_likelihood(targeted, returns_of(market)) <= best
    np.testing.assert_allclose(targeted.volatility, returns_of(market).std(), rtol=1e-4)


@pytest.mark.slow
def test_likelihood_is_that_of_a_loop():
    market = market_of("gjr").rows(0, 300)
    returns = returns_of(market)
    params = PROCESSES["gjr"].make_params(drift=1e-4)
    shocks = returns - 1e-4
    weights = 0.94 ** np.arange(75)
    before = (weights * shocks[:75] ** 2).sum() / weights.sum()
    omega = 0.005**2 * (1 - 0.03 - 0.05 - 0.9)
    variance, total = omega + (0.03 + 0.05 + 0.9) * before, 0.0
    for shock in shocks:
        scale = np.sqrt(variance * 4 / 6)
        total += stats.t.logpdf(shock, 6, scale=scale)
        variance = omega + (0.03 + 0.1 * (shock < 0)) * shock**2 + 0.9 * variance
    np.testing.assert_allclose(log_likelihood(params, returns), total, rtol=1e-5)


@pytest.mark.slow
def test_merton_by_maximum_likelihood():
    params = calibrate("merton", market_of("merton", jump_mean=-5e-3))
    assert_close(
        params,
        volatility=(4e-3, 1e-4),
        intensity=(0.02, 0.004),
        jump_mean=(-5e-3, 3e-3),
        jump_deviation=(0.02, 2e-3),
        drift=(0.0, 2e-4),
    )


@pytest.mark.slow
def test_heston_by_moments():
    changes = {"reversion": 0.05, "variance_volatility": 1.2e-3, "correlation": -0.7}
    fits = [calibrate("heston", market_of("heston", seed=seed, **changes)) for seed in range(3)]
    mean = {
        name: np.mean([float(getattr(fit, name)) for fit in fits])
        for name in ("volatility", *changes)
    }
    np.testing.assert_allclose(mean["volatility"], 5e-3, rtol=0.05)
    np.testing.assert_allclose(mean["reversion"], 0.05, rtol=0.3)
    np.testing.assert_allclose(mean["variance_volatility"], 1.2e-3, rtol=0.2)
    np.testing.assert_allclose(mean["correlation"], -0.7, atol=0.2)


@pytest.mark.slow
def test_regimes_by_expectation_maximisation():
    params = calibrate("regimes", market_of("regimes"))
    assert_close(
        params,
        drift=((2e-4, -4e-4), 2.5e-4),
        volatility=((3e-3, 9e-3), 2e-4),
        transition=(((0.99, 0.01), (0.03, 0.97)), 0.014),
    )


@pytest.mark.slow
def test_three_regimes_come_back_calmest_first():
    changes = {
        "drift": (0.0, 0.0, 0.0),
        "volatility": (0.002, 0.006, 0.02),
        "transition": ((0.98, 0.02, 0.0), (0.01, 0.98, 0.01), (0.0, 0.05, 0.95)),
    }
    params = calibrate("regimes", market_of("regimes", **changes), num_regimes=3)
    assert_close(
        params,
        volatility=((0.002, 0.006, 0.02), 1.5e-3),
        transition=(changes["transition"], 0.035),
    )


def test_pair_by_least_squares():
    changes = {"hedge_ratio": 0.7, "half_life": 30.0, "spread_volatility": 0.03}
    params = calibrate("pair", market_of("pair", **changes))
    assert_close(
        params,
        hedge_ratio=(0.7, 0.03),
        half_life=(30.0, 5.0),
        spread_volatility=(0.03, 3e-3),
        volatility=(5e-3, 1e-4),
    )


def test_bars_by_their_moments():
    wanted = {
        "gap": 0.4,
        "volume": 5e6,
        "volume_volatility": 0.8,
        "volume_move": 0.5,
        "volume_noise": 0.3,
        "volume_memory": 0.7,
    }
    params = make_gjr(bars=make_bar_params(**wanted))
    market = make_market(kind="gjr", num_bars=NUM_BARS, params=params)
    bars = calibrate("gbm", market).bars  # of every process the same
    assert_close(
        bars,
        gap=(0.4, 0.02),
        volume_volatility=(0.8, 0.15),
        volume_move=(0.5, 0.1),
        volume_noise=(0.3, 0.05),
        volume_memory=(0.7, 0.05),
    )
    np.testing.assert_allclose(bars.volume, 5e6, rtol=0.1)


def test_a_market_without_volume_keeps_the_default():
    market = market_of("gbm").rows(0, 400)
    market = market.replace(volume=np.zeros_like(market.volume))
    bars, default = calibrate("gbm", market).bars, make_bar_params()
    assert float(bars.volume_noise) == float(default.volume_noise)
    np.testing.assert_allclose(bars.gap, 0.1, atol=0.02)


def test_the_moving_deviation_knows_nothing_of_its_own_bar():
    returns = np.array([0.01, -0.03, 0.02])
    expected = [returns.var()]
    for value in returns[:2]:
        expected.append(0.94 * expected[-1] + 0.06 * value**2)
    np.testing.assert_allclose(moving_deviation(returns), np.sqrt(expected))


@pytest.mark.slow
def test_a_calibrated_market_resembles_its_model():
    original = market_of("garch")
    params = calibrate("garch", original, target_variance=True)
    again = make_market(kind="garch", seed=9, num_bars=NUM_BARS, params=params)
    for statistic in (np.std, lambda x: np.quantile(np.abs(x), 0.9)):
        ours, theirs = statistic(returns_of(again)), statistic(returns_of(original))
        np.testing.assert_allclose(ours, theirs, rtol=0.1)


# Refusals


def test_what_cannot_be_calibrated_is_refused():
    one, two = market_of("gbm").rows(0, 400), market_of("pair").rows(0, 400)
    still = one.replace(bars=np.zeros_like(one.bars))
    for call, message in {
        (lambda: calibrate("gbbm", one)): "unknown synthetic market 'gbbm': did you mean 'gbm'",
        (lambda: calibrate("embedded", one)): "calibrate: the embedded market is what it is",
        (lambda: calibrate("gbm", two)): r"calibrate gbm: synthetic pair .* holds 2 assets: give 1",
        (lambda: calibrate("pair", one)): r"calibrate pair: .* holds 1 assets: give 2",
        (lambda: calibrate("gbm", one.rows(0, 99))): r"calibrate gbm: .* has 100 bars: give more",
        (lambda: calibrate("regimes", one, num_regimes=0)): "num_regimes is 0: give a whole number",
        (lambda: calibrate("garch", still)): r"calibrate garch: .* has prices that never move",
    }.items():
        with pytest.raises(JaxtradeError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_spread_that_does_not_return_is_refused():
    # The first price jumps to and fro beside the second: its spread turns round at every bar
    market = market_of("pair").rows(0, 399)
    bars = market.bars.copy()
    sway = np.where(np.arange(400) % 2, 0.02, -0.02)
    bars[:, 0, 3] = np.expm1(np.log1p(bars[:, 1, 3]) + sway)
    with pytest.raises(JaxtradeError, match=r"calibrate pair: .*the spread keeps -1 of itself"):
        calibrate("pair", market.replace(bars=bars))


def test_returns_without_clusters_are_no_heston():
    market = market_of("gbm")
    bars = market.bars.copy()
    bars[0::2, 0, 3], bars[1::2, 0, 3] = 0.01, -0.03  # large and small squares in turn
    with pytest.raises(JaxtradeError, match=r"calibrate heston: .*volatility does not cluster"):
        calibrate("heston", market.replace(bars=bars))


def test_a_market_of_a_file_is_calibrated_as_it_is():
    market = make_market(kind="gbm", num_bars=300, params=make_gbm(volatility=0.02))
    assert isinstance(market, Market)
    np.testing.assert_allclose(calibrate("gbm", market).volatility, 0.02, rtol=0.15)
