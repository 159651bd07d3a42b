"""What happened to prices, equity and latencies, in `metrics.db`: for charts and for training anew,
never for decisions.

A thread of its own writes once a second. Quotes are conflated: of many of a symbol in that second
the last is kept, and how many there were. Of everything else at most `MOST` rows wait; what does
not fit is dropped and counted. The file may be deleted at any time; bars are kept for good, all
else for `KEEP_DAYS`.
"""

import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jaxtrade.database import use_wal
from jaxtrade.live.clock import SECOND_NS
from jaxtrade.live.events import Bar, Tick

FILE = "metrics.db"
MOST = 50_000
KEEP_DAYS = 60

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ticks (
    symbol TEXT NOT NULL, at_ns INTEGER NOT NULL, bid REAL, ask REAL, volume REAL,
    count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS equity (
    agent TEXT NOT NULL, at_ns INTEGER NOT NULL, equity REAL, exposure REAL);
CREATE TABLE IF NOT EXISTS metrics (name TEXT NOT NULL, at_ns INTEGER NOT NULL, value REAL);
CREATE TABLE IF NOT EXISTS bars (
    symbol TEXT NOT NULL, seconds INTEGER NOT NULL, start_s INTEGER NOT NULL, open REAL, high REAL,
    low REAL, close REAL, volume REAL, context TEXT NOT NULL,
    PRIMARY KEY (symbol, seconds, start_s)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ticks_at ON ticks (at_ns);
CREATE INDEX IF NOT EXISTS equity_at ON equity (at_ns);
CREATE INDEX IF NOT EXISTS metrics_at ON metrics (at_ns);
"""
_INSERT = {
    "ticks": "INSERT INTO ticks VALUES (?, ?, ?, ?, ?, ?)",
    "equity": "INSERT INTO equity VALUES (?, ?, ?, ?)",
    "metrics": "INSERT INTO metrics VALUES (?, ?, ?)",
    "bars": "INSERT OR REPLACE INTO bars VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
}
_PRUNED = ("ticks", "equity", "metrics")

log = logging.getLogger("jaxtrade.recorder")


class Recorder:
    """Takes what the engine has seen and writes it when it can; its methods never wait.

    dropped: rows that did not fit; failed: writes that the disk did not take.
    """

    def __init__(self, folder: Path | str, *, pause_s: float = 1.0) -> None:
        self._path = Path(folder) / FILE
        self._pause_s = pause_s
        self._last: dict[str, Tick] = {}
        self._counts: dict[str, int] = {}
        self._rows: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self.dropped = 0
        self.failed = 0

    def start(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def tick(self, tick: Tick) -> None:
        """A quote."""
        self._last[tick.symbol] = tick
        self._counts[tick.symbol] = self._counts.get(tick.symbol, 0) + 1

    def equity(self, agent: str, at_ns: int, equity: float, exposure: float | None) -> None:
        """Equity and exposure of an agent, or of the account, whose name is ""."""
        self._add("equity", (agent, at_ns, equity, exposure))

    def metric(self, name: str, at_ns: int, value: float) -> None:
        """Any number: a latency, a queue's length, the age of a quote."""
        self._add("metrics", (name, at_ns, value))

    def bar(self, bar: Bar) -> None:
        """A finished bar, of the history or new; told again it replaces the one that was."""
        prices = (bar.open, bar.high, bar.low, bar.close, bar.volume)
        context = json.dumps(dict(bar.context))
        self._add("bars", (bar.symbol, bar.seconds, bar.start_s, *prices, context))

    def end(self, patience_s: float = 5.0) -> None:
        """Write what is waiting, as far as the time allows."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _add(self, table: str, row: tuple[Any, ...]) -> None:
        if len(self._rows) >= MOST:
            self.dropped += 1
        else:
            self._rows.append((table, row))

    def _run(self) -> None:
        pruned = -float("inf")
        while not self._ending.wait(self._pause_s):
            self._write()
            if time.monotonic() - pruned > 3600:
                pruned = time.monotonic()
                self._prune()
        self._write()

    def _take(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that waits, by table; whole objects are swapped: no lock is on the hot path."""
        last, self._last = self._last, {}
        counts, self._counts = self._counts, {}
        rows: dict[str, list[tuple[Any, ...]]] = {
            "ticks": [
                (name, tick.at_ns, tick.bid, tick.ask, tick.volume, counts.get(name, 1))
                for name, tick in list(last.items())  # a copy: the engine may still hold the dict
            ]
        }
        for _ in range(len(self._rows)):
            table, row = self._rows.popleft()
            rows.setdefault(table, []).append(row)
        return rows

    def _write(self) -> None:
        rows = self._take()
        if not any(rows.values()):
            return
        try:
            with _opened(self._path) as db:
                for table, some in rows.items():
                    db.executemany(_INSERT[table], some)
        except sqlite3.Error as error:
            self.failed += 1
            if self.failed == 1 or self.failed % 1000 == 0:
                log.warning("metrics are lost", extra={"why": str(error), "times": self.failed})

    def _prune(self) -> None:
        oldest = time.time_ns() - KEEP_DAYS * 86_400 * SECOND_NS
        with contextlib.suppress(sqlite3.Error), _opened(self._path) as db:
            for table in _PRUNED:
                db.execute(f"DELETE FROM {table} WHERE at_ns < ?", (oldest,))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database in one transaction; opened anew each time, so that it may be deleted."""
    db = sqlite3.connect(path, timeout=1.0)
    try:
        use_wal(db, timeout_s=1.0)
        db.execute("PRAGMA synchronous=OFF")  # losing the last seconds costs a chart, no money
        db.executescript(_SCHEMA)
        with db:
            yield db
    finally:
        db.close()
