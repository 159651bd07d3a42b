"""SIGKILL at any point: afterwards no order is there twice, none is lost, and the books agree.

One account lives through many deaths. After each the journal is read as the next start reads it;
at the end its orders, fills and positions are those that the broker has, and every bar was decided
once.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from jaxtrade.experiments.paper import venue
from jaxtrade.live.brokers.paper import connection
from jaxtrade.live.events import BarDecided, OrderInitialized
from jaxtrade.live.journal import Journal, open_readonly, read_events
from jaxtrade.live.recovery import fold
from jaxtrade.live.state import State
from tests.live_runs import FIRST, params_of, small_market, write_bundle
from tests.live_victim import POINTS, keep_venue

ROOT = Path(__file__).parent.parent
READY_S = 10.0
NUM_BARS = 320


def live_once(folder: Path, point: str, count: int, seed: int = 0) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.live_victim", str(folder), point, str(count), str(seed)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-2000:]
    return done.returncode


def events_of(folder: Path) -> list:
    db = open_readonly(folder / "account" / "journal.db")
    try:
        return [event for _, event in read_events(db, 0, name="journal")]
    finally:
        db.close()


def assert_the_journal_is_its_events(folder: Path) -> None:
    """The newest snapshot and what came after it lead to where all events lead to."""
    whole = State()
    whole.apply_all(events_of(folder))
    with Journal(folder / "account" / "journal.db", now=time.time_ns) as journal:
        assert fold(journal).digest() == whole.digest()


def assert_the_books_agree(folder: Path) -> None:
    state = State()
    events = events_of(folder)
    state.apply_all(events)
    decided = Counter(event.start_s for event in events if isinstance(event, BarDecided))
    assert len(decided) == NUM_BARS - FIRST
    assert set(decided.values()) == {1}
    sent = Counter(event.cid for event in events if isinstance(event, OrderInitialized))
    assert set(sent.values()) == {1}

    broker = connection(folder / "paper.db")

    async def ask():
        await broker.connect()
        return await broker.snapshot()

    there = asyncio.run(ask())
    assert there.is_complete
    known = [order.cid for order in (*there.open_orders, *there.closed_orders)]
    assert len(known) == len(set(known))
    assert set(known) <= set(state.orders)  # nobody's order is at the broker
    absent = set(state.orders) - set(known)
    assert all(state.orders[cid].status == "lost" for cid in absent)
    assert {cid for cid, order in state.orders.items() if order.is_working} == {
        order.cid for order in there.open_orders
    }
    for order in (*there.open_orders, *there.closed_orders):
        assert state.orders[order.cid].filled == order.filled
    held = {position.symbol: position.quantity for position in there.positions}
    assert {s: p.quantity for s, p in state.positions.items() if p.quantity} == {
        symbol: quantity for symbol, quantity in held.items() if quantity
    }
    assert float(state.books["main"].cash) + 0 == pytest.approx(there.cash, rel=1e-9)


def die_often(folder: Path, deaths: int, seed: int) -> Counter:
    """Kill it so often, at points drawn by chance; how often at each."""
    rng = random.Random(seed)
    market = small_market(NUM_BARS)
    write_bundle(folder, market)
    keep_venue(folder, venue(market, params_of(market)))
    met: Counter = Counter()
    while sum(met.values()) < deaths:
        point = rng.choice(POINTS)
        if live_once(folder, point, rng.randint(1, 4), seed) == 0:
            break  # the data are over
        met[point] += 1
        assert_the_journal_is_its_events(folder)
    live_once(folder, "none", 1, seed)
    assert_the_books_agree(folder)
    ready = [float(line) for line in (folder / "ready").read_text().split()]
    assert max(ready) < READY_S * max(os.getloadavg()[0] / 2, 1)
    print(f"{sum(met.values())} deaths {dict(met)}, ready in {max(ready):.1f} s at most")
    return met


def test_killed_twice_the_books_agree(tmp_path):
    assert sum(die_often(tmp_path, 2, seed=1).values()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_killed_25_times_the_books_agree(tmp_path, seed):
    assert sum(die_often(tmp_path, 25, seed).values()) == 25


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 140))
def test_killed_1000_times_the_books_agree(tmp_path, seed):
    assert sum(die_often(tmp_path, 25, seed).values()) == 25
