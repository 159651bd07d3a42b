"""Real files of bars, ticks and order books, in the folder that JAXTRADE_DATA names."""

import os
import pathlib

import numpy as np
import pandas as pd
import pytest

from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError

FOLDER = os.environ.get("JAXTRADE_DATA", "")
OTHER_KINDS = ("_tick", "_quote", "_trade", "_depth", "_lob")
BAR_SECONDS = {"1d": 86_400, "1h": 3600, "15m": 900, "5m": 300, "1m": 60, "1s": 1}

pytestmark = pytest.mark.skipif(not FOLDER, reason="JAXTRADE_DATA names no folder of data")

PATHS = sorted(pathlib.Path(FOLDER).glob("*.csv.gz")) if FOLDER else []
BAR_PATHS = [path for path in PATHS if not any(kind in path.name for kind in OTHER_KINDS)]
OTHER_PATHS = [path for path in PATHS if path not in BAR_PATHS]


def test_there_are_files():
    assert len(BAR_PATHS) >= 61
    assert len(OTHER_PATHS) >= 8


@pytest.mark.parametrize("path", BAR_PATHS, ids=lambda path: path.name)
def test_bars_load_and_prices_match(path):
    market = Market.load(path)
    frame = pd.read_csv(path)
    symbol, bar = path.name.removesuffix(".csv.gz").split("_")
    assert market.num_bars == len(frame)
    assert market.spec.symbols == (symbol,)
    assert market.spec.bar_seconds == BAR_SECONDS[bar]
    np.testing.assert_allclose(market.close_prices()[:, 0], frame["close"], rtol=1e-5)
    np.testing.assert_allclose(market.open_prices()[:, 0], frame["open"], rtol=1e-5)
    stamps = pd.to_datetime(frame["timestamp"]).dt.tz_localize(None).to_numpy("datetime64[s]")
    np.testing.assert_array_equal(market.timestamps, stamps)
    assert np.isfinite(market.bars).all()
    assert np.all((market.clock[:, :2] >= 0) & (market.clock[:, :2] < 1))
    assert np.all((market.clock[:, 2] > 0) & (market.clock[:, 2] * 365.25 < 10.01))


@pytest.mark.parametrize("path", OTHER_PATHS, ids=lambda path: path.name)
def test_other_kinds_are_refused(path):
    with pytest.raises(JaxtradeError) as caught:
        Market.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path.name} holds ")
    assert "(columns timestamp, " in message
    assert message.endswith("not bars: give open, high, low, close, volume bars")
    assert message.isprintable()


def test_daily_spy_with_vix():
    folder = pathlib.Path(FOLDER)
    market = Market.load(folder / "SPY_1d.csv.gz")
    assert market.describe() == (
        "SPY 6,528 bars of 1 day, 1993-01-29 .. 2018-12-31, 251.8 bars a year"
    )
    vix = pd.read_csv(folder / "VIX_1d.csv.gz", index_col="timestamp")["close"]
    joined = market.join(folder / "VIX_1d.csv.gz", name="vix")
    row = int(np.flatnonzero(market.timestamps == np.datetime64("2018-02-05"))[0])
    assert joined.context[row, 0] == np.float32(vix["2018-02-05T00:00:00Z"])


def test_hourly_spy_sees_the_vix_of_the_day_before():
    folder = pathlib.Path(FOLDER)
    market = Market.load(folder / "SPY_1h.csv.gz").join(folder / "VIX_1d.csv.gz", name="vix")
    vix = pd.read_csv(folder / "VIX_1d.csv.gz", index_col="timestamp")["close"]
    on_that_day = np.flatnonzero(
        market.timestamps.astype("datetime64[D]") == np.datetime64("2018-02-06")
    )
    assert len(on_that_day) == 7
    np.testing.assert_array_equal(
        market.context[on_that_day, 0], np.float32(vix["2018-02-05T00:00:00Z"])
    )
