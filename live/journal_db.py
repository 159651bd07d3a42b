"""The file of a journal: its tables, how it is opened, checked and read.

What is here knows SQLite, and nothing of a running engine; `journal` and `journal_files` are built
on it.
"""

import contextlib
import hashlib
import os
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

from jaxtrade.database import transaction, use_wal
from jaxtrade.live.events import Event, decode
from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import sync_folder

JOURNAL = "journal.db"
"""The file, in the folder of its account."""

SCHEMA_VERSION = 1

LOG_BYTES = 8 * 2**20
"""What the log is laid out to."""

_SCHEMA = (
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, kind TEXT NOT NULL, cid TEXT NOT NULL,
        body TEXT NOT NULL, crc INTEGER NOT NULL)""",
    # the key, not the id, comes first: orders of one symbol and bar share a page then
    """CREATE TABLE orders (
        decision_key TEXT PRIMARY KEY, cid TEXT NOT NULL, agent TEXT NOT NULL, symbol TEXT NOT NULL,
        side TEXT NOT NULL, quantity TEXT NOT NULL, kind TEXT NOT NULL, price TEXT,
        leg TEXT NOT NULL, parent TEXT NOT NULL, created_ns INTEGER NOT NULL,
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

_NOT_DAMAGE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_INTERRUPT,
}
"""What SQLite says of the machine around a database, which restoring it would not mend."""


class JournalError(JaxtradeError):
    """The journal cannot be written or read: nothing was recorded, and nothing may be sent."""


class DuplicateDecisionError(JournalError):
    """An order of the same decision is in the journal: it must not be sent a second time."""


class DamagedError(JournalError):
    """The journal is not what was written: it has to be restored."""


def open_journal(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection that writes; the file is made where there is none."""
    is_new = not path.exists()
    db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
    try:
        use_wal(db, busy_seconds)
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


def open_readonly(path: Path | str) -> sqlite3.Connection:
    """A connection for another process that only reads; rows by name."""
    path = Path(path)
    with one_line_errors(path):
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
        DamagedError: an event is damaged or missing.
    """
    rows = db.execute(
        "SELECT seq, kind, body, crc FROM events WHERE seq > ? ORDER BY seq", (after_seq,)
    )
    for expected, (seq, kind, body, crc) in enumerate(rows, after_seq + 1):
        if seq != expected:
            raise DamagedError(f"{name}: event {expected} is missing")
        if checksum(seq, kind, body) != crc:
            raise DamagedError(f"{name}: event {seq} is damaged")
        yield seq, decode(kind, body)


def checksum(seq: int, kind: str, body: str) -> int:
    """CRC-32 of an event as it is kept."""
    return zlib.crc32(f"{seq} {kind} {body}".encode())


def lay_out(log: str) -> None:
    """Give the log its full length: SQLite ends at the first frame that is not valid, which zeros
    are not, and commits that need not grow the file cost the disk less than half.
    """
    with open(log, "r+b") as file:
        length = file.seek(0, os.SEEK_END)
        if length < LOG_BYTES:
            file.write(bytes(LOG_BYTES - length))
            file.flush()
            os.fsync(file.fileno())


def identity(path: str, log: str) -> tuple[int, ...]:
    """Which files these names lead to; () where one leads nowhere."""
    try:
        one, other = os.stat(path), os.stat(log)
    except FileNotFoundError:
        return ()
    return one.st_ino, one.st_dev, other.st_ino, other.st_dev


def digest_of(text: str) -> str:
    """SHA-256 of the text of a state."""
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Whatever SQLite or the system say, as a JournalError."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        if "orders." in str(error):
            raise DuplicateDecisionError(
                f"{path}: an order of this decision was recorded before ({error})"
            ) from error
        raise DamagedError(f"cannot use the journal {path}: {error}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        kind = JournalError if code in _NOT_DAMAGE else DamagedError
        raise kind(f"cannot use the journal {path}: {error}") from error
    except OSError as error:
        raise JournalError(f"cannot use the journal {path}: {error.strerror}") from error
