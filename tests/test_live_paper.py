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
from jaxtrade.envs.actions import Request
from jaxtrade.envs.steps import order_for
from jaxtrade.envs.tapes import market_tape
from jaxtrade.experiments.paper import venue
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import (
    AccountState,
    Bar,
    OrderCanceled,
    OrderFilled,
    OrderIntent,
    Side,
)
from jaxtrade.margin import make_margin
from jaxtrade.rules import make_rules
from jaxtrade.sizing import delta_order, lots_order
from jaxtrade.synthetic import make_market

FIRST, LAST = 50, 449


@dataclasses.dataclass
class Params:
    tape: object
    rules: object
    first: int = FIRST
    last: int = LAST
    no_trade_band: object = None
    minimum_order: object = None


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


async def follow(broker, targets, *, lot=None, band=0.05, symbol="SYNTH"):
    """Trade to a target at each bar, as the environment does: accounts after each bar, fills."""
    await broker.connect()
    [instrument] = await broker.instruments((symbol,))
    accounts, fills, units, number, pending = [], [], Decimal(0), 0, {}
    async for event in broker.events():
        if isinstance(event, OrderFilled):
            units += event.side.sign * event.quantity
            fills.append(event)
            if event.cid:
                left = pending.pop(event.cid) - event.side.sign * event.quantity
                pending |= {event.cid: left} if left else {}
        elif isinstance(event, OrderCanceled):
            pending.pop(event.cid, None)
        elif isinstance(event, AccountState):
            accounts.append(event)
        elif isinstance(event, Bar):
            if number == len(targets):
                break
            rate = event.close / accounts[-1].equity
            committed = units + sum(pending.values())
            step = instrument.quantity_step
            quantity = wanted(targets[number], committed, rate, lot, band, step)
            if quantity:
                sent = intent(number, quantity, symbol=symbol)
                pending[sent.cid] = quantity
                await broker.submit_order(sent)
            number += 1
    return accounts, fills


def wanted(target, units, rate, lot, band, step):
    """Units to trade, as `envs.steps.order_for` sizes them."""
    target = np.float32(target)
    if lot is None:
        held = np.float32(float(units) * rate)
        delta = float(delta_order(target, held, np.float32(band), xp=np))
        return -units if target == 0 else Decimal(delta / rate) // step * step
    lots = np.asarray([int(units / lot)], np.int32)
    value = np.asarray([float(lot) * rate], np.float32)
    return int(lots_order(target[None], lots, value, np.float32(band), xp=np)[0]) * lot


def backtest(rules, targets, band=0.05):
    """Equity after each bar by the ledger alone."""
    params = Params(market_tape([MARKET], rules), rules, no_trade_band=jnp.float32(band))
    return ledger_alone(params, targets)


def ledger_alone(params, targets):
    """Equity after each bar of the environment's orders to these targets, by the ledger alone."""
    rules = params.rules

    @jax.jit
    def walk(targets):
        def step(carry, target):
            account, index = carry
            bar, none = params.tape.bar(index), jnp.int32(0)
            target = jnp.where(account.is_ruined, 0.0, target)[None]
            request = Request(exposure=target, invalid=none, clipped=none)
            order = order_for(account, target, request, bar, params)
            account, _ = ledger.step(account, order, bar, rules)
            return (account, index + 1), account.log_equity

        start = (ledger.open_account(1, rules), jnp.int32(params.first + 1))
        return jax.lax.scan(step, start, targets)[1]

    log_equity = np.asarray(walk(jnp.asarray(targets, jnp.float32)), np.float64)
    return float(rules.deposit) * np.exp(log_equity)


def targets(*levels, seed=0, count=LAST - FIRST):
    generator = np.random.default_rng(seed)
    return np.repeat(generator.choice(levels, count), 3)[:count]


FREE = make_costs(borrow_rate=0.0, margin_rate=0.0, slippage=2e-4)
TICKETS = make_costs(
    commission_rate=0.0, commission_per_unit=0.005, minimum_ticket=1.0, slippage=1e-4
)
SWAPS = make_costs(swap_long=-0.01, swap_short=-0.02, idle_rate=0.02, volatility_slippage=0.1)
FORCED = make_margin(max_leverage=100.0, maintenance=0.009, liquidation_fee=1e-4)
RULES = {
    "default": ({}, (-1.0, 0.0, 0.5, 1.0)),
    "free": ({"costs": FREE}, (-1.0, 0.0, 0.5, 1.0)),
    "swaps": ({"costs": SWAPS}, (-1.0, 0.0, 0.5, 1.0)),
    "lots": ({"costs": TICKETS, "lot_size": 1.0}, (-1.0, 0.0, 0.5, 1.0)),
    "next close": ({"fill": "next_close"}, (-1.0, 0.0, 0.7)),
    "close": ({"fill": "close", "costs": FREE}, (-1.0, 0.0, 0.7)),
    "delay": ({"delay": 0.3, "costs": FREE}, (-1.0, 0.0, 0.7)),
    "margin": ({"margin": make_margin(max_leverage=5.0), "costs": FREE}, (-4.9, 2.0, 4.9, 7.0)),
    "participation": ({"participation": 0.1, "deposit": 1e9, "costs": FREE}, (-1.0, 0.0, 1.0)),
    "liquidation": ({"margin": FORCED, "costs": FREE}, (-90.0, 1.0, 90.0)),
    "ruin": ({"costs": FREE}, (-150.0, 150.0)),
}


@pytest.mark.parametrize("name", RULES)
def test_a_replay_is_the_backtest_and_fills_explain_the_cash(name) -> None:
    options, levels = RULES[name]
    rules, wishes = make_rules(**options), targets(*levels)
    broker = PaperBroker(Replay(venue_under(rules)), clock=SimulatedClock())
    lot = None if rules.lot_size is None else Decimal(str(rules.lot_size))
    accounts, fills = run(follow(broker, wishes, lot=lot))
    got = np.asarray([each.equity for each in accounts[1:]])
    expected = backtest(rules, wishes)
    worth = np.minimum.accumulate(expected) > 1e-2 * float(rules.deposit)  # steps grow coarse
    np.testing.assert_allclose(got[worth], expected[worth], rtol=1e-6)
    assert worth.all() or name in ("ruin", "liquidation")
    if name in ("ruin", "liquidation"):
        assert "" in [fill.cid for fill in fills]  # the broker's own
    else:
        assert len(fills) > 50
    if name == "margin":
        assert max(each.margin_used / each.equity for each in accounts) == pytest.approx(1, abs=0.1)
    if rules.costs.margin_rate > 0:
        return
    spent: dict[int, float] = {}
    for fill in fills:
        paid = fill.side.sign * float(fill.quantity * fill.price) + float(fill.fee)
        spent[fill.at_ns] = spent.get(fill.at_ns, 0.0) + paid
    exactness = 3e-9 if worth.all() else 2e-8  # returns of nearly -1 are no small numbers
    for before, after in itertools.islice(itertools.pairwise(accounts), int(worth.sum())):
        expected = before.cash - spent.get(after.at_ns, 0.0)
        largest = max(before.equity, abs(before.cash), abs(after.cash))
        assert after.cash == pytest.approx(expected, abs=exactness * largest)
