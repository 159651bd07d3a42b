import math
from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from jaxtrade import metrics
from jaxtrade.experiments.results import TRADES_SCHEMA, Backtest, write_trades
from jaxtrade.specs import JaxtradeError

COLUMNS = TRADES_SCHEMA.names[1:]


def backtest(exposure: list[float], /, **changes: object) -> Backtest:
    T = len(exposure)
    ones, zeros = np.ones(T), np.zeros(T)
    fields: dict = {
        "name": "agent",
        "span": "test",
        "timestamps": np.datetime64("2024-01-01", "s") + np.arange(T) * np.timedelta64(1, "D"),
        "gap_growth": ones,
        "cost_growth": ones,
        "bar_growth": ones,
        "weights_before": zeros,
        "exposure": np.array(exposure),
        "turnover": zeros,
        "interest": zeros,
        "action": np.zeros(T, np.int32),
        "open_price": 100.0 + np.arange(T),
        "close_price": 100.5 + np.arange(T),
        "bars_per_year": 252.0,
    }
    for name, value in changes.items():
        fields[name] = np.array(value) if isinstance(value, list) else value
    return Backtest(**fields)


@st.composite
def backtests(draw: st.DrawFn) -> Backtest:
    T = draw(st.integers(1, 40))

    def row(low: float, high: float) -> list[float]:
        return draw(st.lists(st.floats(low, high), min_size=T, max_size=T))

    exposure = draw(
        st.lists(st.sampled_from([-1.0, -0.4, 0.0, 0.0, 0.7, 1.0]), min_size=T, max_size=T)
    )
    return backtest(
        exposure,
        # Not so wild that 1 + return loses digits: float64 keeps a return near -1 only to 1e-16.
        gap_growth=row(0.97, 1.03),
        cost_growth=row(0.98, 1.0),
        bar_growth=row(0.9, 1.1),
        weights_before=row(-1.5, 1.5),
        interest=row(-0.01, 0.01),
    )


def test_a_trip_that_a_stop_ended_by_hand() -> None:
    # Long for two bars, stopped inside the second; bought again at the next open, closed after.
    result = backtest(
        [1.0, 1.0, 1.0, 0.0],
        gap_growth=[1.0, 1.01, 1.0, 1.02],
        bar_growth=[1.0, 0.96, 1.03, 1.0],
        weights_before=[0.0, 1.0, 0.0, 1.0],
        exit_price=[math.nan, 97.0, math.nan, math.nan],
    )
    trips = result.trips()
    assert trips["exit_price"].tolist() == [97.0, 103.0]
    assert trips["exit_time"].dt.day.tolist() == [2, 4]
    assert trips["bars"].tolist() == [2, 1]
    assert trips["open"].tolist() == [False, False]
    np.testing.assert_allclose(trips["return"], [1.01 * 0.96 - 1, 1.03 * 1.02 - 1])


def test_flip_and_open_trip_by_hand() -> None:
    # flat; long for two bars; flip to short, held for two bars; flat; long, still open.
    result = backtest(
        [0.0, 0.5, 0.6, -0.9, -1.0, 0.0, 1.0],
        gap_growth=[1.0, 1.0, 1.02, 0.99, 1.01, 1.03, 1.0],
        cost_growth=[1.0, 0.999, 0.998, 0.99, 1.0, 0.997, 0.995],
        bar_growth=[1.001, 1.05, 0.97, 1.04, 0.98, 1.0, 1.1],
        weights_before=[0.0, 0.0, 0.55, 0.3, -0.95, -0.8, 0.0],
        interest=[0.0, 0.0, 0.0, 0.0002, 0.0003, 0.0, 0.0],
    )
    trips = result.trips()
    assert list(trips.columns) == COLUMNS
    assert trips["side"].tolist() == ["long", "short", "long"]
    assert trips["bars"].tolist() == [2, 2, 1]
    assert trips["exposure"].tolist() == [0.5, -0.9, 1.0]
    assert trips["open"].tolist() == [False, False, True]
    assert trips["entry_price"].tolist() == [101.0, 103.0, 106.0]
    assert trips["exit_price"].tolist() == [103.0, 105.0, 106.5]
    assert trips["entry_time"].tolist() == [
        pd.Timestamp(f"2024-01-0{day}", tz="UTC") for day in (2, 4, 7)
    ]
    assert trips["exit_time"].tolist() == [
        pd.Timestamp(f"2024-01-0{day}", tz="UTC") for day in (4, 6, 7)
    ]
    # The flip's cost 0.99 is borne a quarter (0.3 of 1.2) by the long and the rest by the short.
    first = 0.999 * 1.05 * 1.02 * 0.998 * 0.97 * 0.99 * 0.99**0.25
    second = 0.99**0.75 * 1.04 * 1.01 * 0.98 * 1.03 * 0.997
    third = 0.995 * 1.1
    np.testing.assert_allclose(1 + trips["return"], [first, second, third], rtol=1e-14)
    expected_costs = [0.001 + 0.002 + 0.0025, 0.0075 + 0.0002 + 0.0003 + 0.003, 0.005]
    np.testing.assert_allclose(trips["costs"], expected_costs, rtol=1e-12)
    assert result.flat_growth == pytest.approx(1.001, rel=1e-14)


@hypothesis.given(result=backtests())
@hypothesis.settings(deadline=None)
def test_trips_and_flat_stretches_make_up_the_total(result: Backtest) -> None:
    trips = result.trips()
    product = float(np.prod(1 + trips["return"].to_numpy())) * result.flat_growth
    assert product == pytest.approx(float(result.equity[-1]), rel=1e-12)
    assert result.metrics()["trades"] == len(trips)
    assert not np.isnan(list(result.metrics().values())).any()


@hypothesis.given(result=backtests())
@hypothesis.settings(deadline=None)
def test_trips_agree_with_a_plain_loop(result: Backtest) -> None:
    growths: list[float] = []
    flat = 1.0
    sign = 0.0
    for k, exposure in enumerate(result.exposure):
        new = math.copysign(1.0, exposure) if exposure else 0.0
        gap, cost, bar = result.gap_growth[k], result.cost_growth[k], result.bar_growth[k]
        if sign == 0:
            flat *= gap
        else:
            growths[-1] *= gap
        if new != sign and new and sign:
            before, after = abs(result.weights_before[k]), abs(exposure)
            growths[-1] *= cost ** (before / (before + after))
            growths.append(cost ** (after / (before + after)))
        elif new and not sign:
            growths.append(cost)
        elif sign:
            growths[-1] *= cost
        else:
            flat *= cost
        if new:
            growths[-1] *= bar
        else:
            flat *= bar
        sign = new
    np.testing.assert_allclose(1 + result.trips()["return"], growths, rtol=1e-12)
    assert result.flat_growth == pytest.approx(flat, rel=1e-12)


def test_equity_returns_and_costs() -> None:
    result = backtest(
        [1.0, 1.0],
        gap_growth=[1.0, 1.1],
        cost_growth=[0.99, 1.0],
        bar_growth=[1.2, 0.9],
        interest=[0.0, 0.002],
    )
    np.testing.assert_allclose(result.equity, [1.0, 1.188, 1.188 * 0.99])
    np.testing.assert_allclose(result.returns, [0.188, -0.01])
    figures = result.metrics()
    assert tuple(figures) == metrics.METRICS
    assert figures["costs"] == pytest.approx(0.012)
    assert figures["total_return"] == pytest.approx(1.188 * 0.99 - 1)


def test_ruin_leaves_no_open_trip() -> None:
    result = backtest([0.0, 2.0], bar_growth=[1.0, 1e-3], ruined=True)
    assert result.trips()["open"].tolist() == [False]
    assert result.trips()["return"].iloc[0] == pytest.approx(-0.999)


def test_flat_has_no_trips_but_all_columns() -> None:
    trips = backtest([0.0, 0.0]).trips()
    held = backtest([1.0]).trips()
    assert len(trips) == 0
    assert trips.dtypes.to_dict() == held.dtypes.to_dict()
    assert str(trips["entry_time"].dtype) == "datetime64[s, UTC]"


@pytest.mark.parametrize("names", [[], ["flat"], ["agent", "flat", "buy and hold"]])
def test_trades_file_has_one_schema(tmp_path: Path, names: list[str]) -> None:
    exposures = {"agent": [1.0, -1.0, 0.0], "flat": [0.0], "buy and hold": [1.0]}
    path = tmp_path / "trades.parquet"
    write_trades(path, [backtest(exposures[name], name=name) for name in names])
    assert pq.read_schema(path).remove_metadata().equals(TRADES_SCHEMA)
    frame = pd.read_parquet(path)
    expected = {3: ["agent", "agent", "buy and hold"]}.get(len(names), [])
    assert frame["policy"].tolist() == expected
    assert str(frame["exit_time"].dtype) == "datetime64[ms, UTC]"
    assert [each.name for each in path.parent.iterdir()] == ["trades.parquet"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(JaxtradeError, match=r"cannot write .*nowhere"):
        write_trades(tmp_path / "nowhere" / "trades.parquet", [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exposure": [1.0]}, "exposure has shape"),
        ({"bar_growth": [1.0, 0.0]}, r"bar_growth\[1\] is 0.0"),
        ({"interest": [math.nan, 0.0]}, r"interest\[0\] is nan"),
    ],
)
def test_wrong_arrays_are_named(changes: dict, message: str) -> None:
    with pytest.raises(JaxtradeError, match=message):
        backtest([0.0, 0.0], **changes)
    with pytest.raises(JaxtradeError, match="no bars"):
        backtest([])
