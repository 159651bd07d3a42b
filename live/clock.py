"""Time: the wall clock for stamps, a steady one for what is measured and waited for.

Wall clocks jump and have summer time; no timeout is measured with one.
"""

import asyncio
import time
from typing import Protocol

SECOND_NS = 1_000_000_000


class Clock(Protocol):
    """What time it is."""

    def wall_ns(self) -> int:
        """UTC, nanoseconds since 1970."""

    def steady_ns(self) -> int:
        """Nanoseconds since some start; never goes back, never jumps."""

    async def sleep(self, seconds: float) -> None:
        """Let others work until some time has passed."""


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        """UTC, nanoseconds since 1970."""
        return time.time_ns()

    def steady_ns(self) -> int:
        """Nanoseconds of the monotonic clock."""
        return time.monotonic_ns()

    async def sleep(self, seconds: float) -> None:
        """Let others work until some time has passed."""
        await asyncio.sleep(seconds)


class SimulatedClock:
    """A clock that stands still until it is told otherwise; for replays and tests."""

    def __init__(self, wall_ns: int = 0) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = 0

    def wall_ns(self) -> int:
        """UTC, nanoseconds since 1970."""
        return self._wall_ns

    def steady_ns(self) -> int:
        """Nanoseconds that have been passed with `advance` and `advance_to`."""
        return self._steady_ns

    async def sleep(self, seconds: float) -> None:
        """Let time pass, and others work."""
        self.advance(round(seconds * SECOND_NS))
        await asyncio.sleep(0)

    def advance(self, nanoseconds: int) -> None:
        """Let time pass on both clocks."""
        self._wall_ns += nanoseconds
        self._steady_ns += nanoseconds

    def advance_to(self, wall_ns: int) -> None:
        """Let time pass until a moment; one that is past changes nothing."""
        self.advance(max(wall_ns - self._wall_ns, 0))

    def jump(self, nanoseconds: int) -> None:
        """Put the wall clock forward or back, while the steady one goes on."""
        self._wall_ns += nanoseconds
