"""Upkeep of a journal's files, by path: checkpoints, backups, what is wrong with one.

Each function opens a connection of its own, so it may run in a thread beside the journal that
writes, which none of them holds up.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from jaxtrade.live.journal_db import DamagedError, JournalError, identity, one_line_errors
from jaxtrade.storage import sync_folder

BACKUPS_KEPT = 7


def checkpoint(path: Path | str) -> bool:
    """Move what is in the log into the database, so that the log starts again; whether all moved,
    which readers may hold up.
    """
    path = Path(path)
    with _connected(path) as db:
        _, in_log, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return in_log == moved


class Checkpoints:
    """A thread that does a checkpoint when it is woken, while the files are still the same.

    has_run: since the writer last looked. What was written during a checkpoint is left for the
    writer to move, since the log starts again only once all of it was moved.
    """

    def __init__(self, names: tuple[str, str], files: tuple[int, ...]) -> None:
        self._names, self._files = names, files
        self.has_run = False
        self._wanted = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Ask for a checkpoint; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
            self._thread.start()
        self._wanted.set()

    def close(self) -> None:
        """End the thread, after the checkpoint that it is at."""
        self._is_closing = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._is_closing:
                return
            # One that fails is tried again with the next; the log only grows meanwhile.
            with contextlib.suppress(JournalError):
                if identity(*self._names) == self._files:
                    checkpoint(self._names[0])
                    self.has_run = True


def back_up(path: Path | str, folder: Path | str, *, at_ns: int, kept: int = BACKUPS_KEPT) -> Path:
    """Copy a journal while it is written, check the copy, and drop all but the newest copies."""
    path, folder = Path(path), Path(folder)
    stamp = datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    # Numbered, since a wall clock that was wrong once would make an old copy the newest for ever.
    number = max(map(_number, backups(folder)), default=0) + 1
    final = folder / f"journal-{number:06d}-{stamp}.db"
    temporary = folder / f".{final.name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with _connected(path) as source, contextlib.closing(sqlite3.connect(temporary)) as copy:
            source.backup(copy)
            # One file, whole by itself: a copy has no log beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
        problem = damage(temporary)
        if problem:
            raise JournalError(f"cannot back up {path}: the copy is damaged: {problem}")
        temporary.replace(final)
        sync_folder(folder)
        for old in backups(folder)[kept:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise JournalError(f"cannot back up {path} to {folder}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return final


def backups(folder: Path | str) -> list[Path]:
    """The copies in a folder, newest first."""
    return sorted(Path(folder).glob("journal-*.db"), key=_number, reverse=True)


def _number(copy: Path) -> int:
    digits = copy.name.removeprefix("journal-").partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def damage(path: Path | str, *, limit_s: float = threading.TIMEOUT_MAX) -> str:
    """What SQLite finds wrong with a database, in one line; "" where it is whole, or nothing was
    found in the time that there is.

    Raises:
        JournalError: it cannot be looked at.
    """
    try:
        with _connected(Path(path)) as db:
            timer = threading.Timer(limit_s, db.interrupt)
            timer.daemon = True
            timer.start()
            try:
                found = [row[0] for row in db.execute("PRAGMA quick_check(3)")]
            finally:
                timer.cancel()
                timer.join()
    except DamagedError as error:
        return str(error)
    except JournalError as error:
        if "interrupted" in str(error):
            return ""
        raise
    return "" if found == ["ok"] else "; ".join(found).replace("\n", " ")


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a file that is there; `connect` alone would make an empty one."""
    name = f"{path.absolute().as_uri()}?mode=rw"
    with (
        one_line_errors(path),
        contextlib.closing(
            sqlite3.connect(name, uri=True, timeout=5.0, isolation_level=None)
        ) as db,
    ):
        yield db
