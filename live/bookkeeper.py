"""The one way by which anything changes: written down, then applied.

Before something is done (an order sent, a latch set) it must be on disk, and where it cannot be it
is not done. What has happened already (a fill, a bar) is true whether the disk takes it or not: it
is applied at once and written as soon as the disk takes it again, in order. Until then the books
say so, and the engine opens nothing.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtrade.live.alerts.rules import alerts_for
from jaxtrade.live.events import Event
from jaxtrade.live.journal import Carry, Journal, JournalError
from jaxtrade.live.state import State

log = logging.getLogger("jaxtrade.books")

MOST_UNWRITTEN = 10_000
"""Events kept in memory while the journal takes none; with more, the oldest are given up, which
the broker's own record then has to replace."""


class Bookkeeper:
    """State, journal and all that follows an event: alerts, and who listens.

    listeners: called with each event once it is applied with those of the same commit, those of
    `intend` once there is time; they must not block, and where one fails, that is logged.
    """

    def __init__(self, state: State, journal: Journal) -> None:
        self.state = state
        self.journal = journal
        self.listeners: list[Callable[[Event], None]] = []
        self.trouble = ""
        self._unwritten: deque[Event] = deque(maxlen=MOST_UNWRITTEN)
        self._untold: deque[Event] = deque()

    @property
    def is_sound(self) -> bool:
        """Whether all that was applied is written down."""
        return not self._unwritten and not self.trouble

    def intend(
        self,
        events: Sequence[Event],
        *,
        carries: Mapping[str, Carry] | None = None,
    ) -> None:
        """Write durably what is about to be done, then apply it; carries: what agents remember.
        Listeners hear of it at the next `observe` or `tell`: what is to be done comes first.

        Raises:
            JournalError: it is not on disk; nothing was applied, and nothing may be sent.
        """
        self.settle()
        if self._unwritten:
            raise JournalError(f"the journal lacks {len(self._unwritten)} events: {self.trouble}")
        self._write(events, durable=True, carries=carries)
        for event in events:
            self.state.apply(event)
        self._untold.extend(events)

    def observe(
        self,
        *events: Event,
        durable: bool = False,
        carries: Mapping[str, Carry] | None = None,
    ) -> None:
        """Apply what has happened, and write it down now or as soon as that is possible."""
        if not events:
            return
        self.settle()
        if self._unwritten:
            self._unwritten.extend(events)
        else:
            try:
                self._write(events, durable=durable, carries=carries)
            except JournalError:
                self._unwritten.extend(events)
        self.tell()
        for event in events:
            self.state.apply(event)
        self._untold.extend(events)
        self.tell()

    def tell(self) -> None:
        """Tell listeners what they have not heard yet."""
        while self._untold:
            event = self._untold.popleft()
            for listener in self.listeners:
                try:
                    listener(event)
                except Exception:
                    log.exception("a listener failed on %s", type(event).__name__)

    def settle(self) -> bool:
        """Try to write what could not be written before; whether nothing is left of it."""
        while self._unwritten:
            batch = list(self._unwritten)
            try:
                self._write(batch, durable=True)
            except JournalError:
                return False
            self._unwritten.clear()
        return True

    def _write(self, events: Sequence[Event], **how: Any) -> None:
        alerts = [alert for event in events for alert in alerts_for(event, self.state.orders)]
        try:
            self.journal.record(events, alerts=alerts, **how)
        except JournalError as error:
            self.trouble = str(error)
            raise
        self.trouble = ""
