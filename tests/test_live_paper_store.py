"""The paper broker's books outlive the process, and another process may act on them."""

import asyncio
import dataclasses
import signal
import sqlite3
import subprocess
import sys
import time
from decimal import Decimal

import numpy as np
import pytest

from jaxtrade.live.brokers import paper_store
from jaxtrade.live.brokers.base import NotConnectedError
from jaxtrade.live.brokers.paper import PaperBroker, connection
from jaxtrade.live.brokers.paper_books import REMEMBERED, Books
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.brokers.paper_store import PaperStore
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import (
    AccountState,
    Bar,
    BrokerConnected,
    OrderCanceled,
    OrderFilled,
    OrderKind,
)
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from tests.test_live_paper import MARKET, intent, venue_under

VENUE = venue_under(make_rules())
SYMBOL = MARKET.spec.symbols[0]


def broker_on(path, **options):
    return PaperBroker(Replay(VENUE), clock=SimulatedClock(), path=path, **options)


async def trade(broker, bars, *, first=0):
    """An order of 100 units up or down at each bar, until so many have come."""
    await broker.connect()
    events, told = broker.events(), []
    async for event in events:
        told.append(event)
        if isinstance(event, Bar):
            bars -= 1
            if bars < 0:
                break
            row = VENUE.starts_s.searchsorted(event.start_s)
            if row >= first:
                await broker.submit_order(intent(int(row), Decimal(100 if row % 3 else -150)))
    await events.aclose()
    return told


def account(told):
    return [event for event in told if isinstance(event, AccountState)]


def run(coroutine):
    return asyncio.run(coroutine)


def test_another_process_goes_on_where_the_first_has_ended(tmp_path) -> None:
    whole = run(trade(broker_on(None), 60))
    path = tmp_path / "paper.db"
    run(trade(broker_on(path), 25))
    later = broker_on(path)
    told = run(trade(later, 35))
    assert [e.epoch for e in told if isinstance(e, BrokerConnected)] == [2]
    assert account(told)[-1] == account(whole)[-1]  # to the last bit
    fills = later._desk.books.fills.values()
    assert tuple(fills) == tuple(e for e in whole if isinstance(e, OrderFilled))
    ids = [e.execution_id for e in told if isinstance(e, OrderFilled)]
    assert len(set(ids)) == len(ids) and set(ids) <= set(later._desk.books.fills)


def test_the_newest_bar_is_told_again_and_history_ends_before_it(tmp_path) -> None:
    async def play():
        path = tmp_path / "paper.db"
        told = await trade(broker_on(path), 10)
        last = [e for e in told if isinstance(e, Bar)][-1]
        later = broker_on(path)
        await later.connect()
        history = await later.history(SYMBOL, bar_seconds=last.seconds, count=5)
        async for event in later.events():
            if isinstance(event, Bar):
                return last, history, event

    last, history, again = run(play())
    assert again == last
    assert len(history) == 5 and history[-1].start_s < last.start_s


def test_another_process_cancels_and_closes_and_the_first_one_sees_it(tmp_path) -> None:
    async def play():
        path = tmp_path / "paper.db"
        engine = broker_on(path)
        told = await trade(engine, 8)
        waiting = intent(900, Decimal(10), kind=OrderKind.LIMIT, price=Decimal("1"))
        await engine.submit_order(waiting)
        other = connection(path)
        await other.connect()
        found = await other.snapshot()
        await other.cancel_all_orders()
        await other.close_all_positions()
        after = await other.snapshot()
        events = engine.events()
        seen = [await anext(events) for _ in range(6)]
        mine = await engine.snapshot()
        return told, found, after, seen, mine, waiting

    _, found, after, seen, mine, waiting = run(play())
    assert found.positions and waiting.cid in {order.cid for order in found.open_orders}
    assert after.positions == after.open_orders == ()
    cost = found.positions[0].quantity * Decimal(repr(found.positions[0].price))
    assert 0 < found.equity - after.equity < 1e-3 * float(abs(cost))
    assert waiting.cid in {e.cid for e in seen if isinstance(e, OrderCanceled)}
    [closing] = [e for e in seen if isinstance(e, OrderFilled) and e.cid == ""]
    assert closing.quantity == abs(found.positions[0].quantity)
    assert mine.positions == () and mine.cash == pytest.approx(after.cash)


def test_what_another_does_while_a_bar_is_booked_counts_first(tmp_path) -> None:
    """A close that comes between reading the books and writing them is not overwritten."""

    async def play():
        path = tmp_path / "paper.db"
        engine = broker_on(path)
        await trade(engine, 8)
        other = connection(path)
        await other.connect()
        feed, advance = engine._feed, engine._feed.advance

        def interrupted(books: Books):
            feed.advance = advance
            other._tell(other._desk.close_all())
            return advance(books)

        feed.advance = interrupted
        events = engine.events()
        while feed.advance is not advance:
            await anext(events)
        return await engine.snapshot(), engine

    snapshot, engine = run(play())
    fills = [fill for fill in snapshot.fills if fill.cid == ""]
    total = sum((f.side.sign * f.quantity for f in snapshot.fills), Decimal(0))
    assert len(fills) == 1 and engine._desk.books.units[SYMBOL] == total


def test_a_further_connection_needs_no_jax_and_is_quick(tmp_path) -> None:
    path = tmp_path / "paper.db"
    run(trade(broker_on(path), 8))
    code = (
        "import asyncio, sys\n"
        "from jaxtrade.live.brokers.paper import connection\n"
        "async def main():\n"
        f"    broker = connection({str(path)!r})\n"
        "    await broker.connect()\n"
        "    await broker.close_all_positions()\n"
        "    print(len((await broker.snapshot()).positions), 'jax' in sys.modules)\n"
        "asyncio.run(main())\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["0", "False"]
    assert time.monotonic() - started < 5.0


def test_the_file_of_another_account_is_refused(tmp_path) -> None:
    path = tmp_path / "paper.db"
    broker_on(path)
    other = dataclasses.replace(VENUE, symbols=("OTHER",))
    with pytest.raises(JaxtradeError, match=r"is an account of SYNTH, not of OTHER: give another"):
        PaperBroker(Replay(other), path=path)
    with pytest.raises(JaxtradeError, match=r"there is no paper account$"):
        connection(tmp_path / "none.db")
    text = tmp_path / "text.db"
    text.write_text("no database, but long enough to be taken for one " * 30)
    with pytest.raises(JaxtradeError, match="cannot be opened: file is not a database"):
        PaperStore(text)


CRASHING = """
import asyncio, sys
from tests.paper_toy import play
asyncio.run(play(sys.argv[1]))
"""


def crash(path, lines):
    """A process that trades and is killed once it has said so much; what it had said."""
    process = subprocess.Popen(
        [sys.executable, "-c", CRASHING, str(path)], stdout=subprocess.PIPE, text=True
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if len(said) >= lines:
            break
    process.send_signal(signal.SIGKILL)
    said += process.stdout.readlines()  # what was on its way
    process.stdout.close()
    process.wait(timeout=30)
    return [line.split() for line in said if line.endswith("\n")]


@pytest.mark.parametrize(
    "kills", [pytest.param(4, id="4"), pytest.param(60, id="60", marks=pytest.mark.slow)]
)
def test_nothing_that_was_told_is_forgotten_or_told_otherwise_after_a_kill(tmp_path, kills) -> None:
    path, generator = tmp_path / "paper.db", np.random.default_rng(kills)
    fills, accepted = {}, set()
    for _ in range(kills):
        for word, *rest in crash(path, int(generator.integers(1, 60))):
            if word == "accepted":
                accepted.add(rest[0])
            elif word == "fill":
                assert fills.setdefault(rest[0], rest[1:]) == rest[1:]
    books, _, _ = PaperStore(path).load()
    assert len(accepted) > kills and accepted <= set(books.numbers)
    for execution_id, (cid, quantity, price) in fills.items():
        kept = books.fills[execution_id]
        assert (kept.cid, str(kept.quantity), str(kept.price)) == (cid, quantity, price)
    total = sum((f.side.sign * f.quantity for f in books.fills.values()), Decimal(0))
    assert books.units["TOY"] == total
    each = [fill.cid for fill in books.fills.values()]
    assert len(set(each)) == len(each) > kills


def test_a_snapshot_has_the_newest_of_what_is_over() -> None:
    books = Books((SYMBOL,), 1e6)
    books.closes[SYMBOL] = 100.0
    orders = [books.add(intent(number, Decimal(1))) for number in range(REMEMBERED + 20)]
    for order in orders[:-1]:
        books.deal(SYMBOL, Decimal(1), order)
    snapshot = books.snapshot(0)
    assert [order.cid for order in snapshot.open_orders] == [orders[-1].intent.cid]
    newest = [order.intent.cid for order in orders[19:-1]]
    assert [order.cid for order in snapshot.closed_orders] == newest
    assert [fill.cid for fill in snapshot.fills] == newest


def test_a_file_that_is_locked_is_a_broker_that_does_not_answer(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(paper_store, "LOCK_SECONDS", 0.05)

    async def play():
        path = tmp_path / "paper.db"
        broker = broker_on(path)
        await trade(broker, 5)
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotConnectedError, match="database is locked"):
            await broker.submit_order(intent(901, Decimal(10)))
        lock.execute("ROLLBACK")
        lock.close()
        await broker.submit_order(intent(902, Decimal(10)))
        return {order.cid for order in (await broker.snapshot()).open_orders}

    assert intent(902, Decimal(10)).cid in (found := run(play()))
    assert intent(901, Decimal(10)).cid not in found
