"""One engine per folder: a lock that the system lets go when the process ends, however it ends."""

import os
import sys
from pathlib import Path
from typing import Self

from jaxtrade.specs import JaxtradeError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCKED_BYTE = 2**30
"""Far behind the process id that the file tells, which stays readable where locks are mandatory."""


class Lock:
    """A file that one process holds; it tells the process id of that one."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = -1

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def take(self) -> None:
        """Hold the lock until `release`, or until the process ends.

        Raises:
            JaxtradeError: another process, or another lock of this one, holds it.
        """
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise JaxtradeError(f"cannot use {self.path}: {error.strerror}") from error
        try:
            _lock(file)
        except OSError as error:
            holder = os.read(file, 32).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise JaxtradeError(
                f"{self.path.parent} is in use by the engine with process id {holder}: "
                "one engine per folder; stop that one first"
            ) from error
        self._file = file
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let it go; a second time does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _lock(file: int) -> None:
    """Raises OSError where another holds it."""
    if sys.platform == "win32":
        os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file, 0, os.SEEK_SET)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
