"""Durations of the running engine, cheap enough for every tick."""

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
