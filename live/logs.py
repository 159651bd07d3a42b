"""Logs: one JSON object a line, in rolling files, written by a thread of their own.

    with start_logging(folder, "engine", settings.logs) as logs:
        logging.getLogger("jaxtrade.engine").info("decided", extra={"agent": "spy"})

What logs hands a record over and goes on: a disk that is slow or full delays nothing, and what does
not fit in the queue is dropped and counted. Secrets are hidden; see `redaction`.
"""

import json
import logging
import logging.handlers
import queue
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jaxtrade.live.redaction import Redaction
from jaxtrade.live.sections import LogSettings
from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import finite

QUEUE = 10_000
"""Records that wait for the disk before one is dropped."""

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What a record has without `extra`."""


def start_logging(folder: Path | str, name: str, settings: LogSettings) -> "Logs":
    """Send all that this process logs to FOLDER/logs/NAME.jsonl; the result ends it.

    Raises:
        JaxtradeError: the file cannot be opened.
    """
    path = Path(folder) / "logs" / f"{name}.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _RollingFile(
            path,
            maxBytes=int(settings.max_mb * 1e6),
            backupCount=settings.keep,
            encoding="utf-8",
        )
    except OSError as error:
        raise JaxtradeError(f"cannot write {path}: {error.strerror}") from error
    file.setFormatter(JsonLines(Redaction()))
    logs = Logs(file)
    logs.attach(settings.level)
    return logs


class JsonLines(logging.Formatter):
    """A record as one line: at (UTC seconds), level, logger, text, and its `extra` beside them."""

    def __init__(self, redaction: Redaction) -> None:
        super().__init__()
        self.redaction = redaction

    def format(self, record: logging.LogRecord) -> str:
        """The line, without secrets."""
        row: dict[str, Any] = {
            "at": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": _message(record),
        }
        row.update({key: item for key, item in vars(record).items() if key not in _OWN})
        if record.exc_info:
            row["error"] = self.formatException(record.exc_info)
        text = json.dumps(finite(row), separators=(",", ":"), default=str)
        return self.redaction.text(text)


def _message(record: logging.LogRecord) -> str:
    """What was said; a record whose arguments do not fit is still a record."""
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return f"{record.msg} {record.args}"


class _RollingFile(logging.handlers.RotatingFileHandler):
    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 (of the base class)
        """Whether the file is full: by what is in it, for the line would be made twice else."""
        if self.stream is None:
            self.stream = self._open()
        return self.stream.seekable() and self.stream.tell() >= self.maxBytes

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (of the base class)
        """Say so to the thread that writes, instead of a traceback for every record."""
        raise


class Logs(logging.Handler):
    """A queue and the thread that writes it.

    dropped: records that did not fit; failed: records that the disk did not take.
    """

    def __init__(self, target: logging.Handler, size: int = QUEUE) -> None:
        super().__init__()
        self._target = target
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(size)
        self._before: tuple[list[logging.Handler], int] | None = None
        self.dropped = 0
        self.failed = 0
        self._thread = threading.Thread(target=self._write, name="logs", daemon=True)

    @property
    def redaction(self) -> Redaction:
        """What hides secrets, to tell it more of them."""
        formatter = self._target.formatter
        if not isinstance(formatter, JsonLines):
            raise TypeError("the target writes no JSON lines")
        return formatter.redaction

    def attach(self, level: str) -> None:
        """Become the one handler of this process, and start the thread."""
        root = logging.getLogger()
        self._before = list(root.handlers), root.level
        root.handlers = [self]
        root.setLevel(level.upper())
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record over; never waits."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def _write(self) -> None:
        while (record := self._queue.get()) is not None:
            try:
                self._target.handle(record)
            except Exception:  # a full disk must not end the thread
                self.failed += 1

    def end(self, patience_s: float = 5.0) -> None:
        """Write what is waiting, as far as the time allows, and leave the process as it was."""
        if self._before is None:
            return
        root = logging.getLogger()
        handlers, level = self._before
        self._before = None
        root.handlers = handlers
        root.setLevel(level)
        try:
            self._queue.put(None, timeout=patience_s)
            self._thread.join(patience_s)
        except queue.Full:
            print("jaxtrade: the disk is too slow for the log, its end is lost", file=sys.stderr)
        self._target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
            logging.getLogger("jaxtrade").critical("ended by an error", exc_info=error)
        self.end()
