import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import talib

from jaxtrade.indicators import INDICATORS, Bar, Indicator, ema, log_growth, macd, rsi

FILES = ("SPY_1d", "EURUSD_1m", "BTCUSD_1h")
SEEDED = {"minute at 1.1": (1.1, 1e-4), "day at 300": (300.0, 0.012), "hour at 9000": (9e3, 0.015)}
PRICE_TOLERANCE = 1e-7
"""Distance of an average from TA-Lib's, as a fraction of the close."""


def bars_of(close, volume=None, clock=None):
    """Bars f32[T, 1] from prices f64[T]; the first bar stands still."""
    num_bars = len(close)
    r = np.diff(close, prepend=close[0]) / np.concatenate([close[:1], close[:-1]])
    still = np.zeros((num_bars, 1), np.float32)
    return Bar(
        open=still,
        high=still,
        low=still,
        close=np.float32(r)[:, None],
        volume=np.float32(np.zeros(num_bars) if volume is None else volume)[:, None],
        context=np.zeros((num_bars, 0), np.float32),
        clock=np.zeros((num_bars, 3), np.float32) if clock is None else np.float32(clock),
    )


@functools.partial(jax.jit, static_argnums=0)
def scan(indicator: Indicator, bars: Bar):
    return jax.lax.scan(indicator.update, indicator.init(bars.close.shape[1]), bars)[1]


def emitted(name, bars):
    """Columns f64[columns, T] of the one asset."""
    return np.asarray(scan(INDICATORS[name], bars), np.float64)[:, :, 0].T


@pytest.fixture(scope="module", params=[*FILES, *SEEDED])
def market(request):
    """Close and volume f64[T], from a file of the data folder or from a seed."""
    if request.param in SEEDED:
        price, deviation = SEEDED[request.param]
        generator = np.random.default_rng(7)
        steps = deviation * generator.standard_t(4, size=4000) * (generator.random(4000) > 0.05)
        volume = generator.lognormal(8.0, 1.0, 4000) * (generator.random(4000) > 0.1)
        return price * np.exp(np.cumsum(steps)), volume
    folder = request.getfixturevalue("data_folder")
    frame = pd.read_csv(folder / f"{request.param}.csv.gz").rename(columns=str.lower)
    return frame["close"].to_numpy(np.float64), frame["volume"].to_numpy(np.float64)


@pytest.fixture(scope="module")
def bars(market):
    return bars_of(*market)


# Against TA-Lib in float64, after both have forgotten how they started


def settled(name):
    return 2 * INDICATORS[name].memory + INDICATORS[name].lookback


@pytest.mark.parametrize("period", [10, 50])
def test_ema_equals_talib(market, bars, period):
    close, _ = market
    name = f"ema_{period}"
    wrong = np.abs(emitted(name, bars)[0] - (talib.EMA(close, period) / close - 1))
    assert wrong[settled(name) :].max() < PRICE_TOLERANCE


def test_macd_and_its_signal_equal_talib(market, bars):
    close, _ = market
    line, signal, _ = talib.MACD(close, 12, 26, 9)
    wrong = np.abs(emitted("macd", bars) - np.stack([line, signal]) / close)
    assert wrong[:, settled("macd") :].max() < PRICE_TOLERANCE


def test_rsi_equals_talib(market, bars):
    wrong = np.abs(emitted("rsi", bars)[0] - talib.RSI(market[0], 14))
    assert wrong[settled("rsi") :].max() < 1e-4


# Against NumPy


def test_log_return_and_volatility_equal_numpy(market, bars):
    returns = np.diff(np.log(market[0]))
    np.testing.assert_allclose(emitted("log_return", bars)[0, 1:], returns, rtol=1e-6, atol=1e-12)
    windows = np.lib.stride_tricks.sliding_window_view(returns, 20)
    expected = windows.std(axis=1)
    scale = np.abs(windows).max(axis=1)
    wrong = np.abs(emitted("volatility", bars)[0, 20:] - expected)
    assert np.all(wrong <= 1e-6 * scale)


def test_relative_volume_equals_a_loop(market, bars):
    ratio, known = emitted("relative_volume", bars)
    average, expected = None, []
    for volume in market[1]:
        if volume == 0:
            expected.append(1.0)
            continue
        average = volume if average is None else average
        expected.append(volume / average)
        average = 19 / 21 * average + 2 / 21 * volume
    np.testing.assert_allclose(ratio, expected, rtol=2e-6)
    np.testing.assert_array_equal(known, market[1] > 0)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_log_growth_is_accurate(sign, compiled):
    magnitudes = np.exp(np.random.default_rng(1).uniform(np.log(1e-9), np.log(0.5), 100_000))
    r = np.float32(sign * np.concatenate([magnitudes, [0.25, 0.5, 1e-30]]))
    function = jax.jit(log_growth) if compiled else log_growth
    expected = np.log1p(r.astype(np.float64))
    np.testing.assert_allclose(np.asarray(function(r), np.float64), expected, rtol=4e-7, atol=0)


def test_log_growth_at_its_edges():
    values = log_growth(jnp.float32([0.0, -0.999, 10.0]))
    np.testing.assert_allclose(values, np.log1p(np.float32([0.0, -0.999, 10.0])), rtol=1e-6)
    slopes = jax.vmap(jax.grad(log_growth))(jnp.float32([0.0, 1e-6, 0.25, -0.25, 1.0, -1.0]))
    np.testing.assert_allclose(slopes, [1.0, 1.0, 0.8, 4 / 3, 0.5, np.inf], rtol=1e-5)


# By hand


def test_ema_by_hand():
    # alpha = 1/2, the average starts at the first close:
    # 100; 110: (100 + 110) / 2 = 105; 99: (105 + 99) / 2 = 102
    values = scan(ema(3), bars_of(np.array([100.0, 110.0, 99.0])))[:, 0, 0]
    np.testing.assert_allclose(values, [0.0, 105 / 110 - 1, 102 / 99 - 1], rtol=1e-6)


def test_macd_by_hand():
    # alphas 1, 1/2, 1/2. 100: both averages 100. 110: fast 110, slow 105, line 5, signal 2.5.
    # 99: fast 99, slow 102, line -3, signal (2.5 - 3) / 2 = -0.25
    values = scan(macd(1, 3, 3), bars_of(np.array([100.0, 110.0, 99.0])))[:, :, 0]
    expected = [[0.0, 0.0], [5 / 110, 2.5 / 110], [-3 / 99, -0.25 / 99]]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_rsi_by_hand():
    # alpha = 1/2. Up 10: gain 5, loss 0. Down 11: gain 2.5, loss 5.5. Still: 1.25 and 2.75.
    values = scan(rsi(2), bars_of(np.array([100.0, 110.0, 99.0, 99.0])))[:, 0, 0]
    np.testing.assert_allclose(values, [50.0, 100.0, 250 / 8, 250 / 8], rtol=1e-6)


def test_rsi_of_one_way_markets():
    rising = np.cumprod(np.full(500, 1.01))
    up, down, still = (
        emitted("rsi", bars_of(close))[0, 1:] for close in (rising, 1 / rising, np.ones(500))
    )
    assert np.all(up == 100)
    assert np.all(down == 0)
    assert np.all(still == 50)


def test_rsi_of_a_market_that_stops_stays_in_range():
    stops = np.concatenate([np.linspace(100, 90, 20), np.full(3000, 90.0)])
    values = emitted("rsi", bars_of(stops))[0]
    assert np.all((values >= 0) & (values <= 100))


def test_relative_volume_by_hand():
    # The average stands still at 10 over the two zeros; then 30 / 10, and 10 + 2/21 * 20.
    volume = np.array([0.0, 10.0, 0.0, 0.0, 30.0, 10.0])
    ratio, known = emitted("relative_volume", bars_of(np.ones(6), volume))
    np.testing.assert_allclose(ratio, [1, 1, 1, 1, 3, 10 / (10 + 40 / 21)], rtol=1e-6)
    np.testing.assert_array_equal(known, [0, 1, 0, 0, 1, 1])


def test_clock_phases_by_hand():
    clock = np.array([[0.0, 0.25, 0.0], [0.25, 0.5, 0.0], [0.5, 0.75, 0.0]])
    bars = bars_of(np.ones(3), clock=clock)
    np.testing.assert_allclose(emitted("time_of_day", bars), [[0, 1, 0], [1, 0, -1]], atol=1e-6)
    np.testing.assert_allclose(emitted("time_of_week", bars), [[1, 0, -1], [0, -1, 0]], atol=1e-6)


# What holds for all of them


def random_bars(num_bars, num_assets, seed=0):
    generator = np.random.default_rng(seed)
    shape = (num_bars, num_assets)
    prices = np.float32(0.02 * generator.standard_normal((4, *shape)))
    return Bar(
        open=prices[0],
        high=prices[1],
        low=prices[2],
        close=prices[3],
        volume=np.float32(generator.integers(0, 5, shape)),
        context=np.zeros((num_bars, 0), np.float32),
        clock=np.float32(generator.random((num_bars, 3))),
    )


@pytest.mark.parametrize("name", INDICATORS)
def test_shapes_and_types_without_implicit_promotion(name):
    indicator, bars = INDICATORS[name], random_bars(1, 3)
    bar = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), bars)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        carry, values = indicator.update(indicator.init(3), bar)
    assert values.shape == (len(indicator.columns), 3)
    assert values.dtype == carry.dtype == jnp.float32
    assert carry.shape == indicator.init(3).shape
    assert np.isfinite(values).all()


@pytest.mark.parametrize("name", INDICATORS)
def test_compiled_equals_plain_and_assets_stand_apart(name):
    indicator, bars = INDICATORS[name], random_bars(40, 3)
    together = scan(indicator, bars)
    carry = indicator.init(3)
    for row in range(40):
        bar = jax.tree.map(operator.itemgetter(row), bars)
        carry, values = indicator.update(carry, bar)
        np.testing.assert_allclose(values, together[row], rtol=2e-5, atol=2e-7)
    for asset in range(3):
        alone = {
            field: getattr(bars, field)[:, asset : asset + 1]
            for field in ("open", "high", "low", "close", "volume")
        }
        single = scan(indicator, bars.replace(**alone))
        np.testing.assert_allclose(single[..., 0], together[..., asset], rtol=2e-5, atol=2e-7)
