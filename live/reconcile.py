"""What the state believes beside what the broker says: pure, and nothing is settled on a guess.

    memory = Memory()
    findings = compare(state, snapshot, now_ns=..., steady_ns=..., memory=memory)
    journal.record(findings.events, durable=True); state.apply_all(findings.events)

The broker is the truth for quantities, the journal for ownership and intent. Executions that are
not booked are booked; an order is UNKNOWN until it is found open or closed. A snapshot that is not
complete may show that something is there, never that it is not.

What is read off an absence, or off a difference, has to be seen in at least two complete snapshots:
an order that is in neither of two that are 5 s apart, while the position is explained, is LOST
(CANCELED, where the broker once had it); a position that differs by the same quantity in two that
are 1 s apart is adjusted. The memory holds what was seen once; `Findings.again_s` says when to look
again. Snapshots that were taken while an event was under way thus settle nothing.
"""

import dataclasses
import enum
from collections.abc import Mapping
from decimal import Decimal

from jaxtrade.live.brokers.base import ClosedOrder, OpenOrder, Snapshot
from jaxtrade.live.clock import SECOND_NS
from jaxtrade.live.events import (
    Event,
    OrderAccepted,
    OrderCanceled,
    OrderEvent,
    OrderExpired,
    OrderFilled,
    OrderLost,
    OrderRejected,
    PositionAdjusted,
    Reconciled,
    TradingState,
    TradingStateChanged,
)
from jaxtrade.live.executions import EXACT, NONE, is_sane, signed
from jaxtrade.live.orders import Order, OrderStatus, advance
from jaxtrade.live.state import State

ABSENT_NS = 5 * SECOND_NS
"""Between the snapshots that prove an order absent."""

DIFFERENT_NS = SECOND_NS
"""Between the snapshots that prove a position different."""

_IN_FLIGHT = (OrderStatus.SUBMITTING, OrderStatus.SUBMITTED)


class External(enum.StrEnum):
    """What becomes of a position that came from outside.

    ADOPT: it is its symbol's agent's, and the next decision starts from it; FLATTEN: it is traded
    away at once; HALT: trading halts, until a person has looked. It is booked, and told, in every
    case.
    """

    ADOPT = "adopt"
    FLATTEN = "flatten"
    HALT = "halt"


@dataclasses.dataclass(slots=True)
class Memory:
    """What was seen and is not proved yet: by cid, since when an order was absent; by symbol, what
    state and broker held, and since when; by cid, since when an order was open here or there only.
    All by the steady clock, ns.
    """

    absent: dict[str, int] = dataclasses.field(default_factory=dict)
    different: dict[str, tuple[Decimal, Decimal, int]] = dataclasses.field(default_factory=dict)
    revived: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What follows from a comparison.

    events: to be journalled and applied, `Reconciled` the last; mismatches: what is proved not to
    agree, one line each; pending: what may be, likewise; orphans: orders that work at the broker
    and are not ours to keep, to be cancelled; outside: symbols in which somebody else has traded;
    again_s: when to look again, None for whenever it is due anyway.
    """

    events: tuple[Event, ...]
    mismatches: tuple[str, ...]
    pending: tuple[str, ...]
    orphans: tuple[OpenOrder, ...]
    outside: tuple[str, ...]
    again_s: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
    """How to compare.

    external: what becomes of positions from outside; steps: quantity step by symbol, of which half
    is no difference; owners: agents by symbol, as set up; prices: last prices by symbol.
    """

    external: External = External.ADOPT
    steps: Mapping[str, Decimal] = dataclasses.field(default_factory=dict)
    owners: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prices: Mapping[str, float] = dataclasses.field(default_factory=dict)


def compare(
    state: State,
    snapshot: Snapshot,
    *,
    now_ns: int,
    steady_ns: int,
    memory: Memory,
    terms: Terms | None = None,
) -> Findings:
    """Compare state and broker; see the module. Changes `memory`, not the state."""
    work = _Comparison(state, _sane(snapshot), now_ns, steady_ns, memory, terms or Terms())
    work.fills()
    differences = work.differences() if work.snapshot.is_complete else {}
    work.orders(differences)
    work.strangers()
    if work.snapshot.is_complete:
        work.positions(differences)
    return work.findings()


def held_by(snapshot: Snapshot) -> dict[str, Decimal]:
    """Signed units by symbol; several positions of one, where an account hedges, added up."""
    held: dict[str, Decimal] = {}
    for position in _sane(snapshot).positions:
        held[position.symbol] = EXACT.add(held.get(position.symbol, NONE), position.quantity)
    return held


class _Comparison:
    """One comparison on its way; the parts are called in the order of `compare`."""

    def __init__(
        self,
        state: State,
        snapshot: Snapshot,
        now_ns: int,
        steady_ns: int,
        memory: Memory,
        terms: Terms,
    ) -> None:
        self.state, self.snapshot, self.memory, self.terms = state, snapshot, memory, terms
        self.now_ns, self.steady_ns = now_ns, steady_ns
        self.open = {order.cid: order for order in snapshot.open_orders if order.cid}
        self.closed = {order.cid: order for order in snapshot.closed_orders if order.cid}
        self.after: dict[str, Order] = {}
        self.moved: dict[str, Decimal] = {}
        self.events: list[Event] = []
        self.mismatches: list[str] = []
        self.pending: list[str] = []
        self.orphans: list[OpenOrder] = []
        self.outside: dict[str, None] = {}
        self.waits_ns: list[int] = []

    def fills(self) -> None:
        """Executions that are not booked yet, or not in their newest revision."""
        for fill in self.snapshot.fills:
            order, outside = (
                self.state.register.order_of(fill),
                self.state.register.outside.get(fill.execution_id),
            )
            if order is None and fill.at_ns <= self.state.register.forgotten_ns:
                continue
            known = outside.fill if order is None and outside is not None else None
            if order is not None:
                known = order.fills.get(fill.execution_id)
            if known is not None and known.revision >= fill.revision:
                continue
            self.events.append(fill)
            self._see_fill(fill, order, known or (outside.fill if outside is not None else None))

    def _see_fill(self, fill: OrderFilled, order: Order | None, booked: OrderFilled | None) -> None:
        more = EXACT.subtract(signed(fill), NONE if booked is None else signed(booked))
        self._move(fill.symbol, more)
        if order is not None:
            self.after[order.cid] = advance(self._order(order), fill)
            return
        self.outside[fill.symbol] = None
        self.mismatches.append(
            f"{fill.symbol}: {fill.side} {fill.quantity} at {fill.price} was traded from outside "
            f"(execution {fill.execution_id})"
        )

    def differences(self) -> dict[str, Decimal]:
        """By symbol, what the broker holds beyond what will be booked, more than the tolerance."""
        held = held_by(self.snapshot)
        found = {}
        for symbol in sorted({*held, *self.state.positions}):
            booked = EXACT.add(self.state.quantity(symbol), self.moved.get(symbol, NONE))
            difference = EXACT.subtract(held.get(symbol, NONE), booked)
            if abs(difference) > self.terms.steps.get(symbol, NONE) / 2:
                found[symbol] = difference
        return found

    def orders(self, differences: Mapping[str, Decimal]) -> None:
        """What became of each of our orders that are not over."""
        absent: dict[str, int] = {}
        for order in map(self._order, self.state.working_orders()):
            cid = order.cid
            if order.is_terminal:
                continue
            if cid in self.open:
                self._found_open(order, self.open[cid])
            elif cid in self.closed:
                self._found_closed(order, self.closed[cid], absent)
            elif not self.snapshot.is_complete:
                if cid in self.memory.absent:
                    absent[cid] = self.memory.absent[cid]
            elif order.status not in _IN_FLIGHT:
                is_explained = order.intent.symbol not in differences
                if self._is_proved(cid, absent) and is_explained:
                    self._found_absent(order)
        self.memory.absent = absent

    def strangers(self) -> None:
        """Orders that work at the broker and are over, or were never, here."""
        revived: dict[str, int] = {}
        for found in self.snapshot.open_orders:
            order = self.state.orders.get(found.cid)
            if order is None:
                self._orphan(found, "is not ours")
                continue
            order = self._order(order)
            if order.status is OrderStatus.LOST:
                self._tell(OrderAccepted, order, broker_id=found.broker_id)
                self.mismatches.append(f"{found.symbol}: order {found.cid} was LOST and works")
            elif order.is_terminal:
                since = revived[found.cid] = self.memory.revived.get(found.cid, self.steady_ns)
                if self.steady_ns - since >= DIFFERENT_NS:
                    self._orphan(found, f"is {order.status} here")
                else:
                    self.waits_ns.append(DIFFERENT_NS)
        self.memory.revived = revived

    def positions(self, differences: Mapping[str, Decimal]) -> None:
        """Adjust what differs by the same quantity for long enough."""
        different = {}
        for symbol, difference in differences.items():
            booked = EXACT.add(self.state.quantity(symbol), self.moved.get(symbol, NONE))
            before = self.memory.different.get(symbol)
            is_same = before is not None and before[:2] == (booked, difference)
            since = before[2] if before is not None and is_same else self.steady_ns
            wait = self._wait(symbol)
            held = EXACT.add(booked, difference)
            line = f"{symbol}: the broker holds {held}, booked are {booked}"
            if self.steady_ns - since >= wait and is_same:
                self.mismatches.append(line)
                self._adjust(symbol, difference)
            else:
                different[symbol] = (booked, difference, since)
                self.pending.append(line)
                self.waits_ns.append(max(since + wait - self.steady_ns, 0))
        self.memory.different = different

    def findings(self) -> Findings:
        """What was found."""
        if self.outside and self.terms.external is External.HALT:
            self.events.append(
                TradingStateChanged(
                    at_ns=self.now_ns,
                    state=TradingState.HALTED,
                    reason=self.mismatches[0],
                    is_latched=True,
                )
            )
        self.events.append(
            Reconciled(
                at_ns=self.now_ns,
                mismatches=tuple(self.mismatches),
                is_complete=self.snapshot.is_complete,
            )
        )
        return Findings(
            events=tuple(self.events),
            mismatches=tuple(self.mismatches),
            pending=tuple(self.pending),
            orphans=tuple(self.orphans),
            outside=tuple(self.outside),
            again_s=min(self.waits_ns) / 1e9 if self.waits_ns else None,
        )

    # --- what each finding means ---------------------------------------------------------------

    def _found_open(self, order: Order, found: OpenOrder) -> None:
        if order.accepted is None or order.is_doubtful:
            self._tell(OrderAccepted, order, broker_id=found.broker_id)
        if found.filled > order.filled:
            self.pending.append(self._untold(order, found.filled))

    def _found_closed(self, order: Order, found: ClosedOrder, absent: dict[str, int]) -> None:
        if found.filled > order.filled:
            # The executions are still to come; they, not this, say what was filled.
            self.pending.append(self._untold(order, found.filled))
            if not self._is_proved(order.cid, absent):
                return
            self.mismatches.append(self._untold(order, found.filled))
        reason = found.reason or f"the broker says {found.status}"
        if found.status == "rejected":
            self._tell(OrderRejected, order, reason=reason)
        elif found.status == "expired":
            self._tell(OrderExpired, order)
        else:
            self._tell(OrderCanceled, order, reason=reason)

    def _found_absent(self, order: Order) -> None:
        line = "two complete snapshots do not know it"
        if order.is_answered:
            self._tell(OrderCanceled, order, reason=line)
            self.mismatches.append(f"{order.intent.symbol}: order {order.cid} worked, and is gone")
        else:
            self._tell(OrderLost, order, reason=line)

    def _is_proved(self, cid: str, absent: dict[str, int]) -> bool:
        """Whether something about an order was seen for long enough; else it is remembered."""
        since = absent[cid] = self.memory.absent.get(cid, self.steady_ns)
        if self.steady_ns - since >= ABSENT_NS:
            return True
        self.waits_ns.append(since + ABSENT_NS - self.steady_ns)
        return False

    def _adjust(self, symbol: str, difference: Decimal) -> None:
        owner = self.terms.owners.get(symbol) or self.state.owner(symbol)
        held = {position.symbol: position.price for position in self.snapshot.positions}
        price = self.terms.prices.get(symbol) or held.get(symbol, 0.0)
        self.outside[symbol] = None
        self.events.append(
            PositionAdjusted(
                at_ns=self.now_ns,
                owner=owner,
                symbol=symbol,
                quantity=difference,
                price=Decimal(str(price)),
                reason="the broker holds another quantity than was booked",
            )
        )

    def _orphan(self, found: OpenOrder, why: str) -> None:
        self.orphans.append(found)
        name = found.cid or found.broker_id
        self.mismatches.append(f"{found.symbol}: order {name} works at the broker and {why}")

    def _wait(self, symbol: str) -> int:
        """Longer where an order may explain a difference whose executions are not told yet."""
        is_open = any(order.is_doubtful for order in self.state.working_orders(symbol=symbol))
        return ABSENT_NS if is_open else DIFFERENT_NS

    def _untold(self, order: Order, filled: Decimal) -> str:
        return (
            f"{order.intent.symbol}: order {order.cid} is filled by {filled} at the broker, its "
            f"executions tell {order.filled}"
        )

    def _order(self, order: Order) -> Order:
        return self.after.get(order.cid, order)

    def _tell(self, kind: type[OrderEvent], order: Order, **fields: str) -> None:
        event = kind(at_ns=self.now_ns, cid=order.cid, **fields)
        self.after[order.cid] = advance(self._order(order), event)
        self.events.append(event)

    def _move(self, symbol: str, quantity: Decimal) -> None:
        self.moved[symbol] = EXACT.add(self.moved.get(symbol, NONE), quantity)


def _sane(snapshot: Snapshot) -> Snapshot:
    """The snapshot without what is no number; without that it is not complete."""
    positions = tuple(one for one in snapshot.positions if one.quantity.is_finite())
    opened = tuple(one for one in snapshot.open_orders if one.filled.is_finite())
    closed = tuple(one for one in snapshot.closed_orders if one.filled.is_finite())
    is_whole = (len(positions), len(opened), len(closed)) == (
        len(snapshot.positions),
        len(snapshot.open_orders),
        len(snapshot.closed_orders),
    )
    return dataclasses.replace(
        snapshot,
        positions=positions,
        open_orders=opened,
        closed_orders=closed,
        fills=tuple(filter(is_sane, snapshot.fills)),
        is_complete=snapshot.is_complete and is_whole,
    )
