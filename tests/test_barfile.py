import gzip

import numpy as np
import pandas as pd
import pytest

from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError
from tests.markets import HEADER, ROWS, assert_same, random_frame, write_csv


def test_columns_in_any_order_and_case(tmp_path):
    plain = Market.from_csv(write_csv(tmp_path / "ABC_1d.csv"))
    (tmp_path / "ABC_2.csv").write_text("\r\n".join([HEADER, *ROWS]))  # no end of line at the end
    assert_same(plain, Market.from_csv(tmp_path / "ABC_2.csv"))
    rows = [",".join(reversed(row.split(","))) for row in ROWS]
    header = "Volume,CLOSE,Low, High,OPEN,Date"
    assert_same(plain, Market.from_csv(write_csv(tmp_path / "ABC.x.csv", rows, header)))


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
    market = Market.from_csv(write_csv(tmp_path / "A.csv", rows))
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
    path = write_csv(tmp_path / "A.csv", [f"7,{row},-0.5,0.21" for row in ROWS], header)
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
    path = write_csv(tmp_path / "ABC_1d.csv", with_row(text))
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
    path = write_csv(tmp_path / "A.csv", lines[1:], lines[0])
    with pytest.raises(JaxtradeError) as caught:
        Market.load(path)
    assert "row 50000 (line 50001): volume is 'many'" in str(caught.value)
    assert "(2 such rows in all)" in str(caught.value)
    lines[58_000] += ",1"
    with pytest.raises(JaxtradeError, match=r"row 58000 \(line 58001\): 7 fields"):
        Market.load(write_csv(path, lines[1:], lines[0]))
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
        Market.load(write_csv(tmp_path / "A_1d.csv", header=header))
    assert str(caught.value).startswith("A_1d.csv")
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["hey", "2020-01-01", "true", "12:00:00", ""])
def test_extra_column_that_is_no_number_is_named(tmp_path, value):
    path = write_csv(tmp_path / "A.csv", [f"{row},{value}" for row in ROWS], f"{HEADER},Note")
    with pytest.raises(JaxtradeError, match=r"A.csv: row 1 \(line 2\): note is .*3 such rows"):
        Market.load(path)


def test_negative_spread_and_two_stamps_are_errors(tmp_path):
    path = write_csv(tmp_path / "A.csv", [f"{row},-1" for row in ROWS], f"{HEADER},spread")
    with pytest.raises(JaxtradeError, match="spread is -1: spread is 0 or more"):
        Market.load(path)
    path = write_csv(tmp_path / "A.csv", [f"{row},12:00" for row in ROWS], f"{HEADER},time")
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
    path = write_csv(tmp_path / "A.csv", [f"{stamp},1,1,1,1,0" for stamp in stamps])
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
