import dataclasses
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError
from tests.markets import assert_same, random_frame


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
