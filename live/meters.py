"""Counters and durations of the running engine, cheap enough for every tick."""

import math
from array import array


class Meter:
    """The last `size` durations of something, microseconds, and how many there were in all."""

    def __init__(self, size: int = 1024) -> None:
        self._values = array("d", bytes(8 * size))
        self._size = size
        self.count = 0

    def add_ns(self, nanoseconds: int) -> None:
        """One more."""
        self._values[self.count % self._size] = nanoseconds / 1e3
        self.count += 1

    def percentile(self, percent: float) -> float:
        """The value that so many of the kept ones do not exceed; not-a-number without any."""
        kept = sorted(self._values[: min(self.count, self._size)])
        if not kept:
            return math.nan
        return kept[max(math.ceil(len(kept) * percent / 100) - 1, 0)]


class Counters:
    """How often things happened, by name."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, name: str, count: int = 1) -> None:
        """One more, or several."""
        self._counts[name] = self._counts.get(name, 0) + count

    def as_dict(self) -> dict[str, int]:
        """All of them."""
        return dict(self._counts)
