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

The log is laid out in full when a journal is opened, and checkpoints, in a thread of the journal's
own, make it start again: a commit that need not grow the file costs the disk less than half. Other
processes read with `open_readonly`, and never hold up a commit.
"""

import contextlib
import dataclasses
import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from jaxtrade.database import transaction
from jaxtrade.live.events import (
    EngineStarted,
    Event,
    OrderEvent,
    OrderInitialized,
    encode,
)
from jaxtrade.live.journal_db import (
    LOG_BYTES,
    DuplicateDecisionError,
    JournalError,
    checksum,
    digest_of,
    identity,
    lay_out,
    one_line_errors,
    open_journal,
    open_readonly,
    read_events,
)
from jaxtrade.live.journal_files import BACKUPS_KEPT, Checkpoints, back_up
from jaxtrade.live.journal_tables import write_event, write_standing
from jaxtrade.live.orders import Order
from jaxtrade.live.reached import Reached, reached
from jaxtrade.live.state import State
from jaxtrade.specs import JaxtradeError

__all__ = [
    "Alert",
    "Carry",
    "DuplicateDecisionError",
    "Journal",
    "JournalError",
    "newest_snapshot",
    "open_readonly",
    "read_events",
]

BUSY_SECONDS = 0.25
"""How long a commit waits for another process that holds the lock; the event loop waits along."""

LOOK_NS = 100 * 10**6
"""Between two looks at whether the files are there, where nothing durable is asked."""

TRANSACTION_BYTES = 24_576
"""About what the pages of a transaction take in the log beside what it says."""

SNAPSHOTS_KEPT = 3


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
        self._busy_seconds = self._waits_seconds = busy_seconds
        self._is_durable = True
        self._looked_ns = 0
        self._names = str(self.path), f"{self.path}-wal"
        with one_line_errors(self.path):
            self._db = open_journal(self.path, busy_seconds)
            try:
                self.last_seq = self._number("SELECT max(seq) FROM events")
                lay_out(self._names[1])
                self._files = identity(*self._names)
                end = reached(self.path)
                self._reached = Reached(self.path)
            except BaseException:
                self._db.close()
                raise
        is_short = end > self.last_seq
        self.lost = f"its events {self.last_seq + 1} to {end} are gone" if is_short else ""
        self._checkpoints = Checkpoints(self._names, self._files)
        self._written = 0
        self._is_asked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what is in the log goes into it, even where the log's name is gone."""
        self._checkpoints.close()
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
        self._reached.close()

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
                self._written += len(carry.blob)
            for key, value in (kv or {}).items():
                self._db.execute(
                    "INSERT OR REPLACE INTO kv VALUES (?, ?, ?)",
                    (key, json.dumps(value), self._now()),
                )
        self.last_seq = seq
        if durable:
            self._reached.set(seq)
        self._written += TRANSACTION_BYTES
        if self._written > LOG_BYTES // 2 and not self._is_asked:
            self._is_asked = True
            self._checkpoints.wake()
        return seq

    def read(self, after_seq: int = 0) -> Iterator[tuple[int, Event]]:
        """Events beyond a number, with theirs, each checked.

        Raises:
            DamagedError: an event is damaged or missing.
        """
        with one_line_errors(self.path):
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
        with one_line_errors(self.path):
            return newest_snapshot(self._db)

    def backup(self, *, kept: int = BACKUPS_KEPT) -> Path:
        """Copy the journal into `backups/` beside it while it is written; may run in a thread."""
        return back_up(self.path, self.path.parent / "backups", at_ns=self._now(), kept=kept)

    def carry(self, agent: str) -> Carry | None:
        """What an agent's policy carried when it was last recorded; None where there is none, or
        it is damaged.
        """
        with one_line_errors(self.path):
            row = self._db.execute(
                "SELECT start_s, blob, crc FROM carries WHERE agent = ?", (agent,)
            ).fetchone()
        if row is None or zlib.crc32(row[1]) != row[2]:
            return None
        return Carry(row[0], row[1])

    def value(self, key: str, default: Any = None) -> Any:
        """What was recorded under a key."""
        with one_line_errors(self.path):
            row = self._db.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def _insert(self, events: Sequence[Event]) -> int:
        seq = self.last_seq
        changed: dict[str, Order] = {}
        begun: dict[str, Order] = {}
        for event in events:
            seq += 1
            kind, body = type(event).__name__, encode(event)
            cid = event.cid if isinstance(event, OrderEvent) else ""
            if isinstance(event, EngineStarted):
                self.run_id = event.run_id
            self._db.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
                (
                    seq,
                    self.run_id,
                    kind,
                    cid,
                    body,
                    checksum(seq, kind, body),
                ),
            )
            self._written += len(body)
            if isinstance(event, OrderEvent):
                write_event(self._db, event, self.orders, changed)
                if isinstance(event, OrderInitialized):
                    begun[cid] = changed[cid]
        for cid, order in changed.items():
            if begun.get(cid) is not order:  # else its row is as new as itself
                write_standing(self._db, order)
        return seq

    def _number(self, query: str) -> int:
        return self._db.execute(query).fetchone()[0] or 0

    def _is_time_to_move(self, durable: bool) -> bool:
        """Whether to do the rest of a checkpoint: rather not before what is urgent."""
        if self._checkpoints.has_run and not durable:
            return True
        return self._written > LOG_BYTES

    def _move(self) -> None:
        """Move into the database what the thread has left in the log, so that it starts again."""
        is_done = False
        with contextlib.suppress(sqlite3.Error):  # a full disk: the log itself may have room
            busy, in_log, moved = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            is_done = not busy and in_log == moved
        # Where a reader holds on to the log, it is tried again only after some more.
        self._written = 0 if is_done else LOG_BYTES // 2
        self._checkpoints.has_run = self._is_asked = False

    def _look(self, durable: bool) -> None:
        """Whether the files are still where they were; if not, SQLite would write to nowhere."""
        now = time.monotonic_ns()
        if not durable and now - self._looked_ns < LOOK_NS:
            return
        self._looked_ns = now
        if identity(*self._names) != self._files:
            raise JournalError(
                f"{self.path}: it, or its -wal file, was taken out of its folder while in use; "
                "stop the engine, which saves what can be saved, and start it again"
            )

    @contextlib.contextmanager
    def _transaction(self, durable: bool) -> Iterator[None]:
        with one_line_errors(self.path):
            self._look(durable)
            if self._is_time_to_move(durable):
                self._move()
            if durable is not self._is_durable:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._is_durable = durable
            try:
                with transaction(self._db):
                    yield
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                    self._wait(0.0)
                raise
            self._wait(self._busy_seconds)

    def _wait(self, seconds: float) -> None:
        """How long to wait for a lock; not at all where it was waited for in vain, so that the
        event loop goes on while another process holds the journal.
        """
        if seconds != self._waits_seconds:
            self._waits_seconds = seconds
            self._db.execute(f"PRAGMA busy_timeout = {round(seconds * 1_000)}")


def newest_snapshot(db: sqlite3.Connection) -> State | None:
    """The newest state that was kept and is whole, of an event that is there; or None."""
    rows = db.execute(
        "SELECT seq, state, digest FROM snapshots WHERE seq <= (SELECT max(seq) FROM events) "
        "ORDER BY seq DESC"
    ).fetchall()
    for seq, text, digest in rows:
        if digest_of(text) != digest:
            continue
        with contextlib.suppress(JaxtradeError):  # of another version: folded anew
            state = State.from_json(json.loads(text))
            if state.last_seq == seq:
                return state
    return None
