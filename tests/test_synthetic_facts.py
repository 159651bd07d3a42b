"""The laws of the synthetic processes: closed forms, stylised facts, brute force in NumPy."""

import functools

import jax
import numpy as np
import pytest

from jaxtrade.synthetic import PROCESSES, make_bar_params, pool
from jaxtrade.synthetic.diffusions import merton_moments
from jaxtrade.synthetic.garch import persistence
from jaxtrade.synthetic.pair import pair_volatility
from jaxtrade.synthetic.regimes import stationary
from tests.synthetic_paths import autocorrelation, keys, kurtosis

pytestmark = pytest.mark.slow

NUM_PATHS, NUM_BARS = 16, 20_000
ONE_ASSET = ["garch", "gbm", "gjr", "heston", "merton", "regimes"]


@functools.cache
def draw(kind, **changes):
    """Sixteen paths [N, T, A, ...] and their parameters."""
    process = PROCESSES[kind]
    changes = dict(changes)
    bars = {name: changes.pop(name) for name in ("gap", "volume_noise") if name in changes}
    params = process.make_params(**changes, bars=make_bar_params(**bars))
    rows = jax.device_get(pool(process, keys(1)[0], NUM_PATHS, NUM_BARS, params))
    paths = jax.tree.map(lambda leaf: leaf.reshape(NUM_PATHS, NUM_BARS, *leaf.shape[1:]), rows)
    return paths, jax.device_get(params)


def logs(paths, field, asset=0):
    """Log return f64[N, T] on the last close: field 0 open, 1 high, 2 low, 3 close."""
    return np.log1p(paths.bars[:, :, asset, field].astype(np.float64))


def later_size(returns, lags=20):
    """Mean correlation of a return with the size of those after it: below 0 is leverage."""
    x = returns - returns.mean()
    size = np.abs(x) - np.abs(x).mean()
    products = [(x[:, :-lag] * size[:, lag:]).mean() for lag in range(1, lags + 1)]
    return float(np.mean(products) / (x.std() * size.std()))


def clustering(returns):
    return np.mean([autocorrelation(returns**2, lag) for lag in (1, 5, 10)])


# Every process


@pytest.mark.parametrize("kind", [*ONE_ASSET, "pair"])
def test_returns_have_the_hidden_drift_and_volatility(kind):
    paths, _ = draw(kind)
    for asset in range(paths.bars.shape[2]):
        moves = logs(paths, 3, asset) - paths.drift[:, :, asset]
        moves = moves / paths.volatility[:, :, asset]
        np.testing.assert_allclose(moves.mean(), 0.0, atol=4 / np.sqrt(moves.size))
        np.testing.assert_allclose(moves.std(), 1.0, atol=0.02)
        assert abs(autocorrelation(moves, 1)) < 0.01


@pytest.mark.parametrize("kind", [*ONE_ASSET, "pair"])
def test_the_gap_is_its_part_of_the_deviation(kind):
    paths, _ = draw(kind)
    for asset in range(paths.bars.shape[2]):
        gaps = logs(paths, 0, asset) / paths.volatility[:, :, asset]
        np.testing.assert_allclose(gaps.std(), 0.1, rtol=0.05)


@pytest.mark.parametrize("kind", [*ONE_ASSET, "pair"])
def test_volume_grows_with_the_move_and_the_volatility(kind):
    paths, params = draw(kind)
    for asset in range(paths.bars.shape[2]):
        volume = np.log(paths.volume[:, :, asset].astype(np.float64))
        volatility = paths.volatility[:, :, asset].astype(np.float64)
        size = np.log1p(np.abs(logs(paths, 3, asset)) / volatility)
        assert np.corrcoef(volume.ravel(), size.ravel())[0, 1] > 0.3
        varies = volatility.std() > 1e-6
        assert varies == (kind in ("garch", "gjr", "heston", "regimes"))
        noise = volume - np.log(1_000.0) - size
        if varies:
            assert np.corrcoef(volume.ravel(), np.log(volatility).ravel())[0, 1] > 0.3
            noise = noise - np.log(volatility / root_mean_square(kind, params))
        np.testing.assert_allclose(noise.mean(), 0.0, atol=0.01)
        np.testing.assert_allclose(noise.std(), 0.5, rtol=0.02)
        np.testing.assert_allclose(autocorrelation(noise, 1), 0.5, atol=0.02)


def root_mean_square(kind, params):
    """Long-run deviation of the log return about its drift, in closed form."""
    if kind == "merton":
        return float(np.sqrt(merton_moments(params)[1]))
    if kind == "regimes":
        stay = params.transition
        share = np.array([1 - stay[1, 1], 1 - stay[0, 0]]) / (2 - stay[0, 0] - stay[1, 1])
        return float(np.sqrt(share @ params.volatility**2))
    return float(params.volatility)


@pytest.mark.parametrize("kind", ONE_ASSET)
def test_long_run_variance_is_the_closed_form(kind):
    paths, params = draw(kind)
    moves = logs(paths, 3) - paths.drift[:, :, 0]
    np.testing.assert_allclose(moves.std(), root_mean_square(kind, params), rtol=0.06)


def test_tails_clusters_and_leverage_where_they_belong():
    fat = ("garch", "gjr", "heston", "merton", "regimes")
    clustered = ("garch", "gjr", "heston", "regimes")
    leveraged = ("gjr", "heston")
    for kind in ONE_ASSET:
        # Regimes that differ in volatility alone: a volatile one that falls is leverage as well
        changes = {"drift": (0.0, 0.0)} if kind == "regimes" else {}
        returns = logs(draw(kind, **changes)[0], 3)
        assert (kurtosis(returns) > 4.0) == (kind in fat), kind
        assert (clustering(returns) > 0.08) == (kind in clustered), kind
        assert (abs(clustering(returns)) < 0.01) == (kind not in clustered), kind
        assert (later_size(returns) < -0.02) == (kind in leveraged), kind
        assert (abs(later_size(returns)) < 0.012) == (kind not in leveraged), kind
    upwards = logs(draw("heston", correlation=0.6)[0], 3)
    assert later_size(upwards) > 0.04


# Each by its closed forms


def test_gbm_is_normal_and_its_mean_price_grows_at_the_drift():
    paths, params = draw("gbm", drift=1e-3, volatility=0.02, gap=0.5)
    returns = logs(paths, 3)
    np.testing.assert_allclose(returns.mean(), 1e-3 - 0.02**2 / 2, atol=4 * 0.02 / 565)
    np.testing.assert_allclose(returns.std(), 0.02, rtol=0.01)
    np.testing.assert_allclose(kurtosis(returns), 3.0, atol=0.05)
    growth = paths.bars[..., 3].astype(np.float64).mean()
    np.testing.assert_allclose(growth, np.expm1(1e-3), atol=4 * 0.02 / 565)
    assert float(params.drift) == pytest.approx(1e-3)


def test_garch_has_the_autocorrelation_and_kurtosis_of_its_coefficients():
    # Normal shocks (Bollerslev 1986): rho_1 = a (1 - a b - b**2) / (1 - 2 a b - b**2), then each
    # lag keeps a + b; kurtosis 3 (1 - p**2) / (1 - p**2 - 2 a**2) with p = a + b
    paths, params = draw("garch", alpha=0.1, beta=0.8, degrees=1e6)
    returns = logs(paths, 3)
    first = 0.1 * (1 - 0.08 - 0.64) / (1 - 0.16 - 0.64)
    for lag in (1, 2, 5):
        expected = first * 0.9 ** (lag - 1)
        np.testing.assert_allclose(autocorrelation(returns**2, lag), expected, atol=0.02)
    np.testing.assert_allclose(kurtosis(returns), 3 * 0.19 / 0.17, atol=0.1)
    np.testing.assert_allclose(float(persistence(params)), 0.9, rtol=1e-6)


def test_garch_variance_follows_its_recursion():
    paths, params = draw("gjr")
    shocks = logs(paths, 3) - float(params.drift)
    variance = paths.volatility[:, :, 0].astype(np.float64) ** 2
    alpha, gamma, beta = float(params.alpha), float(params.gamma), float(params.beta)
    omega = float(params.volatility) ** 2 * (1 - alpha - gamma / 2 - beta)
    news = (alpha + gamma * (shocks < 0)) * shocks**2
    expected = omega + news[:, :-1] + beta * variance[:, :-1]
    np.testing.assert_allclose(variance[:, 1:], expected, rtol=1e-3)


def test_student_shocks_have_their_kurtosis():
    # Constant volatility: kurtosis 3 + 6 / (degrees - 4)
    paths, _ = draw("garch", alpha=0.0, beta=0.0, degrees=10.0)
    np.testing.assert_allclose(kurtosis(logs(paths, 3)), 4.0, atol=0.15)
    np.testing.assert_allclose(logs(paths, 3).std(), 5e-3, rtol=0.01)


@pytest.mark.parametrize("variance_volatility", [6e-4, 2e-3])  # Feller ratios 5.6 and 0.5
def test_heston_variance_has_its_stationary_law(variance_volatility):
    kappa, theta = 0.04, 0.005**2
    paths, _ = draw("heston", reversion=kappa, variance_volatility=variance_volatility)
    variance = paths.volatility[:, :, 0].astype(np.float64) ** 2
    assert (variance >= 0).all()
    np.testing.assert_allclose(variance.mean(), theta, rtol=0.04)
    expected = variance_volatility**2 * theta / (2 * kappa)
    ahead = (1 - np.exp(-kappa)) / kappa  # what the next bar keeps of it on average
    np.testing.assert_allclose(variance.var(), expected * ahead**2, rtol=0.12)
    np.testing.assert_allclose(autocorrelation(variance, 20), np.exp(-kappa * 20), atol=0.05)


def test_merton_has_the_moments_of_its_jumps():
    # With jumps of mean 0: variance v + l s**2, fourth cumulant 3 l s**4
    paths, params = draw("merton", volatility=0.01, intensity=0.1, jump_mean=0.0, gap=0.3)
    returns = logs(paths, 3)
    variance = 0.01**2 + 0.1 * 0.02**2
    np.testing.assert_allclose(returns.var(), variance, rtol=0.02)
    np.testing.assert_allclose(merton_moments(params)[1], variance, rtol=1e-5)
    np.testing.assert_allclose(kurtosis(returns), 3 + 0.3 * 0.02**4 / variance**2, rtol=0.06)
    growth = paths.bars[..., 3].astype(np.float64).mean()
    np.testing.assert_allclose(growth, 0.0, atol=4 * np.sqrt(variance) / 565)


def test_merton_jumps_as_often_as_stated():
    # Jumps of five deviations and hardly any other size
    paths, _ = draw(
        "merton", volatility=1e-3, intensity=0.5, jump_mean=0.02, jump_deviation=1e-4, drift=0.0
    )
    moves = logs(paths, 3) - logs(paths, 3).min()
    count = np.rint((moves - np.median(moves[moves < 0.01])) / 0.02)
    for number, share in enumerate((0.60653, 0.30327, 0.07582, 0.01264)):
        np.testing.assert_allclose((count == number).mean(), share, atol=0.004)


def test_regimes_are_occupied_and_last_as_the_matrix_says():
    transition = ((0.98, 0.02, 0.0), (0.03, 0.94, 0.03), (0.0, 0.1, 0.9))
    paths, params = draw(
        "regimes",
        drift=(1e-3, 0.0, -2e-3),
        volatility=(0.002, 0.005, 0.01),
        transition=transition,
    )
    share = np.linalg.matrix_power(np.array(transition), 10_000)[0]
    np.testing.assert_allclose(stationary(params.transition), share, rtol=1e-4)
    volatility = paths.volatility[:, :, 0]
    for regime, (drift, deviation) in enumerate(zip(params.drift, params.volatility, strict=True)):
        here = volatility == deviation
        np.testing.assert_allclose(here.mean(), share[regime], rtol=0.08)
        stays = here[:, 1:][here[:, :-1]].mean()
        np.testing.assert_allclose(stays, transition[regime][regime], atol=0.01)
        chosen = logs(paths, 3)[here]
        np.testing.assert_allclose(chosen.mean(), drift, atol=4 * deviation / len(chosen) ** 0.5)
        np.testing.assert_allclose(chosen.std(), deviation, rtol=0.02)


def test_pair_keeps_together_with_its_half_life():
    paths, params = draw("pair", hedge_ratio=0.8, half_life=20.0, spread_volatility=0.02)
    first, second = (logs(paths, 3, asset).cumsum(axis=1) for asset in (0, 1))
    spread = first - 0.8 * second
    spread = spread - spread.mean(axis=1, keepdims=True)
    for lag in (1, 20, 40):
        np.testing.assert_allclose(autocorrelation(spread, lag), 0.5 ** (lag / 20), atol=0.02)
    np.testing.assert_allclose(spread.std(), 0.02, rtol=0.03)
    assert np.abs(second - second[:, :1]).max() > 10 * np.abs(spread).max()  # prices wander off
    expected = pair_volatility(params)
    for asset in (0, 1):
        np.testing.assert_allclose(logs(paths, 3, asset).std(), expected[asset], rtol=0.01)
    correlation = np.corrcoef(logs(paths, 3, 0).ravel(), logs(paths, 3, 1).ravel())[0, 1]
    np.testing.assert_allclose(correlation, 0.8 * 5e-3 / expected[0], atol=0.01)
    lean = paths.drift[:, :, 0] - paths.drift[:, :, 0].mean()
    assert np.corrcoef(lean.ravel(), logs(paths, 3, 0).ravel())[0, 1] > 0.05  # an edge to find


# High and low


def test_range_of_a_brownian_bar_is_parkinsons():
    # E[(ln high - ln low)**2] = 4 ln 2 of the variance (Parkinson, 1980); the mean of the high is
    # sqrt(2 / pi) deviations
    paths, _ = draw("gbm", gap=0.0)
    high, low = logs(paths, 1) / 5e-3, logs(paths, 2) / 5e-3
    np.testing.assert_allclose(((high - low) ** 2).mean(), 4 * np.log(2), rtol=0.01)
    np.testing.assert_allclose(high.mean(), np.sqrt(2 / np.pi), rtol=0.01)
    np.testing.assert_array_equal(paths.bars[..., 0], 0.0)


def brute_force(kind, generator, *, num=20_000, steps=1_000, gap=0.3):
    """Open, high, low, close f64[4, num] of bars of deviation about 0.01, in fine steps."""
    step = 0.01 * np.sqrt((1 - gap**2) / steps)
    scale = np.ones(num)
    if kind == "garch":
        scale = np.sqrt(3.0 / generator.chisquare(5.0, num))
    position = gap * 0.01 * scale * generator.standard_normal(num)
    if kind == "merton":
        position = position + jumps(generator, num, 0.5 * gap**2)
    opening, high, low = position, position.copy(), position.copy()
    for _ in range(steps):
        position = position + step * scale * generator.standard_normal(num)
        if kind == "merton":
            position = position + jumps(generator, num, 0.5 * (1 - gap**2) / steps)
        high, low = np.maximum(high, position), np.minimum(low, position)
    missed = 0.5826 * step * scale  # of a path seen at its steps (Broadie et al., 1997)
    return np.stack([opening, high + missed, low - missed, position])


def jumps(generator, num, mean):
    return 0.02 * np.sqrt(generator.poisson(mean, num)) * generator.standard_normal(num)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gbm", {}),
        ("garch", {"alpha": 0.0, "beta": 0.0, "degrees": 5.0}),
        ("merton", {"intensity": 0.5, "jump_mean": 0.0, "jump_deviation": 0.02}),
    ],
)
def test_open_high_low_and_close_have_the_joint_law_of_a_fine_path(kind, changes):
    paths, _ = draw(kind, volatility=0.01, gap=0.3, **changes)
    ours = np.stack([logs(paths, field).ravel() for field in range(4)])
    truth = brute_force(kind, np.random.default_rng(0))
    levels = np.linspace(0.02, 0.98, 25)
    for name, combine in {
        "high": lambda bar: bar[1] - bar[0],
        "low": lambda bar: bar[0] - bar[2],
        "range": lambda bar: bar[1] - bar[2],
        "upper shadow": lambda bar: bar[1] - np.maximum(bar[0], bar[3]),
        "place of the close": lambda bar: (bar[3] - bar[2]) / (bar[1] - bar[2]),
    }.items():
        expected, found = (np.quantile(combine(bars), levels) for bars in (truth, ours))
        np.testing.assert_allclose(found, expected, atol=0.03 * expected.max(), err_msg=name)
    np.testing.assert_allclose(np.corrcoef(ours[:2]), np.corrcoef(truth[:2]), atol=0.03)
    range_and_move = [np.stack([b[1] - b[2], np.abs(b[3] - b[0])]) for b in (ours, truth)]
    np.testing.assert_allclose(*(np.corrcoef(pair)[0, 1] for pair in range_and_move), atol=0.03)
