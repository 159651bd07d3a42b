"""Bars of several symbols that started at the same moment, put together to one row.

A row is what a policy was trained on: data of several symbols are the stamps that all of them
share. So where one bar never comes there is no row, and the next one is measured from the last row
before. Each row comes out at most once, and rows only move forward.
"""

import math
from collections.abc import Iterable, Sequence

from jaxtrade.live.events import Bar

PATIENCE_NS = 5_000_000_000
"""How long the rest of a row is waited for once its first bar has come."""

MAX_WAITING = 64
"""Rows that wait for the rest of their bars; beyond it the oldest is dropped."""

ROUNDING = 1e-9
"""How far, relative, a high may be below what it encloses, as in files of bars."""

Row = tuple[Bar, ...]
"""One bar of each symbol, in the order of the symbols, all of the same start."""


class Rows:
    """Rows of `symbols` in the making.

    patience_ns: how long the rest of a row is waited for; refused: how many bars were not taken, by
    reason; dropped: rows that were never complete.
    """

    def __init__(
        self, symbols: tuple[str, ...], *, bar_seconds: int, patience_ns: int = PATIENCE_NS
    ) -> None:
        self.symbols = symbols
        self.refused: dict[str, int] = {}
        self.dropped = 0
        self._bar_seconds, self.patience_ns = bar_seconds, patience_ns
        self._waiting: dict[int, dict[str, Bar]] = {}
        self._since: dict[int, int] = {}
        self._last_start: int | None = None

    def begin_after(self, start_s: int | None) -> None:
        """Refuse bars up to this start: they have been decided on before."""
        self._last_start = start_s

    @property
    def due_ns(self) -> int | None:
        """When, by the steady clock, `expire` has something to do; None where nothing waits."""
        return min(self._since.values()) + self.patience_ns if self._since else None

    def add(self, bar: Bar, *, steady_ns: int) -> Row | None:
        """Take a finished bar; the row that it completes, if it does.

        What is not a bar, is of another length or symbol, or not after the last row is refused.
        Rows from before a complete one are dropped.
        """
        problem = self._problem(bar)
        if problem:
            self.refused[problem] = self.refused.get(problem, 0) + 1
            return None
        start = bar.start_s
        row = self._waiting.setdefault(start, {})
        self._since.setdefault(start, steady_ns)
        row[bar.symbol] = bar
        if len(row) < len(self.symbols):
            if len(self._waiting) > MAX_WAITING:
                self._drop(min(self._waiting))
            return None
        del self._waiting[start], self._since[start]
        for older in [each for each in self._waiting if each < start]:
            self._drop(older)
        self._last_start = start
        return tuple([row[symbol] for symbol in self.symbols])

    def expire(self, steady_ns: int) -> tuple[int, ...]:
        """Drop the rows that have waited too long for a bar; their starts."""
        limit = steady_ns - self.patience_ns
        late = tuple(sorted(start for start, since in self._since.items() if since <= limit))
        for start in late:
            self._drop(start)
        return late

    def _drop(self, start: int) -> None:
        del self._waiting[start], self._since[start]
        self.dropped += 1

    def _problem(self, bar: Bar) -> str:
        if bar.symbol not in self.symbols:
            return "another symbol"
        if bar.seconds != self._bar_seconds:
            return "another length"
        if self._last_start is not None and bar.start_s <= self._last_start:
            return "not after the last row"
        return "" if is_sound(bar) else "not sound"


def is_sound(bar: Bar) -> bool:
    """Whether prices are above 0, all is finite and, but for rounding, high and low enclose it."""
    low, high = bar.low * (1 - ROUNDING), bar.high * (1 + ROUNDING)
    return (
        0 < low <= bar.open <= high < math.inf
        and low <= bar.close <= high
        and 0 <= bar.volume < math.inf
        and all(math.isfinite(value) for _, value in bar.context)
    )


def rows_of(histories: Sequence[Iterable[Bar]]) -> list[Row]:
    """The rows of finished bars: one history for each symbol, in their order; stamps that all of
    them share, rising. Bars that are not sound are left out; of two with the same start the later.
    """
    tables = [{bar.start_s: bar for bar in bars if is_sound(bar)} for bars in histories]
    shared = sorted(set.intersection(*map(set, tables))) if tables else []
    return [tuple([table[start] for table in tables]) for start in shared]
