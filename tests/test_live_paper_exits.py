"""The paper broker's stops, targets and orders that wait for a price, beside the ledger's own."""

from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import ledger
from jaxtrade.brackets import LIQUIDATION, STOP, TARGET, make_brackets
from jaxtrade.envs.tapes import market_tape
from jaxtrade.live.brokers import paper_matching
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import (
    AccountState,
    Bar,
    Leg,
    OrderCanceled,
    OrderFilled,
    OrderKind,
)
from jaxtrade.orders import Order
from jaxtrade.rules import make_rules
from tests.test_live_paper import (
    FIRST,
    FREE,
    LAST,
    MARKET,
    backtest,
    intent,
    run,
    targets,
    venue_under,
    wanted,
)

STOP_LOSS, TAKE_PROFIT = 0.004, 0.006
RULES = make_rules(costs=FREE)
PRICES = venue_under(RULES).prices[:, 0]


def at(price) -> Decimal:
    return Decimal(repr(float(price)))


def legs(parent, entry, number):
    """A stop and a target of an order that opens at a price."""
    side = parent.side.sign
    kinds = (
        (Leg.STOP_LOSS, OrderKind.STOP, 1 - side * STOP_LOSS),
        (Leg.TAKE_PROFIT, OrderKind.LIMIT, 1 + side * TAKE_PROFIT),
    )
    for position, (leg, kind, factor) in enumerate(kinds):
        yield intent(
            number + position,
            -side * parent.quantity,
            leg=leg,
            kind=kind,
            price=at(entry * factor),
            parent=parent.cid,
        )


async def follow_with_exits(broker, wishes, *, knows_open):
    """As the environment with brackets: each new position has a stop and a target."""
    await broker.connect()
    [instrument] = await broker.instruments((MARKET.spec.symbols[0],))
    equities, units, row, exits, ended = [], Decimal(0), FIRST, 0, 0
    async for event in broker.events():
        if isinstance(event, OrderFilled):
            units += event.side.sign * event.quantity
            exits += int(event.cid[1:]) % 10 > 0
        elif isinstance(event, OrderCanceled):
            ended += 1
        elif isinstance(event, AccountState):
            equities.append(event.equity)
        elif isinstance(event, Bar) and row < LAST:
            rate, step = event.close / equities[-1], instrument.quantity_step
            quantity = wanted(wishes[row - FIRST], units, rate, None, 0.5, step)
            if quantity:
                parent = intent(row * 10, quantity, reference_price=event.close)
                await broker.submit_order(parent)
                opened = units + quantity
                if opened:
                    like = intent(row * 10, opened, cid=parent.cid)
                    entry = PRICES[row + 1, 0] if knows_open else event.close
                    for leg in legs(like, entry, row * 10 + 1):
                        await broker.submit_order(leg)
            row += 1
    return np.asarray(equities[1:]), exits, ended


@pytest.mark.parametrize("knows_open", [True, False])
def test_stops_and_targets_end_positions_as_the_brackets_of_a_backtest_do(knows_open) -> None:
    wishes = np.repeat(targets(-1.0, 0.0, 1.0, seed=5), 3)[: LAST - FIRST]
    brackets = make_brackets(stop_loss=STOP_LOSS, take_profit=TAKE_PROFIT)
    expected = backtest(make_rules(costs=FREE, brackets=brackets), wishes, band=0.5)
    replay = Replay(venue_under(RULES), moves_exits=not knows_open)
    broker = PaperBroker(replay, clock=SimulatedClock())
    equities, exits, ended = run(follow_with_exits(broker, wishes, knows_open=knows_open))
    np.testing.assert_allclose(equities, expected, rtol=1e-6)
    assert exits > 30 and ended > 30


def test_the_codes_of_exits_are_the_ledgers() -> None:
    own = (paper_matching.STOP, paper_matching.TARGET, paper_matching.LIQUIDATION)
    assert own == (STOP, TARGET, LIQUIDATION)


@pytest.mark.parametrize("kind", [OrderKind.LIMIT, OrderKind.STOP])
@pytest.mark.parametrize("side", [1, -1])
def test_orders_that_wait_for_a_price_fill_as_in_the_ledger(kind, side) -> None:
    """An order a little away from each close, for that bar only; then a close at the market."""
    away = 1 - side * 0.003 if kind is OrderKind.LIMIT else 1 + side * 0.003
    tape = market_tape([MARKET], RULES)

    @jax.jit
    def bar(account, quantity, level, index):
        nan = jnp.full(1, jnp.nan)
        limit, stop = (level, nan) if kind is OrderKind.LIMIT else (nan, level)
        order = Order(quantity=quantity, limit=limit, stop=stop)
        account, move = ledger.step(account, order, tape.bar(index), RULES)
        return account, move.traded[0]

    async def both():
        account = ledger.open_account(1, RULES)
        broker = PaperBroker(Replay(venue_under(RULES)), clock=SimulatedClock())
        await broker.connect()
        row, traded, fills, equity, cid = FIRST, [], [], [], None
        async for event in broker.events():
            if isinstance(event, OrderFilled):
                fills.append(event)
            elif isinstance(event, AccountState):
                equity.append(event.equity)
            elif isinstance(event, Bar):
                if row == FIRST + 120:
                    break
                units = sum((f.side.sign * f.quantity for f in fills), Decimal(0))
                if cid is not None and not units:
                    await broker.cancel_order(cid)
                cid = None
                if units:
                    await broker.submit_order(intent(row, -units))
                    args = -account.weights, jnp.full(1, jnp.nan)
                else:
                    quantity = side * Decimal(300)
                    sent = intent(row, quantity, kind=kind, price=at(event.close * away))
                    await broker.submit_order(sent)
                    exposure = float(quantity) * event.close / equity[-1]
                    args = jnp.full(1, exposure, jnp.float32), jnp.full(1, away - 1, jnp.float32)
                    cid = sent.cid
                account, value = bar(account, *args, jnp.int32(row + 1))
                traded.append(float(value))
                row += 1
        return account, np.asarray(traded), fills, equity[-1]

    account, traded, fills, equity = run(both())
    assert np.count_nonzero(traded) == len(fills)
    assert 30 < len(fills) < 110
    expected = float(RULES.deposit) * np.exp(float(account.log_equity))
    assert equity == pytest.approx(expected, rel=1e-6)


SYMBOL = MARKET.spec.symbols[0]


async def listing(broker, plays):
    """The events of each bar, after the orders `plays[k]` were sent at bar k."""
    await broker.connect()
    told, bar = [[]], 0
    async for event in broker.events():
        told[-1].append(event)
        if isinstance(event, Bar):
            for each in plays.get(bar, ()):
                await broker.submit_order(each)
            bar += 1
            told.append([])
            if bar > max(plays) + 3:
                return told[1:-1], await broker.snapshot()


def replay_of(plays):
    return run(listing(PaperBroker(Replay(venue_under(RULES)), clock=SimulatedClock()), plays))


def fills_in(events):
    return [(e.cid[-1], e.side.sign * e.quantity) for e in events if isinstance(e, OrderFilled)]


def test_an_exit_that_covers_a_part_trades_at_the_open_after_the_touch() -> None:
    opened = intent(1, Decimal(300))
    stop = intent(
        2,
        Decimal(-100),
        leg=Leg.STOP_LOSS,
        kind=OrderKind.STOP,
        price=at(PRICES[FIRST + 1, 3] * 1.5),
        parent=opened.cid,
    )
    told, snapshot = replay_of({0: [opened], 1: [stop]})
    assert [fills_in(events) for events in told] == [
        [("1", 300)],
        [],
        [("2", -100)],
        [],
    ]
    [fill] = [e for e in told[2] if isinstance(e, OrderFilled)]
    assert float(fill.price) == pytest.approx(PRICES[FIRST + 3, 0] * (1 - 3e-4), rel=1e-6)
    assert snapshot.positions[0].quantity == 200


def test_opposite_orders_meet_and_pay_for_the_difference() -> None:
    told, snapshot = replay_of({0: [intent(1, Decimal(300)), intent(2, Decimal(-200))]})
    assert fills_in(told[0]) == [("1", 300), ("2", -200)]
    first, second = (e for e in told[0] if isinstance(e, OrderFilled))
    assert first.price == second.price
    paid = 100 * float(first.price) * 1e-4  # commission of the 100 that were bought
    assert float(first.fee + second.fee) == pytest.approx(paid, rel=1e-3)
    assert snapshot.positions[0].quantity == 100


def test_an_exit_goes_with_its_parent_or_its_position() -> None:
    """One whose order is cancelled, one whose position is closed by another order."""
    waiting = intent(1, Decimal(300), kind=OrderKind.LIMIT, price=Decimal(1))
    exits = {"leg": Leg.STOP_LOSS, "kind": OrderKind.STOP, "price": Decimal(2)}
    opened = intent(3, Decimal(300))
    told, snapshot = replay_of(
        {
            0: [waiting, intent(2, Decimal(-300), parent=waiting.cid, **exits)],
            1: [opened, intent(4, Decimal(-300), parent=opened.cid, **exits)],
            2: [intent(5, Decimal(-300))],
        }
    )
    ended = [[e.cid[-1] for e in events if isinstance(e, OrderCanceled)] for events in told]
    assert ended[:4] == [[], [], ["4"], []]
    assert {order.cid[-1] for order in snapshot.open_orders} == {"1", "2"}

    async def cancelled():
        broker = PaperBroker(Replay(venue_under(RULES)), clock=SimulatedClock())
        await broker.connect()
        await broker.submit_order(waiting)
        await broker.submit_order(intent(2, Decimal(-300), parent=waiting.cid, **exits))
        await broker.cancel_order(waiting.cid)
        return await broker.snapshot()

    assert run(cancelled()).open_orders == ()


def test_what_trades_at_the_close_waits_for_no_price() -> None:
    async def refused():
        place = venue_under(make_rules(fill="next_close"))
        broker = PaperBroker(Replay(place), clock=SimulatedClock())
        await broker.connect()
        limit = intent(1, Decimal(1), kind=OrderKind.LIMIT, price=Decimal(1))
        await broker.submit_order(limit)
        return [(o.status, o.reason) for o in (await broker.snapshot()).closed_orders]

    assert run(refused()) == [("rejected", "orders trade at the close: give one at the market")]
