"""Orders as folds: statuses, executions, corrections, ids, in whatever order events come."""

from decimal import Decimal

import pytest

from jaxtrade.live import orders
from jaxtrade.live.events import (
    FeeReported,
    Leg,
    OrderAccepted,
    OrderCanceled,
    OrderCancelRejected,
    OrderExpired,
    OrderFilled,
    OrderInitialized,
    OrderIntent,
    OrderLost,
    OrderPendingCancel,
    OrderRejected,
    OrderSubmitted,
    OrderUnknown,
    Side,
)
from jaxtrade.live.orders import OrderStatus

KEY = orders.decision_key("ppo", "SPY", 1_700_000_000, Leg.TARGET)
CID = orders.make_cid(KEY)


def order(*events, quantity="10"):
    intent = OrderIntent(
        cid=CID,
        decision_key=KEY,
        agent="ppo",
        symbol="SPY",
        side=Side.BUY,
        quantity=Decimal(quantity),
    )
    result = orders.begin(OrderInitialized(at_ns=1, cid=CID, intent=intent))
    for event in events:
        result = orders.advance(result, event)
    return result


def fill(quantity, price="100", execution_id="e1", at_ns=5, **fields):
    return OrderFilled(
        at_ns=at_ns,
        cid=CID,
        execution_id=execution_id,
        symbol="SPY",
        side=Side.BUY,
        quantity=Decimal(quantity),
        price=Decimal(price),
        **fields,
    )


def told(kind, at_ns=3, **fields):
    return kind(at_ns=at_ns, cid=CID, **fields)


def test_ids_follow_from_the_decision():
    assert KEY == "ppo/SPY/1700000000/target/0"
    assert orders.make_cid(KEY) == CID
    assert len(CID) == 16 and set(CID) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    others = {
        orders.make_cid(orders.decision_key(agent, symbol, start, leg, attempt))
        for agent in ("ppo", "sac")
        for symbol in ("SPY", "QQQ")
        for start in (1, 2)
        for leg in Leg
        for attempt in (0, 1)
    }
    assert len(others) == 2 * 2 * 2 * 4 * 2


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], OrderStatus.SUBMITTING),
        ([told(OrderSubmitted)], OrderStatus.SUBMITTED),
        ([told(OrderSubmitted), told(OrderUnknown)], OrderStatus.UNKNOWN),
        ([told(OrderUnknown), told(OrderAccepted)], OrderStatus.ACCEPTED),
        ([told(OrderAccepted), told(OrderUnknown, at_ns=9)], OrderStatus.ACCEPTED),
        ([told(OrderUnknown), fill("4")], OrderStatus.PARTIALLY_FILLED),
        ([told(OrderAccepted), fill("10")], OrderStatus.FILLED),
        ([told(OrderAccepted), fill("11")], OrderStatus.FILLED),
        ([told(OrderAccepted), told(OrderCanceled)], OrderStatus.CANCELED),
        ([told(OrderAccepted), told(OrderExpired)], OrderStatus.EXPIRED),
        ([told(OrderSubmitted), told(OrderRejected)], OrderStatus.REJECTED),
        ([told(OrderUnknown), told(OrderLost)], OrderStatus.LOST),
        ([told(OrderLost), told(OrderAccepted)], OrderStatus.ACCEPTED),
        ([told(OrderLost), fill("4")], OrderStatus.PARTIALLY_FILLED),
        ([told(OrderCanceled), told(OrderAccepted)], OrderStatus.CANCELED),
        ([told(OrderCanceled), fill("4")], OrderStatus.CANCELED),
        ([told(OrderCanceled), fill("10")], OrderStatus.FILLED),
        ([told(OrderCanceled), told(OrderRejected)], OrderStatus.REJECTED),
        ([told(OrderRejected), told(OrderCanceled)], OrderStatus.REJECTED),
        ([fill("10"), fill("0", revision=1)], OrderStatus.ACCEPTED),
    ],
)
def test_status(events, status):
    result = order(*events)
    assert result.status is status
    assert result.is_terminal is (status in orders.TERMINAL)
    assert result.is_working is not result.is_terminal


def test_quantities_come_from_fills():
    result = order(fill("4", "100"), fill("2", "103", "e2"), told(OrderCanceled))
    assert (result.filled, result.remaining) == (6, 4)
    assert result.average_price == 101
    assert order().average_price is None
    assert order(fill("12")).remaining == 0


def test_an_execution_counts_once_and_its_correction_replaces_it():
    first = order(fill("4", "100"))
    assert orders.advance(first, fill("4", "100")) is first
    corrected = orders.advance(first, fill("3", "99", revision=1))
    assert (corrected.filled, corrected.average_price) == (3, 99)
    assert orders.advance(corrected, fill("4", "100")) is corrected
    assert order(fill("3", "99", revision=1), fill("4", "100")) == corrected


def test_fees_come_with_fills_or_apart():
    apart = FeeReported(at_ns=6, cid=CID, execution_id="e1", fee=Decimal("0.35"))
    assert order(fill("4", fee=Decimal("0.1"))).fee == Decimal("0.1")
    assert order(fill("4"), apart).fee == order(apart, fill("4")).fee == Decimal("0.35")
    assert order(apart).fee == 0
    later = fill("4", fee=Decimal("0.2"), revision=1)
    assert order(fill("4"), apart, later).fee == Decimal("0.2")
    assert order(fill("4"), apart, fill("3", revision=1)).fee == Decimal("0.35")
    assert order(fill("4"), apart, fill("0", revision=1)).fee == 0


def test_a_cancel_is_pending_until_it_is_answered():
    asked = told(OrderPendingCancel, at_ns=4)
    assert order(told(OrderAccepted), asked).is_canceling
    assert not order(told(OrderAccepted), asked, told(OrderCancelRejected, at_ns=5)).is_canceling
    again = told(OrderPendingCancel, at_ns=6)
    assert order(asked, told(OrderCancelRejected, at_ns=5), again).is_canceling
    assert not order(asked, told(OrderCanceled, at_ns=5)).is_canceling


def test_doubt_ends_with_what_is_heard_later():
    assert order(told(OrderUnknown)).is_doubtful
    accepted = told(OrderAccepted, at_ns=2)
    assert order(accepted, told(OrderUnknown, at_ns=4)).is_doubtful
    assert not order(
        accepted, told(OrderUnknown, at_ns=4), told(OrderAccepted, at_ns=5)
    ).is_doubtful
    assert not order(accepted, told(OrderUnknown, at_ns=4), fill("1", at_ns=5)).is_doubtful
    assert not order(told(OrderUnknown), told(OrderCanceled)).is_doubtful


def test_what_is_told_of_an_order():
    result = order(
        told(OrderSubmitted, at_ns=2),
        told(OrderAccepted, at_ns=3, broker_id="77"),
        told(OrderAccepted, at_ns=4),
        told(OrderCanceled, at_ns=8, reason="by hand"),
    )
    assert (result.cid, result.broker_id, result.submitted.at_ns) == (CID, "77", 2)
    assert (result.updated_ns, result.reason) == (8, "by hand")
    assert order().submitted is None and order().updated_ns == 1 and order().reason == ""
    assert order(told(OrderExpired)).reason == ""
    assert not order(told(OrderSubmitted)).is_answered
    assert order(fill("1")).is_answered
