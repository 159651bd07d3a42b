"""Two files that outlive every process: KILLED and HALTED, each with a reason.

A latch is written before anything else is done, durably, and holds whether or not the journal, the
engine or the network do. KILLED is a person's or a limit's word: no order until a person lifts it
and says why. HALTED is the supervisor's: the engine could not be kept running.

The engine looks for both when it starts, and for KILLED with every heartbeat.
"""

import dataclasses
import enum
import getpass
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import read_bytes, sync_folder, write_atomic


class Latch(enum.StrEnum):
    """The names of the files."""

    KILLED = "KILLED"
    HALTED = "HALTED"


LIFTED = "rearmed.jsonl"
"""Every latch that was lifted, with the reason of both."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latched:
    """A latch that is set: why, by whom, when (UTC, ISO); whether positions are closed too."""

    reason: str
    by: str
    at: str
    flatten: bool = False


def set_latch(folder: Path | str, latch: Latch, reason: str, *, flatten: bool = False) -> Latched:
    """Set a latch, durably; one that is set keeps its first reason, and its wish to flatten.

    Raises:
        JaxtradeError: it cannot be written.
    """
    before = latched(folder, latch)
    if before is not None:
        reason, flatten = before.reason, flatten or before.flatten
    made = Latched(reason=reason, by=person(), at=_now(), flatten=flatten)
    if before is not None and before.flatten == flatten:
        return before
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JaxtradeError(f"cannot create {folder}: {error.strerror}") from error
    write_atomic(Path(folder) / latch, json.dumps(dataclasses.asdict(made)))
    return made


def is_latched(folder: Path | str, latch: Latch) -> bool:
    """Whether a latch is set; a look at the file's name, some microseconds."""
    return os.path.exists(os.path.join(folder, latch))


def latched(folder: Path | str, latch: Latch) -> Latched | None:
    """The latch if it is set. One that cannot be read is set all the same."""
    if not is_latched(folder, latch):
        return None
    try:
        return Latched(**json.loads(read_bytes(Path(folder) / latch)))
    except (JaxtradeError, ValueError, TypeError):
        return Latched(reason=f"the file {latch} is there and cannot be read", by="", at="")


def is_flattening(folder: Path | str) -> bool:
    """Whether a kill is latched that closes positions too."""
    killed = latched(folder, Latch.KILLED)
    return killed is not None and killed.flatten


def lift(folder: Path | str, reason: str) -> list[Latch]:
    """Lift whatever is set, because a person said why; those that were set.

    The reason is kept in `rearmed.jsonl` before a latch goes.

    Raises:
        JaxtradeError: no reason, or a file cannot be written or removed.
    """
    if not reason.strip():
        raise JaxtradeError("a latch is lifted by a person who says why: give --reason TEXT")
    found = [latch for latch in Latch if is_latched(folder, latch)]
    try:
        for latch in found:
            was = latched(folder, latch)
            row = {
                "latch": latch,
                "was": None if was is None else dataclasses.asdict(was),
                "reason": reason,
                "by": person(),
                "at": _now(),
            }
            with open(Path(folder) / LIFTED, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
            (Path(folder) / latch).unlink(missing_ok=True)
        sync_folder(Path(folder))
    except OSError as error:
        raise JaxtradeError(f"cannot lift a latch in {folder}: {error.strerror}") from error
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def person() -> str:
    """Who runs this process, as far as the machine knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
