"""What is known of one order: a fold of events that comes out the same in any order of theirs.

    order = begin(OrderInitialized(...))          # the intent is in the journal
    order = advance(order, OrderSubmitted(...))   # handed over; and so on with all that is heard

An order keeps, of each kind of statement, the one that counts, and every execution by its id in the
highest revision; status and quantity follow from these. So it does not matter whether a fill comes
before or after the cancellation that it raced, how often it is told or when: quantities come only
from fills, a terminal status is soft (a late fill is booked), and UNKNOWN is left on evidence only,
whichever came first. `advance` returns the very same object where there was nothing new.

Of two statements that both end an order the stronger counts: REJECTED, CANCELED, EXPIRED, LOST.
LOST is a conclusion of ours, so any sign of the order at the broker overrules it.
"""

import base64
import dataclasses
import enum
import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from jaxtrade.live.events import (
    FeeReported,
    OrderAccepted,
    OrderCanceled,
    OrderCancelRejected,
    OrderEvent,
    OrderExpired,
    OrderFilled,
    OrderInitialized,
    OrderIntent,
    OrderLost,
    OrderPendingCancel,
    OrderRejected,
    OrderSubmitted,
    OrderUnknown,
)
from jaxtrade.live.executions import EXACT, NONE, effective_fee, is_newer

CID_LENGTH = 16


class OrderStatus(enum.StrEnum):
    """Where an order stands.

    SUBMITTING: in the journal, not known to be sent; SUBMITTED: sent, not answered; UNKNOWN: it may
    or may not be at the broker; ACCEPTED, PARTIALLY_FILLED: it works there; the rest work no more.
    """

    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    LOST = "lost"


TERMINAL = frozenset(
    {
        OrderStatus.FILLED,
        OrderStatus.CANCELED,
        OrderStatus.REJECTED,
        OrderStatus.EXPIRED,
        OrderStatus.LOST,
    }
)

Ending = OrderLost | OrderExpired | OrderCanceled | OrderRejected

_ENDINGS: dict[type, tuple[int, OrderStatus]] = {
    OrderLost: (0, OrderStatus.LOST),
    OrderExpired: (1, OrderStatus.EXPIRED),
    OrderCanceled: (2, OrderStatus.CANCELED),
    OrderRejected: (3, OrderStatus.REJECTED),
}

_SLOTS: dict[type, str] = {
    OrderSubmitted: "submitted",
    OrderAccepted: "accepted",
    OrderUnknown: "unknown",
    OrderPendingCancel: "canceling",
    OrderCancelRejected: "cancel_rejected",
    **dict.fromkeys(_ENDINGS, "ended"),
}
"""Where an order keeps a statement of each kind."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order and all that counts of what was heard of it; see the module for how it changes.

    created_ns: UTC at which it was journalled; fills, fees: executions and commissions told apart
    from them, by execution id; filled: units, of the fills; status: what follows from the rest.
    """

    intent: OrderIntent
    created_ns: int
    submitted: OrderSubmitted | None = None
    accepted: OrderAccepted | None = None
    unknown: OrderUnknown | None = None
    canceling: OrderPendingCancel | None = None
    cancel_rejected: OrderCancelRejected | None = None
    ended: Ending | None = None
    fills: Mapping[str, OrderFilled] = dataclasses.field(default_factory=dict)
    fees: Mapping[str, FeeReported] = dataclasses.field(default_factory=dict)
    filled: Decimal = dataclasses.field(init=False)
    status: OrderStatus = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        filled = NONE
        for fill in self.fills.values():
            filled = EXACT.add(filled, fill.quantity)
        object.__setattr__(self, "filled", filled)
        object.__setattr__(self, "status", _status(self))

    @property
    def cid(self) -> str:
        """Our id of it."""
        return self.intent.cid

    @property
    def is_terminal(self) -> bool:
        """Whether it works no more; what is filled may still change."""
        return self.status in TERMINAL

    @property
    def is_working(self) -> bool:
        """Whether it can still trade, as far as is known: everything that is not terminal."""
        return self.status not in TERMINAL

    @property
    def is_answered(self) -> bool:
        """Whether the broker ever showed that it has, or had, the order."""
        return self.accepted is not None or bool(self.fills) or self.is_terminal

    @property
    def is_canceling(self) -> bool:
        """Whether a cancel was sent that is not answered yet."""
        if self.canceling is None or self.is_terminal:
            return False
        refused = self.cancel_rejected
        return refused is None or refused.at_ns < self.canceling.at_ns

    @property
    def is_doubtful(self) -> bool:
        """Whether it is not known how it stands: UNKNOWN, or said to be so of an order that works
        (a cancel that stays unanswered) since it was last heard of.
        """
        if self.unknown is None or self.is_terminal:
            return False
        heard = [fill.at_ns for fill in self.fills.values()]
        if self.accepted is not None:
            heard.append(self.accepted.at_ns)
        return not heard or max(heard) < self.unknown.at_ns

    @property
    def remaining(self) -> Decimal:
        """Units that are not filled, never below 0; whether these still work, the status says."""
        return max(EXACT.subtract(self.intent.quantity, self.filled), NONE)

    @property
    def average_price(self) -> Decimal | None:
        """Mean price of the fills, 28 digits; None where there are none."""
        if not self.filled:
            return None
        amount = NONE
        for fill in self.fills.values():
            amount = EXACT.fma(fill.quantity, fill.price, amount)
        return amount / self.filled

    @property
    def fee(self) -> Decimal:
        """What the fills have cost, in the account's currency."""
        total = NONE
        for execution_id in self.fills:
            total = EXACT.add(total, self.fee_of(execution_id))
        return total

    @property
    def broker_id(self) -> str:
        """The broker's id of it, "" before one is known."""
        return "" if self.accepted is None else self.accepted.broker_id

    @property
    def updated_ns(self) -> int:
        """UTC of the newest statement that counts."""
        newest = self.created_ns
        for event in (
            self.submitted,
            self.accepted,
            self.unknown,
            self.canceling,
            self.cancel_rejected,
            self.ended,
            *self.fills.values(),
            *self.fees.values(),
        ):
            if event is not None and event.at_ns > newest:
                newest = event.at_ns
        return newest

    @property
    def reason(self) -> str:
        """Why it ended, where anyone said so."""
        return "" if isinstance(self.ended, OrderExpired | None) else self.ended.reason

    def fee_of(self, execution_id: str) -> Decimal:
        """The fee of one execution; see `effective_fee`."""
        return effective_fee(self.fills.get(execution_id), self.fees.get(execution_id))

    def events(self) -> list[OrderEvent]:
        """The statements that count, in a fixed order; folded again they give this order."""
        single = (getattr(self, slot) for slot in dict.fromkeys(_SLOTS.values()))
        return [
            *(event for event in single if event is not None),
            *(self.fills[key] for key in sorted(self.fills)),
            *(self.fees[key] for key in sorted(self.fees)),
        ]


_PLACES = tuple(field.name for field in dataclasses.fields(Order) if field.init)


def begin(event: OrderInitialized) -> Order:
    """The order of an intent that is in the journal."""
    return Order(intent=event.intent, created_ns=event.at_ns)


def advance(order: Order, event: OrderEvent) -> Order:
    """The order after an event about it; the same object where the event says nothing new."""
    kind = type(event)
    if isinstance(event, OrderFilled):
        if not is_newer(order.fills.get(event.execution_id), event):
            return order
        return _with(order, "fills", {**order.fills, event.execution_id: event})
    if isinstance(event, FeeReported):
        if not is_newer(order.fees.get(event.execution_id), event):
            return order
        return _with(order, "fees", {**order.fees, event.execution_id: event})
    slot = _SLOTS.get(kind)
    if slot is None or not _counts_more(getattr(order, slot), event):
        return order
    return _with(order, slot, event)


def decision_key(agent: str, symbol: str, start_s: int, leg: str, attempt: int = 0) -> str:
    """What makes an order the only one of its kind: whose, of which bar, for what, which try."""
    return f"{agent}/{symbol}/{start_s}/{leg}/{attempt}"


def make_cid(key: str) -> str:
    """Our id of the order that a decision leads to: 16 characters of A-Z and 2-7."""
    digest = hashlib.sha256(key.encode()).digest()
    return base64.b32encode(digest).decode()[:CID_LENGTH]


def _with(order: Order, slot: str, value: Any) -> Order:
    """An order with another value in one place; `dataclasses.replace` would take twice as long."""
    places = {name: getattr(order, name) for name in _PLACES}
    places[slot] = value
    return Order(**places)


def _counts_more(known: OrderEvent | None, event: OrderEvent) -> bool:
    return known is None or _strength(event) > _strength(known)


def _strength(event: OrderEvent) -> tuple[Any, ...]:
    """By kind where several share a place, then by time, then by text: the same in any order."""
    if isinstance(event, OrderAccepted):
        return bool(event.broker_id), event.at_ns, event.broker_id
    rank = _ENDINGS.get(type(event), (0,))[0]
    return rank, event.at_ns, getattr(event, "reason", "")


def _status(order: Order) -> OrderStatus:
    if order.filled and order.filled >= order.intent.quantity:
        return OrderStatus.FILLED
    ended = None if order.ended is None else _ENDINGS[type(order.ended)][1]
    if ended is not None and ended is not OrderStatus.LOST:
        return ended
    if order.filled:
        return OrderStatus.PARTIALLY_FILLED
    if order.accepted is not None or order.fills:
        return OrderStatus.ACCEPTED
    if ended is not None:
        return ended
    if order.unknown is not None:
        return OrderStatus.UNKNOWN
    return OrderStatus.SUBMITTING if order.submitted is None else OrderStatus.SUBMITTED
