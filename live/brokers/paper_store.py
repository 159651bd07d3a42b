"""The paper broker's books in a SQLite file: what was told is never forgotten.

Everything that a change made, orders, fills and the account, is one transaction, written before any
of it is told. Several processes may open the file, as several connections to one broker: who finds
that another has written meanwhile reads the books again. It survives the death of a process, not of
the machine.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from jaxtrade.database import transaction, use_wal
from jaxtrade.live.brokers.base import Instrument, NotConnectedError
from jaxtrade.live.brokers.paper_books import Books, Money, PaperOrder, Rates
from jaxtrade.live.events import OrderFilled, OrderInitialized, decode, encode
from jaxtrade.specs import JaxtradeError

FORMAT = 1
"""Of the file; a file of another one is refused."""

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode

LOCK_SECONDS = 2.0
"""How long to wait for another process to finish writing."""

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS orders (
    number INTEGER PRIMARY KEY, intent TEXT NOT NULL, due INTEGER NOT NULL, status TEXT NOT NULL,
    filled TEXT NOT NULL, reason TEXT NOT NULL, is_touched INTEGER NOT NULL, moved TEXT
);
CREATE TABLE IF NOT EXISTS fills (
    execution_id TEXT PRIMARY KEY, number INTEGER NOT NULL, body TEXT NOT NULL
);
"""


class PaperStore:
    """The file, as one process has it open.

    `statuses` and `revisions` are what this process has stored or read of orders and fills, so that
    what another one did can be told.
    """

    def __init__(self, path: Path | str) -> None:
        """Open or make the file.

        Raises:
            JaxtradeError: it cannot be opened, or is no file of this format.
        """
        self.path = Path(path)
        self.statuses: dict[int, str] = {}
        self.revisions: dict[str, int] = {}
        try:
            self._file = sqlite3.connect(
                self.path, isolation_level=None, timeout=LOCK_SECONDS, check_same_thread=False
            )
            use_wal(self._file, LOCK_SECONDS)
            self._file.execute("PRAGMA synchronous=OFF")
            self._file.executescript(_TABLES)
            self._version = self._data_version()
        except sqlite3.Error as error:
            raise JaxtradeError(f"{self.path}: cannot be opened: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _data_version(self) -> int:
        version: int = self._file.execute("PRAGMA data_version").fetchone()[0]
        return version

    def is_changed(self) -> bool:
        """Whether another process has written since this one read or wrote."""
        with self._answering():
            return self._data_version() != self._version

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """A file that cannot be read or written is a broker that does not answer."""
        try:
            yield
        except sqlite3.Error as error:
            raise NotConnectedError(f"{self.path}: {error}") from error

    def begin_account(
        self, books: Books, instruments: tuple[Instrument, ...], bar_seconds: int
    ) -> None:
        """Write a new account."""
        meta = {
            "format": FORMAT,
            "symbols": list(books.symbols),
            "deposit": books.deposit,
            "bar_seconds": bar_seconds,
            "rates": {symbol: list(rate) for symbol, rate in books.rates.items()},
            "instruments": [
                [one.symbol, str(one.quantity_step), str(one.price_step), str(one.min_quantity)]
                for one in instruments
            ],
        }
        rows = [(key, json.dumps(value)) for key, value in meta.items()]
        with transaction(self._file):
            self._file.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
            self._write(books)

    def meta(self) -> dict[str, Any]:
        """What does not change of an account; empty in a new file.

        Raises:
            JaxtradeError: the file is of another format.
        """
        rows = self._file.execute("SELECT key, value FROM meta").fetchall()
        meta = {key: json.loads(value) for key, value in rows}
        if meta and meta.get("format") != FORMAT:
            raise JaxtradeError(
                f"{self.path}: format {meta.get('format')}, this version reads {FORMAT}: "
                "delete it to begin anew"
            )
        return meta

    def instruments(self) -> tuple[Instrument, ...]:
        """What can be traded, as it was written."""
        rows = self.meta().get("instruments", [])
        return tuple(
            Instrument(
                symbol=symbol,
                quantity_step=Decimal(step),
                price_step=Decimal(tick),
                min_quantity=Decimal(least),
            )
            for symbol, step, tick, least in rows
        )

    def save(self, books: Books) -> bool:
        """Write what has changed, all of it or, where another process has written, nothing.

        Returns:
            Whether it was written; if not, the books are to be read again.

        Raises:
            NotConnectedError: the file is locked or cannot be written; nothing of it is.
        """
        with self._answering(), transaction(self._file):
            if self._data_version() != self._version:
                return False
            self._write(books)
        for number in books.changed:
            self.statuses[number] = books.orders[number].status
        for fill in books.new_fills:
            self.revisions[fill.execution_id] = fill.revision
        books.changed.clear()
        books.new_fills.clear()
        return True

    def _write(self, books: Books) -> None:
        execute = self._file.execute
        execute("INSERT OR REPLACE INTO account VALUES (1, ?)", (_account(books),))
        for number in books.changed:
            order = books.orders[number]
            intent = OrderInitialized(at_ns=0, cid=order.intent.cid, intent=order.intent)
            execute(
                "INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    encode(intent),
                    order.due,
                    order.status,
                    str(order.filled),
                    order.reason,
                    order.is_touched,
                    None if order.moved is None else str(order.moved),
                ),
            )
        for fill in books.new_fills:
            execute(
                "INSERT INTO fills VALUES (?, (SELECT COUNT(*) FROM fills), ?) "
                "ON CONFLICT (execution_id) DO UPDATE SET body = excluded.body",
                (fill.execution_id, encode(fill)),
            )

    def load(self) -> tuple[Books, list[PaperOrder], list[OrderFilled]]:
        """The books; orders and fills that another process has changed or added."""
        with self._answering(), transaction(self._file, "DEFERRED"):
            meta = self.meta()
            [(body,)] = self._file.execute("SELECT body FROM account").fetchall()
            orders = self._file.execute("SELECT * FROM orders ORDER BY number").fetchall()
            fills = self._file.execute("SELECT body FROM fills ORDER BY number").fetchall()
            self._version = self._data_version()
        books = Books(tuple(meta["symbols"]), float(meta["deposit"]))
        books.rates = {symbol: Rates(*rate) for symbol, rate in meta["rates"].items()}
        _read_account(books, body)
        changed, added = [], []
        for row in orders:
            order = _order(row)
            books.put(order)
            if self.statuses.get(order.number) != order.status:
                self.statuses[order.number] = order.status
                changed.append(order)
        for (text,) in fills:
            fill = decode("OrderFilled", text)
            assert isinstance(fill, OrderFilled)
            books.fills[fill.execution_id] = fill
            if self.revisions.get(fill.execution_id, -1) < fill.revision:
                self.revisions[fill.execution_id] = fill.revision
                added.append(fill)
        return books, changed, added


def _account(books: Books) -> str:
    return _ENCODE(
        [
            books.row,
            books.at_ns,
            books.marked_ns,
            books.epoch,
            books.money,
            {symbol: str(units) for symbol, units in books.units.items()},
            books.mean_price,
            books.closes,
        ]
    )


def _read_account(books: Books, body: str) -> None:
    row, at_ns, marked_ns, epoch, money, units, mean_price, closes = json.loads(body)
    books.row, books.at_ns, books.marked_ns, books.epoch = row, at_ns, marked_ns, epoch
    books.money = Money(*money)
    books.units = {symbol: Decimal(value) for symbol, value in units.items()}
    books.mean_price, books.closes = mean_price, closes


def _order(row: tuple[Any, ...]) -> PaperOrder:
    number, intent, due, status, filled, reason, is_touched, moved = row
    started = decode("OrderInitialized", intent)
    assert isinstance(started, OrderInitialized)
    return PaperOrder(
        number=number,
        intent=started.intent,
        due=due,
        status=status,
        filled=Decimal(filled),
        reason=reason,
        is_touched=bool(is_touched),
        moved=None if moved is None else Decimal(moved),
    )
