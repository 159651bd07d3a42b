"""`agent_live_logs`: the table of what was decided, and the bars to train on anew."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import talib

from jaxtrade.experiments.live_logs import live_bars, live_logs, merged, write_logs
from jaxtrade.live.events import Bar, BarDecided
from jaxtrade.live.journal import Journal
from jaxtrade.live.recorder import Recorder
from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError

START = 1_800_000_000
NUM_BARS = 80


def closes() -> np.ndarray:
    steps = np.random.default_rng(0).normal(0.0, 0.01, NUM_BARS)
    return np.asarray(100.0 * np.exp(np.cumsum(steps)), np.float64)


def bar(number: int) -> Bar:
    close = float(closes()[number])
    return Bar(
        at_ns=0,
        symbol="SPY",
        start_s=START + 3600 * number,
        seconds=3600,
        open=close,
        high=close * 1.01,
        low=close * 0.99,
        close=close,
        volume=10.0 + number,
        context=(("vix", 20.0 + number),),
    )


def decided(number: int, **changes) -> BarDecided:
    event = BarDecided(
        at_ns=1,
        agent="a",
        start_s=START + 3600 * number,
        symbols=("SPY",),
        model="v3",
        inputs_hash="h",
        requested=(1.0,),
        target=(0.5,),
        action=(2.0,),
        probabilities=(0.2, 0.3, 0.5),
        value=0.1,
        confidence=0.5,
        binding=0,
        equity=1000.0 + number,
        reward=0.01 * number,
        closes=(float(closes()[number]),),
        verdict="traded",
    )
    return dataclasses.replace(event, **changes)


@pytest.fixture
def account(tmp_path):
    """80 recorded bars of which the last 20 were decided on."""
    with Journal(tmp_path / "journal.db", now=lambda: 1) as journal:
        events = [decided(number) for number in range(60, NUM_BARS)]
        journal.record(events, durable=False)
    with Recorder(tmp_path, pause_s=60) as recorder:
        for number in range(NUM_BARS):
            recorder.bar(bar(number))
        recorder.bar(bar(5))  # told again after a reconnect
    return tmp_path


def test_a_row_says_what_was_seen_and_what_was_decided(account):
    table = live_logs(account)
    assert len(table) == 20
    first = ["timestamp", "agent", "symbol", "price", "open", "high", "low", "close", "volume"]
    indicators = ["rsi", "macd", "macd_signal", "ema_10", "ema_50"]
    assert list(table)[:16] == [*first, *indicators, "vix", "sentiment"]
    row = table.iloc[0]
    assert row["timestamp"] == pd.Timestamp(START + 3600 * 60, unit="s")
    assert (row["volume"], row["vix"], row["action"], row["target"]) == (70.0, 80.0, 2.0, 0.5)
    assert (row["reward"], row["equity"], row["verdict"]) == (0.6, 1060.0, "traded")
    assert row["price"] == row["close"] == closes()[60]
    assert table["sentiment"].isna().all()
    assert row["probabilities"] == "0.2 0.3 0.5"


def test_indicators_are_those_that_traders_know(account):
    table = live_logs(account)
    prices = closes()
    rsi = table["rsi"].to_numpy()
    # the start of Wilder's average is forgotten slowly: 66 bars of 14
    np.testing.assert_allclose(rsi[-1], talib.RSI(prices, 14)[-1], atol=1.0)
    ema = talib.EMA(prices, 10)
    np.testing.assert_allclose(table["ema_10"].to_numpy(), ema[60:], rtol=2e-4)
    line, _, _ = talib.MACD(prices)
    np.testing.assert_allclose(table["macd"].to_numpy()[-1], line[-1], atol=0.05)


def test_without_recorded_bars_the_journal_is_enough(account):
    (account / "metrics.db").unlink()
    table = live_logs(account)
    assert len(table) == 20
    assert table["close"].tolist() == table["price"].tolist()
    assert table[["open", "volume", "rsi", "vix"]].isna().all(axis=None)
    with pytest.raises(JaxtradeError, match="no bars of 'SPY' were recorded"):
        live_bars(account, "SPY")


def test_several_symbols_have_a_row_each(tmp_path):
    with Journal(tmp_path / "journal.db", now=lambda: 1) as journal:
        two = {"symbols": ("TQQQ", "UPRO"), "target": (0.1, 0.2), "requested": (0.1, 0.3)}
        event = decided(1, **two, action=(0.1, 0.3, 0.6), closes=(50.0, 60.0))
        journal.record([event], durable=False)
    table = live_logs(tmp_path)
    assert table[["symbol", "price", "action", "target"]].to_numpy().tolist() == [
        ["TQQQ", 50.0, 0.1, 0.1],
        ["UPRO", 60.0, 0.3, 0.2],
    ]


def test_bars_go_behind_the_history_and_train(account, tmp_path):
    live = live_bars(account, "SPY")
    market = Market.from_frame(live)
    assert (market.num_bars, market.spec.context) == (NUM_BARS, ("vix",))
    history = live.iloc[:50].rename(columns={"timestamp": "Date", "close": "Close"})
    whole = merged(history, live.iloc[40:])
    pd.testing.assert_frame_equal(whole, live)
    with pytest.raises(JaxtradeError, match="only one has vix"):
        merged(history.drop(columns="vix"), live)
    other = history.assign(Close=history["Close"] * 1.1)
    with pytest.raises(JaxtradeError, match="not of one series: at 2027-01-17 00:00:00"):
        merged(other, live.iloc[40:])


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_files_are_read_back_as_a_market(account, tmp_path, capsys, suffix):
    first, whole = tmp_path / f"first{suffix}", tmp_path / f"whole{suffix}"
    options = {"folder": str(account), "bars": "SPY"}
    write_logs(output=str(first), history=None, **options)
    write_logs(output=str(whole), history=str(first), **options)
    assert capsys.readouterr().out.endswith(f"{whole}: 80 rows\n")
    np.testing.assert_array_equal(Market.load(whole).bars, Market.load(first).bars)


def test_the_table_is_written_and_slips_are_named(account, tmp_path):
    options = {"folder": str(account), "bars": None, "history": None}
    write_logs(output=str(tmp_path / "logs.parquet"), **options)
    assert len(pd.read_parquet(tmp_path / "logs.parquet")) == 20
    with pytest.raises(JaxtradeError, match="unknown suffix"):
        write_logs(output=str(tmp_path / "logs.xlsx"), **options)
    with pytest.raises(JaxtradeError, match="--history goes with --bars"):
        write_logs(output="x.csv", **{**options, "history": "y.csv"})
    with pytest.raises(JaxtradeError, match="no account has traded there yet"):
        live_logs(tmp_path / "nowhere")
