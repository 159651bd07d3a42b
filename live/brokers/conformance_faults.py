"""The cases of the conformance suite in which the other side misbehaves."""

from decimal import Decimal

from jaxtrade.live.brokers.base import NotConnectedError
from jaxtrade.live.brokers.conformance import Session
from jaxtrade.live.brokers.conformance_cases import CASES, case, cids, far_limit
from jaxtrade.live.events import (
    BrokerDisconnected,
    OrderAccepted,
    OrderCanceled,
    OrderCancelRejected,
    OrderFilled,
    OrderRejected,
    Side,
)


@case("reject")
async def a_refusal_is_told(session: Session) -> None:
    """An order that the broker refuses is told so, has no fill, and is in no snapshot as open."""
    intent = await session.order(session.rig.steps)
    await session.inject("reject")
    await session.rejected(intent)
    await session.market(2)
    assert session.quantity_of(intent.cid) == 0 and await session.held() == 0


@case("drop_ack")
async def a_lost_acknowledgement_is_found(session: Session) -> None:
    """An order whose acknowledgement was lost is in the snapshot under our cid."""
    await session.inject("drop_ack")
    intent = await far_limit(session)
    await session.broker.submit_order(intent)
    await session.market(2)
    assert not any(isinstance(e, OrderAccepted) and e.cid == intent.cid for e in session.told)
    assert intent.cid in {order.cid for order in (await session.snapshot()).open_orders}


@case("drop_order")
async def a_lost_order_is_nowhere(session: Session) -> None:
    """An order that was lost on its way is in no snapshot, and never trades."""
    await session.inject("drop_order")
    intent = await session.order(session.rig.steps)
    await session.broker.submit_order(intent)
    await session.market(2)
    snapshot = await session.snapshot()
    assert snapshot.is_complete and intent.cid not in cids(snapshot)
    assert session.quantity_of(intent.cid) == 0 and await session.held() == 0


@case("partial_fills")
async def parts_add_up(session: Session) -> None:
    """An order filled in parts has executions that add up, and a snapshot says how far it is."""
    await session.inject("partial_fills", share=0.4)
    intent = await session.order(session.rig.steps)
    await session.broker.submit_order(intent)
    first = await session.until(OrderFilled, lambda fill: fill.cid == intent.cid)
    assert 0 < first.quantity < intent.quantity
    snapshot = await session.snapshot()
    filled = {each.cid: each.filled for each in snapshot.open_orders}
    filled |= {each.cid: each.filled for each in snapshot.closed_orders}
    assert filled[intent.cid] >= session.quantity_of(intent.cid)
    fills = await session.filled(intent)
    assert len(fills) >= 2 and await session.held() == intent.quantity


@case("duplicate_fills")
async def a_doubled_fill_has_one_id(session: Session) -> None:
    """A fill that is told again has the same id; the position is what it is."""
    await session.inject("duplicate_fills", times=4)
    intent = await session.send()
    await session.market(2)
    told = [e for e in session.told if isinstance(e, OrderFilled) and e.cid == intent.cid]
    assert len(told) > len({fill.execution_id for fill in told})
    assert session.quantity_of(intent.cid) == intent.quantity == await session.held()


@case("correct_fill")
async def a_correction_is_a_revision(session: Session) -> None:
    """A corrected execution keeps its id under a higher revision, also in the snapshot."""
    await session.inject("correct_fill")
    intent = await session.send()
    correction = await session.until(OrderFilled, lambda fill: fill.revision > 0)
    assert correction.cid == intent.cid
    before = [e for e in session.told if isinstance(e, OrderFilled) and e.revision == 0]
    assert correction.execution_id in {fill.execution_id for fill in before}
    known = {fill.execution_id: fill for fill in (await session.snapshot()).fills}
    assert known[correction.execution_id].price == correction.price


@case("late_fill")
async def a_fill_after_its_cancellation_is_told(session: Session) -> None:
    """A fill that overtakes its confirmed cancellation is told, and is in the position."""
    await session.inject("late_fill")
    intent = await session.order(session.rig.steps)
    await session.accepted(intent)
    await session.broker.cancel_order(intent.cid)
    await session.until(OrderCanceled, lambda event: event.cid == intent.cid)
    await session.filled(intent)
    assert await session.held() == intent.quantity


@case("reject_cancel")
async def a_refused_cancellation_changes_nothing(session: Session) -> None:
    """An order whose cancellation was refused goes on working."""
    intent = await far_limit(session)
    await session.accepted(intent)
    await session.inject("reject_cancel")
    await session.broker.cancel_order(intent.cid)
    await session.until(OrderCancelRejected, lambda event: event.cid == intent.cid)
    assert intent.cid in {order.cid for order in (await session.snapshot()).open_orders}


@case("disconnect")
async def a_fill_while_we_were_gone_is_found(session: Session) -> None:
    """What filled while the connection was broken is in the first snapshot after it."""
    intent = await session.order(session.rig.steps)
    await session.accepted(intent)
    await session.inject("disconnect")
    await session.until(BrokerDisconnected)
    assert not session.broker.is_connected()
    await session.broker.connect()
    snapshot = await session.snapshot()
    fills = [fill for fill in snapshot.fills if fill.cid == intent.cid]
    assert sum((fill.quantity for fill in fills), Decimal(0)) == intent.quantity
    assert await session.held() == intent.quantity


@case("freeze")
async def silence_is_noticed(session: Session) -> None:
    """A line that is up but silent counts as not connected after a while, and comes back."""
    await session.market()
    await session.inject("freeze", seconds=30.0)
    assert not session.broker.is_connected()
    await session.inject("thaw")
    await session.market()
    assert session.broker.is_connected()


@case("outside_trade")
async def a_trade_of_others_is_seen(session: Session) -> None:
    """What somebody else trades on the account is in the position, and told."""
    await session.market()
    step = (await session.instrument()).quantity_step
    await session.inject("outside_trade", symbol=session.symbol, quantity=7 * step)
    assert await session.held() == 7 * step
    fill = await session.until(OrderFilled)
    assert fill.cid == "" and fill.quantity == 7 * step


@case("outside_order")
async def an_order_of_others_is_seen_and_can_be_ended(session: Session) -> None:
    """An order that is not ours is open without a cid of ours, and cancelling all ends it."""
    price = await session.price_at(0.5)
    quantity = session.rig.steps * (await session.instrument()).quantity_step
    await session.inject(
        "outside_order", symbol=session.symbol, side=Side.BUY, quantity=quantity, price=price
    )
    [order] = (await session.snapshot()).open_orders
    assert order.cid == "" and order.symbol == session.symbol and order.broker_id
    await session.broker.cancel_all_orders()
    assert (await session.snapshot()).open_orders == ()


@case("incomplete_snapshot")
async def an_incomplete_snapshot_says_so(session: Session) -> None:
    """A snapshot of which a part could not be had is marked; the next one is whole again."""
    await session.send()
    await session.inject("incomplete_snapshot")
    assert not (await session.snapshot()).is_complete
    whole = await session.snapshot()
    assert whole.is_complete and whole.positions


@case("failing_snapshot")
async def a_snapshot_that_fails_raises(session: Session) -> None:
    """A snapshot without an answer raises `NotConnectedError`, rather than look like flatness."""
    await session.send()
    await session.inject("failing_snapshot")
    try:
        await session.snapshot()
    except NotConnectedError:
        return
    raise AssertionError("a snapshot without an answer was returned")


@case("shuffle")
async def order_of_events_does_not_matter(session: Session) -> None:
    """Events of orders that come late and out of order are all told in the end."""
    await session.inject("shuffle")
    intents = [await session.order(session.rig.steps) for _ in range(3)]
    for intent in intents:
        await session.broker.submit_order(intent)
    for intent in intents:
        await session.filled(intent)
    await session.market(2)
    for kind in (OrderAccepted, OrderFilled):
        assert {e.cid for e in session.told if isinstance(e, kind)} == {i.cid for i in intents}
    assert not any(isinstance(e, OrderRejected) for e in session.told)


ALL = tuple(CASES)
"""Every case there is, those without a fault first."""
