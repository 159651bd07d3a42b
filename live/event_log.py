"""What happened, into the logs and the metrics: a listener that never waits.

It only notes what it is told. The rest is done when the loop has nothing more urgent, for the
thread that writes logs shares the interpreter with orders under way.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from jaxtrade.live.events import (
    AgentPaused,
    BarDecided,
    BrokerDegraded,
    BrokerDisconnected,
    BrokerError,
    EquityMarked,
    Event,
    ModelRefused,
    OrderDenied,
    OrderLost,
    OrderRejected,
    OrderUnknown,
    PositionAdjusted,
    ProtectionTripped,
    Reconciled,
    TradingStateChanged,
    fields_of,
)
from jaxtrade.live.recorder import Recorder

if TYPE_CHECKING:
    from jaxtrade.live.engine import Engine

_WARNINGS = (
    AgentPaused,
    BrokerDegraded,
    BrokerDisconnected,
    BrokerError,
    ModelRefused,
    OrderDenied,
    OrderLost,
    OrderRejected,
    OrderUnknown,
    PositionAdjusted,
    ProtectionTripped,
    TradingStateChanged,
)

log = logging.getLogger("jaxtrade.events")


class EventLog:
    """Called with each event once it is applied, by the engine's loop; `flush` ends it."""

    def __init__(self, engine: "Engine", recorder: Recorder) -> None:
        self._engine = engine
        self._recorder = recorder
        self._noted: list[tuple[Event, float]] = []

    def __call__(self, event: Event) -> None:
        """Note an event, and what will have changed by the time that there is some."""
        value = 0.0
        if isinstance(event, EquityMarked):
            value = self._engine.account.gross
        elif isinstance(event, BarDecided):
            made = self._engine.account.desks[event.agent].made
            value = 0.0 if made is None else made.duration_ns / 1e3
        if not self._noted:
            asyncio.get_running_loop().call_soon(self.flush)
        self._noted.append((event, value))

    def flush(self) -> None:
        """Hand on what was noted."""
        noted, self._noted = self._noted, []
        for event, value in noted:
            self._hand_on(event, value)

    def _hand_on(self, event: Event, value: float) -> None:
        is_warning = isinstance(event, _WARNINGS) or (
            isinstance(event, Reconciled) and bool(event.mismatches)
        )
        level = logging.WARNING if is_warning else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, type(event).__name__, extra={"event": fields_of(event)})
        if isinstance(event, EquityMarked):
            self._recorder.equity("", event.at_ns, event.equity, value)
        elif isinstance(event, BarDecided):
            exposure = sum(map(abs, event.target))
            self._recorder.equity(event.agent, event.at_ns, event.equity, exposure)
            self._recorder.metric("decision_us", event.at_ns, value)
            self._recorder.metric("reward", event.at_ns, event.reward)
