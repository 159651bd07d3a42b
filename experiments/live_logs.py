"""`agent_live_logs`: what was decided live, bar by bar, as a table; and the bars to train on anew.

A row for each agent, symbol and decided bar: `timestamp` (UTC start of the bar), `agent`, `symbol`,
`price` (the close), the bar, `rsi` (points), `macd`, `macd_signal`, `ema_10`, `ema_50` (quote
currency), context columns such as `vix` and `sentiment`, `action`, `requested` and `target`
(exposures), `reward` (of the bar, for what was held over it), `equity` at its close, and what else
the decision said. What is not known is empty.

    table = live_logs("live-data/spy")
    bars = merged(history, live_bars("live-data/spy", "SPY"))   # Market.from_frame(bars)
"""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxtrade import features
from jaxtrade.barfile import BAR_COLUMNS, PRICE_COLUMNS, STAMP_COLUMNS, read_file
from jaxtrade.live.events import BarDecided, decode
from jaxtrade.live.folders import account_folder
from jaxtrade.live.journal import open_readonly
from jaxtrade.live.recorder import FILE as METRICS
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec, JaxtradeError

JOURNAL = "journal.db"

FIRST = ("timestamp", "agent", "symbol", "price", *BAR_COLUMNS)
INDICATORS = ("rsi", "macd", "macd_signal", "ema_10", "ema_50")
CONTEXT = ("vix", "sentiment")
"""Context columns that every table has, be they known or not."""

SHOWN = FeatureSpec(names=("rsi", "macd", "ema_10", "ema_50"), window=1)

AGREE = 1e-6
"""How far, relative, closes of a file and of live trading may differ where both have a bar."""


def live_logs(folder: Path | str) -> pd.DataFrame:
    """All that was decided in an account, in order of time.

    Raises:
        JaxtradeError: there is no journal, or it cannot be read.
    """
    rows = [row for event in _decisions(Path(folder)) for row in _rows(event)]
    if not rows:
        raise JaxtradeError(f"{folder}: nothing was decided there yet")
    table = pd.DataFrame(rows)
    shown = [_shown(Path(folder), symbol) for symbol in sorted(set(table["symbol"]))]
    known = pd.concat([each for each in shown if each is not None] or [_nothing()])
    table = table.merge(known, on=["timestamp", "symbol"], how="left", validate="many_to_one")
    for name in (*BAR_COLUMNS, *INDICATORS, *CONTEXT):
        if name not in table:
            table[name] = np.nan
    table["close"] = table["close"].fillna(table["price"])
    own = [name for name in rows[0] if name not in FIRST]
    context = [name for name in known if name not in (*FIRST, *INDICATORS, *CONTEXT)]
    return table[[*FIRST, *INDICATORS, *CONTEXT, *context, *own]]


def live_bars(folder: Path | str, symbol: str) -> pd.DataFrame:
    """The bars of a symbol that were traded on, with context, as `Market.from_frame` reads them.

    Raises:
        JaxtradeError: none were recorded.
    """
    path = Path(folder) / METRICS
    rows: list[Any] = []
    if path.exists():
        uri = f"{path.absolute().as_uri()}?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
                rows = db.execute(
                    "SELECT start_s, open, high, low, close, volume, context FROM bars "
                    "WHERE symbol = ? AND seconds = (SELECT seconds FROM bars WHERE symbol = ? "
                    "GROUP BY seconds ORDER BY count(*) DESC LIMIT 1) ORDER BY start_s",
                    (symbol, symbol),
                ).fetchall()
        except sqlite3.Error as error:
            raise JaxtradeError(f"{path}: cannot be read: {error}") from error
    if not rows:
        raise JaxtradeError(f"{path}: no bars of {symbol!r} were recorded")
    table = pd.DataFrame([row[:-1] for row in rows], columns=["timestamp", *BAR_COLUMNS])
    table["timestamp"] = pd.to_datetime(table["timestamp"], unit="s")
    context = pd.DataFrame([json.loads(row[-1]) for row in rows])
    return pd.concat([table, context], axis=1)


def merged(history: pd.DataFrame, live: pd.DataFrame) -> pd.DataFrame:
    """Older bars with those of live trading behind them, which begin where the older ones end.

    history: columns as `live`'s, in any order. Where both have a bar, the closes must agree.

    Raises:
        JaxtradeError: a column that only one of them has, or closes that differ.
    """
    history = history.rename(columns=str.lower)
    stamp = next((name for name in STAMP_COLUMNS if name in history), "timestamp")
    history = history.rename(columns={stamp: "timestamp"})
    if set(history) != set(live):
        names = ", ".join(sorted(map(str, set(history) ^ set(live))))
        raise JaxtradeError(f"history and live bars differ in their columns: only one has {names}")
    stamps = pd.to_datetime(history["timestamp"], utc=True)
    history = history[list(live)].assign(timestamp=stamps.dt.tz_localize(None))
    both = history.merge(live, on="timestamp", suffixes=("", "_live"))
    differ = (both["close"] / both["close_live"] - 1.0).abs() > AGREE
    if differ.any():
        row = both[differ].iloc[0]
        raise JaxtradeError(
            f"history and live bars are not of one series: at {row['timestamp']} the closes are "
            f"{row['close']:g} and {row['close_live']:g}"
        )
    newer = live[live["timestamp"] > history["timestamp"].max()]
    return pd.concat([history, newer], ignore_index=True)


def write_logs(*, folder: str | None, output: str, bars: str | None, history: str | None) -> None:
    """Write the table, or the bars of one symbol, to a file."""
    path = account_folder(folder)
    if bars is None and history is not None:
        raise JaxtradeError("--history goes with --bars SYMBOL")
    table = live_logs(path) if bars is None else live_bars(path, bars)
    if history is not None:
        table = merged(read_file(history)[0], table)
    suffixes = (".csv", ".csv.gz", ".parquet")
    if not output.endswith(suffixes):
        raise JaxtradeError(f"{output}: unknown suffix: give {', '.join(suffixes)}")
    if output.endswith(".parquet"):
        table.to_parquet(output, index=False)
    else:
        table.to_csv(output, index=False)
    print(f"{output}: {len(table):,} rows")


def _decisions(folder: Path) -> list[BarDecided]:
    path = folder / JOURNAL
    if not path.exists():
        raise JaxtradeError(f"{folder}: no account has traded there yet")
    try:
        with contextlib.closing(open_readonly(path)) as db:
            query = "SELECT body FROM events WHERE kind = 'BarDecided' ORDER BY seq"
            events = [decode("BarDecided", body) for (body,) in db.execute(query)]
    except sqlite3.Error as error:
        raise JaxtradeError(f"{path}: cannot be read: {error}") from error
    return [event for event in events if isinstance(event, BarDecided)]


def _rows(event: BarDecided) -> list[dict[str, Any]]:
    """What a decision says of each of its symbols."""
    stamp = pd.Timestamp(event.start_s, unit="s")
    return [
        {
            "timestamp": stamp,
            "agent": event.agent,
            "symbol": symbol,
            "price": event.closes[place],
            "action": event.action[place] if place < len(event.action) else np.nan,
            "requested": event.requested[place],
            "target": event.target[place],
            "reward": event.reward,
            "equity": event.equity,
            "value": event.value,
            "confidence": event.confidence,
            "probabilities": " ".join(f"{each:.6g}" for each in event.probabilities),
            "binding": event.binding,
            "verdict": event.verdict,
            "model": event.model,
            "inputs_hash": event.inputs_hash,
        }
        for place, symbol in enumerate(event.symbols)
    ]


def _shown(folder: Path, symbol: str) -> pd.DataFrame | None:
    """Bars, indicators and context of a symbol, by stamp; None where no bars were recorded."""
    try:
        bars = live_bars(folder, symbol)
    except JaxtradeError:
        return None
    table = bars.assign(symbol=symbol)
    if len(bars) < 2:
        return table
    market = Market.from_frame(bars[["timestamp", *BAR_COLUMNS]], symbol=symbol)
    raw = np.asarray(features.raw_table(SHOWN, market), np.float64).reshape(len(bars), -1)
    close = bars["close"].to_numpy(np.float64)
    for name, column in zip(features.columns(SHOWN), raw.T, strict=True):
        # the table is scale-free; people read averages and their differences as prices
        scaled = column if name == "rsi" else column * close
        table[name] = scaled + close if name.startswith("ema_") else scaled
    unknown = np.arange(len(bars)) < features.lookback(SHOWN)
    table.loc[unknown, list(INDICATORS)] = np.nan
    return table


def _nothing() -> pd.DataFrame:
    """No bar at all, with the columns that a merge needs."""
    empty = {name: pd.Series(dtype=float) for name in PRICE_COLUMNS}
    stamps = pd.Series(dtype="datetime64[s]")
    return pd.DataFrame({"timestamp": stamps, "symbol": pd.Series(dtype=str), **empty})
