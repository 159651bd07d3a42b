"""What may go wrong around an engine: connecting, kills, restarts, owners, refusals that repeat."""

import asyncio
import dataclasses
import itertools
from decimal import Decimal

import pytest

from jaxtrade.live import emergency
from jaxtrade.live.allotment import allotments, hand_overs
from jaxtrade.live.book import Book
from jaxtrade.live.brokers.base import NotConnectedError
from jaxtrade.live.brokers.paper_faults import Faults
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import (
    AccountState,
    BarDecided,
    BrokerConnected,
    CashMoved,
    EngineStarted,
    EngineStopped,
    Leg,
    ModelRefused,
    ModelSwapped,
    OrderDenied,
    OrderInitialized,
    OrderLost,
    OrderPendingCancel,
    OrderSubmitted,
    PositionAdjusted,
    Rearmed,
    TradingState,
    TradingStateChanged,
)
from jaxtrade.live.guard import Refusal
from jaxtrade.live.journal import Journal
from jaxtrade.live.journal_status import from_journal
from jaxtrade.live.latches import Latch, set_latch
from jaxtrade.live.recovery import recover
from jaxtrade.live.run import make_engine
from jaxtrade.live.starting import _place
from jaxtrade.live.view import line
from jaxtrade.specs import JaxtradeError
from tests.live_runs import BARS, FIRST, after, paper_of, settings_of, write_bundle

# Connecting


def test_a_broker_that_refuses_connections_is_waited_for(trade):
    def prepare(engine):
        broker, tries = engine.account.broker, itertools.count()
        connect, history = broker.connect, broker.history

        async def refusing():
            if next(tries) < 3:
                raise NotConnectedError("no route")
            await connect()

        async def breaking(symbol, **how):
            if next(tries) < 6:
                raise NotConnectedError("gone in the middle of it")
            return await history(symbol, **how)

        broker.connect, broker.history = refusing, breaking

    ran = trade(prepare=prepare)
    assert len(ran.of(BrokerConnected)) > 1
    assert len({event.start_s for event in ran.decisions}) == len(ran.decisions) == BARS - FIRST


def test_an_account_of_which_nothing_is_known_is_not_shared_out(trade):
    def prepare(engine):
        broker, tries = engine.account.broker, itertools.count()
        snapshot = broker.snapshot

        async def partial():
            found = await snapshot()
            is_complete = next(tries) >= 5
            return dataclasses.replace(found, is_complete=is_complete)

        broker.snapshot = partial

    ran = trade(prepare=prepare)
    assert ran.decisions[0].equity == pytest.approx(ran.engine.account.told.equity, rel=0.5)
    assert ran.decisions[0].equity > 0
    assert ran.of(OrderInitialized)


@pytest.mark.parametrize("ask", ["stop", "kill", "pause"])
def test_people_are_heard_while_there_is_no_connection(world, tmp_path, ask):
    market, params, bundle = world
    broker = paper_of(market, params)

    async def refusing():
        raise NotConnectedError("no route")

    async def slept(seconds):  # the replay's clock would not wait
        await asyncio.sleep(0.01)

    broker.connect, broker.clock.sleep = refusing, slept
    settings = settings_of(tmp_path, bundle)
    beats = []

    async def live(engine):
        engine.house._beat = lambda: beats.append(1)
        running = asyncio.create_task(engine.run())
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            if ask != "stop":
                arguments = {"reason": "why", "agent": "", "flatten": True}
                await engine.command(ask, arguments)
            engine.stop("enough")
            await running

    with recover(settings.path, clock=broker.clock, run_id="test") as recovered:
        engine = make_engine(settings, recovered, broker)
        asyncio.run(live(engine))
        assert beats
        state = engine.account.state
        assert (state.trading is TradingState.KILLED) == (ask == "kill")
        assert bool(state.agents) == (ask == "pause")
        assert isinstance(list(recovered.journal.read())[-1][1], EngineStopped)


def test_a_bar_that_was_decided_on_at_the_start_is_not_decided_on_again(trade):
    """A restart finds the newest bar of the history undecided, and the broker sends it as well."""
    late = []

    def prepare(engine):
        (desk,) = engine.account.desks.values()
        begin, deal_with = desk.begin, engine.deal_with

        def begun(histories, carry, decided_s):
            begin([bars[:-1] for bars in histories], carry, decided_s)
            late.extend(bars[-1] for bars in histories)
            return tuple(late)

        async def dealt_with(event):
            await deal_with(late[0])
            await deal_with(event)

        engine.session._if_current = lambda desk, row: row
        desk.begin, engine.deal_with = begun, dealt_with

    ran = trade(prepare=prepare)
    starts = [event.start_s for event in ran.decisions]
    assert starts[0] == late[0].start_s
    assert len(starts) == len(set(starts)) == BARS - FIRST + 1


def test_no_event_is_dealt_with_once_it_was_told_to_stop(trade):
    dealt = []

    def prepare(engine):
        deal_with = engine.deal_with

        async def dealt_with(event):
            await deal_with(event)
            dealt.append(event)
            if len(dealt) == 15:
                engine.stop("enough")

        engine.deal_with = dealt_with

    ran = trade(prepare=prepare)
    assert len(dealt) == 15
    assert ran.engine.stop_reason == "enough"


# Kills and states


def test_nothing_is_handed_over_once_the_killed_file_is_there(trade):
    """A kill that comes between the guard's look and the broker counts."""

    def prepare(engine):
        execution = engine.account.execution
        submit = execution.submit

        async def submitted(intents, **how):
            set_latch(engine.account.settings.path, Latch.KILLED, "now")
            await submit(intents, **how)

        execution.submit = submitted

    ran = trade(prepare=prepare)
    intended = [event.cid for event in ran.of(OrderInitialized)]
    assert intended
    assert [event.cid for event in ran.of(OrderLost)] == intended
    assert not ran.of(OrderSubmitted)


def test_a_kill_that_the_disk_refuses_to_note_cancels_all_the_same(trade, monkeypatch):
    def refuse(*told, **how):
        raise JaxtradeError("cannot write KILLED: the disk is full")

    said = []

    def prepare(engine):
        async def kill(event):
            with pytest.raises(JaxtradeError, match="the disk is full"):
                await engine.governor.kill("now", flatten=True)
            said.append(engine.account.state.trading)

        after(engine, 20, kill)

    monkeypatch.setattr("jaxtrade.live.governor.set_latch", refuse)
    ran = trade(prepare=prepare)
    assert said == [TradingState.KILLED]
    assert not any(p.quantity for p in ran.engine.account.state.positions.values())
    killed = next(e for e in ran.of(TradingStateChanged))
    assert not [e for e in ran.of(OrderInitialized) if e.at_ns > killed.at_ns]


@pytest.mark.parametrize(
    ("state", "left"),
    [
        (TradingState.REDUCING, {Leg.STOP_LOSS, Leg.TAKE_PROFIT}),
        (TradingState.HALTED, {Leg.STOP_LOSS, Leg.TAKE_PROFIT}),
        (TradingState.KILLED, set()),
    ],
)
def test_whoever_changes_the_state_orders_follow(trade, world, state, left):
    """Exits go on guarding what is held, unless all is killed; nothing is opened any more."""
    seen = []

    def prepare(engine):
        account = engine.account

        def change(event):
            now_ns = account.clock.wall_ns()
            told = TradingStateChanged(at_ns=now_ns, state=state, reason="test", is_latched=True)
            account.books.observe(told)

        def look(event):
            if any(p.quantity for p in account.state.positions.values()):
                seen.append({o.intent.leg for o in account.state.working_orders()})

        after(engine, 40, change)
        after(engine, 70, look)

    agent = {"model": str(world.bundle), "stop_loss": 0.2, "take_profit": 0.5}
    ran = trade(prepare=prepare, agents={"main": agent}, engine={"unprotected_s": 1e6})
    changed = next(e for e in ran.of(TradingStateChanged))
    later = [e.intent for e in ran.of(OrderInitialized) if e.at_ns > changed.at_ns]
    assert all(intent.reduce_only for intent in later)
    assert all(legs <= left for legs in seen)
    if state is not TradingState.REDUCING:
        assert seen
        assert seen[0] == left


# Restarts


def test_exits_of_one_start_never_take_the_key_of_another(trade, world):
    market, params, _ = world
    broker = paper_of(market, params)
    denied = []

    def prepare(engine):
        async def protect(event):
            desk = engine.account.desks["main"]
            for _ in range(2):
                await engine.trading.close(desk, market.spec.symbols[0])
            engine.stop("enough")

        after(engine, 8, protect)

    for _ in range(3):
        ran = trade(broker=broker, folder="again", prepare=prepare)
        denied += ran.of(OrderDenied)
    assert not [event for event in denied if event.check == "duplicate"]


def test_a_cancel_that_a_restart_left_unanswered_is_asked_for_again(trade, world, tmp_path):
    market, params, bundle = world
    broker = paper_of(market, params)
    left = []

    def leave(engine):
        def cancel(event):
            orders = engine.account.state.working_orders()
            if orders:
                order, now_ns = orders[0], engine.account.clock.wall_ns()
                left.append(order.cid)
                engine.account.books.observe(OrderPendingCancel(at_ns=now_ns, cid=order.cid))
                engine.stop("enough")

        for count in range(5, 60, 5):
            after(engine, count, cancel)

    agent = {"model": str(bundle), "take_profit": 0.9}
    trade(broker=broker, folder="left", prepare=leave, agents={"main": agent})
    assert left
    with recover(tmp_path / "left", clock=broker.clock, run_id="test") as recovered:
        engine = make_engine(settings_of(tmp_path / "left", bundle), recovered, broker)
        assert engine.account.execution.due_ns is not None


def test_a_rearm_without_an_engine_counts_at_its_next_start(trade, tmp_path, capsys):
    def prepare(engine):
        told = TradingStateChanged(
            at_ns=1, state=TradingState.HALTED, reason="max_drawdown", is_latched=True
        )
        after(engine, 20, lambda event: engine.account.books.observe(told))

    ran = trade(folder="lost", prepare=prepare)
    folder = tmp_path / "lost"
    assert ran.engine.account.state.trading is TradingState.HALTED
    set_latch(folder, Latch.KILLED, "to be sure", flatten=True)
    assert from_journal(folder)["state"] is TradingState.KILLED
    emergency.rearm(folder=str(folder), reason="looked at it")
    assert "what the journal had latched" in capsys.readouterr().out
    assert from_journal(folder)["state"] is TradingState.ACTIVE
    with recover(folder, clock=SimulatedClock(), run_id="test") as recovered:
        assert recovered.state.trading is TradingState.ACTIVE
        assert not recovered.state.is_latched
        with pytest.raises(JaxtradeError, match="one engine per folder"):
            emergency.rearm(folder=str(folder), reason="again")
        assert [type(e) for _, e in recovered.journal.read()][-2:] == [Rearmed, EngineStarted]


@pytest.mark.parametrize("flatten", [True, False])
def test_what_a_kill_has_closed_does_not_surprise_who_starts_after_the_rearm(
    trade, world, tmp_path, flatten
):
    broker, folder = paper_of(world.market, world.params), tmp_path / "killed"

    def prepare(engine):
        def stop(event):
            if engine.account.state.quantity("SYNTH"):
                engine.stop("enough")

        for count in range(10, 60):
            after(engine, count, stop)

    async def close():
        await broker.connect()
        await broker.close_all_positions()
        await broker.disconnect()

    stopped = trade(broker=broker, folder="killed", prepare=prepare)
    assert stopped.engine.account.state.quantity("SYNTH")
    asyncio.run(close())
    set_latch(folder, Latch.KILLED, "to be sure", flatten=flatten)
    emergency.rearm(folder=str(folder), reason="looked at it")
    ran = trade(broker=broker, folder="killed")
    state = ran.engine.account.state
    if flatten:
        assert state.trading is TradingState.ACTIVE
        assert ran.of(OrderInitialized)
        assert not state.was_closed  # from the first decision on, a surprise is one again
    else:  # nobody here has closed it
        assert state.trading is TradingState.HALTED


def test_what_a_stop_has_flattened_does_not_surprise_the_next_start(trade, world):
    market, params, _ = world
    broker = paper_of(market, params)

    def prepare(engine):
        def stop(event):
            if engine.account.state.quantity(market.spec.symbols[0]):
                engine.stop("enough")

        for count in range(10, 60):
            after(engine, count, stop)

    stopped = trade(broker=broker, folder="flat", prepare=prepare, engine={"on_stop": "flatten"})
    assert stopped.of(OrderInitialized)
    assert not any(p.quantity for p in stopped.engine.account.state.positions.values())
    ran = trade(broker=broker, folder="flat")
    assert ran.engine.account.state.trading is TradingState.ACTIVE
    assert ran.of(OrderInitialized)


def test_a_model_that_came_while_the_line_was_down_is_looked_at_again(trade, world, tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(world.bundle.read_bytes())

    def prepare(engine):
        broker, tries = engine.account.broker, itertools.count()

        async def look(event):
            history = broker.history

            async def breaking(symbol, **how):
                if next(tries) < 1:
                    raise NotConnectedError("gone in the middle of it")
                return await history(symbol, **how)

            broker.history = breaking
            write_bundle(tmp_path, world.market, seed=7, name="model.onnx")
            for _ in range(2):
                engine.swaps._looked_ns = -(10**12)
                engine.swaps.look()
                await asyncio.gather(*engine.swaps._tasks.values())

        after(engine, 20, look)

    agent = {"model": str(model), "shadow_bars": 1}
    agents = {"main": agent}
    ran = trade(prepare=prepare, agents=agents, folder="swapped")
    assert [event.reason for event in ran.of(ModelRefused)] == ["gone in the middle of it"]
    assert len(ran.of(ModelSwapped)) == 1

    broker = ran.engine.account.broker
    assert (
        not trade(broker=broker, agents=agents, folder="swapped").engine.account.desks["main"].notes
    )
    model.write_bytes(world.bundle.read_bytes())
    again = trade(broker=broker, agents=agents, folder="swapped")
    (note,) = again.engine.account.desks["main"].notes
    assert "which it was swapped to" in note


# Who owns what


def test_a_new_agent_gets_what_is_free_and_what_others_have_beyond_their_budgets():
    books = {"": Book(), "old": Book(), "gone": Book()}
    for name, cash in (("", 10), ("old", 60), ("gone", 30)):
        books[name].apply(CashMoved(at_ns=0, agent=name, amount=Decimal(cash), reason="deposit"))

    def shared(**budgets):
        events = allotments(books, budgets, {}, now_ns=1)
        assert sum(event.amount for event in events) == 0
        moved = dict.fromkeys(("", "old", "gone", "new"), 0.0)
        for event in events:
            moved[event.agent] += float(event.amount)
        return list(moved.values())

    assert shared(old=0.6) == [0, 0, 0, 0]
    assert shared(old=0.6, new=0.1) == [-10, 0, 0, 10]
    assert shared(old=0.5, new=0.5) == [-10, -10, -30, 50]
    assert shared(old=1.0, new=0.0) == [0, 0, 0, 0]


def test_a_position_follows_its_symbol_to_the_new_owner():
    books = {"": Book(), "old": Book()}
    books["old"].fill("SPY", Decimal(3), Decimal(100))
    (lent, taken) = hand_overs(books, {"SPY": "new"}, {"SPY": 110.0}, now_ns=1)
    assert isinstance(lent, PositionAdjusted)
    assert (lent.owner, lent.quantity) == ("old", -3)
    assert (taken.owner, taken.quantity, taken.price) == ("new", 3, 110)
    assert hand_overs(books, {"SPY": "old"}, {}, now_ns=1) == []
    assert hand_overs(books, {}, {}, now_ns=1) == []


def test_an_agent_that_is_renamed_goes_on_with_its_position_and_money(trade, world):
    market, params, bundle = world
    broker = paper_of(market, params)

    def prepare(engine):
        symbol = market.spec.symbols[0]

        def stop(event):
            if engine.account.state.quantity(symbol):
                engine.stop("enough")

        for count in range(10, 60):
            after(engine, count, stop)

    before = trade(broker=broker, folder="named", prepare=prepare).engine.account
    symbol = market.spec.symbols[0]
    held, equity = before.state.quantity(symbol), before.equity
    assert held
    agents = {"other": {"model": str(bundle)}}
    ran = trade(broker=broker, folder="named", agents=agents)
    books = ran.engine.account.state.books
    assert not books["main"].holdings
    assert ran.decisions[0].agent == "other"
    assert ran.decisions[0].equity == pytest.approx(equity, rel=0.02)
    assert ran.engine.account.state.quantity(symbol) == books["other"].quantity(symbol)


# What repeats, what is no number, who fails


def test_a_broker_that_refuses_every_exit_is_not_asked_without_end(trade, world):
    agent = {"model": str(world.bundle), "stop_loss": 0.01}
    ran = trade(
        Faults(reject_exits=10**6), agents={"main": agent}, engine={"unprotected_s": 3600.0}
    )
    exits = [e for e in ran.of(OrderInitialized) if e.intent.leg is Leg.STOP_LOSS]
    assert 0 < len(exits) < 6 * BARS


def test_a_refusal_that_repeats_is_journalled_once_a_minute(trade, world, monkeypatch):
    market = world.market

    def prepare(engine):
        async def close(event):
            account = engine.account
            account.is_reconciling = False
            monkeypatch.setattr("jaxtrade.live.trading.check", lambda *told: refused)
            for _ in range(50):
                await engine.trading.close(account.desks["main"], market.spec.symbols[0])
            engine.stop("enough")

        refused = Refusal(check="price", reason="none is known")

        for count in range(10, 60, 10):
            after(engine, count, close)

    ran = trade(prepare=prepare)
    assert 0 < len([e for e in ran.of(OrderDenied) if e.check == "price"]) < 6


def test_account_figures_that_are_no_numbers_are_no_news(trade):
    def prepare(engine):
        def tell(event):
            before = engine.account.told
            for wrong in (float("nan"), float("inf")):
                engine.session.see_account(AccountState(at_ns=1, equity=wrong, cash=wrong))
            assert engine.account.told is before

        after(engine, 15, tell)

    ran = trade(prepare=prepare)
    assert len(ran.decisions) == BARS - FIRST
    assert all(event.equity > 0 for event in ran.of(BarDecided))


def test_who_listens_or_explains_cannot_stop_or_bend_trading(trade):
    def prepare(engine):
        def broken(*told):
            raise RuntimeError("out of its mind")

        engine.account.books.listeners.insert(0, broken)
        engine.after_decision.append(broken)

    plain, ran = trade(), trade(prepare=prepare)
    assert [e.target for e in ran.decisions] == [e.target for e in plain.decisions]
    journal = Journal(ran.engine.account.settings.path / "journal.db", now=lambda: 0)
    with journal:
        assert sum(isinstance(e, BarDecided) for _, e in journal.read()) == len(ran.decisions)


# What is seen from outside


def test_a_status_without_an_engine_says_so(trade, tmp_path):
    trade(folder="over")
    text = line({**from_journal(tmp_path / "over"), "note": "no engine runs there"})
    assert text.endswith("(by its journal: no engine runs there)")


def test_another_speed_of_a_replay_is_the_same_account(world, tmp_path):
    def place(**broker):
        return _place(settings_of(tmp_path, world.bundle, broker={"kind": "paper", **broker}))

    assert place(run="a", speed=20) == place(run="a", speed=1) == place(run="a")
    assert place(run="a") != place(run="b")
