"""SIGKILL at any point: afterwards no order is there twice, none is lost, and the books agree.

One account lives through many deaths. After each the journal is read as the next start reads it;
at the end its orders, fills and positions are those that the broker has, and every bar was decided
once.
"""

import asyncio
import os
import random
import shutil
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


class Victims:
    """Engines of one account, one after the other."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._seed = seed
        self._errors = open(folder / "errors", "w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.live_victim", str(folder)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()
        self._errors.close()

    def live(self, point: str, count: int) -> int:
        """Let one live until a point; its exit status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(f"{point};{count};{self._seed}", file=self._process.stdin, flush=True)
        status = self._process.stdout.readline().strip()
        self._errors.seek(0)
        assert status in ("0", str(-signal.SIGKILL)), self._errors.read()[-2000:]
        return int(status)


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


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """What an engine needs to trade: a bundle and a venue."""
    folder = tmp_path_factory.mktemp("world")
    market = small_market(NUM_BARS)
    write_bundle(folder, market)
    keep_venue(folder, venue(market, params_of(market)))
    return folder


def die_often(world: Path, folder: Path, deaths: int, seed: int) -> Counter:
    """Kill it so often, at points drawn by chance; how often at each."""
    rng = random.Random(seed)
    for file in world.iterdir():
        shutil.copy(file, folder)
    met: Counter = Counter()
    with Victims(folder, seed) as victims:
        while sum(met.values()) < deaths:
            point = rng.choice(POINTS)
            if victims.live(point, rng.randint(1, 4)) == 0:
                break  # the data are over
            met[point] += 1
            assert_the_journal_is_its_events(folder)
        victims.live("none", 1)
    assert_the_books_agree(folder)
    ready = [float(line) for line in (folder / "ready").read_text().split()]
    assert max(ready) < READY_S * max(os.getloadavg()[0] / 2, 1)
    print(f"{sum(met.values())} deaths {dict(met)}, ready in {max(ready):.1f} s at most")
    return met


def test_killed_twice_the_books_agree(world, tmp_path):
    assert sum(die_often(world, tmp_path, 2, seed=1).values()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_killed_25_times_the_books_agree(world, tmp_path, seed):
    assert sum(die_often(world, tmp_path, 25, seed).values()) == 25


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 140))
def test_killed_1000_times_the_books_agree(world, tmp_path, seed):
    assert sum(die_often(world, tmp_path, 25, seed).values()) == 25
