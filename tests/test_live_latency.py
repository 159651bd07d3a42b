"""The live engine beside a broker in memory: what it does at once, and what it may take."""

import asyncio
from decimal import Decimal

import numpy as np
import pytest

from jaxtrade import sizing
from jaxtrade.experiments.benchmarks.live_latency import Flood, bars, flood, run_engine, settings_of
from jaxtrade.experiments.benchmarks.stand_in import StandIn
from jaxtrade.live import single
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import BarDecided, CashMoved, OrderInitialized, OrderSubmitted
from jaxtrade.live.export import export_policy
from jaxtrade.live.state import State
from jaxtrade.live.worth import Worth
from jaxtrade.specs import FeatureSpec
from tests.bundles import linear_policy, metadata_of

DAY_NS = 86_400 * 10**9


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle that follows the last bar of a second, up or down."""
    spec = FeatureSpec(names=("log_return",), window=2)
    policy = linear_policy(spec, [[-1e5, 0.0, 1e5]], np.zeros((6, 3)), [0.0, 0.0, 0.0])
    path = tmp_path_factory.mktemp("bundle") / "policy.onnx"
    export_policy(path, policy, metadata_of(policy, bar_seconds=1))
    return path


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
