"""Calibration against the packages that econometricians use; skipped where they are absent."""

import warnings

import numpy as np
import pytest

from jaxtrade.market import Market
from jaxtrade.synthetic import calibrate, make_market
from jaxtrade.synthetic.fit_garch import log_likelihood

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    univariate = pytest.importorskip("arch.univariate", reason="arch is not installed")
    switching = pytest.importorskip(
        "statsmodels.tsa.regime_switching.markov_regression",
        reason="statsmodels is not installed",
    )


def returns_of(market):
    return np.log1p(market.bars[1:, 0, 3].astype(np.float64))


def arch_fit(returns, kind):
    """The package's optimum on returns in per cent, with its log-likelihood on plain returns."""
    model = univariate.arch_model(
        100 * returns, vol="GARCH", p=1, o=int(kind == "gjr"), q=1, dist="t", rescale=False
    )
    fit = model.fit(disp="off", options={"maxiter": 1_000}, show_warning=False)
    return model, fit.params.to_numpy(), fit.loglikelihood + len(returns) * np.log(100)


def numbers(params, kind):
    """Ours in the package's order and unit: mu, omega, alpha, gamma of gjr, beta, nu."""
    alpha, gamma, beta = (float(getattr(params, name)) for name in ("alpha", "gamma", "beta"))
    omega = (100 * float(params.volatility)) ** 2 * (1 - alpha - gamma / 2 - beta)
    news = [alpha, gamma] if kind == "gjr" else [alpha]
    return np.array([100 * float(params.drift), omega, *news, beta, float(params.degrees)])


def assert_same_optimum(market, kind, *, loss, rtol):
    returns = returns_of(market)
    params = calibrate(kind, market)
    ours = log_likelihood(params, returns)
    model, theirs, best = arch_fit(returns, kind)
    at_ours = model.fix(numbers(params, kind)).loglikelihood + len(returns) * np.log(100)
    np.testing.assert_allclose(ours, at_ours, atol=0.01)  # the same likelihood
    assert best - loss < ours < best + 0.5
    np.testing.assert_allclose(numbers(params, kind), theirs, rtol=rtol, atol=3e-3)


@pytest.mark.parametrize("kind", ["garch", "gjr"])
def test_the_optimum_on_a_synthetic_market_is_archs(kind):
    assert_same_optimum(make_market(kind=kind, num_bars=5_000), kind, loss=0.02, rtol=0.01)


@pytest.mark.parametrize("kind", ["garch", "gjr"])
def test_the_optimum_on_daily_shares_is_archs(kind, data_folder):
    market = Market.load(data_folder / "SPY_1d.csv.gz")
    assert_same_optimum(market, kind, loss=0.02, rtol=0.01)


@pytest.mark.parametrize("kind", ["garch", "gjr"])
def test_the_optimum_on_hourly_coins_is_near_archs(kind, data_folder):
    # arch's persistence is 1 there, ours at its limit below
    market = Market.load(data_folder / "BTCUSD_1h.csv.gz")
    assert_same_optimum(market, kind, loss=3.0, rtol=0.03)


def test_regimes_reach_the_likelihood_of_statsmodels():
    returns = 100 * returns_of(make_market(kind="regimes", num_bars=3_000))
    params = calibrate("regimes", make_market(kind="regimes", num_bars=3_000))
    model = switching.MarkovRegression(returns, k_regimes=2, switching_variance=True)
    stay = np.asarray(params.transition, np.float64)
    drift, volatility = (np.asarray(x, np.float64) for x in (params.drift, params.volatility))
    ours = model.loglike(
        np.array([stay[0, 0], stay[1, 0], *(100 * drift), *((100 * volatility) ** 2)])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = model.fit(disp=False).llf
    np.testing.assert_allclose(ours, best, atol=0.1)
