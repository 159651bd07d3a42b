"""What goes wrong beside an engine that is timed, each in a process of its own.

    python -m jaxtrade.experiments.benchmarks.live_troubles FOLDER alerts|reader|disk|metrics

alerts: the alert worker, with a service that never answers; reader: reads the journal from its
first event to its last, over and over; disk: takes some kilobytes of the log now and then, through
the pipe that stands in its place; metrics: holds the lock of the metrics most of the time. They
begin with a line on the standard output, and end when they are killed.
"""

import contextlib
import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

from jaxtrade.live import recorder
from jaxtrade.live.alerts.worker import Worker
from jaxtrade.live.journal_db import JournalError, open_readonly, read_events
from jaxtrade.live.sections import AlertSettings

LOG = "logs/engine.jsonl"

CHUNK, PAUSE_S = 4096, 0.05
"""What the slow disk takes of the log at once, bytes, and how long it then does nothing."""

LOCKED_S, FREE_S = 0.5, 0.1

READER_PAUSE_S = 0.02


class Hung:
    """A service that takes a message and never says a word."""

    def send(self, title: str, text: str, level: str) -> None:
        """Hang."""
        threading.Event().wait()


def make_pipe(folder: Path) -> None:
    """A pipe in the place of the log: whoever writes into it waits for whoever reads."""
    path = folder / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def hang_alerts(folder: Path) -> None:
    """Deliver every alert, down to the least, to a service that hangs."""
    Worker(folder, AlertSettings(level="info"), {"hung": Hung()}).run()


def read_journal(folder: Path) -> None:
    """Read all events, again and again."""
    path = folder / "journal.db"
    while True:
        with (
            contextlib.suppress(JournalError),  # there is none yet
            contextlib.closing(open_readonly(path)) as db,
        ):
            for _ in read_events(db, 0, name=str(path)):
                pass
        time.sleep(READER_PAUSE_S)


def slow_disk(folder: Path) -> None:
    """Read the log through its pipe as a slow disk would take it."""
    with open(folder / LOG, "rb", buffering=0) as pipe:
        while True:
            pipe.read(CHUNK)
            time.sleep(PAUSE_S)


def lock_metrics(folder: Path) -> None:
    """Hold the lock of the metrics most of the time."""
    db = sqlite3.connect(folder / recorder.FILE, timeout=10.0, isolation_level=None)
    while True:
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("BEGIN IMMEDIATE")
            time.sleep(LOCKED_S)
            db.execute("COMMIT")
        time.sleep(FREE_S)


KINDS = {
    "alerts": hang_alerts,
    "reader": read_journal,
    "disk": slow_disk,
    "metrics": lock_metrics,
}


def main(arguments: list[str]) -> None:
    """Make one kind of trouble in a folder."""
    folder, kind = arguments
    print("ready", flush=True)
    KINDS[kind](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
