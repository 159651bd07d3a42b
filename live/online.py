"""What live trading has seen and done, kept for a trainer: one line a decision, only ever added to.

A line is JSON behind its CRC-32. It is written after the orders are on their way; a crash leaves at
most a last line that is cut short, which is dropped when the file is opened again. A trainer, a
process of its own, reads the file at any time, see `experiments.finetune`.
"""

import dataclasses
import json
import os
import zlib
from pathlib import Path
from typing import Any, Self

from jaxtrade.live.buffers import F32
from jaxtrade.live.deciding import Made, context_of
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.live.rows import Row
from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import read_bytes

BLOCK = 65_536
"""Bytes that are looked through at once for the end of a line."""

SYNC_EVERY = 64
"""Lines between two that are made durable: a power cut costs no more."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A decision and what it was made on.

    bars: of each symbol open, high, low, close in quote currency, volume; context: the columns that
    the policy sees, by name; account: see `ledger.account_vector`, before the decision; action:
    empty where the position was held whatever the policy said; reward: log return of the agent's
    equity over the bar, thus of the decision before this one; model: SHA-256 of the bundle.
    """

    start_s: int
    seconds: int
    symbols: tuple[str, ...]
    bars: tuple[tuple[float, ...], ...]
    context: tuple[tuple[str, float], ...]
    account: tuple[float, ...]
    action: tuple[float, ...]
    reward: float
    model: str


def step_of(row: Row, made: Made, account: F32, *, reward: float, policy: OnnxPolicy) -> Step:
    """The step of a decision of a policy on a row of bars."""
    names, symbols = policy.metadata.features.context, policy.metadata.symbols
    context = zip(names, context_of(row, names, symbols), strict=True)
    return Step(
        start_s=made.start_s,
        seconds=row[0].seconds,
        symbols=tuple([bar.symbol for bar in row]),
        bars=tuple([(bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in row]),
        context=tuple(context),
        account=tuple(account.tolist()),
        action=() if made.held else made.action,
        reward=reward,
        model=policy.sha256,
    )


class StepLog:
    """A file of steps to add to; use it as a context manager."""

    def __init__(self, path: Path | str) -> None:
        """Raises JaxtradeError where the file cannot be opened."""
        self.path = Path(path)
        self._unsynced = 0
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._file, _whole_length(self.path))
        except OSError as error:
            raise JaxtradeError(f"cannot open {self.path}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def append(self, step: Step) -> None:
        """Add a step.

        Raises:
            JaxtradeError: it cannot be written, as on a full disk; nothing of it stays.
        """
        text = json.dumps(dataclasses.asdict(step), separators=(",", ":"), allow_nan=False)
        line = b"%08x %s\n" % (zlib.crc32(text.encode()), text.encode())
        try:
            size = os.fstat(self._file).st_size
            if os.write(self._file, line) < len(line):
                os.ftruncate(self._file, size)
                raise JaxtradeError(f"cannot write {self.path}: no room left")
            self._unsynced += 1
            if self._unsynced >= SYNC_EVERY:
                self._sync()
        except OSError as error:
            raise JaxtradeError(f"cannot write {self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Make everything durable."""
        self._sync()
        os.close(self._file)

    def _sync(self) -> None:
        os.fsync(self._file)
        self._unsynced = 0


def read_steps(path: Path | str) -> list[Step]:
    """All steps, in the order they were made; a last line that is cut short is left out.

    Raises:
        JaxtradeError: the file cannot be read, or a line was altered.
    """
    *lines, _ = read_bytes(path).split(b"\n")
    return [_step(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _step(line: bytes, where: str) -> Step:
    crc, _, text = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(text):
        raise JaxtradeError(f"{where}: was altered: remove the line, or take an older copy")
    try:
        tree: dict[str, Any] = json.loads(text)
        for name in ("symbols", "account", "action"):
            tree[name] = tuple(tree[name])
        for name in ("bars", "context"):
            tree[name] = tuple(tuple(item) for item in tree[name])
        return Step(**tree)
    except (ValueError, TypeError, KeyError) as error:
        raise JaxtradeError(f"{where}: is no step: {error!r}") from error


def _whole_length(path: Path) -> int:
    """Bytes up to the end of the last line that is whole, looked for from the end: these files
    grow for ever.
    """
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = file.seek(max(end - BLOCK, 0))
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0
