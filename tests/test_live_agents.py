"""Several agents on one account, and the exits that guard their positions."""

import pytest

from jaxtrade.experiments.paper import venue
from jaxtrade.experiments.paper_joined import joined
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_faults import Faults
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import (
    AgentPaused,
    Leg,
    OrderDenied,
    OrderFilled,
    OrderInitialized,
    OrderRejected,
)
from jaxtrade.live.positions import PositionStatus
from jaxtrade.specs import JaxtradeError
from tests.live_runs import BARS, FIRST, make_world, paper_of, run, settings_of


@pytest.fixture(scope="module")
def worlds(world, tmp_path_factory):
    """Two markets with a bundle each."""
    return [world, make_world(tmp_path_factory.mktemp("other"), seed=1, symbol="TWO")]


def broker_of(worlds):
    both = joined([venue(market, params) for market, params, _ in worlds])
    return PaperBroker(Replay(both), clock=SimulatedClock())


def agents_of(worlds, budgets=(0.5, 0.5)):
    names = ("one", "two")
    return {
        name: {"model": str(bundle), "budget": budget}
        for name, budget, (_, _, bundle) in zip(names, budgets, worlds, strict=True)
    }


def test_two_agents_trade_side_by_side_each_with_its_own_money(worlds, tmp_path):
    settings = settings_of(tmp_path, worlds[0][2], agents=agents_of(worlds, (0.25, 0.5)))
    ran = run(settings, broker_of(worlds))
    by_agent = {name: [e for e in ran.decisions if e.agent == name] for name in ("one", "two")}
    assert [len(each) for each in by_agent.values()] == [BARS - FIRST, BARS - FIRST]
    assert by_agent["one"][0].equity == pytest.approx(50_000.0)
    assert by_agent["two"][0].equity == pytest.approx(100_000.0)
    owner = {"SYNTH": "one", "TWO": "two"}
    intents = [event.intent for event in ran.of(OrderInitialized)]
    assert {(each.symbol, each.agent) for each in intents} == set(owner.items())
    state = ran.engine.account.state
    assert state.books[""].value({}) == pytest.approx(50_000.0, rel=1e-3)
    told = ran.engine.account.told
    assert ran.engine.account.equity == pytest.approx(told.equity, rel=1e-9)


def test_an_agent_that_fails_stops_alone(worlds, tmp_path):
    def prepare(engine):
        def broken(*told):
            raise RuntimeError("out of its mind")

        engine.account.desks["one"].decider.policy.decide = broken

    settings = settings_of(tmp_path, worlds[0][2], agents=agents_of(worlds))
    ran = run(settings, broker_of(worlds), prepare=prepare)
    (paused,) = ran.of(AgentPaused)
    assert paused.agent == "one"
    assert {event.intent.agent for event in ran.of(OrderInitialized)} == {"two"}


def test_limits_of_the_account_hold_over_all_agents(worlds, tmp_path):
    settings = settings_of(
        tmp_path, worlds[0][2], agents=agents_of(worlds), guard={"max_gross": 0.6}
    )
    most = []

    def prepare(engine):
        engine.account.books.listeners.append(lambda event: most.append(engine.account.gross))

    ran = run(settings, broker_of(worlds), prepare=prepare)
    assert ran.of(OrderDenied)
    assert max(most) < 0.62  # prices move after a fill


def test_a_symbol_has_one_owner(worlds, tmp_path):
    twice = agents_of([worlds[0], worlds[0]])
    with pytest.raises(JaxtradeError, match="SYNTH is traded by one and two"):
        run(settings_of(tmp_path, worlds[0][2], agents=twice), broker_of(worlds))


def guarded(worlds, tmp_path, faults, watch=None, **agent):
    market, params, bundle = worlds[0]
    agents = {"one": {"model": str(bundle), "stop_loss": 0.002, **agent}}

    def prepare(engine):
        if watch is not None:
            engine.account.books.listeners.append(lambda event: watch(engine))

    broker = paper_of(market, params, faults=faults)
    settings = settings_of(tmp_path, bundle, agents=agents, engine={"reconcile_s": 1e-3})
    return run(settings, broker, prepare=prepare)


def test_positions_have_their_stops_and_targets_at_the_broker(worlds, tmp_path):
    ran = guarded(worlds, tmp_path, Faults(), take_profit=0.002)
    intents = {event.cid: event.intent for event in ran.of(OrderInitialized)}
    filled = {intents[event.cid].leg for event in ran.of(OrderFilled) if event.cid in intents}
    assert filled == {Leg.TARGET, Leg.STOP_LOSS, Leg.TAKE_PROFIT}
    for intent in intents.values():
        if intent.leg is not Leg.TARGET:
            assert intent.reduce_only
            assert intent.parent


@pytest.mark.parametrize("fault", ["reject_exits", "lose_exits"])
def test_a_stop_that_is_missing_is_placed_again_or_the_position_closed(worlds, tmp_path, fault):
    bare = []

    def watch(engine):
        bare.append(engine.account.status_of("SYNTH") is PositionStatus.UNPROTECTED)

    ran = guarded(worlds, tmp_path, Faults(**{fault: 3}), watch)
    assert any(bare)
    assert not bare[-1]
    assert ran.engine.account.status_of("SYNTH") is not PositionStatus.UNPROTECTED
    if fault == "reject_exits":
        assert len(ran.of(OrderRejected)) >= 3
    stops = [e.intent for e in ran.of(OrderInitialized) if e.intent.leg is Leg.STOP_LOSS]
    assert len({each.cid for each in stops}) > 3  # placed anew after those that went
