"""How long the live engine takes, as `live.run` builds it, beside a broker in memory.

    python -m jaxtrade.experiments.benchmarks.live_latency [CASE ...] [--repeats 5] [--minutes 60]

decision   one decision of a policy: the graph alone, and `OnnxPolicy.decide`
order      from the tick that ends a bar to the return of `submit_order`: bar, decision, plan,
           guard and durable commit; quiet, and with troubles beside it: alerts that no service
           takes, a reader in the journal, a slow disk under logs and metrics (`live_troubles`)
flood      50,000 ticks a second of 20 symbols, an agent each, bars of five seconds
soak       1,000 ticks a second, by default for an hour: what has grown since its first tenth
disk       a commit without a database: pages written over others, and made durable

The engine's process has the processor's last core for itself, troubles have the others. The journal
is in a temporary folder: put TMPDIR on the disk that is meant.
"""

import argparse
import asyncio
import contextlib
import gc
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrade.experiments.benchmarks import live_troubles
from jaxtrade.experiments.benchmarks.result import print_result
from jaxtrade.experiments.benchmarks.stand_in import PRICE, StandIn
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.engine import Engine
from jaxtrade.live.events import BrokerEvent, Event, Tick
from jaxtrade.live.run import prepared
from jaxtrade.live.settings import LiveSettings, from_tree

PERCENTILES = (50, 99)
STRENGTH = 30.0
"""Of the policy's parameters: it then changes its mind at every other bar."""

TROUBLES = tuple(live_troubles.KINDS)
BAR_SECONDS, FLOOD_BAR_SECONDS = 60, 5
SECOND_NS = 10**9
PUSH_S = 0.001
"""Between two lots of ticks."""

FLOOD_RATE, SOAK_RATE = 50_000, 1_000
TICK_MOVE = 2e-6
"""Standard deviation of a price's move from tick to tick, relative."""

WARM_UP_BARS = 100
COMMIT_PAGES = (1, 6)
"""Written at once: the least there is, and about what the commit of an order writes."""

KEPT_EACH = 17
"""Of so many ticks the time of one is kept."""


def export(path: Path, *, bar_seconds: int = BAR_SECONDS) -> None:
    """Write a bundle, in a process of its own: an engine's knows no JAX."""
    program = (
        "import sys, pathlib;"
        "from jaxtrade.experiments.benchmarks.decision_latency import export;"
        "path, strength, seconds = sys.argv[1:];"
        "export(pathlib.Path(path), strength=float(strength), bar_seconds=int(seconds))"
    )
    command = (sys.executable, "-c", program, str(path), str(STRENGTH), str(bar_seconds))
    subprocess.run(command, check=True)


def settings_of(
    folder: Path, bundle: Path, symbols: Sequence[str], **sections: Any
) -> LiveSettings:
    """An account with one agent for each symbol, which the guard lets trade at any rate."""
    many = 10**9
    each = {
        "model": str(bundle),
        "budget": 1.0 / len(symbols),
        "no_trade_band": 0.0,
        "limits": {"max_exposure": 0.5},
    }
    guard = {
        "orders_per_minute": many,
        "orders_per_minute_agent": many,
        "orders_per_minute_symbol": many,
        "exits_per_minute": many,
        "orders_per_day": many,
        "turnover_per_day": float("inf"),
    }
    return from_tree(
        {
            "name": "bench",
            "folder": str(folder),
            "broker": {"kind": "jaxtrade.experiments.benchmarks.stand_in:make"},
            "agents": {symbol: {**each, "symbols": [symbol]} for symbol in symbols},
            "guard": guard,
            **sections,
        }
    )


Drive = Callable[[Engine, StandIn], Awaitable[None]]


async def run_engine(settings: LiveSettings, broker: StandIn, drive: Drive) -> Engine:
    """Run an engine until the driver of its broker has come to its end."""
    async with prepared(settings, broker) as engine:

        async def driven() -> None:
            try:
                await drive(engine, broker)
            finally:
                engine.stop("enough")

        task = asyncio.create_task(driven())
        await engine.run()
        await task
    return engine


# --- order ---------------------------------------------------------------------------------------


async def bars(engine: Engine, broker: StandIn, *, count: int, pause_s: float) -> None:
    """Let bars end one after the other, of two ticks for each symbol, with pauses between them."""
    clock, symbols = broker.clock, tuple(engine.account.owners)
    half_ns = next(iter(engine.account.desks.values())).bar_seconds * SECOND_NS // 2
    assert isinstance(clock, SimulatedClock)
    noise = random.Random(0)
    prices = dict.fromkeys(symbols, PRICE)
    while not engine.account.is_connected or engine.account.is_reconciling:
        await asyncio.sleep(0.01)
    for index in range(count + WARM_UP_BARS):
        if index == WARM_UP_BARS:
            broker.sent.clear()
        for _ in range(2):
            clock.advance(half_ns)
            for symbol in symbols:
                prices[symbol] *= 1.0 + noise.gauss(0.0, 2e-4)
                broker.push(tick_of(symbol, prices[symbol], clock.wall_ns()))
            while broker.waiting:
                await asyncio.sleep(pause_s)
        await asyncio.sleep(pause_s)


def tick_of(symbol: str, price: float, at_ns: int) -> Tick:
    """A quote about a price."""
    half = 5e-5 * price
    return Tick(at_ns=at_ns, symbol=symbol, bid=price - half, ask=price + half, volume=1.0)


def time_orders(
    folder: Path,
    bundle: Path,
    *,
    count: int,
    pause_s: float,
    troubles: Sequence[str],
    cores: set[int],
) -> dict[str, np.ndarray]:
    """Microseconds of each order of `count` bars: from its tick until it was handed over, and of
    these its commit, most of which is the disk's.
    """
    start_s = time.time_ns() // SECOND_NS // BAR_SECONDS * BAR_SECONDS
    broker = StandIn(SimulatedClock(start_s * SECOND_NS))
    settings = settings_of(folder, bundle, ("A",), protections={"max_drawdown": 1.0})
    commits: list[int] = []

    async def drive(engine: Engine, broker: StandIn) -> None:
        journal = engine.account.books.journal
        record = journal.record

        def timed(events: Sequence[Event] = (), *, durable: bool, **how: Any) -> int:
            started = time.perf_counter_ns()
            seq = record(events, durable=durable, **how)
            if durable:
                commits.append(time.perf_counter_ns() - started)
            return seq

        journal.record = timed  # type: ignore[method-assign]
        await bars(engine, broker, count=count, pause_s=pause_s)

    with beside(folder, troubles, cores):
        asyncio.run(run_engine(settings, broker, drive))
    return {"order": np.array(broker.sent) / 1e3, "commit": np.array(commits) / 1e3}


@contextlib.contextmanager
def beside(folder: Path, troubles: Sequence[str], cores: set[int]) -> Iterator[None]:
    """Troubles of some kinds, on these cores."""
    processes = []
    folder.mkdir(parents=True, exist_ok=True)
    if "disk" in troubles:
        live_troubles.make_pipe(folder)
    try:
        for kind in troubles:
            command = (sys.executable, "-m", live_troubles.__name__, str(folder), kind)
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            os.sched_setaffinity(process.pid, cores)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


# --- ticks ---------------------------------------------------------------------------------------


class Watch:
    """What an engine under ticks shows: how long one takes it, and how large it is.

    ticks: dealt with; took: microseconds of some of them.
    """

    def __init__(self, engine: Engine, broker: StandIn) -> None:
        self.engine, self.broker = engine, broker
        self.ticks = 0
        self.took = array("d")
        broker.dealt = self._dealt

    def _dealt(self, event: BrokerEvent, nanoseconds: int) -> None:
        if type(event) is Tick:
            self.ticks += 1
            if self.ticks % KEPT_EACH == 0:
                self.took.append(nanoseconds / 1e3)

    def size(self) -> dict[str, float]:
        """Memory in MB, open files, orders in memory, objects that Python has to look after."""
        gc.collect()
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        return {
            "rss": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
            "files": len(os.listdir("/proc/self/fd")),
            "orders": len(self.engine.account.state.orders),
            "objects": len(gc.get_objects()),
        }


class Flood:
    """Ticks at a rate, by the machine's clock, for some seconds; then what it has shown."""

    def __init__(self, *, rate: int, seconds: float, settle_s: float) -> None:
        self.rate, self.seconds, self.settle_s = rate, seconds, settle_s
        self.results: dict[str, float] = {}

    async def __call__(self, engine: Engine, broker: StandIn) -> None:
        """Drive an engine."""
        symbols = tuple(engine.account.owners)
        while not engine.account.is_connected or engine.account.is_reconciling:
            await asyncio.sleep(0.01)
        watch = Watch(engine, broker)
        await self._push(broker, symbols, self.settle_s)
        before = watch.size()
        watch.ticks, watch.took, broker.longest = 0, array("d"), 0
        broker.sent.clear()
        wall, busy = time.perf_counter(), time.process_time()
        await self._push(broker, symbols, self.seconds)
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        after = watch.size()
        p50, p99 = np.percentile(watch.took, PERCENTILES)
        self.results = {
            "ticks": watch.ticks / wall,
            "tick_p50": float(p50),
            "tick_p99": float(p99),
            "busy": busy / wall,
            "longest_queue": broker.longest,
            "orders": len(broker.sent),
            **{f"{name}_growth": after[name] - before[name] for name in before},
            "rss": after["rss"],
        }

    async def _push(self, broker: StandIn, symbols: Sequence[str], seconds: float) -> None:
        """Push what is due every millisecond, and be done once all of it was dealt with."""
        source = random.Random(0)
        moves = itertools.cycle([source.gauss(1.0, TICK_MOVE) for _ in range(9973)])
        names, prices = itertools.cycle(symbols), broker.prices
        started, pushed = time.perf_counter(), 0
        total = round(self.rate * seconds)
        while pushed < total:
            due = min(round((time.perf_counter() - started) * self.rate), total)
            now_ns = broker.clock.wall_ns()
            for _ in range(due - pushed):
                name = next(names)
                broker.push(tick_of(name, prices[name] * next(moves), now_ns))
            pushed = due
            await asyncio.sleep(PUSH_S)
        while broker.waiting:
            await asyncio.sleep(PUSH_S)


def flood(folder: Path, bundle: Path, driver: Flood, *, num_symbols: int) -> dict[str, float]:
    """What a flood of ticks has shown."""
    symbols = [f"S{index}" for index in range(num_symbols)]
    asyncio.run(run_engine(settings_of(folder, bundle, symbols), StandIn(), driver))
    return driver.results


# --- the benchmark -------------------------------------------------------------------------------

UNITS = {
    "ticks": "1/s",
    "tick_p50": "us",
    "tick_p99": "us",
    "busy": "of a core",
    "rss": "MB",
    "rss_growth": "MB",
}


def show(case: str, metric: str, values: Sequence[float], unit: str, **config: Any) -> None:
    """Print one result."""
    print_result(
        bench="live_latency",
        impl="jaxtrade",
        case=case,
        metric=metric,
        values=values,
        unit=unit,
        config=config,
    )


def case_decision(args: argparse.Namespace, folder: Path) -> None:
    """The graph alone and `decide`; brings JAX into this process."""
    from jaxtrade.experiments.benchmarks import decision_latency
    from jaxtrade.live.policy import OnnxPolicy

    path = folder / "policy.onnx"
    decision_latency.export(path)
    policy = OnnxPolicy(path)
    for case in ("graph", "decide"):
        decision_latency.measure(policy, case, calls=args.calls)
        runs = [
            np.percentile(decision_latency.measure(policy, case, calls=args.calls), PERCENTILES)
            for _ in range(args.repeats)
        ]
        for index, percentile in enumerate(PERCENTILES):
            values = [float(run[index]) for run in runs]
            show(f"decision_{case}", f"p{percentile}", values, "us", calls=args.calls)


def case_order(args: argparse.Namespace, folder: Path) -> None:
    """Quiet and troubled runs in turn."""
    bundle = folder / "policy.onnx"
    export(bundle)
    config = {"bars": args.bars, "pause_s": args.pause}
    found: dict[str, list[np.ndarray]] = {}
    for number in range(args.repeats):
        for name, troubles in (("quiet", ()), ("troubled", TROUBLES)):
            times = time_orders(
                folder / f"{name}{number}",
                bundle,
                count=args.bars,
                pause_s=args.pause,
                troubles=troubles,
                cores=args.others,
            )
            for part, values in times.items():
                row = np.array([values.min(), *np.percentile(values, PERCENTILES)])
                found.setdefault(f"{part}_{name}", []).append(row)
                print(f"{part} {name} {number}: {len(values)}, {row.round(1)} us", file=sys.stderr)
    metrics = ("min", *(f"p{percentile}" for percentile in PERCENTILES))
    for case, runs in found.items():
        for index, metric in enumerate(metrics):
            show(case, metric, [float(run[index]) for run in runs], "us", **config)
    for index, metric in enumerate(metrics):
        quiet, troubled = (
            statistics.median(run[index] for run in found[f"order_{name}"])
            for name in ("quiet", "troubled")
        )
        show("order_troubled", f"{metric}_over_quiet", [troubled / quiet], "ratio", **config)


def case_disk(args: argparse.Namespace, folder: Path) -> None:
    """What no commit can be quicker than."""
    length, page = 4 << 20, 4096
    with open(folder / "pages", "wb+", buffering=0) as file:
        file.write(bytes(length))
        os.fsync(file.fileno())
        for num_pages in COMMIT_PAGES:
            size = num_pages * page
            runs = []
            for number in range(args.repeats):
                content, took = bytes([1 + number]) * size, []
                for index in range(args.bars):
                    time.sleep(args.pause)
                    started = time.perf_counter_ns()
                    os.pwrite(file.fileno(), content, index * size % (length - size))
                    os.fdatasync(file.fileno())
                    took.append((time.perf_counter_ns() - started) / 1e3)
                runs.append(np.percentile(took, PERCENTILES))
            for index, percentile in enumerate(PERCENTILES):
                values = [float(run[index]) for run in runs]
                show("disk", f"p{percentile}", values, "us", pages=num_pages)


def case_flood(args: argparse.Namespace, folder: Path) -> None:
    """Many ticks for a minute."""
    export(folder / "policy.onnx", bar_seconds=FLOOD_BAR_SECONDS)
    driver = Flood(rate=args.rate or FLOOD_RATE, seconds=args.seconds, settle_s=5.0)
    _show_flood("flood", folder, driver, num_symbols=20)


def case_soak(args: argparse.Namespace, folder: Path) -> None:
    """Ticks for an hour."""
    export(folder / "policy.onnx")
    seconds = 60.0 * args.minutes
    driver = Flood(rate=args.rate or SOAK_RATE, seconds=0.9 * seconds, settle_s=0.1 * seconds)
    _show_flood("soak", folder, driver, num_symbols=20)


def _show_flood(case: str, folder: Path, driver: Flood, *, num_symbols: int) -> None:
    found = flood(folder / case, folder / "policy.onnx", driver, num_symbols=num_symbols)
    config = {"rate": driver.rate, "seconds": driver.seconds, "symbols": num_symbols}
    for metric, value in found.items():
        show(case, metric, [value], UNITS.get(metric, "count"), **config)


CASES = {
    "decision": case_decision,
    "order": case_order,
    "flood": case_flood,
    "soak": case_soak,
    "disk": case_disk,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "cases", nargs="*", choices=[*CASES, []], help="by default all but soak and disk"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2_000, help="decisions of a repeat")
    parser.add_argument("--bars", type=int, default=2_000, help="of a run of order")
    parser.add_argument("--pause", type=float, default=0.005, help="seconds between ticks of order")
    parser.add_argument("--seconds", type=float, default=60.0, help="of flood")
    parser.add_argument("--minutes", type=float, default=60.0, help="of soak")
    parser.add_argument("--rate", type=int, default=0, help="ticks a second of flood or soak")
    args = parser.parse_args()
    cores = os.sched_getaffinity(0)
    args.others = cores - {max(cores)} or cores
    os.sched_setaffinity(0, {max(cores)})
    for case in args.cases or ("order", "flood", "decision"):  # what brings JAX comes last
        with tempfile.TemporaryDirectory() as folder:
            CASES[case](args, Path(folder))


if __name__ == "__main__":
    main()
