"""How far a journal had come, in eight bytes beside it: what tells that its end is missing.

The number is written after each durable commit, into memory that the file shares, which costs a
fraction of a microsecond and outlives the process. After a power cut it may be too small, which
proves nothing; it is never larger than what was durably journalled. So a journal that ends before
it has lost events: its log was deleted, or an older copy lies in its place.
"""

import contextlib
import mmap
import struct
from pathlib import Path

from jaxtrade.specs import JaxtradeError

_NUMBER = struct.Struct("<q")


class Reached:
    """The number beside the journal at `path`, opened or made."""

    def __init__(self, path: Path) -> None:
        beside = _beside(path)
        try:
            if not beside.exists() or beside.stat().st_size != _NUMBER.size:
                beside.write_bytes(_NUMBER.pack(0))
            with open(beside, "r+b") as file:
                self._memory = mmap.mmap(file.fileno(), _NUMBER.size)
        except OSError as error:
            raise JaxtradeError(f"cannot use {beside}: {error.strerror}") from error

    def set(self, seq: int) -> None:
        """All events up to `seq` are durable, and there are no more."""
        _NUMBER.pack_into(self._memory, 0, seq)

    def close(self) -> None:
        """Let the file go."""
        self._memory.close()


def reached(path: Path) -> int:
    """How far the journal at `path` had come, 0 where that is not known."""
    with contextlib.suppress(OSError, struct.error):
        number: int = _NUMBER.unpack(_beside(path).read_bytes())[0]
        return number
    return 0


def _beside(path: Path) -> Path:
    return path.with_name(path.name + "-seq")
