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
from jaxtrade.live.orders import (
    EXACT,
    NONE,
    Order,
    OrderStatus,
    advance,
    begin,
    effective_fee,
    is_newer,
    signed,
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

    orders: by cid, oldest first; external: executions of orders not ours, by id; positions: by
    symbol; forgotten_ns: UTC up to which executions of orders not known are not booked; agents,
    books: by name; locks: (protection, symbol) to UTC ns until which it refuses;
    settings, pending_settings: in force, and from the next bar on; mismatches: of the last
    reconciliation; last_seq: events applied; order_texts: terminal orders as `state_text` wrote
    them, which is no part of the state.
    """

    def __init__(self) -> None:
        self.last_seq = 0
        self.run_id = ""
        self.epoch = 0
        self.orders: dict[str, Order] = {}
        self.external: dict[str, OrderFilled] = {}
        self.external_fees: dict[str, FeeReported] = {}
        self.forgotten_ns = 0
        self.orders_seen = 0
        self.positions: dict[str, Position] = {}
        self.trades = Trades()
        self.agents: dict[str, AgentRecord] = {}
        self.books: dict[str, Book] = {}
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
        position = self.positions.get(symbol)
        return "" if position is None else position.owner

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
        self._own(intent.symbol, intent.agent)
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

    def _fill(self, event: OrderFilled) -> None:
        order = self.orders.get(event.cid)
        if order is None:
            self._fill_external(event)
            return
        after = advance(order, event)
        if after is order:
            return
        self.keep(after)
        known = order.fills.get(event.execution_id)
        fee = EXACT.subtract(
            after.fee_of(event.execution_id),
            order.fee_of(event.execution_id),
        )
        self._book(order.intent.agent, order.intent.leg, known, event, fee)

    def _fill_external(self, event: OrderFilled) -> None:
        known = self.external.get(event.execution_id)
        if event.at_ns <= self.forgotten_ns or not is_newer(known, event):
            return
        reported = self.external_fees.get(event.execution_id)
        fee = EXACT.subtract(effective_fee(event, reported), effective_fee(known, reported))
        self.external[event.execution_id] = event
        self._own(event.symbol, "")
        self._book(self.owner(event.symbol), Leg.CLOSE, known, event, fee)

    def _fee(self, event: FeeReported) -> None:
        order = self.orders.get(event.cid)
        if order is not None:
            after = advance(order, event)
            if after is order:
                return
            self.keep(after)
            before, now = order.fee_of(event.execution_id), after.fee_of(event.execution_id)
            agent, symbol = order.intent.agent, order.intent.symbol
        else:
            known = self.external_fees.get(event.execution_id)
            if event.at_ns <= self.forgotten_ns or not is_newer(known, event):
                return
            self.external_fees[event.execution_id] = event
            fill = self.external.get(event.execution_id)
            if fill is None:
                return
            before, now = effective_fee(fill, known), effective_fee(fill, event)
            agent, symbol = self.owner(fill.symbol), fill.symbol
        self._pay(agent, symbol, EXACT.subtract(now, before))

    def _book(
        self, agent: str, leg: Leg, known: OrderFilled | None, event: OrderFilled, fee: Decimal
    ) -> None:
        """Move position, book and trade by an execution, or from what was told of it to what is."""
        symbol, quantity = event.symbol, signed(event)
        book = self._book_of(agent)
        if known is None:
            self._move(symbol, quantity)
            if quantity:
                book.fill(symbol, quantity, event.price)
                self.trades.fill(agent, symbol, quantity, event.price, leg, event.at_ns)
        else:
            wrong = signed(known)
            more = EXACT.subtract(quantity, wrong)
            self._move(symbol, more)
            book.correct(symbol, (wrong, known.price), (quantity, event.price))
            amount = EXACT.subtract(
                EXACT.multiply(quantity, event.price), EXACT.multiply(wrong, known.price)
            )
            self.trades.correct(agent, symbol, more, amount, leg, event.at_ns)
        self._pay(agent, symbol, fee)

    def _pay(self, agent: str, symbol: str, fee: Decimal) -> None:
        if fee:
            self._book_of(agent).pay(fee)
            self.trades.pay(agent, symbol, fee)

    def keep(self, order: Order) -> None:
        """Put an order in its place; for `apply` and for reading a state."""
        self.orders[order.cid] = order
        if order.is_working:
            self._working[order.cid] = order
        else:
            self._working.pop(order.cid, None)

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
        for known in (self.external, self.external_fees):
            for execution_id in [
                key for key, told in known.items() if told.at_ns <= self.forgotten_ns
            ]:
                del known[execution_id]

    # --- positions and money -------------------------------------------------------------------

    def _own(self, symbol: str, agent: str) -> None:
        """A symbol belongs to who trades it; someone who trades by hand takes nothing away."""
        position = self.positions.get(symbol)
        if position is None:
            self.positions[symbol] = Position(owner=agent)
        elif agent and position.owner != agent:
            self.positions[symbol] = Position(owner=agent, quantity=position.quantity)

    def _move(self, symbol: str, quantity: Decimal) -> None:
        position = self.positions.get(symbol)
        if position is not None:
            quantity = EXACT.add(position.quantity, quantity)
        owner = "" if position is None else position.owner
        self.positions[symbol] = Position(owner=owner, quantity=quantity)

    def _adjust(self, event: PositionAdjusted) -> None:
        self._own(event.symbol, event.owner)
        self._move(event.symbol, event.quantity)
        self._book_of(event.owner).apply(event)

    def _book_of(self, agent: str) -> Book:
        book = self.books.get(agent)
        if book is None:
            book = self.books[agent] = Book()
        return book

    def _cash(self, event: CashMoved) -> None:
        self._book_of(event.agent).apply(event)
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
        self._book_of(event.agent).apply(event)

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
    OrderFilled: State._fill,
    FeeReported: State._fee,
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
