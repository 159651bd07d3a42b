"""Settings that have to reach somebody: what came from outside, and changes while it runs."""

import dataclasses
from decimal import Decimal

import pytest

from jaxtrade.experiments.paper import venue
from jaxtrade.experiments.paper_joined import joined
from jaxtrade.live.bar_builder import BarBuilder
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import (
    Bar,
    BarDecided,
    Leg,
    OrderDenied,
    OrderFilled,
    OrderInitialized,
    TradingState,
)
from tests.live_runs import BARS, FIRST, after, params_of, run, settings_of, small_market


@pytest.fixture(scope="module")
def venues(world):
    """The world's market and another one at one broker."""
    other = small_market(BARS, seed=1)
    other = dataclasses.replace(other, spec=dataclasses.replace(other.spec, symbols=("TWO",)))
    return joined([venue(world.market, world.params), venue(other, params_of(other))])


@pytest.fixture
def trade(world, venues, tmp_path):
    """Run an engine that trades the first of them, and act after ten bars of it."""

    def traded(act, **tree):
        def prepare(engine):
            after(engine, 10, lambda event: act(engine), kind=Bar)

        broker = PaperBroker(Replay(venues), clock=SimulatedClock())
        return run(settings_of(tmp_path / "account", world.bundle, **tree), broker, prepare=prepare)

    return traded


@pytest.mark.parametrize("external", ["flatten", "adopt"])
def test_what_others_trade_in_a_symbol_of_an_agent_is_undone_only_if_asked_to(trade, external):
    working = []

    async def act(engine):
        engine.account.broker.trade_outside("SYNTH", Decimal(300))
        await engine.house._compare()
        working.extend(order.intent for order in engine.account.state.working_orders())

    ran = trade(act, engine={"external": external})
    known = ran.engine.account.state.orders
    assert [event.quantity for event in ran.of(OrderFilled) if event.cid not in known] == [300]
    assert ran.engine.account.trading is TradingState.ACTIVE
    if external == "adopt":
        assert working == []
        return
    (order,) = working
    assert (order.agent, order.leg, order.side.sign) == ("main", Leg.TARGET, -1)
    assert float(order.quantity) == pytest.approx(300, rel=0.1)  # and what prices have moved


@pytest.mark.parametrize("external", ["flatten", "adopt", "halt"])
def test_what_is_held_in_a_symbol_of_nobody_is_closed_only_if_asked_to(trade, external):
    async def act(engine):
        engine.account.broker.trade_outside("TWO", Decimal(7))
        await engine.house._compare()
        for _ in range(3):  # one order, however often there is a look
            await engine.trading.close_strays()

    ran = trade(act, engine={"external": external})
    state = ran.engine.account.state
    orders = [event.intent for event in ran.of(OrderInitialized) if event.intent.symbol == "TWO"]
    if external == "flatten":
        (order,) = orders
        assert (order.agent, order.leg, order.reduce_only) == ("", Leg.CLOSE, True)
        assert (order.side.sign, order.quantity) == (-1, 7)
        assert state.quantity("TWO") == 0
        assert not [event for event in ran.of(OrderDenied) if event.symbol == "TWO"]
    else:
        assert orders == []
        assert state.quantity("TWO") == 7
    is_halted = state.trading is TradingState.HALTED
    assert is_halted == (external == "halt")
    assert len([event for event in ran.decisions if event.agent == "main"]) == BARS - FIRST


def test_a_change_while_it_runs_reaches_who_goes_by_it(trade):
    builder = BarBuilder(("X",), bar_seconds=60)

    async def act(engine):
        engine.account.builders["X"] = builder
        changes = {
            "decisions.bar_wait_s": 0.5,
            "decisions.deadline_s": 1e-9,
            "decisions.max_failures": 100,
            "guard.spike_deviations": 5.0,
            "agents.main.limits": {"max_exposure": 0.25},
        }
        engine.governor.propose(changes, by="a test")

    ran = trade(act)
    desk = ran.engine.account.desks["main"]
    assert desk.rows.patience_ns == 500_000_000
    assert ran.engine.account.quotes.limits.spike_deviations == 5.0
    assert builder.limits.spike_deviations == 5.0
    decided = ran.of(BarDecided)
    assert all(not event.verdict.startswith("the policy took") for event in decided[:10])
    assert all(event.verdict.startswith("the policy took") for event in decided[10:])
