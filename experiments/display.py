"""What a training run shows on the terminal, and how it is asked to stop."""

import math
import signal
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

COLUMNS = (
    TextColumn("{task.completed:>11,.0f} steps"),
    BarColumn(bar_width=20),
    TextColumn("{task.percentage:>3.0f} %"),
    TextColumn("{task.fields[rate]} steps/s"),
    TextColumn("episode return {task.fields[episode_return]}"),
    TextColumn("validation Sharpe {task.fields[validation_sharpe]}"),
    TextColumn("ETA"),
    TimeRemainingColumn(compact=True),
    TextColumn("{task.fields[health]}", table_column=Column(no_wrap=True, ratio=1)),
)

HEALTH = ("entropy", "approx_kl", "td_error", "temperature", "grad_norm", "param_norm")
"""Of these, what an agent reports is shown."""


class Display:
    """A live line on a terminal; elsewhere one line for each chunk. A context manager."""

    def __init__(self, console: Console, *, total_steps: int, done_steps: int) -> None:
        self._console = console
        self._episode_return = "-"
        self._progress = Progress(*COLUMNS, console=console, disable=not console.is_terminal)
        names = ("rate", "episode_return", "validation_sharpe")
        unknown: dict[str, Any] = {**dict.fromkeys(names, "-"), "health": ""}
        self._task = self._progress.add_task("", total=total_steps, completed=done_steps, **unknown)

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, row: Mapping[str, Any]) -> None:
        """Show a line of metrics.jsonl; the return is that of the last chunk that ended one."""
        if not math.isnan(row["episode_return"]):
            self._episode_return = f"{row['episode_return']:+.4f}"
        fields: dict[str, Any] = {
            "rate": f"{row['steps_per_second']:,.0f}",
            "episode_return": self._episode_return,
            "validation_sharpe": f"{row['validation_sharpe']:+.2f}",
            "health": "  ".join(f"{name} {row[name]:.3g}" for name in HEALTH if name in row),
        }
        self._progress.update(self._task, completed=row["step"], **fields)
        if not self._console.is_terminal:
            self._console.print(
                f"{row['step']:>11,} steps  {fields['rate']} steps/s  episode return "
                f"{fields['episode_return']}  validation Sharpe {fields['validation_sharpe']}  "
                f"{fields['health']}",
                highlight=False,
                soft_wrap=True,
            )


class StopRequest:
    """Ctrl-C (or a termination signal) noted, to be obeyed at the next chunk's end.

    A context manager; a second Ctrl-C interrupts at once.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, console: Console) -> None:
        self.requested = False
        self._console = console
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in self.SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._console.print("stopping at the end of this chunk; once more to stop at once")


class Stopwatch:
    """Seconds since the last `lap`."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the lap before, or since the start."""
        now = time.perf_counter()
        elapsed, self._since = now - self._since, now
        return elapsed
