"""Everything the engine knows, as a fold of journalled events.

    journal.record([event], durable=True)
    state.apply(event)                       # nothing else ever changes a state

`apply` works in place, without IO and without a clock, so reading the journal again leads to the
same state, of which `digest` tells. What is kept is bounded: terminal orders beyond the newest
1,000 that are older than 7 days are dropped, by the time of events; a fill of so old an order that
is told again is not booked a second time.

Fills of orders that were never seen (someone traded by hand) move the position and are booked for
the agent that owns the symbol, or for the agent "" where nobody does. The books of all agents and
the one of "" are together the account.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from jaxtrade.live import state_text
from jaxtrade.live.book import Book
from jaxtrade.live.events import (
    AgentPaused,
    AgentResumed,
    BarDecided,
    BrokerConnected,
    CashMoved,
    EngineStarted,
    EquityMarked,
    Event,
    FeeReported,
    ModelSwapped,
    OrderEvent,
    OrderFilled,
    OrderInitialized,
    OrderUnknown,
    PositionAdjusted,
    ProtectionTripped,
    Rearmed,
    Reconciled,
    SettingsChanged,
    TradingState,
    TradingStateChanged,
)
from jaxtrade.live.executions import NONE
from jaxtrade.live.holdings import Holdings
from jaxtrade.live.orders import Order, OrderStatus
from jaxtrade.live.records import AgentRecord, Marks, Position
from jaxtrade.live.register import Register
from jaxtrade.live.trades import Trades
from jaxtrade.specs import JaxtradeError

DEPOSIT = "deposit"
"""The reason of a `CashMoved` from or to the outside; anything else moves within the account."""

SEVERITY = (
    TradingState.ACTIVE,
    TradingState.REDUCING,
    TradingState.HALTED,
    TradingState.KILLED,
)


class State:
    """The fold; see the module. Fields are to be read, only `apply` changes them.

    register, holdings: orders and executions, and what they have moved; agents: by name; locks:
    (protection, symbol) to UTC ns until which it refuses; settings, pending_settings: in force, and
    from the next bar on; mismatches: of the last reconciliation; was_closed: a kill that closed
    positions was lifted, and nothing was decided since; last_seq: events applied.
    """

    def __init__(self) -> None:
        self.last_seq = 0
        self.run_id = ""
        self.epoch = 0
        self.holdings = Holdings()
        self.register = Register(self.holdings)
        self.agents: dict[str, AgentRecord] = {}
        self.trading = TradingState.ACTIVE
        self.trading_reason = ""
        self.is_latched = False
        self.marks = Marks()
        self.locks: dict[tuple[str, str], int] = {}
        self.settings_version = 0
        self.settings: dict[str, Any] = {}
        self.pending_settings: dict[str, Any] = {}
        self.mismatches: tuple[str, ...] = ()
        self.was_closed = False

    def apply(self, event: Event) -> None:
        """Take in an event that is in the journal."""
        self.last_seq += 1
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)
        elif isinstance(event, OrderEvent):
            self.register.advance(event)

    def apply_all(self, events: Iterable[Event]) -> None:
        """Take in events, in this order."""
        for event in events:
            self.apply(event)

    @property
    def orders(self) -> dict[str, Order]:
        """By cid, oldest first; those that are long over are dropped."""
        return self.register.orders

    @property
    def positions(self) -> dict[str, Position]:
        """By symbol."""
        return self.holdings.positions

    @property
    def books(self) -> dict[str, Book]:
        """By agent; the one of "" holds what is nobody's."""
        return self.holdings.books

    @property
    def trades(self) -> Trades:
        """Round trips, open and closed."""
        return self.holdings.trades

    def working_orders(self, *, symbol: str | None = None, agent: str | None = None) -> list[Order]:
        """Orders that are not terminal, of a symbol or an agent where one is given."""
        return self.register.working(symbol, agent)

    def quantity(self, symbol: str) -> Decimal:
        """What is held of a symbol, signed units."""
        position = self.positions.get(symbol)
        return NONE if position is None else position.quantity

    def owner(self, symbol: str) -> str:
        """The agent that a symbol's position belongs to, "" for nobody."""
        return self.holdings.owner(symbol)

    def unanswered(self, at_ns: int, reason: str) -> list[OrderUnknown]:
        """What is to be journalled when nothing is known any more, at a disconnect or a start: the
        orders that were sent, or may have been, and not answered.
        """
        return [
            OrderUnknown(at_ns=at_ns, cid=order.cid, reason=reason)
            for order in self.working_orders()
            if order.status in (OrderStatus.SUBMITTING, OrderStatus.SUBMITTED)
        ]

    def to_text(self) -> str:
        """The state as canonical JSON; equal states that lived and were read give equal text."""
        return state_text.write(self)

    def to_json(self) -> dict[str, Any]:
        """The state as plain values."""
        tree: dict[str, Any] = json.loads(self.to_text())
        return tree

    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "State":
        """The state that `to_json` told.

        Raises:
            JaxtradeError: the tree is not one.
        """
        state = cls()
        try:
            state_text.load(state, tree)
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise JaxtradeError(f"a state cannot be read: {error!r}") from error
        return state

    # --- positions and money -------------------------------------------------------------------

    def _adjust(self, event: PositionAdjusted) -> None:
        self.holdings.adjust(event)

    def _cash(self, event: CashMoved) -> None:
        self.holdings.book(event.agent).apply(event)
        if event.reason == DEPOSIT:
            self.marks.deposit(float(event.amount))

    def _mark(self, event: EquityMarked) -> None:
        self.marks.mark(event.equity, event.day)

    # --- agents, states, settings --------------------------------------------------------------

    def _agent(self, name: str) -> AgentRecord:
        record = self.agents.get(name)
        if record is None:
            record = self.agents[name] = AgentRecord()
        return record

    def _decided(self, event: BarDecided) -> None:
        self.was_closed = False
        record = self._agent(event.agent)
        record.last_start_s = max(record.last_start_s, event.start_s)
        self.holdings.book(event.agent).apply(event)

    def _paused(self, event: AgentPaused) -> None:
        self._agent(event.agent).paused = event.reason or "paused"

    def _resumed(self, event: AgentResumed) -> None:
        self._agent(event.agent).paused = ""

    def _swapped(self, event: ModelSwapped) -> None:
        record = self._agent(event.agent)
        record.model, record.sha256 = event.model, event.sha256

    def _trading(self, event: TradingStateChanged) -> None:
        """A latched state is left for a more severe one only."""
        step = SEVERITY.index(event.state) - SEVERITY.index(self.trading)
        if self.is_latched and (step < 0 or (step == 0 and not event.is_latched)):
            return
        self.trading, self.trading_reason = event.state, event.reason
        self.is_latched = self.is_latched or event.is_latched

    def _rearmed(self, event: Rearmed) -> None:
        self.trading, self.trading_reason = TradingState.ACTIVE, event.reason
        self.is_latched = False
        self.was_closed = event.was_closed
        self.marks.restart()

    def _tripped(self, event: ProtectionTripped) -> None:
        key = event.protection, event.symbol
        until_ns = max(self.locks.get(key, 0), event.until_ns)
        self.locks = {
            other: until for other, until in self.locks.items() if until > event.at_ns
        } | {key: until_ns}

    def _set(self, event: SettingsChanged) -> None:
        self.settings_version = max(self.settings_version, event.version)
        if event.is_applied:
            self.settings.update(event.settings)
            for key in event.settings:
                self.pending_settings.pop(key, None)
        else:
            self.pending_settings.update(event.settings)

    def _reconciled(self, event: Reconciled) -> None:
        self.mismatches = event.mismatches

    def _started(self, event: EngineStarted) -> None:
        self.run_id = event.run_id
        if not self.register.forgotten_ns:
            # What was traded before the first start is in the positions of the first snapshot.
            self.register.forgotten_ns = event.at_ns - 1

    def _connected(self, event: BrokerConnected) -> None:
        self.epoch = max(self.epoch, event.epoch)


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    OrderInitialized: lambda state, event: state.register.initialize(event),
    OrderFilled: lambda state, event: state.register.execution(event),
    FeeReported: lambda state, event: state.register.execution(event),
    PositionAdjusted: State._adjust,
    CashMoved: State._cash,
    EquityMarked: State._mark,
    BarDecided: State._decided,
    AgentPaused: State._paused,
    AgentResumed: State._resumed,
    ModelSwapped: State._swapped,
    TradingStateChanged: State._trading,
    Rearmed: State._rearmed,
    ProtectionTripped: State._tripped,
    SettingsChanged: State._set,
    Reconciled: State._reconciled,
    EngineStarted: State._started,
    BrokerConnected: State._connected,
}
