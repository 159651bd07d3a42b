"""Several runs on one paper account."""

import asyncio
import dataclasses
from decimal import Decimal

import numpy as np
import pytest

from jaxtrade.costs import make_costs
from jaxtrade.envs.tapes import market_tape
from jaxtrade.experiments.paper import venue
from jaxtrade.experiments.paper_joined import joined
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import AccountState, Bar, OrderFilled
from jaxtrade.margin import make_margin
from jaxtrade.market import Market
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from tests.markets import random_frame
from tests.test_live_paper import FREE, Params, intent

TICKETS = make_costs(
    commission_rate=0.0,
    commission_per_unit=0.005,
    minimum_ticket=1.0,
    borrow_rate=0.0,
    margin_rate=0.0,
)


def part(symbol, seed, rules, *, without=(), first=20, last=150):
    frame = random_frame(200, seed=seed).drop(index=list(without))
    market = Market.from_frame(frame, symbol=symbol)
    last = min(last, market.num_bars - 1)
    return venue(market, Params(market_tape([market], rules), rules, first, last))


ONE = part("ONE", 1, make_rules(costs=FREE), without=(60, 61, 90))
TWO = part("TWO", 2, make_rules(costs=TICKETS, lot_size=1.0, deposit=50_000.0), without=(30, 61))


async def trade(place, wanted):
    """Send the orders {(symbol, start): units}; bars told, fills, the last equity."""
    broker = PaperBroker(Replay(place), clock=SimulatedClock())
    await broker.connect()
    bars, fills, equity, number = [], [], 0.0, 0
    async for event in broker.events():
        if isinstance(event, Bar):
            bars.append(event)
            units = wanted.get((event.symbol, event.start_s))
            if units:
                number += 1
                await broker.submit_order(intent(number, units, symbol=event.symbol))
        elif isinstance(event, OrderFilled):
            fills.append((event.symbol, event.at_ns, event.quantity, event.price, event.fee))
        elif isinstance(event, AccountState):
            equity = event.equity
    return bars, fills, equity


def orders(place, seed, begin, end):
    """Random orders at the bars of a venue, flat in the end."""
    generator = np.random.default_rng(seed)
    starts = [int(s) for s in place.starts_s if begin <= s < end]
    signs = generator.choice([-1, 0, 1], len(starts) - 1)
    sizes = [Decimal(int(each) * 200) for each in signs]
    return dict(zip([(place.symbols[0], s) for s in starts], [*sizes, -sum(sizes)], strict=True))


def test_each_market_trades_as_if_alone() -> None:
    both = joined([ONE, TWO])
    begin, end = (int(both.starts_s[row]) for row in (both.first, both.last))
    wanted = [orders(each, seed, begin, end) for seed, each in enumerate((ONE, TWO))]
    bars, fills, equity = asyncio.run(trade(both, wanted[0] | wanted[1]))
    deposits = gains = 0.0
    for each, own in zip((ONE, TWO), wanted, strict=True):
        alone, filled, left = asyncio.run(trade(each, own))
        symbol = each.symbols[0]
        assert [bar for bar in bars if bar.symbol == symbol] == [
            bar for bar in alone if begin <= bar.start_s <= end
        ]
        together = [fill for fill in fills if fill[0] == symbol]
        assert [fill[:3] for fill in together] == [fill[:3] for fill in filled]
        for one, other in zip(together, filled, strict=True):
            np.testing.assert_allclose(
                [float(x) for x in one[3:]], [float(x) for x in other[3:]], rtol=2e-6
            )
        deposits += each.deposit
        gains += left - each.deposit
    assert len(fills) > 100
    assert equity == pytest.approx(deposits + gains, rel=1e-6)


def test_rules_are_each_markets_own() -> None:
    margined = part("THREE", 3, make_rules(margin=make_margin(max_leverage=4.0)))
    both = joined([TWO, margined])
    steps = {one.symbol: one.quantity_step for one in both.instruments()}
    assert steps["TWO"] == 1 and steps["THREE"] < Decimal("1e-5")
    np.testing.assert_allclose(both.rules.margin.initial, [0.0, 0.25])
    np.testing.assert_allclose(both.rules.costs.minimum_ticket, [1.0, 0.0])
    assert both.deposit == 150_000


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ONE, "^ONE is in two of the runs: a symbol has one owner$"),
        (dataclasses.replace(TWO, bar_seconds=60), r"^bars of \[60, 86400\] s: give runs"),
        (part("X", 3, make_rules(fill="close")), "^rules fill orders in different ways"),
        (part("X", 3, make_rules(participation=0.1)), "^rules have a participation of"),
        (dataclasses.replace(TWO, starts_s=TWO.starts_s + 86_400 * 900), "no rows to trade in"),
    ],
)
def test_what_does_not_go_together_is_refused(other, message) -> None:
    with pytest.raises(JaxtradeError, match=message):
        joined([ONE, other])
