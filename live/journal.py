"""The journal of one account: one SQLite file in WAL mode, the truth about intent and ownership.

    journal = Journal(folder / "journal.db", now=clock.wall_ns)
    journal.record([OrderInitialized(...)], durable=True)    # on disk when this returns
    await broker.submit_order(intent)

Each call of `record` is one transaction: events, what is read of them (orders, fills), carries of
policies, alerts, key-values; all of it or, with a JournalError, nothing. `durable` makes the
transaction survive a power cut, and everything before it; without it a transaction survives the
death of the process. An order whose decision was journalled before is refused with a
DuplicateDecisionError: replaying a decision cannot send twice. An order in the table `orders` with
the status "submitting" was committed and is not known to be sent: that table is the outbox.

The log is laid out in full when a journal is opened, and checkpoints, which `journal_files` does in
another thread or process, make it start again: a commit that need not grow the file costs the disk
less than half. Other processes read with `open_readonly`, and never hold up a commit.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from jaxtrade.live.events import (
    EngineStarted,
    Event,
    FeeReported,
    OrderEvent,
    OrderFilled,
    OrderInitialized,
    decode,
    encode,
)
from jaxtrade.live.orders import Order, advance, begin
from jaxtrade.live.reached import Reached, reached
from jaxtrade.live.state import State
from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import sync_folder

SCHEMA_VERSION = 1

BUSY_SECONDS = 0.5
"""How long a commit waits for another process that holds the lock; the event loop waits along."""

LOG_BYTES = 8 * 2**20
SNAPSHOTS_KEPT = 3

_SCHEMA = (
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, kind TEXT NOT NULL, cid TEXT NOT NULL,
        body TEXT NOT NULL, crc INTEGER NOT NULL)""",
    """CREATE TABLE orders (
        cid TEXT PRIMARY KEY, decision_key TEXT NOT NULL UNIQUE, agent TEXT NOT NULL,
        symbol TEXT NOT NULL, side TEXT NOT NULL, quantity TEXT NOT NULL, kind TEXT NOT NULL,
        price TEXT, leg TEXT NOT NULL, parent TEXT NOT NULL, created_ns INTEGER NOT NULL,
        status TEXT NOT NULL, filled TEXT NOT NULL, average_price TEXT, fee TEXT NOT NULL,
        broker_id TEXT NOT NULL, reason TEXT NOT NULL, updated_ns INTEGER NOT NULL
        ) WITHOUT ROWID""",
    """CREATE TABLE fills (
        execution_id TEXT PRIMARY KEY, revision INTEGER NOT NULL, cid TEXT NOT NULL,
        symbol TEXT NOT NULL, side TEXT NOT NULL, quantity TEXT NOT NULL, price TEXT NOT NULL,
        fee TEXT NOT NULL, at_ns INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE alerts (
        seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL,
        key TEXT NOT NULL)""",
    """CREATE TABLE carries (
        agent TEXT PRIMARY KEY, start_s INTEGER NOT NULL, blob BLOB NOT NULL, crc INTEGER NOT NULL
        ) WITHOUT ROWID""",
    "CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL, at_ns INTEGER NOT NULL) "
    "WITHOUT ROWID",
    "CREATE TABLE snapshots (seq INTEGER PRIMARY KEY, state TEXT NOT NULL, digest TEXT NOT NULL)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class JournalError(JaxtradeError):
    """The journal cannot be written or read: nothing was recorded, and nothing may be sent."""


class DuplicateDecisionError(JournalError):
    """An order of the same decision is in the journal: it must not be sent a second time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Alert:
    """A message for a person.

    level: "info", "warning" or "critical"; key: messages of one key are one matter.
    """

    level: str
    text: str
    key: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Carry:
    """What a policy carries on from the bar that started at `start_s`."""

    start_s: int
    blob: bytes


class Journal:
    """The journal in a file, opened or created; the one writer, used by one thread.

    now: UTC in nanoseconds; lost: what is missing at its end, "" for nothing; orders: the state's,
    by which the table of orders is kept; last_seq: of the last event; run_id: of the last
    EngineStarted.
    """

    def __init__(
        self, path: Path | str, *, now: Callable[[], int], busy_seconds: float = BUSY_SECONDS
    ) -> None:
        self.path = Path(path)
        self.run_id = ""
        self.orders: Mapping[str, Order] = {}
        self._now = now
        self._is_durable = True
        with _one_line_errors(self.path):
            self._db = _open(self.path, busy_seconds)
            self.last_seq = self._number("SELECT max(seq) FROM events")
            _lay_out(self._log)
            self._files = _identity(self.path, self._log)
            end = reached(self.path)
            is_short = end > self.last_seq
            self.lost = f"its events {self.last_seq + 1} to {end} are gone" if is_short else ""
            self._reached = Reached(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what is in the log goes into it."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
        self._reached.close()

    @property
    def _log(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")

    def record(
        self,
        events: Sequence[Event] = (),
        *,
        durable: bool,
        alerts: Iterable[Alert] = (),
        carries: Mapping[str, Carry] | None = None,
        kv: Mapping[str, Any] | None = None,
    ) -> int:
        """Write all of this, or nothing, and tell the number of the last event.

        Raises:
            DuplicateDecisionError: an order of one of these decisions was journalled before.
            JournalError: the disk is full, the file is locked, damaged or gone.
        """
        with self._transaction(durable):
            seq = self._insert(events)
            for alert in alerts:
                self._db.execute(
                    "INSERT INTO alerts (at_ns, level, text, key) VALUES (?, ?, ?, ?)",
                    (self._now(), alert.level, alert.text, alert.key),
                )
            for agent, carry in (carries or {}).items():
                self._db.execute(
                    "INSERT OR REPLACE INTO carries VALUES (?, ?, ?, ?)",
                    (agent, carry.start_s, carry.blob, zlib.crc32(carry.blob)),
                )
            for key, value in (kv or {}).items():
                self._db.execute(
                    "INSERT OR REPLACE INTO kv VALUES (?, ?, ?)",
                    (key, json.dumps(value), self._now()),
                )
        self.last_seq = seq
        if durable:
            self._reached.set(seq)
        return seq

    def read(self, after_seq: int = 0) -> Iterator[tuple[int, Event]]:
        """Events beyond a number, with theirs, each checked.

        Raises:
            JournalError: an event is damaged or missing.
        """
        with _one_line_errors(self.path):
            yield from read_events(self._db, after_seq, name=str(self.path))

    def save_snapshot(self, state: State) -> None:
        """Keep the state at its event, so that a start need not read all; the last few are kept."""
        if state.last_seq != self.last_seq:
            raise JournalError(
                f"{self.path}: the state is at event {state.last_seq}, the journal at "
                f"{self.last_seq}; apply what was recorded first"
            )
        text = state.to_text()
        with self._transaction(durable=False):
            self._db.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)",
                (state.last_seq, text, digest_of(text)),
            )
            self._db.execute(
                "DELETE FROM snapshots WHERE seq NOT IN "
                "(SELECT seq FROM snapshots ORDER BY seq DESC LIMIT ?)",
                (SNAPSHOTS_KEPT,),
            )

    def latest_snapshot(self) -> State | None:
        """The newest state that was kept and is whole, or None."""
        with _one_line_errors(self.path):
            rows = self._db.execute(
                "SELECT seq, state, digest FROM snapshots WHERE seq <= ? ORDER BY seq DESC",
                (self.last_seq,),
            ).fetchall()
        for seq, text, digest in rows:
            if digest_of(text) == digest:
                state = State.from_json(json.loads(text))
                if state.last_seq == seq:
                    return state
        return None

    def carry(self, agent: str) -> Carry | None:
        """What an agent's policy carried when it was last recorded; None where there is none, or
        it is damaged.
        """
        with _one_line_errors(self.path):
            row = self._db.execute(
                "SELECT start_s, blob, crc FROM carries WHERE agent = ?", (agent,)
            ).fetchone()
        if row is None or zlib.crc32(row[1]) != row[2]:
            return None
        return Carry(row[0], row[1])

    def value(self, key: str, default: Any = None) -> Any:
        """What was recorded under a key."""
        with _one_line_errors(self.path):
            row = self._db.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def _insert(self, events: Sequence[Event]) -> int:
        seq = self.last_seq
        changed: dict[str, Order] = {}
        for event in events:
            seq += 1
            kind, body = type(event).__name__, encode(event)
            cid = event.cid if isinstance(event, OrderEvent) else ""
            if isinstance(event, EngineStarted):
                self.run_id = event.run_id
            self._db.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
                (seq, self.run_id, kind, cid, body, checksum(seq, kind, body)),
            )
            if isinstance(event, OrderEvent):
                self._project(event, changed)
        for order in changed.values():
            self._db.execute(
                "UPDATE orders SET status = ?, filled = ?, average_price = ?, fee = ?, "
                "broker_id = ?, reason = ?, updated_ns = ? WHERE cid = ?",
                (*_standing(order), order.cid),
            )
        return seq

    def _project(self, event: OrderEvent, changed: dict[str, Order]) -> None:
        """Keep the tables of orders and fills, which are for reading, in step with the events."""
        if isinstance(event, OrderInitialized):
            order = changed[event.cid] = begin(event)
            self._db.execute(
                f"INSERT INTO orders VALUES ({'?, ' * 17}?)",
                (*_intent(order), *_standing(order)),
            )
            return
        known = changed.get(event.cid) or self.orders.get(event.cid)
        if known is not None:
            order = changed[event.cid] = advance(known, event)
        if isinstance(event, OrderFilled):
            fee = event.fee if known is None else order.fee_of(event.execution_id)
            self._db.execute(
                "INSERT INTO fills VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "revision = excluded.revision, quantity = excluded.quantity, "
                "price = excluded.price, fee = excluded.fee "
                "WHERE excluded.revision > fills.revision",
                (
                    event.execution_id,
                    event.revision,
                    event.cid,
                    event.symbol,
                    event.side,
                    str(event.quantity),
                    str(event.price),
                    str(fee),
                    event.at_ns,
                ),
            )
        elif isinstance(event, FeeReported):
            fee = event.fee if known is None else order.fee_of(event.execution_id)
            self._db.execute(
                "UPDATE fills SET fee = ? WHERE execution_id = ?", (str(fee), event.execution_id)
            )

    def _number(self, query: str) -> int:
        return self._db.execute(query).fetchone()[0] or 0

    @contextlib.contextmanager
    def _transaction(self, durable: bool) -> Iterator[None]:
        with _one_line_errors(self.path):
            if _identity(self.path, self._log) != self._files:
                raise JournalError(
                    f"{self.path}: it, or its -wal file, was taken out of its folder while in use; "
                    "stop the engine, which saves what can be saved, and start it again"
                )
            if durable is not self._is_durable:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._is_durable = durable
            with transaction(self._db):
                yield


def open_readonly(path: Path | str) -> sqlite3.Connection:
    """A connection for another process that only reads; rows by name."""
    path = Path(path)
    with _one_line_errors(path):
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None
        )
        db.row_factory = sqlite3.Row
        try:
            db.execute("PRAGMA query_only = ON")
            _check_schema(db, path)
        except BaseException:
            db.close()
            raise
        return db


def read_events(
    db: sqlite3.Connection, after_seq: int, *, name: str
) -> Iterator[tuple[int, Event]]:
    """Events beyond a number from any connection, each checked, without a gap.

    Raises:
        JournalError: an event is damaged or missing.
    """
    rows = db.execute(
        "SELECT seq, kind, body, crc FROM events WHERE seq > ? ORDER BY seq", (after_seq,)
    )
    for expected, (seq, kind, body, crc) in enumerate(rows, after_seq + 1):
        if seq != expected:
            raise JournalError(f"{name}: event {expected} is missing")
        if checksum(seq, kind, body) != crc:
            raise JournalError(f"{name}: event {seq} is damaged")
        yield seq, decode(kind, body)


def checksum(seq: int, kind: str, body: str) -> int:
    """CRC-32 of an event as it is kept."""
    return zlib.crc32(f"{seq} {kind} {body}".encode())


def digest_of(text: str) -> str:
    """SHA-256 of the text of a state."""
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block did, or none of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise


def _open(path: Path, busy_seconds: float) -> sqlite3.Connection:
    is_new = not path.exists()
    db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            with transaction(db):
                for statement in _SCHEMA:
                    db.execute(statement)
        _check_schema(db, path)
        if is_new:
            sync_folder(path.parent)
    except BaseException:
        db.close()
        raise
    return db


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found != SCHEMA_VERSION:
        raise JournalError(
            f"{path} has schema version {found}, this jaxtrade writes {SCHEMA_VERSION}: "
            "use the jaxtrade that wrote it, or another folder"
        )


def _lay_out(log: Path) -> None:
    """Give the log its full length: SQLite ends at the first frame that is not valid, which zeros
    are not, and commits that need not grow the file cost the disk less than half.
    """
    with open(log, "r+b") as file:
        length = file.seek(0, os.SEEK_END)
        if length < LOG_BYTES:
            file.write(bytes(LOG_BYTES - length))
            file.flush()
            os.fsync(file.fileno())


def _identity(path: Path, log: Path) -> tuple[int, ...]:
    try:
        one, other = os.stat(path), os.stat(log)
    except FileNotFoundError:
        return ()
    return one.st_ino, one.st_dev, other.st_ino, other.st_dev


def _intent(order: Order) -> tuple[Any, ...]:
    intent = order.intent
    return (
        intent.cid,
        intent.decision_key,
        intent.agent,
        intent.symbol,
        intent.side,
        str(intent.quantity),
        intent.kind,
        None if intent.price is None else str(intent.price),
        intent.leg,
        intent.parent,
        order.created_ns,
    )


def _standing(order: Order) -> tuple[Any, ...]:
    price = order.average_price
    return (
        order.status,
        str(order.filled),
        None if price is None else str(price),
        str(order.fee),
        order.broker_id,
        order.reason,
        order.updated_ns,
    )


@contextlib.contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as error:
        if "orders." in str(error):
            raise DuplicateDecisionError(
                f"{path}: an order of this decision was recorded before ({error})"
            ) from error
        raise JournalError(f"cannot use the journal {path}: {error}") from error
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"cannot use the journal {path}: {error}") from error
