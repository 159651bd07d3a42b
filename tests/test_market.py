import dataclasses
import gzip
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from jaxtrade.bars import bar_length
from jaxtrade.market import (
    Market,
    Span,
    bars_per_year,
    clock_rows,
    relative_bars,
    require_rows,
    split,
)
from jaxtrade.specs import JaxtradeError, MarketSpec

HEADER = "timestamp,open,high,low,close,volume"
ROWS = (
    "2020-01-01T00:00:00Z,100,110,90,105,10",
    "2020-01-02T00:00:00Z,106,120,104,110,20",
    "2020-01-03T00:00:00Z,110,112,98,99,0",
)


def write(path, rows=ROWS, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def random_frame(num_bars, *, freq="D", seed=0, start="2000-01-03", deviation=0.01):
    """Bars with gaps that enclose open and close; prices in float64."""
    generator = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(deviation * generator.standard_normal(num_bars)))
    open_ = np.roll(close, 1) * np.exp(0.2 * deviation * generator.standard_normal(num_bars))
    open_[0] = 50.0
    spread = np.exp(deviation * np.abs(generator.standard_normal((2, num_bars))))
    return pd.DataFrame(
        {
            "timestamp": pd.date_range(start, periods=num_bars, freq=freq, tz="UTC"),
            "open": open_,
            "high": np.maximum(open_, close) * spread[0],
            "low": np.minimum(open_, close) / spread[1],
            "close": close,
            "volume": generator.integers(0, 1000, num_bars),
        }
    )


def assert_same(first, second):
    assert first.fingerprint() == second.fingerprint()
    np.testing.assert_array_equal(first.bars, second.bars)


# Numbers


def test_relative_returns_by_hand(tmp_path):
    market = Market.from_csv(write(tmp_path / "ABC_1d.csv"))
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


# Files and frames


def test_columns_in_any_order_and_case(tmp_path):
    plain = Market.from_csv(write(tmp_path / "ABC_1d.csv"))
    (tmp_path / "ABC_2.csv").write_text("\r\n".join([HEADER, *ROWS]))  # no end of line at the end
    assert_same(plain, Market.from_csv(tmp_path / "ABC_2.csv"))
    rows = [",".join(reversed(row.split(","))) for row in ROWS]
    header = "Volume,CLOSE,Low, High,OPEN,Date"
    assert_same(plain, Market.from_csv(write(tmp_path / "ABC.x.csv", rows, header)))


def test_gzip_and_parquet_equal_csv(tmp_path):
    frame = random_frame(1000).assign(rate=np.linspace(-1 / 3, 1 / 7, 1000))
    frame.to_csv(tmp_path / "X_1d.csv", index=False)
    (tmp_path / "X_1d.csv.gz").write_bytes(gzip.compress((tmp_path / "X_1d.csv").read_bytes()))
    frame.to_parquet(tmp_path / "X_1d.parquet")
    frame.set_index("timestamp").to_parquet(tmp_path / "X_1d.pq")
    market = Market.load(tmp_path / "X_1d.csv")
    for name in ("X_1d.csv.gz", "X_1d.parquet", "X_1d.pq"):
        assert_same(market, Market.load(str(tmp_path / name)))
    assert_same(market, Market.from_parquet(tmp_path / "X_1d.pq"))
    assert_same(market, Market.from_frame(frame, symbol="X"))
    assert Market.from_csv(tmp_path / "X_1d.csv", symbol="Y").spec.symbols == ("Y",)


@pytest.mark.parametrize(
    "stamps",
    [
        ["2020-01-01", "2020-01-02", "2020-01-03"],
        ["2020-01-01 00:00:00", "2020-01-02T00:00Z", "2020-01-03"],
        ["2020-01-01T02:00:00+02:00", "2020-01-01T19:00:00-05:00", "2020-01-03T00:00:00.000Z"],
        [18_262 * 86_400, 18_263 * 86_400, 18_264 * 86_400],
        [day * 86_400 * 10**3 for day in (18_262, 18_263, 18_264)],
        [day * 86_400 * 10**9 for day in (18_262, 18_263, 18_264)],
    ],
)
def test_stamps(tmp_path, stamps):
    rows = [f"{stamp},1,1,1,1,0" for stamp in stamps]
    market = Market.from_csv(write(tmp_path / "A.csv", rows))
    expected = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[s]")
    np.testing.assert_array_equal(market.timestamps, expected)
    frame = pd.read_csv(tmp_path / "A.csv")
    np.testing.assert_array_equal(Market.from_frame(frame).timestamps, expected)


def test_time_index_with_a_zone_is_converted_and_the_frame_left_alone():
    frame = random_frame(5, freq="h").set_index("timestamp").tz_convert("America/New_York")
    columns = list(frame.columns)
    market = Market.from_frame(frame)
    assert list(frame.columns) == columns
    np.testing.assert_array_equal(market.timestamps[:1], np.datetime64("2000-01-03T00:00:00"))


def test_extra_columns_are_context_in_file_order(tmp_path):
    header = "Bid,timestamp,open,high,low,close,volume,Rate,spread"
    path = write(tmp_path / "A.csv", [f"7,{row},-0.5,0.21" for row in ROWS], header)
    market = Market.from_csv(path)
    assert market.spec.context == ("bid", "rate", "spread")
    expected = [[7, -0.5, 0.21 / close] for close in (105, 110, 99)]
    np.testing.assert_array_equal(market.context, np.float32(expected))


def with_row(text, number=2):
    rows = list(ROWS)
    rows[number - 1] = text
    return rows


BAD_ROWS = {
    "stamp": ("2020-13-02,1,1,1,1,0", "timestamp is '2020-13-02'"),
    "no stamp": (",1,1,1,1,0", "timestamp is missing"),
    "empty line": ("", "timestamp is missing"),
    "part of a second": (
        "2020-01-02T00:00:00.5Z,1,1,1,1,0",
        "timestamp is 2020-01-02 00:00:00.5",
    ),
    "unsorted": ("2019-12-31T00:00:00Z,1,1,1,1,0", "timestamp 2019-12-31T00:00:00Z is before"),
    "twice": (ROWS[0], "timestamp 2020-01-01T00:00:00Z is there twice"),
    "nan": ("2020-01-02T00:00:00Z,1,1,1,nan,0", "close is missing"),
    "empty": ("2020-01-02T00:00:00Z,1,,1,1,0", "high is missing"),
    "infinite": ("2020-01-02T00:00:00Z,1,inf,1,1,0", "high is inf"),
    "text": ("2020-01-02T00:00:00Z,1,1,abc,1,0", "low is 'abc'"),
    "zero price": ("2020-01-02T00:00:00Z,0,1,0,1,0", "open is 0: a price is above 0"),
    "negative price": ("2020-01-02T00:00:00Z,1,1,-1,1,0", "low is -1: a price is above 0"),
    "high below low": ("2020-01-02T00:00:00Z,1,1,2,1,0", "high is 1, low is 2: high is at least"),
    "high below open": ("2020-01-02T00:00:00Z,2,1.5,1,1,0", "high is 1.5, open is 2"),
    "high below close": ("2020-01-02T00:00:00Z,1,1.5,1,2,0", "high is 1.5, close is 2"),
    "low above open": ("2020-01-02T00:00:00Z,1,3,2,2,0", "low is 2, open is 1: low is at most"),
    "low above close": ("2020-01-02T00:00:00Z,3,3,2,1,0", "low is 2, close is 1"),
    "negative volume": ("2020-01-02T00:00:00Z,1,1,1,1,-5", "volume is -5: volume is 0 or more"),
    "volume too large": ("2020-01-02T00:00:00Z,1,1,1,1,1e39", "volume is 1e+39"),
    "price too small": (
        "2020-01-02T00:00:00Z,1e-8,1e-8,1e-8,1e-8,0",
        "close goes from 105 to 1e-08",
    ),
    "field too few": ("2020-01-02T00:00:00Z,1,1,1,1", "5 fields"),
    "field too many": ("2020-01-02T00:00:00Z,1,1,1,1,0,9", "7 fields"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_row_is_named(tmp_path, case):
    text, problem = BAD_ROWS[case]
    path = write(tmp_path / "ABC_1d.csv", with_row(text))
    with pytest.raises(JaxtradeError) as caught:
        Market.load(path)
    message = str(caught.value)
    assert message.startswith(f"ABC_1d.csv: row 2 (line 3): {problem}"), message
    assert message.endswith("(1 such row in all)")
    assert message.isprintable()


def test_first_of_many_bad_rows_is_named_wherever_it_is(tmp_path):
    frame = random_frame(60_000, freq="min")
    lines = frame.to_csv(index=False).splitlines()
    lines[50_000] = lines[50_000].rsplit(",", 1)[0] + ",many"
    lines[55_000] = lines[55_000].rsplit(",", 1)[0] + ","
    path = write(tmp_path / "A.csv", lines[1:], lines[0])
    with pytest.raises(JaxtradeError) as caught:
        Market.load(path)
    assert "row 50000 (line 50001): volume is 'many'" in str(caught.value)
    assert "(2 such rows in all)" in str(caught.value)
    lines[58_000] += ",1"
    with pytest.raises(JaxtradeError, match=r"row 58000 \(line 58001\): 7 fields"):
        Market.load(write(path, lines[1:], lines[0]))
    frame.loc[7, "low"] = 0.0
    frame.to_parquet(tmp_path / "A.parquet")
    with pytest.raises(JaxtradeError, match=r"A.parquet: row 8: low is 0"):
        Market.load(tmp_path / "A.parquet")
    with pytest.raises(JaxtradeError, match=r"mine: row 8: low is 0"):
        Market.from_frame(frame, source="mine")


BAD_HEADERS = {
    "no volume": ("timestamp,open,high,low,close,x", "no column volume (found timestamp, open"),
    "no stamp": ("when,open,high,low,close,volume", "no column timestamp (found when, open"),
    "no prices": ("timestamp,open,b,c,d,volume", "no column high, low, close (found"),
    "no header": (ROWS[0], "no column open, high, low, close, volume (found 2020-01-01t"),
    "doubled": ("timestamp,open,high,low,Open,close", "column open is there more than once"),
    "two stamps": ("date,open,high,low,close,time", "no column volume (found date"),
    "ticks": (
        "timestamp,bid,ask,bid_size,ask_size,x",
        " holds ticks or quotes (columns timestamp, bid",
    ),
    "trades": ("timestamp,price,size,side,x,y", " holds trades (columns timestamp, price, size"),
    "book": ("timestamp,ask_price_1,a,b,c,d", " holds an order book (columns timestamp, ask_"),
    "messages": ("timestamp,type,order_id,size,price,x", " holds order-book messages (columns"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_bad_header_is_named(tmp_path, case):
    header, problem = BAD_HEADERS[case]
    with pytest.raises(JaxtradeError) as caught:
        Market.load(write(tmp_path / "A_1d.csv", header=header))
    assert str(caught.value).startswith("A_1d.csv")
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["hey", "2020-01-01", "true", "12:00:00", ""])
def test_extra_column_that_is_no_number_is_named(tmp_path, value):
    path = write(tmp_path / "A.csv", [f"{row},{value}" for row in ROWS], f"{HEADER},Note")
    with pytest.raises(JaxtradeError, match=r"A.csv: row 1 \(line 2\): note is .*3 such rows"):
        Market.load(path)


def test_negative_spread_and_two_stamps_are_errors(tmp_path):
    path = write(tmp_path / "A.csv", [f"{row},-1" for row in ROWS], f"{HEADER},spread")
    with pytest.raises(JaxtradeError, match="spread is -1: spread is 0 or more"):
        Market.load(path)
    path = write(tmp_path / "A.csv", [f"{row},12:00" for row in ROWS], f"{HEADER},time")
    with pytest.raises(JaxtradeError, match="columns timestamp and time are all stamps"):
        Market.load(path)


@pytest.mark.parametrize(
    ("stamps", "problem"),
    [
        (["20200101", "20200102"], "row 1 (line 2): timestamp is 20200101"),
        (["1577836800", "abc"], "row 2 (line 3): timestamp is 'abc'"),
        (["1577836800", "1577923200000"], "timestamp is 1577923200000"),
        (["1577836800001", "1577923200000"], "timestamp is 1577836800001: a bar starts on a"),
        (["5", "6"], "timestamp is 5: give ISO-8601"),
    ],
)
def test_bad_epochs(tmp_path, stamps, problem):
    path = write(tmp_path / "A.csv", [f"{stamp},1,1,1,1,0" for stamp in stamps])
    with pytest.raises(JaxtradeError) as caught:
        Market.load(path)
    assert problem in str(caught.value)


GOOD = "\n".join([HEADER, *ROWS]).encode()
BAD_FILES = {
    "A.csv": (b"", "is empty"),
    "B.csv": (HEADER.encode(), "has 0 rows: give at least 2"),
    "C.csv": (f"{HEADER}\n{ROWS[0]}\n".encode(), "has 1 row: give at least 2"),
    "D.csv": (bytes(range(256)) * 9, "not readable as CSV text"),
    "E.csv": (GOOD.decode().encode("utf-16"), "not readable as CSV text"),
    "F.csv": (b"\xff\xfe\n\xff\n", "not readable as CSV text"),
    "G.csv.gz": (GOOD, "not readable as CSV text in UTF-8: Not a gzipped file"),
    "H.csv.gz": (gzip.compress(GOOD)[:-12], "Compressed file ended before"),
    "I.csv.gz": (gzip.compress(GOOD)[:20] + b"\0" * 40, "not readable as CSV text"),
    "J.parquet": (GOOD, "not readable as Parquet"),
    "K.txt": (GOOD, "unknown suffix: give .csv, .csv.gz, .parquet or .pq"),
    "L.gz": (GOOD, "unknown suffix"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_named(tmp_path, name):
    data, problem = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(JaxtradeError) as caught:
        Market.load(tmp_path / name)
    assert str(caught.value).startswith(f"{name}: ")
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


def test_missing_file_and_wrong_loader(tmp_path):
    with pytest.raises(JaxtradeError, match=r"nope.csv: no such file"):
        Market.load(tmp_path / "nope.csv")
    with pytest.raises(JaxtradeError, match=r"X.parquet: unknown suffix: give .csv or .csv.gz"):
        Market.from_csv(tmp_path / "X.parquet")
    with pytest.raises(JaxtradeError, match=r"X.csv: unknown suffix: give .parquet or .pq"):
        Market.from_parquet(tmp_path / "X.csv")
    with pytest.raises(JaxtradeError, match="bar_seconds is 0: give 1 or more"):
        Market.from_frame(random_frame(3), bar_seconds=0)


# Market


def test_rows_keep_prices_and_clock():
    market = Market.from_frame(random_frame(200).assign(rate=np.arange(200.0)))
    part = market.rows(50, 79)
    assert part.num_bars == 30
    np.testing.assert_allclose(part.close_prices(), market.close_prices()[50:80], rtol=1e-12)
    np.testing.assert_allclose(part.open_prices(), market.open_prices()[50:80], rtol=1e-12)
    np.testing.assert_array_equal(part.clock, market.clock[50:80])
    np.testing.assert_array_equal(part.timestamps, market.timestamps[50:80])
    np.testing.assert_array_equal(part.context[:, 0], np.arange(50, 80))
    assert_same(market.rows(0, 199), market)
    assert_same(
        market.rows(20, 150).rows(30, 59).rows(0, 5).replace(spec=part.spec), part.rows(0, 5)
    )
    for first, last in ((-1, 5), (5, 4), (0, 200)):
        with pytest.raises(JaxtradeError, match="no rows"):
            market.rows(first, last)


def test_fingerprint_changes_with_any_leaf_or_name():
    market = Market.from_frame(random_frame(20).assign(rate=1.0), symbol="A")
    seen = {market.fingerprint()}
    for name in ("bars", "volume", "context", "clock", "day", "second"):
        leaf = getattr(market, name).copy()
        leaf.flat[-1] += 1
        seen.add(market.replace(**{name: leaf}).fingerprint())
    for change in ({"symbols": ("B",)}, {"context": ("other",)}, {"base_price": (2.0,)}):
        spec = dataclasses.replace(market.spec, **change)
        seen.add(market.replace(spec=spec).fingerprint())
    assert len(seen) == 10
    assert all(len(digits) == 16 and int(digits, 16) >= 0 for digits in seen)
    elsewhere = market.replace(spec=dataclasses.replace(market.spec, source="elsewhere"))
    assert elsewhere.fingerprint() == market.fingerprint()


def test_describe():
    daily = Market.from_frame(random_frame(1500), symbol="ABC")
    assert daily.describe() == (
        "ABC 1,500 bars of 1 day, 2000-01-03 .. 2004-02-10, 365.2 bars a year"
    )
    quarter_hours = Market.from_frame(random_frame(100, freq="15min"), symbol="ABC")
    assert quarter_hours.describe() == (
        "ABC 100 bars of 15 minutes, 2000-01-03T00:00 .. 2000-01-04T00:45, 35,064.0 bars a year"
    )


def test_require_rows():
    market = Market.from_frame(random_frame(30), source="A.csv")
    require_rows(market, 30, "window 32")
    with pytest.raises(
        JaxtradeError, match=r"A.csv: has 30 rows, fewer than the 31 needed for win"
    ):
        require_rows(market, 31, "window 32")


def test_importing_and_loading_touch_no_device():
    code = (
        "import sys, pandas as pd\n"
        "import jaxtrade.bars\n"
        "assert 'jax' not in sys.modules\n"
        "from jaxtrade.market import Market\n"
        "stamps = pd.date_range('2020', periods=3)\n"
        "row = dict(open=1.0, high=1.0, low=1.0, close=1.0, volume=0)\n"
        "Market.from_frame(pd.DataFrame([row] * 3, index=stamps)).describe()\n"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "none_such"}  # any use of a device fails
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


# Join


def levels(num_rows, *, freq="D", start="2000-01-03"):
    """A plain context file: the value of row i is i."""
    stamps = pd.date_range(start, periods=num_rows, freq=freq)
    return pd.DataFrame({"timestamp": stamps, "close": np.arange(float(num_rows))})


def test_join_daily_to_daily_sees_the_same_day():
    market = Market.from_frame(random_frame(10)).join(levels(12), name="VIX")
    assert market.spec.context == ("vix",)
    np.testing.assert_array_equal(market.context[:, 0], np.arange(10))


def test_join_daily_to_hourly_sees_the_day_before():
    market = Market.from_frame(random_frame(72, freq="h", start="2000-01-05"))
    joined = market.join(levels(12), name="vix")
    # Row 2 is 2000-01-05. The hour from 23:00 ends at midnight, when that day's bar is known.
    expected = [1.0] * 23 + [2.0] * 24 + [3.0] * 24 + [4.0]
    np.testing.assert_array_equal(joined.context[:, 0], expected)


def test_join_hourly_to_daily_sees_the_last_hour():
    market = Market.from_frame(random_frame(3))
    joined = market.join(levels(96, freq="h"), name="h")
    np.testing.assert_array_equal(joined.context[:, 0], [23, 47, 71])


@pytest.mark.parametrize("freq", ["D", "h", "37min"])
def test_join_never_sees_the_future(freq):
    market = Market.from_frame(random_frame(200, freq=freq, start="2000-01-06"))
    other = levels(400, freq="7h", start="2000-01-03")
    before = market.join(other, name="x", max_age_days=400).context[:, 0]
    known_at = other["timestamp"].to_numpy("datetime64[s]") + np.timedelta64(7, "h")
    ends = market.timestamps + np.timedelta64(market.spec.bar_seconds, "s")
    for row in range(12, 60, 7):
        changed = other.copy()
        changed.loc[row:, "close"] += 1000.0
        after = market.join(changed, name="x", max_age_days=400).context[:, 0]
        np.testing.assert_array_equal(after != before, ends >= known_at[row])


def test_join_takes_files_markets_and_several_columns(tmp_path):
    frame = random_frame(10, seed=3).assign(rate=np.arange(10.0))
    frame.to_csv(tmp_path / "V_1d.csv", index=False)
    other = Market.load(tmp_path / "V_1d.csv")
    market = Market.from_frame(random_frame(10).assign(bid=1.0))
    from_file = market.join(str(tmp_path / "V_1d.csv"), name="V", columns=("Close", "high", "rate"))
    from_market = market.join(other, name="V", columns=("close", "high", "rate"))
    assert from_file.spec.context == ("bid", "v_close", "v_high", "v_rate")
    assert from_file.spec == from_market.spec
    expected = frame[["close", "high", "rate"]].to_numpy(np.float32)
    np.testing.assert_array_equal(from_file.context[:, 1:], expected)
    np.testing.assert_allclose(from_market.context, from_file.context, rtol=1e-6)
    np.testing.assert_array_equal(from_file.context[:, 0], 1)


def test_join_errors_name_the_first_bar():
    market = Market.from_frame(random_frame(30), source="A.csv")
    with pytest.raises(JaxtradeError) as caught:
        market.join(levels(30, start="2000-01-06"), name="x")
    message = str(caught.value)
    assert message.startswith("A.csv: row 1: 2000-01-03T00:00:00Z: nothing of frame")
    assert "start at row 4, or join" in message
    assert "3 such rows in all" in message
    with pytest.raises(JaxtradeError, match=r"row 16: 2000-01-18.*over 10 days old.*15 such rows"):
        market.join(levels(5), name="x")
    assert market.join(levels(5), name="x", max_age_days=25).context[-1, 0] == 4
    with pytest.raises(JaxtradeError, match=r"known yet: join a file that begins earlier"):
        market.join(levels(5, start="2010-01-01"), name="x")
    with pytest.raises(JaxtradeError, match=r"frame: no column open \(found timestamp, close\)"):
        market.join(levels(30), name="x", columns=("open",))
    with pytest.raises(JaxtradeError, match=r"A.csv: no column rate \(found open, high"):
        market.join(market, name="x", columns=("rate",))
    with pytest.raises(JaxtradeError, match=r"as 'X'.*found x"):
        market.join(levels(30), name="x").join(levels(30), name="X")
    with pytest.raises(JaxtradeError, match="bar_seconds is -1"):
        market.join(levels(30), name="x", bar_seconds=-1)
    with pytest.raises(JaxtradeError, match=r"frame: row 3: close is missing"):
        market.join(levels(30).replace({"close": {2.0: np.nan}}), name="x")


# Split


@pytest.mark.parametrize("num_bars", [200, 1001, 6528])
@pytest.mark.parametrize("embargo", [0, 1, 13])
@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.34, 0.33, 0.33)])
def test_split_properties(num_bars, embargo, first, fractions):
    spans = split(num_bars, fractions=fractions, embargo=embargo, first=first)
    assert (spans.train.first, spans.test.last) == (first, num_bars - 1)
    assert spans.validation.first - spans.train.last == embargo + 1
    assert spans.test.first - spans.validation.last == embargo + 1
    rows = [span.last - span.first + 1 for span in (spans.train, spans.validation, spans.test)]
    assert sum(rows) + 2 * embargo == num_bars - first
    expected = np.array(fractions) * (num_bars - first) - np.array([0, embargo, embargo])
    np.testing.assert_allclose(rows, expected, atol=1)


def test_split_by_hand():
    spans = split(210, embargo=2, first=10)
    assert spans.train == Span(10, 129)
    assert spans.validation == Span(132, 169)
    assert spans.test == Span(172, 209)
    assert spans.train.num_steps == 119


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"num_bars": 100, "embargo": 2, "first": 0}, "validation span has 18 rows of 100"),
        ({"num_bars": 25, "embargo": 0, "first": 30}, "train span has 0 rows"),
        ({"num_bars": 500, "embargo": 90, "first": 0}, "validation span has 10 rows"),
        ({"num_bars": 500, "embargo": -1, "first": 0}, "embargo is -1"),
        ({"num_bars": 500, "embargo": 0, "first": -1}, "first is -1"),
        (
            {"num_bars": 500, "embargo": 0, "first": 0, "fractions": (0.6, 0.2, 0.1)},
            "give three above 0 that add up to 1",
        ),
    ],
)
def test_split_errors(arguments, problem):
    with pytest.raises(JaxtradeError, match=problem):
        split(**arguments)
