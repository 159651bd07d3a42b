"""The paper broker on quotes that are pushed in."""

import asyncio
import dataclasses
from decimal import Decimal

import jax.numpy as jnp
import pytest

from jaxtrade.costs import make_costs
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_faults import QUOTES, bad_quote
from jaxtrade.live.brokers.paper_stream import Stream
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import (
    AccountState,
    Leg,
    OrderCanceled,
    OrderFilled,
    OrderKind,
    Tick,
)
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from tests.test_live_paper import intent

SECOND = 1_000_000_000
RULES = make_rules(
    costs=make_costs(commission_rate=1e-3, borrow_rate=0.0, margin_rate=0.0), deposit=10_000.0
)


def tick(second, bid, ask, symbol="A"):
    return Tick(at_ns=round(second * SECOND), symbol=symbol, bid=bid, ask=ask)


class Session:
    """A broker on a stream, and what it has told."""

    def __init__(self, rules=RULES, symbols=("A",), **options):
        self.stream = Stream(symbols, rules, prices=(100.0,) * len(symbols))
        self.broker = PaperBroker(self.stream, clock=SimulatedClock(), **options)
        self.told = []

    async def start(self):
        await self.broker.connect()
        self.events = self.broker.events()
        self.reading = asyncio.ensure_future(self._read())

    async def _read(self):
        async for event in self.events:
            self.told.append(event)

    async def quote(self, *ticks):
        for each in ticks:
            self.stream.push(each)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def end(self):
        self.stream.close()
        await self.reading

    def of(self, kind):
        return [each for each in self.told if isinstance(each, kind)]


def run(play, **options):
    async def whole():
        session = Session(**options)
        await session.start()
        await play(session)
        await session.end()
        return session

    return asyncio.run(whole())


def order(number, quantity, **changes):
    return intent(number, quantity, symbol="A", **changes)


def test_an_order_trades_at_the_next_quote_and_pays_the_ask() -> None:
    async def play(session):
        await session.quote(tick(1, 99.9, 100.1))
        await session.broker.submit_order(order(1, Decimal(10)))
        await session.quote(tick(2, 101.9, 102.1), tick(3, 103.9, 104.1))

    session = run(play)
    [fill] = session.of(OrderFilled)
    assert float(fill.price) == pytest.approx(102.1, rel=1e-6)
    assert float(fill.fee) == pytest.approx(1.02, rel=1e-6)  # of the middle price
    last = session.of(AccountState)[-1]
    assert last.cash == pytest.approx(10_000 - 1_021 - 1.02, rel=1e-6)
    assert last.equity == pytest.approx(last.cash + 10 * 104.0, rel=1e-9)
    assert [each.bid for each in session.of(Tick)] == [99.9, 101.9, 103.9]


def test_what_is_closed_at_once_pays_what_an_order_pays() -> None:
    async def play(session):
        await session.quote(tick(1, 99.9, 100.1))
        await session.broker.submit_order(order(1, Decimal(-10)))
        await session.quote(tick(2, 99.9, 100.1))
        session.broker.trade_outside("A", Decimal(-10))
        await session.quote(tick(3, 99.9, 100.1))

    costs = dataclasses.replace(RULES.costs, slippage=jnp.float32(2e-3))
    sent, outside = run(play, rules=dataclasses.replace(RULES, costs=costs)).of(OrderFilled)
    assert float(sent.price) == pytest.approx(99.9 - 0.2, rel=1e-6)
    assert float(outside.price) == pytest.approx(float(sent.price), rel=1e-6)


def test_a_limit_waits_and_a_stop_ends_the_position() -> None:
    async def play(session):
        limit = order(1, Decimal(10), kind=OrderKind.LIMIT, price=Decimal(99))
        await session.quote(tick(1, 99.9, 100.1))
        await session.broker.submit_order(limit)
        for leg, kind, price in (
            (Leg.STOP_LOSS, OrderKind.STOP, 95),
            (Leg.TAKE_PROFIT, OrderKind.LIMIT, 110),
        ):
            exit_order = order(
                price, Decimal(-10), leg=leg, kind=kind, price=Decimal(price), parent=limit.cid
            )
            await session.broker.submit_order(exit_order)
        await session.quote(tick(2, 99.0, 99.2))
        assert not session.of(OrderFilled)
        await session.quote(tick(3, 98.5, 98.7), tick(4, 96.0, 96.2), tick(5, 94.0, 94.2))

    session = run(play)
    opened, closed = session.of(OrderFilled)
    assert float(opened.price) == pytest.approx(98.7, rel=1e-6)
    assert (closed.cid, float(closed.price)) == ("C000000000000095", pytest.approx(94.0, rel=1e-6))
    assert [each.cid for each in session.of(OrderCanceled)] == ["C000000000000110"]
    snapshot = session.broker._desk.books.snapshot(0)
    assert snapshot.positions == () and snapshot.open_orders == ()


@pytest.mark.parametrize("kind", QUOTES[:-2])
def test_no_order_trades_at_a_quote_that_is_none(kind) -> None:
    async def play(session):
        good = tick(1, 99.9, 100.1)
        await session.quote(good)
        await session.broker.submit_order(order(1, Decimal(10)))
        await session.quote(bad_quote(kind, good))
        assert not session.of(OrderFilled) and len(session.of(Tick)) == 2
        await session.quote(tick(2, 99.9, 100.1))
        assert session.of(OrderFilled)

    run(play)


def test_two_symbols_are_valued_at_their_own_quotes(tmp_path) -> None:
    async def play(session):
        await session.quote(tick(1, 100, 100), tick(1, 50, 50, "B"))
        await session.broker.submit_order(order(1, Decimal(10)))
        await session.broker.submit_order(intent(2, Decimal(-20), symbol="B"))
        await session.quote(tick(2, 100, 100), tick(2, 50, 50, "B"))
        await session.quote(tick(4, 110, 110), tick(6, 40, 40, "B"))

    session = run(play, symbols=("A", "B"), path=tmp_path / "paper.db")
    equity = session.of(AccountState)[-1].equity
    assert equity == pytest.approx(10_000 + 10 * 10 + 20 * 10 - 2.0, rel=1e-6)


def test_rules_that_need_bars_are_refused() -> None:
    with pytest.raises(JaxtradeError, match=r"^rules that need bars \(volume_value\): quotes have"):
        Session(make_rules(participation=0.1))
