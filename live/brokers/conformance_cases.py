"""The cases of the conformance suite; each docstring says what must hold."""

import dataclasses
import math
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import get_args

from jaxtrade.live.brokers.base import NotConnectedError, Snapshot
from jaxtrade.live.brokers.conformance import Case, Session
from jaxtrade.live.clock import SECOND_NS
from jaxtrade.live.events import (
    AccountState,
    Bar,
    BrokerConnected,
    BrokerEvent,
    Leg,
    OrderCanceled,
    OrderCancelRejected,
    OrderIntent,
    OrderKind,
)

CASES: list[Case] = []
"""All of them."""

Play = Callable[[Session], Awaitable[None]]


def case(needs: str = "", *, bars: bool = False, exits: bool = False) -> Callable[[Play], Play]:
    """Enter a case."""

    def enter(play: Play) -> Play:
        name = getattr(play, "__name__", "")
        CASES.append(Case(name, play, needs=needs, needs_bars=bars, needs_exits=exits))
        return play

    return enter


# --- connection and data -----------------------------------------------------------------------


@case()
async def a_connection_is_told_first(session: Session) -> None:
    """The first event of a connection is `BrokerConnected`, and then it is connected."""
    event = await session.next()
    assert isinstance(event, BrokerConnected)
    assert session.broker.is_connected()


@case()
async def a_new_connection_is_a_new_epoch(session: Session) -> None:
    """Each connection has a higher epoch than the one before it."""
    first = await session.until(BrokerConnected)
    await session.broker.disconnect()
    assert not session.broker.is_connected()
    await session.broker.connect()
    second = await session.until(BrokerConnected)
    assert second.epoch > first.epoch


@case()
async def nothing_is_asked_without_a_connection(session: Session) -> None:
    """Without a connection every request raises `NotConnectedError`, and nothing is handed over."""
    intent = await session.order(session.rig.steps)
    broker = session.broker
    await broker.disconnect()
    requests: list[Callable[[], Awaitable[object]]] = [
        lambda: broker.submit_order(intent),
        lambda: broker.cancel_order(intent.cid),
        lambda: broker.cancel_all_orders(),
        lambda: broker.close_all_positions(),
        lambda: broker.snapshot(),
    ]
    for request in requests:
        try:
            await request()
        except NotConnectedError:
            continue
        raise AssertionError("a request was taken without a connection")
    await broker.connect()
    snapshot = await session.snapshot()
    assert intent.cid not in cids(snapshot)


@case()
async def instruments_are_those_that_there_are(session: Session) -> None:
    """Unknown symbols are left out; steps are above 0 and the least quantity is a whole step."""
    found = await session.broker.instruments((*session.rig.symbols, "NO-SUCH-SYMBOL"))
    assert [each.symbol for each in found] == list(session.rig.symbols)
    for each in found:
        assert each.quantity_step > 0 and each.price_step >= 0 and each.unit_value > 0
        assert each.min_quantity % each.quantity_step == 0
        assert each.min_quantity < each.max_quantity


@case(bars=True)
async def bars_come_once_and_in_order(session: Session) -> None:
    """Bars of a symbol rise in time, are known at their end or later, and enclose their prices."""
    await session.market(5)
    bars = [e for e in session.told if isinstance(e, Bar) and e.symbol == session.symbol]
    starts = [bar.start_s for bar in bars]
    assert starts == sorted(set(starts))
    for bar in bars:
        assert bar.seconds == session.rig.bar_seconds
        assert bar.at_ns >= (bar.start_s + bar.seconds) * SECOND_NS
        assert 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high


@case(bars=True)
async def history_ends_where_the_bars_begin(session: Session) -> None:
    """History is finished bars, oldest first, no more than asked for, none that is still told."""
    if not session.broker.capabilities.history_bars:
        return
    seconds = session.rig.bar_seconds
    history = await session.broker.history(session.symbol, bar_seconds=seconds, count=10)
    starts = [bar.start_s for bar in history]
    assert 0 < len(starts) <= 10 and starts == sorted(set(starts))
    first = await session.until(Bar, lambda bar: bar.symbol == session.symbol)
    assert starts[-1] < first.start_s
    later = await session.broker.history(session.symbol, bar_seconds=seconds, count=10)
    assert later[-1].start_s >= first.start_s


@case()
async def only_events_of_a_broker_are_told(session: Session) -> None:
    """Every event is of the kinds that an adapter may tell, with a stamp."""
    await session.send()
    for event in session.told:
        assert isinstance(event, get_args(BrokerEvent)), type(event).__name__
        assert event.at_ns > 0


# --- orders ------------------------------------------------------------------------------------


@case()
async def an_order_is_acknowledged_and_filled(session: Session) -> None:
    """An order at the market is accepted, and its fills add up to exactly what was ordered."""
    intent = await session.order(session.rig.steps)
    await session.accepted(intent)
    fills = await session.filled(intent)
    assert sum(fill.quantity for fill in fills) == intent.quantity
    for fill in fills:
        assert (fill.symbol, fill.side) == (intent.symbol, intent.side)
        assert fill.price > 0 and fill.price.is_finite() and fill.fee.is_finite()


@case()
async def executions_have_ids_of_their_own(session: Session) -> None:
    """No two executions share an id, and each names its order."""
    one = await session.send()
    other = await session.send(-session.rig.steps)
    fills = session.fills()
    assert len({fill.execution_id for fill in fills}) == len(fills) >= 2
    assert {fill.cid for fill in fills} == {one.cid, other.cid}


@case()
async def positions_are_the_sum_of_fills(session: Session) -> None:
    """What the broker says is held is the sum of what it said was filled, long and short."""
    steps = session.rig.steps
    for signed in (steps, 2 * steps, -5 * steps, 2 * steps):
        await session.send(signed)
        total = sum((f.side.sign * f.quantity for f in session.fills()), Decimal(0))
        assert await session.held() == total
    assert await session.held() == 0


@case()
async def the_same_order_twice_trades_once(session: Session) -> None:
    """An order that is sent again under its cid is the same order."""
    intent = await session.order(session.rig.steps)
    await session.broker.submit_order(intent)
    await session.broker.submit_order(intent)
    await session.filled(intent)
    await session.market(2)
    assert session.quantity_of(intent.cid) == intent.quantity
    assert await session.held() == intent.quantity


@case()
async def an_order_that_cannot_be_is_rejected(session: Session) -> None:
    """No such symbol, no size, a part of a step, no price: refused by an event, no exception."""
    good = await session.order(session.rig.steps)
    step = (await session.instrument()).quantity_step
    for number, change in enumerate(
        (
            {"symbol": "NO-SUCH-SYMBOL"},
            {"quantity": Decimal(0)},
            {"quantity": good.quantity + step / 3},
            {"kind": OrderKind.LIMIT, "price": None},
        )
    ):
        wrong = dataclasses.replace(good, cid=f"{good.cid[:-1]}{number}", **change)  # type: ignore
        event = await session.rejected(wrong)
        assert event.reason
    assert await session.held() == 0


@case()
async def a_waiting_order_works_until_it_is_cancelled(session: Session) -> None:
    """A limit order far from the market works under our cid, and a cancellation ends it."""
    intent = await far_limit(session)
    await session.accepted(intent)
    await session.market(2)
    snapshot = await session.snapshot()
    assert intent.cid in {order.cid for order in snapshot.open_orders}
    await session.broker.cancel_order(intent.cid)
    await session.until(OrderCanceled, lambda event: event.cid == intent.cid)
    snapshot = await session.snapshot()
    assert intent.cid not in {order.cid for order in snapshot.open_orders}
    ended = {order.cid: order.status for order in snapshot.closed_orders}
    assert ended.get(intent.cid) == "canceled"
    assert session.quantity_of(intent.cid) == 0


@case()
async def what_is_not_there_cannot_be_cancelled(session: Session) -> None:
    """Cancelling an order that never came, or is filled, is refused and changes nothing."""
    filled = await session.send()
    for cid in ("NEVERSENT0000000", filled.cid):
        await session.broker.cancel_order(cid)
        assert (await session.until(OrderCancelRejected)).cid == cid
    assert await session.held() == filled.quantity


@case()
async def all_orders_can_be_cancelled(session: Session) -> None:
    """Cancelling all ends every order."""
    intents = [await far_limit(session, sign) for sign in (1, 1, -1)]
    for intent in intents:
        await session.accepted(intent)
    await session.broker.cancel_all_orders()
    left = {intent.cid for intent in intents}
    while left:
        event = await session.until(OrderCanceled)
        left.discard(event.cid)
    assert (await session.snapshot()).open_orders == ()


@case()
async def all_positions_can_be_closed(session: Session) -> None:
    """Closing all leaves nothing held, also of what was sold short, without knowing any of it."""
    for signed in (session.rig.steps, -2 * session.rig.steps):
        await session.send(signed)
        await session.broker.close_all_positions()
        for _ in range(20):
            if await session.held() == 0:
                break
            await session.market()
        assert await session.held() == 0


@case()
async def reducing_never_turns_a_position_round(session: Session) -> None:
    """An order that is to reduce closes no more than there is."""
    bought = await session.send()
    more = await session.order(-3 * session.rig.steps, reduce_only=True, leg=Leg.CLOSE)
    await session.broker.submit_order(more)
    await session.market(3)
    assert await session.held() in (0, bought.quantity)
    assert session.quantity_of(more.cid) <= bought.quantity


@case(exits=True)
async def exits_work_at_the_broker(session: Session) -> None:
    """A stop and a target are orders at the broker, and go with the position that they guard."""
    opened = await session.send()
    exits = await stop_and_target(session, opened, 0.5, 2.0)
    for each in exits:
        await session.accepted(each)
    cids = {each.cid for each in exits}
    assert cids <= {order.cid for order in (await session.snapshot()).open_orders}
    await session.send(-session.rig.steps)
    await session.market(2)
    await session.broker.cancel_all_orders()  # some keep them; none may trade
    assert await session.held() == 0 and not any(session.quantity_of(cid) for cid in cids)


@case(exits=True)
async def a_stop_closes_and_its_twin_goes(session: Session) -> None:
    """A stop that the price is beyond closes the position, and the target is cancelled."""
    opened = await session.send()
    stop, target = await stop_and_target(session, opened, 1.5, 2.0)
    for each in (target, stop):
        await session.broker.submit_order(each)
    await session.filled(stop)
    if not any(isinstance(e, OrderCanceled) and e.cid == target.cid for e in session.told):
        await session.until(OrderCanceled, lambda event: event.cid == target.cid)
    assert await session.held() == 0
    assert (await session.snapshot()).open_orders == ()


# --- what the broker says of the account -------------------------------------------------------


@case()
async def a_snapshot_is_what_was_told(session: Session) -> None:
    """A complete snapshot has every order, fill and position that was told, and the money."""
    filled, waiting = await session.send(), await far_limit(session)
    await session.accepted(waiting)
    snapshot = await session.snapshot()
    assert snapshot.is_complete
    assert waiting.cid in {order.cid for order in snapshot.open_orders}
    known = {fill.execution_id: fill for fill in snapshot.fills}
    for fill in session.fills():
        assert known[fill.execution_id].quantity == fill.quantity
    [position] = snapshot.positions
    assert (position.symbol, position.quantity) == (session.symbol, filled.quantity)
    assert position.price > 0
    value = float(position.quantity) * await session.price()
    assert math.isclose(snapshot.equity, snapshot.cash + value, rel_tol=0.2)


@case()
async def the_account_is_told(session: Session) -> None:
    """After a trade the account is told with finite numbers, and buying takes cash."""
    before = await session.snapshot()
    await session.send()
    after = await session.until(AccountState, lambda event: event.cash != before.cash)
    assert math.isfinite(after.equity) and after.cash < before.cash


@case()
async def orders_go_on_working_without_us(session: Session) -> None:
    """A waiting order is there after the connection was closed and opened again."""
    intent = await far_limit(session)
    await session.accepted(intent)
    await session.broker.disconnect()
    await session.broker.connect()
    await session.until(BrokerConnected)
    assert intent.cid in {order.cid for order in (await session.snapshot()).open_orders}


def cids(snapshot: Snapshot) -> set[str]:
    """Of all orders that the broker knows of."""
    return {each.cid for each in snapshot.open_orders} | {
        each.cid for each in snapshot.closed_orders
    }


async def far_limit(session: Session, sign: int = 1) -> OrderIntent:
    """A limit order that the market will not reach."""
    price = await session.price_at(0.5 if sign > 0 else 2.0)
    return await session.order(sign * session.rig.steps, kind=OrderKind.LIMIT, price=price)


async def stop_and_target(
    session: Session, opened: OrderIntent, stop: float, target: float
) -> tuple[OrderIntent, OrderIntent]:
    """A stop and a target of a position that was bought, at these factors of the last price."""
    common = {"parent": opened.cid, "reduce_only": True}
    signed = -session.rig.steps
    return (
        await session.order(
            signed,
            leg=Leg.STOP_LOSS,
            kind=OrderKind.STOP,
            price=await session.price_at(stop),
            **common,
        ),
        await session.order(
            signed,
            leg=Leg.TAKE_PROFIT,
            kind=OrderKind.LIMIT,
            price=await session.price_at(target),
            **common,
        ),
    )
