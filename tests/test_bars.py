import dataclasses

import numpy as np
import pandas as pd
import pytest

from jaxtrade.bars import bar_length, bars_per_year, clock_rows, relative_bars
from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError, MarketSpec
from tests.markets import random_frame, write_csv


def test_relative_returns_by_hand(tmp_path):
    market = Market.from_csv(write_csv(tmp_path / "ABC_1d.csv"))
    expected = [
        [0.0, 0.10, -0.10, 0.05],  # over its own open, 100
        [106 / 105 - 1, 120 / 105 - 1, 104 / 105 - 1, 110 / 105 - 1],
        [0.0, 112 / 110 - 1, 98 / 110 - 1, -0.10],
    ]
    np.testing.assert_array_equal(market.bars[:, 0], np.float32(expected))
    np.testing.assert_allclose(market.close_prices()[:, 0], [105, 110, 99], rtol=1e-7)
    np.testing.assert_allclose(market.open_prices()[:, 0], [100, 106, 110], rtol=1e-7)
    np.testing.assert_array_equal(market.volume, np.float32([[10], [20], [0]]))
    np.testing.assert_array_equal(market.day, [18262, 18263, 18264])
    np.testing.assert_array_equal(market.second, [0, 0, 0])
    assert market.spec == MarketSpec(
        symbols=("ABC",),
        bar_seconds=86_400,
        bars_per_year=365.25,
        base_price=(100.0,),
        source="ABC_1d.csv",
    )
    assert (market.num_bars, market.num_assets) == (3, 1)
    assert str(market.timestamps[1]) == "2020-01-02T00:00:00"


def test_leaves_have_the_stated_shapes_and_types():
    frame = random_frame(10).assign(rate=1.0)
    market = Market.from_frame(frame)
    leaves = {field.name: getattr(market, field.name) for field in dataclasses.fields(market)}
    del leaves["spec"]
    assert all(type(leaf) is np.ndarray for leaf in leaves.values())
    assert {name: (leaf.shape, leaf.dtype.name) for name, leaf in leaves.items()} == {
        "bars": ((10, 1, 4), "float32"),
        "volume": ((10, 1), "float32"),
        "context": ((10, 1), "float32"),
        "clock": ((10, 3), "float32"),
        "day": ((10,), "int32"),
        "second": ((10,), "int32"),
    }


def test_prices_come_back_over_many_rows():
    frame = random_frame(20_000, freq="min", deviation=0.003)
    market = Market.from_frame(frame)
    np.testing.assert_allclose(market.close_prices()[:, 0], frame["close"], rtol=1e-6)
    np.testing.assert_allclose(market.open_prices()[:, 0], frame["open"], rtol=1e-6)


@pytest.mark.parametrize("scale", [1000.0, 1e-6])
def test_scaling_prices_leaves_bars(scale):
    frame = random_frame(500)
    scaled = frame.assign(
        **{name: frame[name] * scale for name in ("open", "high", "low", "close")}
    )
    market, other = Market.from_frame(frame), Market.from_frame(scaled)
    np.testing.assert_allclose(market.bars, other.bars, rtol=0, atol=1e-7)
    np.testing.assert_allclose(market.close_prices() * scale, other.close_prices(), rtol=1e-6)


def test_one_live_bar_equals_the_loader():
    frame = random_frame(50, freq="h")
    market = Market.from_frame(frame)
    prices = frame[["open", "high", "low", "close"]].to_numpy()
    one = relative_bars(prices[20:21], prices[19:20, 3])
    np.testing.assert_array_equal(one, market.bars[20])
    clock = clock_rows(market.timestamps[19:21], bar_seconds=market.spec.bar_seconds)
    np.testing.assert_array_equal(clock[-1], market.clock[20])


def test_clock_by_hand():
    stamps = ["2024-01-01T00:00", "2024-01-01T06:00", "2024-01-07T18:00", "2024-03-01T12:00"]
    clock = clock_rows(np.array(stamps, "datetime64[s]"), bar_seconds=21_600)
    year = 365.25 * 24  # hours
    expected = [
        [0.0, 0.0, 6 / year],  # a Monday; the first row's elapsed time is the bar's length
        [0.25, 0.25 / 7, 6 / year],
        [0.75, 6.75 / 7, 156 / year],
        [0.5, 4.5 / 7, 6 / year],  # months later: a break counts as one bar
    ]
    np.testing.assert_array_equal(clock, np.float32(expected))
    assert clock.dtype == np.float32
    before_epoch = clock_rows(np.array(["1969-12-29T12:00"], "datetime64[s]"), bar_seconds=3600)
    np.testing.assert_allclose(before_epoch[0, :2], [0.5, 0.5 / 7], rtol=1e-6)
    with pytest.raises(JaxtradeError, match="bar_seconds is needed"):
        clock_rows(before_epoch[:, 0].astype(np.int64))


def test_bar_length_is_the_commonest_step():
    assert bar_length([0, 60, 120, 1000, 1060]) == 60
    assert bar_length([0, 300, 360]) == 60  # equally frequent: the smaller


def test_bars_per_year():
    weekdays = pd.bdate_range("2001-01-01", "2010-12-31").to_numpy()
    assert bars_per_year(weekdays, bar_seconds=86_400) == pytest.approx(261, abs=0.3)
    hours = np.arange(5000) * 3600
    assert bars_per_year(hours, bar_seconds=3600) == pytest.approx(8766)
    with_break = np.concatenate([hours, hours + hours[-1] + 150 * 86_400])
    assert bars_per_year(with_break, bar_seconds=3600) == pytest.approx(8766)
    months = pd.date_range("2001-01-01", periods=48, freq="MS").to_numpy()
    assert bars_per_year(months, bar_seconds=31 * 86_400) == pytest.approx(12, abs=0.1)
