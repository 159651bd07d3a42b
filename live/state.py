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

import dataclasses
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
    Leg,
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
from jaxtrade.live.holdings import UNHEARD, Execution, Holdings, execution_of
from jaxtrade.live.orders import (
    NONE,
    Order,
    OrderStatus,
    advance,
    begin,
    is_newer,
)
from jaxtrade.live.records import AgentRecord, Marks, Position
from jaxtrade.live.trades import ClosedTrade, Trades
from jaxtrade.specs import JaxtradeError

DEPOSIT = "deposit"
"""The reason of a `CashMoved` from or to the outside; anything else moves within the account."""

KEPT_ORDERS = 1_000
KEPT_NS = 7 * 86_400 * 10**9
SWEEP_EVERY = 256
"""New orders between two looks for old ones."""

SEVERITY = (
    TradingState.ACTIVE,
    TradingState.REDUCING,
    TradingState.HALTED,
    TradingState.KILLED,
)


class State:
    """The fold; see the module. Fields are to be read, only `apply` changes them.

    orders: by cid, oldest first; outside: executions of orders not ours, by id; forgotten_ns: UTC
    up to which executions of orders not known are not booked; agents: by name; locks: (protection,
    symbol) to UTC ns until which it refuses; settings, pending_settings: in force, and from the
    next bar on; mismatches: of the last reconciliation; last_seq: events applied; order_texts:
    terminal orders as `state_text` wrote them, which is no part of the state.
    """

    def __init__(self) -> None:
        self.last_seq = 0
        self.run_id = ""
        self.epoch = 0
        self.orders: dict[str, Order] = {}
        self.outside: dict[str, Execution] = {}
        self.forgotten_ns = 0
        self.orders_seen = 0
        self.holdings = Holdings()
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
        self.order_texts: dict[str, tuple[Order, str]] = {}
        self._working: dict[str, Order] = {}
        self._order_of: dict[str, str] = {}

    def apply(self, event: Event) -> None:
        """Take in an event that is in the journal."""
        self.last_seq += 1
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)
        elif isinstance(event, OrderEvent):
            self._advance(event)

    def apply_all(self, events: Iterable[Event]) -> None:
        """Take in events, in this order."""
        for event in events:
            self.apply(event)

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

    @property
    def closed_trades(self) -> list[ClosedTrade]:
        """The newest round trips, oldest first."""
        return self.trades.closed

    def working_orders(self, *, symbol: str | None = None, agent: str | None = None) -> list[Order]:
        """Orders that are not terminal, of a symbol or an agent where one is given."""
        return [
            order
            for order in self._working.values()
            if (symbol is None or order.intent.symbol == symbol)
            and (agent is None or order.intent.agent == agent)
        ]

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
            for order in self._working.values()
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

    # --- orders and executions -----------------------------------------------------------------

    def _initialize(self, event: OrderInitialized) -> None:
        intent = event.intent
        if intent.cid in self.orders:
            return
        self.keep(begin(event))
        self.holdings.own(intent.symbol, intent.agent)
        self.orders_seen += 1
        if self.orders_seen % SWEEP_EVERY == 0:
            self._forget(event.at_ns)

    def _advance(self, event: OrderEvent) -> None:
        order = self.orders.get(event.cid)
        if order is None:
            return
        after = advance(order, event)
        if after is not order:
            self.keep(after)

    def order_of(self, event: OrderFilled | FeeReported) -> Order | None:
        """The order that an execution belongs to: it stays with the first that it was told of, and
        is found by its own id where it is told without ours.
        """
        cid = self._order_of.get(event.execution_id, event.cid)
        return self.orders.get(cid)

    def _execution(self, event: OrderFilled | FeeReported) -> None:
        order = self.order_of(event)
        if order is None:
            self._execution_outside(event)
            return
        outside = self.outside.pop(event.execution_id, None)
        if outside is not None:  # it was told before without our id
            self.holdings.change(outside.agent, Leg.CLOSE, outside, UNHEARD)
            for told in (outside.fill, outside.reported):
                if told is not None:
                    self._execution_of(order.cid, told)
        self._execution_of(order.cid, event)

    def _execution_of(self, cid: str, event: OrderFilled | FeeReported) -> None:
        if event.cid != cid:
            event = dataclasses.replace(event, cid=cid)
        order, name = self.orders[cid], event.execution_id
        after = advance(order, event)
        if after is not order:
            self.keep(after)
            self._order_of[name] = cid
            before, now = execution_of(order, name), execution_of(after, name)
            self.holdings.change(order.intent.agent, order.intent.leg, before, now)

    def _execution_outside(self, event: OrderFilled | FeeReported) -> None:
        if event.at_ns <= self.forgotten_ns:
            return
        before = self.outside.get(event.execution_id, UNHEARD)
        if isinstance(event, FeeReported):
            if not is_newer(before.reported, event):
                return
            after = before._replace(reported=event)
        else:
            if not is_newer(before.fill, event):
                return
            after = before._replace(fill=event)
            if before.fill is None:
                self.holdings.own(event.symbol, "")
                after = after._replace(agent=self.owner(event.symbol))
        self.outside[event.execution_id] = after
        self.holdings.change(after.agent, Leg.CLOSE, before, after)

    def keep(self, order: Order) -> None:
        """Put an order in its place; for `apply` and for reading a state."""
        self.orders[order.cid] = order
        if order.is_working:
            self._working[order.cid] = order
        else:
            self._working.pop(order.cid, None)

    def load_order(self, order: Order) -> None:
        """Take an order that was kept; for reading a state."""
        self.keep(order)
        for name in (*order.fills, *order.fees):
            self._order_of[name] = order.cid

    def _forget(self, now_ns: int) -> None:
        """Drop what is terminal, old and beyond the newest."""
        limit = now_ns - KEPT_NS
        spare = len(self.orders) - KEPT_ORDERS
        old: list[Order] = []
        for order in self.orders.values():
            if len(old) >= spare or order.created_ns > limit:
                break
            if order.is_terminal and order.updated_ns <= limit:
                old.append(order)
        for order in old:
            self.forgotten_ns = max(self.forgotten_ns, order.updated_ns)
            del self.orders[order.cid]
            self.order_texts.pop(order.cid, None)
            for name in (*order.fills, *order.fees):
                del self._order_of[name]
        for name, told in list(self.outside.items()):
            if told.at_ns <= self.forgotten_ns:
                del self.outside[name]

    # --- positions and money -------------------------------------------------------------------

    def _adjust(self, event: PositionAdjusted) -> None:
        self.holdings.adjust(event)

    def _cash(self, event: CashMoved) -> None:
        self.holdings.book(event.agent).apply(event)
        if event.reason == DEPOSIT and self.marks.day >= 0:
            amount = float(event.amount)
            self.marks.equity += amount
            self.marks.peak_equity += amount
            self.marks.day_start_equity += amount

    def _mark(self, event: EquityMarked) -> None:
        marks = self.marks
        if event.day != marks.day:
            marks.day_start_equity = event.equity if marks.day < 0 else marks.equity
            marks.day = event.day
        marks.equity = event.equity
        marks.peak_equity = max(marks.peak_equity, event.equity)

    # --- agents, states, settings --------------------------------------------------------------

    def _agent(self, name: str) -> AgentRecord:
        record = self.agents.get(name)
        if record is None:
            record = self.agents[name] = AgentRecord()
        return record

    def _decided(self, event: BarDecided) -> None:
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
        self.marks.peak_equity = self.marks.day_start_equity = self.marks.equity

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
        if not self.forgotten_ns:
            # What was traded before the first start is in the positions of the first snapshot.
            self.forgotten_ns = event.at_ns - 1

    def _connected(self, event: BrokerConnected) -> None:
        self.epoch = max(self.epoch, event.epoch)


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    OrderInitialized: State._initialize,
    OrderFilled: State._execution,
    FeeReported: State._execution,
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
