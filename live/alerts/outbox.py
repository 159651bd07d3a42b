"""What is still to be told, to whom: `alerts.db`, a file of the alert worker's own.

Alerts come from the journal, which is only ever read, and from processes that do not write the
journal (`post`). How far the journal was read and what became of an alert are written in one
transaction, and a message is forgotten only once its channel took it: after a crash it is sent
again rather than not at all.
"""

import contextlib
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from jaxtrade.database import transaction, use_wal
from jaxtrade.live.alerts.throttle import Alert, Throttle
from jaxtrade.live.sections import AlertSettings
from jaxtrade.specs import JaxtradeError

FILE = "alerts.db"
JOURNAL = "journal.db"

FIRST_PAUSE_S, LAST_PAUSE_S = 2.0, 600.0
"""Between attempts at a channel that fails; the pause doubles."""

POST_S = 0.5
"""How long a process that is not the worker waits for the file."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS posted (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, level TEXT NOT NULL, text TEXT NOT NULL,
    key TEXT NOT NULL, at_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS cursors (
    source TEXT PRIMARY KEY, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, level TEXT NOT NULL, text TEXT NOT NULL,
    at_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    message INTEGER NOT NULL REFERENCES messages (number), channel TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, due_ns INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (channel, message));
"""


Cursor = tuple[int, int]
"""How far a source was read: number and time of its last alert."""


class Message(NamedTuple):
    """A text on its way to one channel, sent in vain `tries` times so far."""

    number: int
    level: str
    text: str
    tries: int


def post(folder: Path | str, level: str, text: str, key: str) -> bool:
    """Leave an alert for the worker, from a process that is not the engine; false if it cannot be.

    It does not fail and hardly waits: who calls it has more important things to do.
    """
    try:
        with contextlib.closing(_connect(Path(folder) / FILE, timeout_s=POST_S)) as db:
            row = (level, text, key, time.time_ns())
            db.execute("INSERT INTO posted (level, text, key, at_ns) VALUES (?, ?, ?, ?)", row)
    except sqlite3.Error:
        return False
    return True


class Outbox:
    """The worker's file. An object belongs to one thread; every channel's thread has its own."""

    def __init__(
        self, folder: Path | str, settings: AlertSettings, channels: Sequence[str] = ()
    ) -> None:
        """Open or create the file; messages go to each of `channels`."""
        self._folder = Path(folder)
        self._channels = tuple(channels)
        try:
            self._db = _connect(self._folder / FILE, timeout_s=10.0)
            self._throttle = Throttle(self._db, settings)
        except sqlite3.Error as error:
            raise JaxtradeError(f"{self._folder / FILE}: {error}") from error

    def collect(self, now_ns: int) -> list[tuple[str, str]]:
        """Take what is new from all sources, and queue what is due; level and text of that."""
        with transaction(self._db):
            # First what is due, for that counts what an accepted one starts anew.
            made = self._throttle.due(now_ns)
            for source in ("posted", JOURNAL):
                for alert in self._new(source):
                    made += self._throttle.accept(alert, now_ns)
            for level, text in made:
                self._queue(level, text, now_ns)
        return made

    def next_message(self, channel: str, now_ns: int) -> Message | None:
        """The oldest message that a channel is to be sent now, if there is one."""
        row = self._db.execute(
            "SELECT number, level, text, tries FROM deliveries JOIN messages ON number = message "
            "WHERE channel = ? AND due_ns <= ? ORDER BY message LIMIT 1",
            (channel, now_ns),
        ).fetchone()
        return None if row is None else Message(*row)

    def delivered(self, channel: str, message: Message) -> None:
        """A channel took a message."""
        with transaction(self._db):
            self._db.execute(
                "DELETE FROM deliveries WHERE channel = ? AND message = ?",
                (channel, message.number),
            )
            self._db.execute(
                "DELETE FROM messages WHERE number <= ? - 1000 AND number NOT IN "
                "(SELECT message FROM deliveries)",
                (message.number,),
            )

    def failed(self, channel: str, message: Message, now_ns: int, retry_s: float = 0.0) -> float:
        """A channel did not take it: everything for that channel waits; for how long, seconds."""
        pause = min(FIRST_PAUSE_S * 2.0 ** min(message.tries, 20), LAST_PAUSE_S)
        pause = max(pause, retry_s)
        due_ns = now_ns + int(pause * 1e9)
        with transaction(self._db):
            self._db.execute(
                "UPDATE deliveries SET due_ns = max(due_ns, ?) WHERE channel = ?", (due_ns, channel)
            )
            self._db.execute(
                "UPDATE deliveries SET tries = tries + 1 WHERE channel = ? AND message = ?",
                (channel, message.number),
            )
        return pause

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _queue(self, level: str, text: str, now_ns: int) -> None:
        number = self._db.execute(
            "INSERT INTO messages (level, text, at_ns) VALUES (?, ?, ?)", (level, text, now_ns)
        ).lastrowid
        self._db.executemany(
            "INSERT INTO deliveries (message, channel) VALUES (?, ?)",
            [(number, channel) for channel in self._channels],
        )

    def _new(self, source: str) -> list[Alert]:
        """The alerts of a source that were not yet taken; they count as taken from now on."""
        query = "SELECT seq, at_ns FROM cursors WHERE source = ?"
        since = self._db.execute(query, (source,)).fetchone() or (0, 0)
        if source == JOURNAL:
            found, reached = _journalled(self._folder / JOURNAL, since)
        else:
            found, reached = _beyond(self._db, "posted", since)
        if reached != since:
            row = (source, *reached)
            self._db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", row)
        return found


def _journalled(path: Path, since: Cursor) -> tuple[list[Alert], Cursor]:
    """New alerts of the journal; none while it cannot be read, for then they come later.

    It is opened anew each time: a damaged journal is put aside and another takes its place.
    """
    if not path.exists():
        return [], since
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=1.0)) as db:
            return _beyond(db, "alerts", since)
    except sqlite3.Error:
        return [], since


def _beyond(db: sqlite3.Connection, table: str, since: Cursor) -> tuple[list[Alert], Cursor]:
    """Rows of a table that are new since a cursor, at most 1,000, and the cursor behind them.

    A table that ends before the cursor was restored from a backup: what is newer by time is new.
    """
    seq, at_ns = since
    end = db.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()[0]
    where, value = ("seq > ?", seq) if end >= seq else ("at_ns > ?", at_ns)
    rows = db.execute(
        f"SELECT seq, level, text, key, at_ns FROM {table} WHERE {where} ORDER BY seq LIMIT 1000",
        (value,),
    ).fetchall()
    last_seq = rows[-1][0] if rows else min(seq, end)
    return [Alert(*row[1:]) for row in rows], (last_seq, max([at_ns, *(row[4] for row in rows)]))


def _connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=timeout_s, isolation_level=None)
    try:
        use_wal(db, timeout_s)
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db
