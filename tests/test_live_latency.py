"""The live engine beside a broker in memory: what it does at once, and what it may take."""

import asyncio
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from jaxtrade import sizing
from jaxtrade.experiments.benchmarks.live_latency import Flood, bars, flood, run_engine, settings_of
from jaxtrade.experiments.benchmarks.stand_in import StandIn
from jaxtrade.live import single
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import BarDecided, CashMoved, OrderInitialized, OrderSubmitted
from jaxtrade.live.settings import write
from jaxtrade.live.state import State
from jaxtrade.live.worth import Worth
from jaxtrade.synthetic import make_market
from tests.live_runs import write_bundle

ROOT = Path(__file__).parent.parent
DAY_NS = 86_400 * 10**9

STARTED = """
import asyncio, json, resource, sys
from jaxtrade.live.brokers.making import make_broker
from jaxtrade.live.run import prepared
from jaxtrade.live.settings import read

async def start():
    settings = read(sys.argv[1])
    async with prepared(settings, make_broker(settings)) as engine:
        task = asyncio.create_task(engine.run())
        while not engine.account.is_connected or engine.account.is_reconciling:
            await asyncio.sleep(0.01)
        used = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/status") as file:  # of this program, where ru_maxrss is of its parent
            (peak,) = [line.split()[1] for line in file if line.startswith("VmHWM")]
        engine.stop("enough")
        await task
    packages = {name.partition(".")[0] for name in sys.modules}
    seconds = used.ru_utime + used.ru_stime
    return {"cpu_s": seconds, "mb": int(peak) / 1e3, "jax": bool(packages & {"jax", "jaxlib"})}

print(json.dumps(asyncio.run(start())))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle that trades, of bars of a second."""
    market = make_market(num_bars=320, bar_seconds=1)
    return write_bundle(tmp_path_factory.mktemp("bundle"), market)


def test_orders_of_a_decision_are_sent_after_one_durable_commit_and_before_all_else(
    tmp_path, bundle
):
    done = []

    async def drive(engine, broker):
        account = engine.account
        record, submit = account.books.journal.record, broker.submit_order

        def recorded(events=(), *, durable, **how):
            done.append(("durable" if durable else "written", tuple(map(type, events))))
            return record(events, durable=durable, **how)

        async def submitted(intent):
            done.append(("sent", intent.cid))
            await submit(intent)

        account.books.journal.record, broker.submit_order = recorded, submitted
        account.books.listeners.append(lambda event: done.append(("told", type(event))))
        await bars(engine, broker, count=10, pause_s=0.0)

    broker = StandIn(SimulatedClock(20_000 * DAY_NS))
    asyncio.run(run_engine(settings_of(tmp_path / "account", bundle, ("A",)), broker, drive))
    sent = [index for index, (what, _) in enumerate(done) if what == "sent"]
    assert len(sent) > 20
    for index in sent:
        what, kinds = done[index - 1]  # nothing comes between: not what is told, nor what is noted
        assert what == "durable"
        assert {BarDecided, OrderInitialized} <= set(kinds)
        assert done[index + 1] == ("written", (OrderSubmitted,))
    durable = [kinds for what, kinds in done[sent[0] - 1 :] if what == "durable"]
    assert len(durable) == len(sent) + 1  # and one for the end


def test_a_flood_of_ticks_is_absorbed(tmp_path, bundle):
    driver = Flood(rate=2_000, seconds=2.5, settle_s=1.5)
    found = flood(tmp_path / "account", bundle, driver, num_symbols=8)
    assert found["ticks"] > 1_000  # of 2,000 a second, on a machine that others use too
    assert found["orders"] > 0
    assert found["longest_queue"] < 2_000  # one second of them
    assert found["rss_growth"] < 30
    assert found["files_growth"] <= 0


def test_an_engine_starts_without_jax_soon_and_small(tmp_path, bundle):
    settings = settings_of(tmp_path / "account", bundle, ("A",))
    write(settings)
    done = subprocess.run(
        [sys.executable, "-c", STARTED, str(settings.path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert not found["jax"]
    assert found["cpu_s"] < 1.0
    assert found["mb"] < 200


def test_sizes_of_one_symbol_are_those_of_arrays_bit_for_bit():
    source = np.random.default_rng(0)
    count = 20_000
    target = source.choice([0.0, 0.5, -1.0, 1.0, 0.3, 2e6, np.nan], count)
    target = np.where(source.random(count) < 0.5, target, source.normal(0.0, 1.0, count))
    lot = np.exp(source.uniform(np.log(1e-7), np.log(0.5), count))
    lot = np.where(source.random(count) < 0.1, np.abs(target) / source.integers(1, 99, count), lot)
    lots = source.integers(-50, 50, count) * (source.random(count) < 0.7)
    weight = np.where(source.random(count) < 0.2, target, lots * lot)
    band = source.choice([0.0, 0.05, 0.2], count)
    least = np.where(source.random(count) < 0.5, lot, 0.0)
    f32 = [each.astype(np.float32) for each in (target, weight, lot, band, least)]

    wanted = sizing.delta_order(f32[0], f32[1], f32[3], f32[4], xp=np)
    made = [single.delta_order(*each) for each in zip(target, weight, band, least, strict=True)]
    np.testing.assert_array_equal(np.array(made, np.float32), wanted)
    assert 0 < np.count_nonzero(wanted) < count

    held = lots.astype(np.int32)
    with np.errstate(invalid="ignore"):
        wanted = sizing.lots_order(f32[0], held, f32[2], f32[3], f32[4], xp=np)
    rows = zip(target, lots.tolist(), lot, band, least, strict=True)
    np.testing.assert_array_equal([single.lots_order(*each) for each in rows], wanted)
    assert 0 < np.count_nonzero(wanted) < count


def test_worth_follows_prices_and_events():
    state, closes = State(), {"A": 10.0, "B": 20.0}
    worth = Worth(state, closes)
    state.apply(CashMoved(at_ns=0, agent="x", amount=Decimal(100)))
    assert worth.at("A") is None  # nobody holds it
    state.holdings.book("x").fill("A", Decimal(3), Decimal(10))
    state.holdings.book("y").fill("A", Decimal(-1), Decimal(10))
    state.holdings.book("y").fill("B", Decimal(2), Decimal(20))
    state.apply(CashMoved(at_ns=0, agent="", amount=Decimal(7)))
    for closes["A"], closes["B"], symbol in (
        (10.0, 20.0, "A"),
        (11.0, 20.0, "A"),
        (11.0, 19.0, "B"),
    ):
        values = [book.value(closes) for book in state.books.values()]
        assert worth.at(symbol) == pytest.approx(sum(values), rel=1e-12)
    assert worth.at("C") is None
