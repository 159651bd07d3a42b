"""What every SQLite file of the project needs: the write-ahead log, and transactions."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator


def use_wal(db: sqlite3.Connection, timeout_s: float) -> None:
    """Switch to a write-ahead log; unlike other statements this one does not wait for a lock.

    Raises:
        sqlite3.OperationalError: the file is locked for longer, or is no place for a log.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Commit what the block did, or none of it; IMMEDIATE takes the write lock at the start."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise
