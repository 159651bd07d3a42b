"""What happened, into the logs, the metrics and the file of a trainer, once orders are out.

Events are only noted when they are told. The rest is done when the loop has nothing more urgent,
for the thread that writes logs shares the interpreter with orders under way.
"""

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from jaxtrade.live.buffers import F32
from jaxtrade.live.desk import Desk
from jaxtrade.live.events import (
    AgentPaused,
    Bar,
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
    Tick,
    TradingStateChanged,
    fields_of,
)
from jaxtrade.live.online import StepLog, step_of
from jaxtrade.live.recorder import Recorder
from jaxtrade.live.rows import Row
from jaxtrade.specs import JaxtradeError

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
    """Told of each event once it is applied, of market data, and of decisions.

    Where an agent's setting `online` says so its decisions are kept in FOLDER/online/AGENT.jsonl.
    """

    def __init__(self, engine: "Engine", recorder: Recorder) -> None:
        """Raises JaxtradeError where a file for a trainer cannot be opened."""
        self._engine = engine
        self._recorder = recorder
        self._noted: list[tuple[Event, float]] = []
        account = engine.account
        folder = account.settings.path / "online"
        kept = [desk.name for desk in account.desks.values() if desk.settings.online]
        if kept:
            folder.mkdir(parents=True, exist_ok=True)
        self._steps = {name: StepLog(folder / f"{name}.jsonl") for name in kept}
        account.books.listeners.append(self)
        account.watch = self._watch
        engine.after_decision.append(self._explain)

    def close(self) -> None:
        """Hand on what is left, and make what was kept for trainers durable."""
        self.flush()
        for steps in self._steps.values():
            steps.close()

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

    def _watch(self, event: Tick | Bar) -> None:
        if isinstance(event, Tick):
            self._recorder.tick(event)
        else:
            self._recorder.bar(event)

    def _explain(self, desk: Desk, row: Row, vector: F32) -> None:
        """What a decision rests on, and the step that a trainer learns from."""
        made = desk.made
        if made is None or not made.inputs_hash:
            return
        extra = {"agent": desk.name, "start_s": made.start_s, "inputs": made.inputs_hash}
        log.info("Rationale", extra={**extra, "contributions": desk.decider.explain()})
        steps = self._steps.get(desk.name)
        if steps is None:
            return
        reward = math.log1p(float(vector[-1]))  # the return of the last bar is the vector's last
        policy = desk.decider.policy
        try:
            steps.append(step_of(row, made, vector, reward=reward, policy=policy))
        except JaxtradeError as error:  # a trainer may lack a bar; trading goes on
            log.warning("a step is lost", extra={"agent": desk.name, "why": str(error)})
