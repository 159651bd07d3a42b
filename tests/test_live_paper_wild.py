"""The paper broker under random orders: what must hold whatever is sent."""

import asyncio
import dataclasses
from decimal import Decimal

import numpy as np
import pytest

from jaxtrade.experiments.paper_joined import joined
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_faults import Faults
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.brokers.paper_store import PaperStore
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import (
    AccountState,
    Bar,
    Leg,
    OrderCanceled,
    OrderFilled,
    OrderKind,
    OrderRejected,
)
from jaxtrade.margin import make_margin
from jaxtrade.rules import make_rules
from tests.test_live_paper import FREE, intent
from tests.test_live_paper_joined import part

RULES = make_rules(costs=FREE, margin=make_margin(max_leverage=4.0))
PLACE = joined([part("ONE", 1, RULES, without=(40,)), part("TWO", 2, RULES, without=(70, 71))])
OVER = (OrderCanceled, OrderRejected)


class Trader:
    """Sends anything: orders of all kinds, exits with and without a parent, cancellations."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.sent = {}

    def orders(self, closes):
        for _ in range(self.random.poisson(1.5)):
            symbol = str(self.random.choice(PLACE.symbols))
            quantity = Decimal(int(self.random.integers(-1500, 1501))) or Decimal(1)
            kind = OrderKind(str(self.random.choice([*OrderKind])))
            price = closes[symbol] * (1 + 0.02 * self.random.standard_normal())
            fields = {
                "kind": kind,
                "price": None if kind is OrderKind.MARKET else Decimal(repr(round(price, 4))),
                "reduce_only": bool(self.random.random() < 0.2),
                "reference_price": closes[symbol],
            }
            order = self.enter(quantity, symbol=symbol, **fields)
            yield order
            for leg, like, shift in (
                (Leg.STOP_LOSS, OrderKind.STOP, 0.98),
                (Leg.TAKE_PROFIT, OrderKind.LIMIT, 1.02),
            ):
                if self.random.random() < 0.4:
                    factor = shift if quantity > 0 else 2 - shift
                    size = -quantity if self.random.random() < 0.8 else -quantity / 2
                    yield self.enter(
                        size,
                        symbol=symbol,
                        leg=leg,
                        kind=like,
                        price=Decimal(repr(round(closes[symbol] * factor, 4))),
                        parent=order.cid if self.random.random() < 0.9 else "",
                    )

    def enter(self, quantity, **fields):
        order = intent(len(self.sent) + 1, quantity, **fields)
        self.sent[order.cid] = order
        return order


async def trade(seed, path):
    trader = Trader(seed)
    faults = Faults(seed=seed, duplicates=seed % 2, fill_share=(1.0, 0.4)[seed % 3 == 2])
    feed = Replay(PLACE, moves_exits=seed % 2 == 0)
    broker = PaperBroker(feed, clock=SimulatedClock(), path=path, faults=faults)
    await broker.connect()
    closes = dict(zip(PLACE.symbols, PLACE.prices[PLACE.first, :, 3].tolist(), strict=True))
    told = []
    async for event in broker.events():
        told.append(event)
        if not isinstance(event, Bar):
            continue
        closes[event.symbol] = event.close
        for order in trader.orders(closes):
            await broker.submit_order(order)
        if trader.random.random() < 0.1:
            await broker.cancel_order(str(trader.random.choice([*trader.sent, "NONE"])))
        if trader.random.random() < 0.03:
            broker.trade_outside(event.symbol, Decimal(int(trader.random.integers(1, 300))))
        if trader.random.random() < 0.02:
            await broker.close_all_positions()
    return trader, told, await broker.snapshot(), broker


def executions(told):
    return {event.execution_id: event for event in told if isinstance(event, OrderFilled)}


@pytest.mark.parametrize("seed", range(4))
def test_what_must_hold_whatever_is_sent(seed, tmp_path) -> None:
    path = tmp_path / "paper.db"
    trader, told, snapshot, broker = asyncio.run(trade(seed, path))
    fills = executions(told)
    assert len(fills) > 80

    held, filled = dict.fromkeys(PLACE.symbols, Decimal(0)), {}
    for fill in fills.values():
        held[fill.symbol] += fill.side.sign * fill.quantity
        filled[fill.cid] = filled.get(fill.cid, Decimal(0)) + fill.quantity
        if fill.cid:
            order = trader.sent[fill.cid]
            assert (fill.symbol, fill.side) == (order.symbol, order.side)
    assert {p.symbol: p.quantity for p in snapshot.positions} == {
        s: q for s, q in held.items() if q
    }
    for cid, order in trader.sent.items():
        assert filled.get(cid, 0) <= order.quantity
    over = {event.cid for event in told if isinstance(event, OVER)}
    done = {
        cid for cid, quantity in filled.items() if cid and quantity == trader.sent[cid].quantity
    }
    assert not over & done
    assert {order.cid for order in snapshot.open_orders} == set(trader.sent) - over - done

    # Nothing is paid for holding: cash is what fills have left of it.
    spent = sum(f.side.sign * f.quantity * f.price + f.fee for f in fills.values())
    deposit = PLACE.deposit
    assert snapshot.cash == pytest.approx(deposit - float(spent), abs=1e-6 * deposit)
    assert all(e.equity > 0 for e in told if isinstance(e, AccountState))

    books, _, _ = PaperStore(path).load()
    after = dataclasses.replace(books.snapshot(snapshot.at_ns), at_ns=snapshot.at_ns)
    assert after == snapshot
    assert books.orders == broker._desk.books.orders
