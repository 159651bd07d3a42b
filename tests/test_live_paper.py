"""The paper broker: a replay is the backtest, the books outlive the process."""

import asyncio
import dataclasses
import itertools
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import ledger
from jaxtrade.costs import make_costs
from jaxtrade.envs.tapes import market_tape
from jaxtrade.experiments.paper import venue
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import (
    AccountState,
    Bar,
    OrderFilled,
    OrderIntent,
    Side,
)
from jaxtrade.orders import Order
from jaxtrade.rules import make_rules
from jaxtrade.sizing import delta_order
from jaxtrade.synthetic import make_market

FIRST, LAST = 50, 449


@dataclasses.dataclass
class Params:
    tape: object
    rules: object
    first: int = FIRST
    last: int = LAST


MARKET = make_market(num_bars=500)


def venue_under(rules):
    return venue(MARKET, Params(market_tape([MARKET], rules), rules))


def intent(number, quantity, **changes):
    side = Side.BUY if quantity > 0 else Side.SELL
    fields = {
        "cid": f"C{number:015d}",
        "decision_key": f"k{number}",
        "agent": "a",
        "symbol": MARKET.spec.symbols[0],
        "side": side,
        "quantity": abs(Decimal(quantity)),
    }
    return OrderIntent(**{**fields, **changes})


def run(coroutine):
    return asyncio.run(coroutine)


async def follow(broker, targets, band=0.05):
    """Trade to a target at each bar, as the environment does; equity after each bar."""
    symbol = MARKET.spec.symbols[0]
    await broker.connect()
    [instrument] = await broker.instruments((symbol,))
    step, equities, fills, account = instrument.quantity_step, [], [], None
    units = Decimal(0)
    number = 0
    async for event in broker.events():
        if isinstance(event, OrderFilled):
            units += event.side.sign * event.quantity
            fills.append(event)
        elif isinstance(event, AccountState):
            account = event
            equities.append(event)
        elif isinstance(event, Bar):
            if number == len(targets):
                break
            held = np.float32(float(units) * event.close / account.equity)
            target = np.float32(targets[number])
            delta = float(delta_order(target, held, np.float32(band), xp=np))
            quantity = Decimal(delta * account.equity / event.close) // step * step
            if target == 0:
                quantity = -units
            if quantity:
                await broker.submit_order(intent(number, quantity))
            number += 1
    return equities, fills


def backtest(rules, targets, band=0.05):
    tape = market_tape([MARKET], rules)

    @jax.jit
    def walk(targets):
        def step(carry, target):
            account, index = carry
            quantity = delta_order(target[None], account.weights, band, xp=jnp)
            order = Order(quantity=quantity)
            account, _ = ledger.step(account, order, tape.bar(index), rules)
            return (account, index + 1), (account.log_equity, account.weights[0])

        start = (ledger.open_account(1, rules), jnp.int32(FIRST + 1))
        return jax.lax.scan(step, start, targets)[1]

    log_equity, weights = walk(jnp.asarray(targets, jnp.float32))
    return float(rules.deposit) * np.exp(np.asarray(log_equity, np.float64)), np.asarray(weights)


def targets(seed=0, count=LAST - FIRST):
    generator = np.random.default_rng(seed)
    return np.repeat(generator.choice([-1.0, 0.0, 0.5, 1.0], count), 3)[:count]


def test_a_replay_is_the_backtest() -> None:
    rules = make_rules()
    broker = PaperBroker(Replay(venue_under(rules)), clock=SimulatedClock())
    equities, fills = run(follow(broker, targets()))
    expected, _ = backtest(rules, targets())
    got = np.asarray([each.equity for each in equities[1:]])
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert len(fills) > 50


def test_fills_explain_the_cash_where_nothing_is_paid_for_holding() -> None:
    costs = make_costs(borrow_rate=0.0, margin_rate=0.0, slippage=2e-4)
    broker = PaperBroker(Replay(venue_under(make_rules(costs=costs))), clock=SimulatedClock())
    equities, fills = run(follow(broker, targets(1)))
    by_time: dict[int, float] = {}
    for fill in fills:
        paid = fill.side.sign * float(fill.quantity * fill.price) + float(fill.fee)
        by_time[fill.at_ns] = by_time.get(fill.at_ns, 0.0) + paid
    for before, after in itertools.pairwise(equities):
        expected = before.cash - by_time.get(after.at_ns, 0.0)
        assert after.cash == pytest.approx(expected, abs=3e-9 * before.equity)
