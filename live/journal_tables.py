"""The tables of orders and fills: for reading by others, in step with the events.

They are written in the transaction of the events that they follow from, and nothing is read back
from them, but that `orders` refuses a second order of one decision.
"""

import sqlite3
from collections.abc import Mapping
from typing import Any

from jaxtrade.live.events import FeeReported, OrderEvent, OrderFilled, OrderInitialized
from jaxtrade.live.journal_db import DuplicateDecisionError
from jaxtrade.live.orders import Order, advance, begin


def write_event(
    db: sqlite3.Connection,
    event: OrderEvent,
    orders: Mapping[str, Order],
    changed: dict[str, Order],
) -> None:
    """Write what an event says of an order or an execution; `changed` gets the order after it.

    orders: by cid, before the event, or after it already.
    """
    if isinstance(event, OrderInitialized):
        if event.cid in orders or event.cid in changed:
            raise DuplicateDecisionError(f"an order with the id {event.cid} was recorded before")
        order = changed[event.cid] = begin(event)
        db.execute(
            f"INSERT INTO orders VALUES ({'?, ' * 17}?)", (*_intent(order), *_standing(order))
        )
        return
    known = changed.get(event.cid) or orders.get(event.cid)
    if known is not None:
        order = changed[event.cid] = advance(known, event)
        if isinstance(event, OrderFilled | FeeReported):
            fill = order.fills.get(event.execution_id)
            if fill is not None:
                _write_fill(db, fill, str(order.fee_of(fill.execution_id)), "REPLACE")
    elif isinstance(event, OrderFilled):
        _write_fill(db, event, str(event.fee), "IGNORE" if event.revision == 0 else "REPLACE")
    elif isinstance(event, FeeReported):
        db.execute(
            "UPDATE fills SET fee = ? WHERE execution_id = ?",
            (str(event.fee), event.execution_id),
        )


def write_standing(db: sqlite3.Connection, order: Order) -> None:
    """Write where an order stands."""
    db.execute(
        "UPDATE orders SET status = ?, filled = ?, average_price = ?, fee = ?, broker_id = ?, "
        "reason = ?, updated_ns = ? WHERE decision_key = ?",
        (*_standing(order), order.intent.decision_key),
    )


def _write_fill(db: sqlite3.Connection, fill: OrderFilled, fee: str, conflict: str) -> None:
    db.execute(
        f"INSERT OR {conflict} INTO fills VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            fill.execution_id,
            fill.revision,
            fill.cid,
            fill.symbol,
            fill.side,
            str(fill.quantity),
            str(fill.price),
            fee,
            fill.at_ns,
        ),
    )


def _intent(order: Order) -> tuple[Any, ...]:
    intent = order.intent
    return (
        intent.decision_key,
        intent.cid,
        intent.agent,
        intent.symbol,
        intent.side,
        str(intent.quantity),
        intent.kind,
        None if intent.price is None else str(intent.price),
        intent.leg,
        intent.parent,
        order.created_ns,
    )


def _standing(order: Order) -> tuple[Any, ...]:
    price = order.average_price
    return (
        order.status,
        str(order.filled),
        None if price is None else str(price),
        str(order.fee),
        order.broker_id,
        order.reason,
        order.updated_ns,
    )
