"""What keeps Python itself from holding up an order: its collector of garbage and its threads.

    sweep = Sweep()
    with steady():          # nothing is collected by itself
        sweep()             # in a quiet moment

A collection of all objects takes tens of milliseconds, and comes when it likes. What is there once
an engine is built stays; what comes later is little, and is looked through now and then by the
house. A thread that writes logs may keep the interpreter for 5 milliseconds while the loop waits
for it: here for half of one.
"""

import contextlib
import gc
import sys
import time
from collections.abc import Iterator

SWITCH_S = 5e-4
"""How long another thread may keep the interpreter."""

THOROUGH_NS = 60 * 10**9
"""Between two looks through everything that is newer than the engine."""


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Leave garbage to `Sweep`, and let no thread keep the interpreter for long."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
        sys.setswitchinterval(before)


class Sweep:
    """When to look through how much; nothing where Python does it by itself."""

    def __init__(self) -> None:
        self._thorough_ns = time.monotonic_ns()

    def __call__(self) -> None:
        """Look through what is new, or now and then through more."""
        if gc.isenabled():
            return
        now = time.monotonic_ns()
        if now - self._thorough_ns >= THOROUGH_NS:
            self._thorough_ns = now
            gc.collect()
        else:
            gc.collect(0)
