"""What happened, into the logs and the metrics: a listener that never waits."""

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
    """Called with each event once it is applied."""

    def __init__(self, engine: "Engine", recorder: Recorder) -> None:
        self._engine = engine
        self._recorder = recorder

    def __call__(self, event: Event) -> None:
        """Hand an event on."""
        is_warning = isinstance(event, _WARNINGS) or (
            isinstance(event, Reconciled) and bool(event.mismatches)
        )
        level = logging.WARNING if is_warning else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, type(event).__name__, extra={"event": fields_of(event)})
        if isinstance(event, EquityMarked):
            self._recorder.equity("", event.at_ns, event.equity, self._engine.account.gross)
        elif isinstance(event, BarDecided):
            self._decided(event)

    def _decided(self, event: BarDecided) -> None:
        engine, recorder = self._engine, self._recorder
        recorder.equity(event.agent, event.at_ns, event.equity, sum(map(abs, event.target)))
        made = engine.account.desks[event.agent].made
        if made is not None:
            recorder.metric("decision_us", event.at_ns, made.duration_ns / 1e3)
        recorder.metric("reward", event.at_ns, event.reward)
