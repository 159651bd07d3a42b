"""What the conformance suite does not ask of the paper broker's faults and of its matching."""

import asyncio
import time
from decimal import Decimal

import pytest

from jaxtrade.live.brokers.base import NotConnectedError
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_faults import Faults
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import (
    Bar,
    BrokerConnected,
    BrokerDisconnected,
    Leg,
    OrderAccepted,
    OrderCanceled,
    OrderEvent,
    OrderFilled,
    OrderIntent,
    OrderKind,
    OrderRejected,
    Side,
    Tick,
)
from tests.paper_toy import SECONDS, SYMBOL, Toy

MINUTE = SECONDS * 10**9


class Session:
    """A paper broker on the toy market, read one bar at a time."""

    def __init__(self, **options):
        self.clock = SimulatedClock()
        self.broker = PaperBroker(Toy(), clock=self.clock, **options)
        self.faults = self.broker.faults
        self.told = []

    async def start(self):
        await self.broker.connect()
        self.events = self.broker.events()
        await self.bar()

    async def bar(self, times=1):
        """Read on to the next bar; what was told on the way."""
        told = []
        while times:
            event = await anext(self.events)
            told.append((self.clock.wall_ns(), event))
            times -= isinstance(event, Bar)
        self.told += told
        return [event for _, event in told]

    async def send(self, number, quantity, **changes):
        intent = OrderIntent(
            cid=f"C{number:015d}",
            decision_key=str(number),
            agent="a",
            symbol=SYMBOL,
            side=Side.BUY if quantity > 0 else Side.SELL,
            quantity=Decimal(abs(quantity)),
            **changes,
        )
        await self.broker.submit_order(intent)
        return intent.cid

    def of(self, kind, cid=None):
        return [e for _, e in self.told if isinstance(e, kind) and (cid is None or e.cid == cid)]


def played(**options):
    """Run a coroutine function on a started session."""

    def run(play):
        async def whole():
            session = Session(**options)
            await session.start()
            await play(session)

        asyncio.run(whole())

    return run


def test_events_of_orders_arrive_late_on_the_clock() -> None:
    @played(faults=Faults(latency_ns=MINUTE // 4))
    async def _(session):
        start = session.clock.wall_ns()
        cid = await session.send(1, 5)
        await session.bar(2)
        seen = {type(e): at for at, e in session.told if isinstance(e, OrderEvent)}
        assert seen == {
            OrderAccepted: start + MINUTE // 4,
            OrderFilled: start + MINUTE + MINUTE // 4,
        }
        [fill] = session.of(OrderFilled, cid)
        assert fill.at_ns == start + MINUTE


def test_an_order_that_is_long_on_its_way_fills_later() -> None:
    @played(faults=Faults(latency_bars=3))
    async def _(session):
        await session.send(1, 5)
        for expected in (0, 0, 0, 1):
            await session.bar()
            assert len(session.of(OrderFilled)) == expected


def test_of_a_muted_order_only_the_snapshot_knows() -> None:
    @played(faults=Faults(mute=1))
    async def _(session):
        silent, loud = await session.send(1, 5), await session.send(2, 3)
        await session.bar(2)
        assert session.of(OrderEvent, silent) == []
        assert len(session.of(OrderFilled, loud)) == 1
        snapshot = await session.broker.snapshot()
        assert {fill.cid for fill in snapshot.fills} == {silent, loud}
        assert snapshot.positions[0].quantity == 8


def test_a_stop_may_be_refused_or_lost() -> None:
    @played(faults=Faults(reject_exits=1, lose_exits=1))
    async def _(session):
        cid = await session.send(1, 5)
        exits = {"leg": Leg.STOP_LOSS, "kind": OrderKind.STOP, "price": Decimal(50), "parent": cid}
        refused, lost = [await session.send(n, -5, **exits) for n in (2, 3)]
        await session.bar()
        assert session.of(OrderRejected, refused) and session.of(OrderAccepted, lost)
        assert not session.of(OrderCanceled)
        assert (await session.broker.snapshot()).open_orders == ()
        kept = await session.send(4, -5, **exits)
        [order] = (await session.broker.snapshot()).open_orders
        assert order.cid == kept


def test_handing_over_takes_time_and_the_connection_may_go_meanwhile() -> None:
    @played(faults=Faults(slow_submit_s=0.05))
    async def _(session):
        sending = asyncio.ensure_future(session.send(1, 5))
        await asyncio.sleep(0.01)
        session.broker.break_connection()
        with pytest.raises(NotConnectedError):
            await sending
        assert not session.broker._desk.books.orders


def test_a_broken_connection_loses_bars_that_history_has() -> None:
    @played()
    async def _(session):
        told = session.of(Bar)[-1]
        session.broker.break_connection(bars=5)
        session.faults.refuse_connections = 2
        assert isinstance(await anext(session.events), BrokerDisconnected)
        for _ in range(2):
            with pytest.raises(NotConnectedError, match="refuses"):
                await session.broker.connect()
        await session.broker.connect()
        await session.bar()
        assert [e.epoch for e in session.of(BrokerConnected)] == [1, 2]
        assert session.of(Bar)[-1].start_s - told.start_s == 5 * SECONDS


def test_a_frozen_line_speaks_of_what_was_missed() -> None:
    @played()
    async def _(session):
        session.broker.freeze()
        cid = await session.send(1, 5)
        waiting = asyncio.ensure_future(session.bar())
        await asyncio.sleep(0.01)
        assert not waiting.done() and session.broker.is_connected()
        session.clock.advance(11 * 10**9)
        assert not session.broker.is_connected()
        session.broker.thaw()
        await waiting
        assert session.of(OrderAccepted, cid) and session.broker.is_connected()


def test_a_replay_can_be_slowed_down() -> None:
    @played(speed=50.0)
    async def _(session):
        started = time.monotonic()
        cid = await session.send(1, 5)
        assert (await anext(session.events)).cid == cid  # at once
        assert time.monotonic() - started < 0.02
        await session.bar(4)
        assert time.monotonic() - started >= 3 / 50


def test_others_get_a_turn_between_bars() -> None:
    @played()
    async def _(session):
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        await session.bar(10)
        task.cancel()
        assert turns >= 9


def test_any_event_can_be_told() -> None:
    @played()
    async def _(session):
        quote = Tick(at_ns=1, symbol=SYMBOL, bid=-1.0, ask=0.0)
        session.broker.tell(quote)
        assert quote in await session.bar()
