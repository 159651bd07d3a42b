import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxtrade import features, ledger
from jaxtrade.indicators import INDICATORS, Indicator
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec, JaxtradeError, MarketSpec

ALL = tuple(INDICATORS)
TIMELESS = tuple(name for name in ALL if not name.startswith("time_"))


def frame_of(num_bars, *, seed=0, freq="h", scale=1.0):
    generator = np.random.default_rng(seed)
    close = 50 * scale * np.exp(np.cumsum(0.01 * generator.standard_normal(num_bars)))
    opening = np.concatenate([[50.0 * scale], close[:-1]])
    return pd.DataFrame(
        {
            "timestamp": pd.date_range("2000-01-03", periods=num_bars, freq=freq, tz="UTC"),
            "open": opening,
            "high": np.maximum(opening, close) * 1.01,
            "low": np.minimum(opening, close) / 1.02,
            "close": close,
            "volume": generator.integers(0, 20, num_bars),
        }
    )


def market_of(num_bars=400, *, seed=0, **columns):
    return Market.from_frame(frame_of(num_bars, seed=seed).assign(**columns))


def side_by_side(*markets):
    """One market of several assets, on the clock and context of the first."""
    return markets[0].replace(
        bars=np.concatenate([market.bars for market in markets], axis=1),
        volume=np.concatenate([market.volume for market in markets], axis=1),
    )


def table_of(market, *names, context=()):
    spec = FeatureSpec(names=names or ALL, context=context)
    return np.asarray(features.raw_table(spec, market))


# Which columns


def test_switches_choose_columns_in_their_order():
    market = MarketSpec(symbols=("A",), context=("bid", "spread", "vix"))
    switches = {"macd": True, "rsi": False, "log_return": True, "relative_spread": True}
    spec = features.resolve(switches, market, window=8, clip=4.0)
    assert spec == FeatureSpec(
        names=("macd", "log_return"), context=("spread",), window=8, clip=4.0
    )
    assert features.columns(spec) == ("macd", "macd_signal", "log_return", "relative_spread")
    assert features.groups(spec) == ("macd", "macd", "log_return", "relative_spread")
    both = features.resolve({"relative_spread": True, "context": True}, market, window=8)
    assert both.context == ("bid", "spread", "vix")
    assert features.columns(both) == ("bid", "relative_spread", "vix")
    assert features.resolve({"context": True}, market, window=8).context == ("bid", "vix")
    without = MarketSpec(symbols=("A",))
    switched = {"rsi": True, "context": True, "relative_spread": True}
    assert features.resolve(switched, without, window=8).context == ()


def test_reach_back():
    spec = FeatureSpec(names=("rsi", "ema_50", "volatility"), window=8)
    assert features.lookback(spec) == 8 + 50
    assert features.warmup_bars(spec) == 8 + INDICATORS["ema_50"].memory
    assert features.lookback(FeatureSpec(names=(), context=("vix",), window=8)) == 9


@pytest.mark.parametrize("call", ["resolve", "columns", "raw_table", "warmup_bars"])
def test_unknown_names_give_one_line(call):
    with pytest.raises(JaxtradeError, match="unknown feature 'rsj': there are log_return") as e:
        if call == "resolve":
            features.resolve({"rsj": False}, MarketSpec(symbols=("A",)), window=8)
        elif call == "raw_table":
            table_of(market_of(20), "rsj")
        else:
            getattr(features, call)(FeatureSpec(names=("rsj",)))
    assert str(e.value).isprintable()


def test_nothing_to_observe_gives_one_line():
    with pytest.raises(JaxtradeError, match="every feature is switched off") as e:
        features.resolve({"rsi": False, "context": True}, MarketSpec(symbols=("A",)), window=8)
    assert str(e.value).isprintable()
    with pytest.raises(JaxtradeError, match=r"need the column 'vix'.*there are: bid") as e:
        table_of(market_of(20, bid=1.0), "rsi", context=("vix",))
    assert str(e.value).isprintable()


# The table


def test_table_equals_update_looped_by_hand_without_implicit_promotion():
    market = market_of(30, spread=np.linspace(0.1, 0.2, 30), vix=np.arange(30.0))
    market = side_by_side(market, market_of(30, seed=1))
    spec = FeatureSpec(names=ALL, context=("vix", "spread"))
    table = features.raw_table(spec, market)
    assert table.shape == (30, 2, len(features.columns(spec)))
    assert table.dtype == jnp.float32
    carry, context = features.init_carry(spec, 2), features.context_rows(spec, market)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        for row in range(30):
            prices = jnp.asarray(market.bars[row].T)
            others = (market.volume[row], context[row], market.clock[row])
            bar = features.make_bar(prices, *(jnp.asarray(other) for other in others))
            carry, values = features.update(spec, carry, bar)
            np.testing.assert_allclose(values, table[row], rtol=2e-5, atol=5e-7)


def test_make_bar_takes_prices_in_the_market_order():
    market = market_of(3)
    bar = features.make_bar(market.bars[1].T, market.volume[1], np.zeros(0), market.clock[1])
    np.testing.assert_array_equal(
        [bar.open[0], bar.high[0], bar.low[0], bar.close[0]], market.bars[1, 0]
    )


@pytest.mark.parametrize("row", [1, 77, 399])
def test_the_future_leaves_the_past_alone(row):
    market = market_of(vix=np.arange(400.0))
    changed = market.replace(
        **{name: getattr(market, name).copy() for name in ("bars", "volume", "context", "clock")}
    )
    for array in (changed.bars, changed.volume, changed.context, changed.clock):
        array[row:] += 0.3
    before, after = (table_of(m, context=("vix",)) for m in (market, changed))
    np.testing.assert_array_equal(before[:row], after[:row])
    assert np.all(np.any(before[row:] != after[row:], axis=(1, 2)))


def test_switching_others_off_leaves_a_column_alone():
    market = market_of(vix=np.arange(400.0))
    full = table_of(market, context=("vix",))
    names = features.groups(FeatureSpec(names=ALL, context=("vix",)))
    for name in ALL:
        index = [column for column, group in enumerate(names) if group == name]
        np.testing.assert_allclose(table_of(market, name), full[..., index], rtol=2e-5, atol=2e-7)
    np.testing.assert_array_equal(full[:, 0, names.index("vix")], np.arange(400))


def test_assets_have_the_columns_of_their_own_runs():
    markets = [market_of(seed=seed) for seed in range(3)]
    table = table_of(side_by_side(*markets))
    for asset, market in enumerate(markets):
        np.testing.assert_allclose(table[:, asset], table_of(market)[:, 0], rtol=2e-5, atol=2e-7)


def test_context_is_the_same_for_every_asset_and_spread_is_relative():
    frame = frame_of(50).assign(vix=np.arange(50.0), spread=0.25)
    market = side_by_side(Market.from_frame(frame), market_of(50, seed=1))
    table = table_of(market, "rsi", context=("spread", "vix"))
    for asset in range(2):
        np.testing.assert_allclose(table[:, asset, 1], 0.25 / frame["close"], rtol=1e-6)
        np.testing.assert_array_equal(table[:, asset, 2], np.arange(50))


def test_scaling_prices_leaves_the_table():
    spec = FeatureSpec(names=ALL)
    tables = [
        features.raw_table(spec, Market.from_frame(frame_of(3000, scale=scale)))
        for scale in (1.0, 1000.0)
    ]
    fitted = features.fit(tables[0], 0, 2999)
    plain, scaled = (features.normalise(fitted, table, 5.0) for table in tables)
    np.testing.assert_allclose(scaled, plain, atol=2e-5)


# An indicator of one's own


def own(scale):
    traces = []

    def update(carry, bar):
        traces.append(carry)
        carry = jnp.maximum(carry, bar.high[None])
        return carry, jnp.stack([scale * (bar.high - bar.low), carry[0]])

    indicator = Indicator(
        columns=("height", "highest"),
        lookback=1,
        memory=3,
        init=lambda num_assets: jnp.zeros((1, num_assets), jnp.float32),
        update=update,
    )
    return indicator, traces


def test_an_indicator_of_ones_own_is_switched_on_by_name(monkeypatch):
    market = market_of()
    height = market.bars[:, 0, 1] - market.bars[:, 0, 2]
    indicator, traces = own(1.0)
    monkeypatch.setitem(INDICATORS, "height", indicator)
    spec = features.resolve({"ema_10": True, "height": True, "rsi": True}, market.spec, window=4)
    assert features.columns(spec) == ("ema_10", "height", "highest", "rsi")
    table = np.asarray(features.raw_table(spec, market))[:, 0]
    np.testing.assert_allclose(table[:, 1], height, rtol=1e-6)
    np.testing.assert_array_equal(table[:, 2], np.maximum.accumulate(market.bars[:, 0, 1]))
    np.testing.assert_allclose(table[:, 3], table_of(market, "rsi")[:, 0, 0], rtol=2e-5)
    compiled = len(traces)
    features.raw_table(spec, market_of(seed=1))
    assert len(traces) == compiled  # other bars of the same shape: no second compilation
    monkeypatch.setitem(INDICATORS, "height", own(2.0)[0])
    again = np.asarray(features.raw_table(spec, market))[:, 0]
    np.testing.assert_allclose(again[:, 1], 2 * height, rtol=1e-6)


# The normaliser


def random_table(num_rows=200, num_assets=2, seed=0):
    generator = np.random.default_rng(seed)
    scale = np.array([1e-5, 1.0, 30.0])
    rows = scale * (2 + generator.standard_normal((num_rows, num_assets, 3)))
    return rows.astype(np.float32)


def test_fitted_rows_have_mean_zero_and_deviation_one():
    table = random_table()
    fitted = features.fit(jnp.asarray(table), 20, 99)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        rows = np.asarray(features.normalise(fitted, jnp.asarray(table), 9.0), np.float64)
    np.testing.assert_allclose(rows[20:100].mean(axis=(0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(rows[20:100].std(axis=(0, 1)), 1, rtol=1e-6)
    one = features.normalise(fitted, table[7], 9.0)
    np.testing.assert_allclose(one, rows[7], rtol=1e-6)
    clipped = features.normalise(fitted, table, 0.5)
    np.testing.assert_allclose(clipped, np.clip(rows, -0.5, 0.5), rtol=1e-6)
    assert np.abs(clipped).max() == 0.5


def test_fit_sees_only_its_rows():
    table = random_table()
    expected = features.fit(jnp.asarray(table), 20, 99)
    outside = np.full_like(table, np.nan)
    outside[20:100] = table[20:100]
    for leaf, other in zip(
        jax.tree.leaves(expected),
        jax.tree.leaves(features.fit(jnp.asarray(outside), 20, 99)),
        strict=True,
    ):
        np.testing.assert_array_equal(leaf, other)
    for row in (20, 99):  # both ends belong to it
        changed = table.copy()
        changed[row] += 10
        assert not np.array_equal(features.fit(changed, 20, 99).mean, expected.mean)


@pytest.mark.parametrize("value", [0.0, 1.0, 100.0, 1e-4])
def test_a_column_that_does_not_vary_keeps_scale_one(value):
    table = random_table()
    table[:, :, 1] = np.float32(value)
    table[::2, :, 1] *= np.float32(1 + 1e-7)  # equal but for rounding
    fitted = features.fit(jnp.asarray(table), 0, 199)
    assert fitted.inverse_scale[1] == 1
    np.testing.assert_allclose(features.normalise(fitted, table, 5.0)[..., 1], 0, atol=1e-4)


def test_a_tiny_column_keeps_its_scale():
    table = 1e-4 * random_table()
    fitted = features.fit(jnp.asarray(table), 0, 199)
    np.testing.assert_allclose(fitted.inverse_scale, [1e9, 1e4, 1e4 / 30], rtol=0.2)


@pytest.mark.parametrize(("first", "last"), [(-1, 10), (11, 10), (0, 200)])
def test_fit_refuses_rows_that_are_not_there(first, last):
    with pytest.raises(JaxtradeError, match=f"no rows {first} to {last} to fit on.*< 200"):
        features.fit(random_table(), first, last)


def test_fit_names_a_value_that_is_not_finite():
    table = random_table()
    table[30, 1, 2] = np.inf
    with pytest.raises(JaxtradeError, match="feature column 2 of asset 1 is inf at row 30"):
        features.fit(table, 10, 50)


# The account


def test_account_features_by_hand():
    # two assets: exposures, open returns x 10, bars held / 100, then drawdown x 5 and the day's
    # and the last return x 20, each clipped
    account = ledger.open_account(2).replace(
        weights=jnp.float32([0.5, -4.0]),
        open_return=jnp.float32([-0.05, 0.9]),
        bars_held=jnp.float32([30.0, 500.0]),
        log_equity=jnp.log(jnp.float32(0.9)),
        day_log_equity=jnp.log(jnp.float32(0.88)),
        last_return=jnp.float32(-0.3),
    )
    vector = ledger.account_vector(account)
    expected = [0.5, -4.0, -0.05, 0.9, 30, 500, 0.1, 0.9 / 0.88 - 1, -0.3]
    np.testing.assert_allclose(vector, expected, rtol=1e-5)
    seen = [0.5, -3.0, -0.5, 2.0, 0.3, 1.0, 0.5, 20 * (0.9 / 0.88 - 1), -2.0]
    np.testing.assert_allclose(features.account_features(vector), seen, rtol=1e-5)
    low, high = features.account_bounds(2)
    far = jnp.full(9, 1e6, jnp.float32)
    np.testing.assert_array_equal(features.account_features(far), high)
    np.testing.assert_array_equal(features.account_features(-far), low)


# Starting live from `warmup_bars` of history


@pytest.fixture(params=["seeded", "SPY_1d", "EURUSD_1m", "BTCUSD_1h"])
def history(request):
    """A market of one asset and a stretch of rows to start in."""
    if request.param == "seeded":
        return market_of(4000)
    market = Market.load(request.getfixturevalue("data_folder") / f"{request.param}.csv.gz")
    return market.rows(0, min(market.num_bars, 25_000) - 1)


def test_the_start_is_forgotten_after_the_warmup(history):
    for names in (TIMELESS, ("rsi",), ("ema_10",), ("relative_volume",)):
        spec = FeatureSpec(names=names, window=16)
        needed = features.warmup_bars(spec)
        raw = features.raw_table(spec, history)
        fitted = features.fit(raw, needed, history.num_bars - 1)
        full = np.asarray(features.normalise(fitted, raw, 5.0))[:, 0]
        # Every start is an asset of a market as short as the warm-up.
        starts = np.arange(0, history.num_bars - needed, history.num_bars // 500)
        rows = starts + np.arange(needed)[:, None]
        late = history.replace(
            bars=history.bars[rows, 0],
            volume=history.volume[rows, 0],
            context=history.context[:needed],
            clock=history.clock[:needed],
        )
        window = features.normalise(fitted, features.raw_table(spec, late), 5.0)[-16:]
        assert np.abs(window - full[rows[-16:]]).max() < 1e-3
