"""More of what an engine must outlive: restarts in mid-trade, other models, damaged journals."""

import asyncio

import onnx
import pytest

from jaxtrade.live import commanding
from jaxtrade.live.brokers.paper_faults import Faults
from jaxtrade.live.events import (
    Bar,
    BarDecided,
    ModelRefused,
    ModelSwapped,
    OrderDenied,
    OrderFilled,
    OrderInitialized,
    OrderLost,
    OrderUnknown,
    TradingState,
    TradingStateChanged,
)
from tests import live_runs
from tests.live_runs import BARS, FIRST, assert_the_books_agree, paper_of

DAY_NS = 86_400 * 10**9


@pytest.fixture
def trade(trade, world):
    """Run an engine over the world, again and again on one broker and in one folder."""
    brokers = []

    def traded(faults=None, prepare=None, *, with_quotes=False, **tree):
        if not brokers:
            options = {"faults": faults, "with_quotes": with_quotes}
            brokers.append(paper_of(world.market, world.params, **options))
        return trade(broker=brokers[0], folder="a", prepare=prepare, **tree)

    return traded


def after(kind, act, count=1):
    """Prepare an engine so that it does something after the count-th event of a kind."""

    def prepare(engine):
        live_runs.after(engine, count, lambda event: act(engine, event), kind)

    return prepare


async def stop(engine, event):
    engine.stop("in mid-trade")
    for _ in range(10):  # let it come first in the queue for the account, before the next event
        await asyncio.sleep(0)


def test_an_order_half_filled_at_the_end_is_filled_exactly_after_the_restart(trade):
    found = []

    async def crash_at_half(engine, event):
        order = engine.account.state.orders[event.cid]
        if order.is_working and not found:
            found.append(order)
            raise RuntimeError("in mid-trade")

    def prepare(engine):
        for count in range(1, 20):
            after(OrderFilled, crash_at_half, count)(engine)

    with pytest.raises(RuntimeError, match="in mid-trade"):
        trade(Faults(fill_share=0.3), prepare)
    (half,) = found
    assert 0 < half.filled < half.intent.quantity
    second = trade()
    order = second.engine.account.state.orders[half.cid]
    assert order.is_terminal
    assert half.filled <= order.filled <= order.intent.quantity
    assert half.cid not in [event.cid for event in second.of(OrderInitialized)]
    assert_the_books_agree(second)


def test_while_an_order_is_unknown_its_symbol_opens_nothing_and_it_is_not_sent_again(trade):
    sent = []

    def prepare(engine):
        submit = engine.account.broker.submit_order

        async def submitted(intent):
            sent.append(intent.cid)
            await submit(intent)

        engine.account.broker.submit_order = submitted

    ran = trade(Faults(drop_orders=1), prepare)
    (unknown,), (lost,) = ran.of(OrderUnknown), ran.of(OrderLost)
    assert lost.cid == unknown.cid
    between = ran.events[ran.events.index(unknown) : ran.events.index(lost)]
    opened = [e for e in between if isinstance(e, OrderInitialized) and not e.intent.reduce_only]
    assert not opened
    assert sent.count(lost.cid) == 1
    assert len(sent) == len(set(sent)) > 1


def test_an_order_of_which_nothing_is_told_is_found_and_not_sent_again(trade):
    ran = trade(Faults(mute=1))
    (unknown,) = ran.of(OrderUnknown)
    after_it = ran.events[ran.events.index(unknown) :]
    found = [e for e in after_it if isinstance(e, OrderFilled) and e.cid == unknown.cid]
    assert found
    assert not ran.of(OrderLost)
    assert ran.engine.account.state.orders[unknown.cid].filled == sum(e.quantity for e in found)
    assert [e.cid for e in ran.of(OrderInitialized)].count(unknown.cid) == 1
    assert_the_books_agree(ran, rel=1e-4)  # interest is booked once nothing is under way


@pytest.mark.parametrize("kind", ["zero", "negative", "nan", "crossed"])
def test_bad_quotes_open_nothing(trade, kind):
    sent = []

    def prepare(engine):
        account = engine.account

        def look(event):
            if isinstance(event, OrderInitialized):
                known = account.quotes.known["SYNTH"]
                held = account.state.quantity("SYNTH")
                sent.append((known.fault, event.intent.side.sign * held))

        account.books.listeners.append(look)
        after(Bar, spoil, 10)(engine)

    async def spoil(engine, event):
        engine.account.broker.faults.bad_quotes = 20
        engine.account.broker.faults.quote_kind = kind

    ran = trade(Faults(), prepare, with_quotes=True)
    assert [event for event in ran.of(OrderDenied) if event.check == "quote"]
    assert {fault for fault, _ in sent} >= {""}
    for fault, signed in sent:
        assert not fault or signed < 0
    assert not sent[-1][0]  # in the end it traded again
    assert_the_books_agree(ran, rel=1e-4)


async def let_it_be_prepared(engine):
    while engine.swaps._tasks:
        await asyncio.sleep(0.001)


def test_another_model_takes_over_between_bars_and_the_old_one_comes_back(trade, world, tmp_path):
    """In the middle of a position, which neither of them closes by itself."""
    seen, other = [], tmp_path / "new.onnx"
    model = onnx.load(world.bundle)
    model.doc_string = "the same, and yet another file"
    onnx.save(model, other)

    async def swap(engine, event):
        seen.append(engine.account.desks["main"].slot.active.sha256)
        arguments = {"agent": "main", "model": str(other)}
        await commanding.carry_out(engine, "swap", arguments)
        await let_it_be_prepared(engine)

    async def go_back(engine, event):
        await commanding.carry_out(engine, "rollback", {"agent": "main", "reason": "worse"})

    def prepare(engine):
        after(Bar, swap, 20)(engine)
        after(Bar, go_back, 40)(engine)

    agents = {"main": {"model": str(world.bundle), "shadow_bars": 3}}
    ran = trade(prepare=prepare, agents=agents)
    assert not ran.of(ModelRefused)
    there, back = ran.of(ModelSwapped)
    assert (back.sha256, back.reason) == (seen[0], "rolled back: worse")
    assert there.sha256 != seen[0]
    positions = [ran.events.index(event) for event in (there, back)]
    counts = [sum(isinstance(e, BarDecided) for e in ran.events[:at]) for at in positions]
    assert counts == [20 + 3, 40]
    models = [event.model for event in ran.decisions]
    assert models == [models[0]] * 23 + [models[23]] * 17 + [models[0]] * (len(models) - 40)
    assert models[23] != models[0]
    assert len(ran.decisions) == BARS - FIRST
    assert_the_books_agree(ran)


def test_a_damaged_journal_is_restored_and_only_reduces_until_a_person_has_looked(trade, tmp_path):
    async def keep_and_stop(engine, event):
        if not engine.stop_reason:
            engine.account.books.journal.backup()
            await stop(engine, event)

    trade(prepare=after(OrderFilled, keep_and_stop, 3))
    path = tmp_path / "a" / "journal.db"
    path.write_bytes(b"nothing of it can be read" * 1000)
    second = trade(prepare=after(Bar, stop, 10))
    assert list((tmp_path / "a" / "quarantine").iterdir())
    state = second.engine.account.state
    assert (state.trading, state.is_latched) == (TradingState.REDUCING, True)
    for event in second.of(OrderInitialized):
        assert event.intent.reduce_only
    assert_the_books_agree(second)

    async def look(engine, event):
        engine.governor.rearm("the disk is a new one")

    third = trade(prepare=after(Bar, look, 1))
    assert third.engine.account.state.trading is TradingState.ACTIVE
    assert [e for e in third.of(OrderInitialized) if not e.intent.reduce_only]
    assert_the_books_agree(third)


def test_a_position_closed_by_hand_is_booked_at_its_price_and_keeps_its_owner(trade):
    async def close(engine, event):
        held = engine.account.state.quantity("SYNTH")
        if held and not closed:
            closed.append(held)
            engine.account.broker.trade_outside("SYNTH", -held)
            await engine.session.compare()

    closed = []

    def prepare(engine):
        for count in range(10, 30):
            after(Bar, close, count)(engine)

    ran = trade(prepare=prepare, engine={"external": "adopt"})
    state = ran.engine.account.state
    outside = [e for e in ran.of(OrderFilled) if e.cid not in state.orders]
    assert [event.side.sign * event.quantity for event in outside] == [-closed[0]]
    assert float(outside[0].price) > 0
    assert state.positions["SYNTH"].owner == "main"
    assert state.trading is TradingState.ACTIVE
    assert_the_books_agree(ran)


def test_a_loss_of_the_day_reduces_through_a_restart_until_the_next_day(trade):
    def prepare(engine):
        def look(event):
            if isinstance(event, TradingStateChanged):
                engine.stop(event.reason)

        engine.account.books.listeners.append(look)

    limits = {"protections": {"max_daily_loss": 0.002, "flatten": False}}
    first = trade(prepare=prepare, **limits)
    assert first.engine.account.state.trading is TradingState.REDUCING
    tripped_ns = first.events[-1].at_ns
    second = trade(**limits)
    change = second.of(TradingStateChanged)[0]
    assert change.state is TradingState.ACTIVE
    assert change.at_ns // DAY_NS == tripped_ns // DAY_NS + 1
    opened = [e for e in second.of(OrderInitialized) if not e.intent.reduce_only]
    assert all(event.at_ns >= change.at_ns for event in opened)
    tried = [e.at_ns for e in second.decisions if e.verdict.startswith(("traded", "denied"))]
    assert max(tried) > change.at_ns  # the new day is traded, as far as its own limit leaves room
