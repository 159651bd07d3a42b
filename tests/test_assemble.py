import numpy as np
import pandas as pd
import pytest

from jaxtrade.assemble import combine, leveraged, resample, with_ask
from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError
from tests.markets import assert_same, random_frame


def market_of(num_bars=60, *, symbol="A", drop=(), bar_seconds=None, **options):
    frame = random_frame(num_bars, **options).drop(index=list(drop))
    return Market.from_frame(frame, symbol=symbol, source=f"{symbol}.csv", bar_seconds=bar_seconds)


def prices(market):
    """f64[T, A, 4], formed from the bars in another way than the code does."""
    close, before = market.close_prices(), np.array(market.spec.base_price)
    rows = []
    for bar, last in zip(market.bars.astype(np.float64), close, strict=True):
        rows.append(before[:, None] + before[:, None] * bar)
        before = last
    return np.stack(rows)


def flat(stamps, closes, **options):
    """Bars whose four prices are one."""
    frame = pd.DataFrame({"timestamp": pd.to_datetime(stamps), "close": np.asarray(closes, float)})
    frame["open"] = frame["high"] = frame["low"] = frame["close"]
    return Market.from_frame(frame.assign(volume=1), **options)


def one_line(error):
    assert str(error.value).isprintable()
    return str(error.value)


# combine


def test_prices_at_shared_stamps_are_those_of_each_source():
    a = market_of(60, symbol="SPY", drop=[3, 4, 20], seed=1)
    b = market_of(50, symbol="QQQ", drop=[0, 1, 2, 21], seed=2)
    c = market_of(55, symbol="IWM", start="2000-01-05", seed=3)
    both = combine([a, b, c])
    stamps = sorted(set(a.timestamps) & set(b.timestamps) & set(c.timestamps))
    np.testing.assert_array_equal(both.timestamps, stamps)
    assert len(stamps) == 43  # rows 5 to 49 of the first, but for 20 and 21
    assert both.spec.symbols == ("SPY", "QQQ", "IWM")
    for asset, own in enumerate((a, b, c)):
        rows = np.isin(own.timestamps, stamps)
        np.testing.assert_allclose(prices(both)[:, asset], prices(own)[rows, 0], rtol=1e-8)
        np.testing.assert_array_equal(both.volume[:, asset], own.volume[rows, 0])
    assert both.bars.dtype == both.volume.dtype == both.clock.dtype == np.float32
    years = np.diff(both.timestamps).astype(float) / (365.25 * 86_400)
    np.testing.assert_allclose(both.clock[1:, 2], years, rtol=1e-6)


def test_the_same_stamps_leave_every_bar_alone():
    a, b = market_of(40, symbol="X", seed=1), market_of(40, symbol="Y", seed=2)
    both = combine([a, b])
    np.testing.assert_allclose(both.bars[:, :1], a.bars, atol=1e-7)
    np.testing.assert_allclose(both.bars[:, 1:], b.bars, atol=1e-7)
    np.testing.assert_array_equal(both.clock, a.clock)
    assert both.spec.bars_per_year == a.spec.bars_per_year
    assert both.spec.base_price == (*a.spec.base_price, *b.spec.base_price)


def test_context_gets_the_symbol_as_prefix_and_nesting_keeps_it():
    x = Market.from_frame(random_frame(30).assign(Spread=1.0, vix=2.0), symbol="X")
    y = Market.from_frame(random_frame(30).assign(vix=np.arange(30.0)), symbol="Y")
    both = combine([x, y])
    assert both.spec.context == ("x_spread", "x_vix", "y_vix")
    np.testing.assert_array_equal(both.context[:, 2], np.arange(30))
    three = combine([both, market_of(30, symbol="Z")])
    assert three.spec.context == both.spec.context
    assert three.spec.symbols == ("X", "Y", "Z")
    np.testing.assert_allclose(prices(three)[:, :2], prices(both), rtol=1e-6)


def test_markets_that_cannot_be_combined():
    a, hourly = market_of(symbol="A"), market_of(symbol="B", freq="h")
    later = market_of(symbol="B", start="2001-01-01")
    other, same = (Market.from_frame(random_frame(9).assign(x=1.0), symbol=s) for s in ("B", "b"))
    for markets, message in (
        ([a], "1 markets to combine: give at least 2"),
        ([a, a], "the symbols are 'A', 'A': give each market its own"),
        ([a, market_of(symbol="")], "symbols are 'A', ''"),
        ([a, hourly], "A.csv, B.csv: bars of 86400, 3600 s: give bars of one length"),
        ([other, same], "the context columns b_x, b_x are not unique"),
        ([a, later], r"have 0 stamps in common: give markets that share 2"),
    ):
        with pytest.raises(JaxtradeError, match=message) as error:
            combine(markets)
        one_line(error)


# resample


@pytest.mark.parametrize(("rule", "seconds"), [("5min", 300), ("1h", 3_600), ("1D", 86_400)])
def test_slower_bars_are_those_of_pandas(rule, seconds):
    rng = np.random.default_rng(0)
    frame = random_frame(5_000, freq="min", start="2000-01-03 22:17", deviation=1e-3)
    frame = frame.assign(vix=np.arange(5_000.0))[rng.random(5_000) > 0.3]
    frame = frame[~frame["timestamp"].between("2000-01-05 02:03", "2000-01-05 07:30", "both")]
    market = Market.from_frame(frame, symbol="X")
    assert market.spec.bar_seconds == 60
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    rows = frame.set_index("timestamp").resample(rule).agg({**how, "vix": "last"}).dropna()
    wanted = Market.from_frame(rows[:-1], symbol="X", bar_seconds=seconds)
    slow = resample(market, seconds)
    np.testing.assert_array_equal(slow.timestamps, wanted.timestamps)
    np.testing.assert_allclose(slow.bars, wanted.bars, atol=3e-7)
    np.testing.assert_array_equal(slow.volume, wanted.volume)
    np.testing.assert_array_equal(slow.context, wanted.context)
    np.testing.assert_array_equal(slow.clock, wanted.clock)
    assert slow.spec.bar_seconds == seconds
    assert slow.spec.bars_per_year == wanted.spec.bars_per_year


def test_the_last_bar_is_dropped_unless_it_is_over():
    market = market_of(130, freq="min", start="2000-01-03")
    assert resample(market, 3_600).num_bars == 2
    assert resample(market.rows(0, 119), 3_600).num_bars == 2
    assert resample(market.rows(0, 118), 3_600).num_bars == 1
    with pytest.raises(JaxtradeError, match="59 bars of 60 s complete none of 3600 s") as error:
        resample(market.rows(0, 58), 3_600)
    one_line(error)


def test_weeks_begin_on_monday_and_assets_stay_apart():
    both = combine([market_of(90, symbol="A", seed=1), market_of(90, symbol="B", seed=2)])
    slow = resample(both, 7 * 86_400)
    assert slow.timestamps[0] == np.datetime64("2000-01-03")
    assert np.all(slow.clock[:, 1] == 0)
    assert slow.num_bars == 12
    p, q = prices(both), prices(slow)
    np.testing.assert_allclose(q[5, :, 3], p[41, :, 3], rtol=1e-6)
    np.testing.assert_allclose(q[5, :, 0], p[35, :, 0], rtol=1e-6)
    np.testing.assert_allclose(q[5, :, 1], p[35:42, :, 1].max(axis=0), rtol=1e-6)
    np.testing.assert_allclose(q[5, :, 2], p[35:42, :, 2].min(axis=0), rtol=1e-6)


def test_the_future_leaves_slower_bars_alone():
    market = market_of(1_000, freq="min", deviation=1e-3)
    full = resample(market, 900)
    for last in (100, 450, 777):
        part = resample(market.rows(0, last), 900)
        assert part.num_bars == (last + 1) // 15
        for name in ("bars", "volume", "context", "clock"):
            whole = getattr(full, name)[: part.num_bars]
            np.testing.assert_array_equal(getattr(part, name), whole)


def test_lengths_that_bars_do_not_make_up():
    for seconds, message in (
        (90, "A.csv: a frame of 90 s over bars of 60 s: give a whole multiple"),
        (60, "give a whole multiple of a bar, twice its length or more"),
        (7 * 3_600, "give one that divides a day, or a week"),
    ):
        with pytest.raises(JaxtradeError, match=message) as error:
            resample(market_of(freq="min"), seconds)
        one_line(error)


def test_real_minutes_make_hours(data_folder):
    minutes = Market.load(data_folder / "EURUSD_1m.csv.gz")
    hours = Market.load(data_folder / "EURUSD_1h.csv.gz")
    slow = resample(minutes, 3_600)
    shared, here, there = np.intersect1d(slow.timestamps, hours.timestamps, return_indices=True)
    assert len(shared) > 1_900  # another broker's: alike, not the same
    gap = np.log(slow.close_prices()[here, 0] / hours.close_prices()[there, 0])
    assert np.median(np.abs(gap)) < 5e-5
    returns = slow.bars[here[1:], 0, 3], hours.bars[there[1:], 0, 3]
    assert np.corrcoef(*returns)[0, 1] > 0.98


# with_ask


def test_mid_prices_and_half_spreads_by_hand():
    stamps = ["2020-01-01", "2020-01-02", "2020-01-03"]
    bid, ask = flat(stamps, [99, 100, 98], symbol="X"), flat(stamps, [101, 100, 102])
    mid = with_ask(bid, ask)
    np.testing.assert_allclose(mid.close_prices()[:, 0], 100, rtol=1e-7)
    assert mid.spec.context == ("half_spread_open", "half_spread_close")
    np.testing.assert_allclose(mid.context, [[0.01] * 2, [0, 0], [0.02] * 2], rtol=1e-5)
    assert mid.spec.symbols == ("X",)


def test_mid_bars_enclose_their_prices():
    frame = random_frame(300, deviation=1e-3)
    ask = frame.copy()
    ask[["open", "high", "low", "close"]] += np.random.default_rng(1).random((300, 1)) / 100
    mid = with_ask(Market.from_frame(frame.assign(vix=1.0)), Market.from_frame(ask))
    wanted = (frame["close"] + ask["close"]).to_numpy() / 2
    np.testing.assert_allclose(mid.close_prices()[:, 0], wanted, rtol=1e-6)
    p = prices(mid)[:, 0]
    assert np.all(p[:, 1] >= p[:, [0, 3]].max(axis=1) * (1 - 1e-7))
    assert np.all(p[:, 2] <= p[:, [0, 3]].min(axis=1) * (1 + 1e-7))
    assert mid.spec.context == ("vix", "half_spread_open", "half_spread_close")
    half = ((ask["close"] - frame["close"]) / (ask["close"] + frame["close"])).to_numpy()
    np.testing.assert_allclose(mid.context[:, 2], half, rtol=1e-3, atol=1e-7)


def test_bid_and_ask_that_do_not_go_together():
    bid, ask = market_of(symbol="B"), market_of(symbol="S")
    crossed = Market.from_frame(random_frame(60).assign(close=lambda f: f["low"]), source="low")
    spread = Market.from_frame(random_frame(60).assign(half_spread_open=0.1), source="own")
    for pair, message in (
        ((bid, market_of(symbol="S", drop=[7])), "1 stamps are in one of them only, 2000-01-10"),
        ((bid, market_of(symbol="S", bar_seconds=3_600)), "have bars of different lengths"),
        ((bid, crossed), r"B.csv and low: row 1: 2000.* at the close: give an ask .* not below"),
        ((combine([bid, ask]), ask), "hold 2 and 1 assets: give one"),
        ((spread, ask), "own: has a column half_spread_open already: give the bid alone"),
    ):
        with pytest.raises(JaxtradeError, match=message) as error:
            with_ask(*pair)
        one_line(error)
    assert np.all(with_ask(bid, ask).context == 0)


def test_real_spreads(data_folder):
    files = (data_folder / f"{name}_1h.csv.gz" for name in ("EURUSD", "EURUSD-ASK"))
    bid, ask = (pd.read_csv(path) for path in files)
    mid = with_ask(Market.from_frame(bid, symbol="EURUSD"), Market.from_frame(ask))
    assert mid.num_bars == len(bid)
    for column, name in enumerate(("open", "close")):
        half = (ask[name] - bid[name]) / (ask[name] + bid[name])
        np.testing.assert_allclose(mid.context[:, column], half, atol=1e-6)
    wanted = (bid["close"] + ask["close"]) / 2
    np.testing.assert_allclose(mid.close_prices()[:, 0], wanted, rtol=1e-6)


# leveraged


def test_decay_by_hand():
    days = flat(["2020-01-01", "2020-01-02", "2020-01-03"], [100, 110, 100], symbol="QQQ")
    fund = leveraged(days, 3)
    np.testing.assert_allclose(fund.close_prices()[:, 0], [100, 130, 130 * (1 - 3 / 11)], rtol=1e-6)
    assert fund.spec.symbols == ("QQQx3",)
    short = leveraged(days, -1)
    np.testing.assert_allclose(short.close_prices()[:, 0], [100, 90, 90 * (1 + 1 / 11)], rtol=1e-6)
    assert short.spec.symbols == ("QQQx-1",)


def test_within_a_day_moves_are_multiples_and_the_night_resets():
    stamps = ["2020-01-01T10", "2020-01-01T11", "2020-01-02T10", "2020-01-02T11", "2020-01-02T12"]
    fund = leveraged(flat(stamps, [100, 120, 108, 96, 120]), 2)
    evening = 140  # 100 and twice 20 %
    closes = [100, evening, evening * 0.8, evening * 0.6, evening]
    np.testing.assert_allclose(fund.close_prices()[:, 0], closes, rtol=1e-6)


@pytest.mark.parametrize("leverage", [3.0, -2.0])
def test_hours_end_each_day_where_days_do(leverage):
    hours = market_of(240, freq="h", deviation=2e-3)
    fund = leveraged(hours, leverage)
    days = leveraged(resample(hours, 86_400), leverage)
    np.testing.assert_allclose(fund.close_prices()[23::24], days.close_prices(), rtol=1e-6)
    p = prices(fund)[:, 0]
    assert np.all(p[:, 1] >= p[:, [0, 3]].max(axis=1) * (1 - 1e-6))
    assert np.all(p[:, 2] <= p[:, [0, 3]].min(axis=1) * (1 + 1e-6))
    source = hours.bars[0, 0].astype(float)  # of the first bar, over the same base
    wanted = leverage * (source if leverage > 0 else source[[0, 2, 1, 3]])
    np.testing.assert_allclose(fund.bars[0, 0], wanted, rtol=1e-5, atol=1e-8)


def test_leverage_of_one_is_the_asset_and_a_fee_is_taken_over_time():
    market = market_of(400, symbol="X")
    assert_same(leveraged(market, 1).replace(spec=market.spec), market)
    paid = leveraged(market, 1, yearly_fee=0.1)
    years = np.cumsum(np.full(400, 86_400 / (365.25 * 86_400)))
    ratio = paid.close_prices()[:, 0] / market.close_prices()[:, 0]
    np.testing.assert_allclose(ratio, 0.9**years, rtol=1e-5)


def test_the_future_leaves_a_fund_alone():
    market = market_of(200, freq="h", deviation=1e-3)
    full = leveraged(market, -3, yearly_fee=0.01)
    for last in (3, 50, 150):
        part = leveraged(market.rows(0, last), -3, yearly_fee=0.01)
        np.testing.assert_array_equal(part.bars, full.bars[: last + 1])


def test_funds_that_cannot_be():
    market = flat(["2020-01-01", "2020-01-02"], [100, 60])
    for options, message in (
        ({"leverage": 0}, "leverage is 0: give a number other than 0"),
        ({"leverage": float("nan")}, "leverage is nan"),
        ({"leverage": 2, "yearly_fee": 1.0}, "yearly_fee is 1.0: give a fraction of 0 or more"),
        ({"leverage": 2, "yearly_fee": -0.1}, "yearly_fee is -0.1"),
        ({"leverage": 2.5}, r"row 2: 2020-01-02.* 2.5 times the day's move takes all .* value"),
    ):
        with pytest.raises(JaxtradeError, match=message) as error:
            leveraged(market, **options)
        one_line(error)
    assert leveraged(market, 2.4).close_prices()[1, 0] == pytest.approx(4.0, rel=1e-5)


def test_tqqq_is_three_times_qqq_a_day(data_folder):
    qqq, tqqq = (Market.load(data_folder / f"{name}_1d.csv.gz") for name in ("QQQ", "TQQQ"))
    both = combine([leveraged(qqq, 3, yearly_fee=0.0095), tqqq])
    assert both.num_bars == tqqq.num_bars == 2_237
    returns = both.bars[1:, :, 3].astype(np.float64)
    assert np.corrcoef(returns.T)[0, 1] > 0.998  # 0.9987
    assert (returns[:, 0] - returns[:, 1]).std() < 2e-3
    growth = np.log1p(returns).sum(axis=0)
    assert abs(growth[0] - growth[1]) < 0.03 * 9  # financing: under three per cent a year
    decay = 3 * np.log1p(combine([qqq, tqqq]).bars[1:, 0, 3].astype(np.float64)).sum() - growth[0]
    assert decay > 0.3  # three times the log growth it did not have
