"""An engine that is killed: `python -m tests.live_victim FOLDER`, told on standard input when.

For each line POINT;COUNT;SEED it forks a child that trades on paper until the COUNT-th time that
POINT is reached, and then kills itself without a word; where POINT is "none" it goes on to the end
of its data. The broker's books are in a file, as a broker's are on another machine. Each exit
status is written to standard output, each time to readiness to FOLDER/ready. What is slow, the
imports, is done once; nothing that has threads is made before a fork.
"""

import asyncio
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.brokers.paper_venue import Venue
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import OrderAccepted, OrderFilled
from jaxtrade.live.journal import Journal
from jaxtrade.live.recovery import recover
from jaxtrade.live.run import make_engine
from jaxtrade.live.settings import from_tree
from jaxtrade.rules import make_rules
from jaxtrade.tape import Tape

POINTS = ("before commit", "after commit", "after send", "after ack", "mid-fill")


class Killer:
    def __init__(self, point: str, count: int) -> None:
        self.point, self.left = point, count

    def reached(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def arm(engine, killer: Killer) -> None:
    journal: Journal = engine.account.books.journal
    record, submit = journal.record, engine.account.broker.submit_order
    deal_with = engine.deal_with

    def recorded(events=(), **how):
        if how.get("durable"):
            killer.reached("before commit")
        seq = record(events, **how)
        if how.get("durable"):
            killer.reached("after commit")
        return seq

    async def submitted(intent):
        await submit(intent)
        killer.reached("after send")

    async def dealt_with(event):
        if isinstance(event, OrderFilled):
            killer.reached("mid-fill")
        await deal_with(event)
        if isinstance(event, OrderAccepted):
            killer.reached("after ack")

    journal.record = recorded  # type: ignore[method-assign]
    engine.account.broker.submit_order = submitted
    engine.deal_with = dealt_with


def live(folder: Path, point: str, count: int, seed: int) -> None:
    started = time.monotonic()
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    broker = PaperBroker(
        Replay(kept_venue(folder)), clock=SimulatedClock(), path=folder / "paper.db"
    )
    broker.faults.fill_share = 0.4  # an order takes some bars, so that there is a middle of it
    broker.faults.seed = seed
    settings = from_tree(
        {
            "name": "victim",
            "folder": str(folder / "account"),
            "broker": {"kind": "paper"},
            "agents": {"main": {"model": str(folder / "policy.onnx")}},
        }
    )
    with recover(settings.path, clock=broker.clock, run_id=f"{point} {count}") as recovered:
        engine = make_engine(settings, recovered, broker)
        arm(engine, Killer(point, count))
        open_session = engine.session.open

        async def opened():
            rows = await open_session()
            with open(folder / "ready", "a") as file:
                file.write(f"{time.monotonic() - started:.3f}\n")
            return rows

        engine.session.open = opened  # type: ignore[method-assign]
        asyncio.run(engine.run())


ARRAYS = ("prices", "volume", "is_there", "starts_s")


def keep_venue(folder: Path, venue: Venue) -> None:
    """Write the venue of a market under the default rules, without context."""
    arrays = {name: getattr(venue, name) for name in ARRAYS}
    arrays["rows"] = np.asarray(venue.tape.rows)
    texts = {"symbols": venue.symbols, "names": venue.tape.names}
    numbers = {"numbers": (venue.bar_seconds, venue.first, venue.last)}
    np.savez(folder / "venue.npz", **arrays, **texts, **numbers)  # type: ignore[arg-type]


def kept_venue(folder: Path) -> Venue:
    with np.load(folder / "venue.npz") as kept:
        arrays = {name: kept[name] for name in ARRAYS}
        tape = Tape(rows=jnp.asarray(kept["rows"]), names=tuple(kept["names"].tolist()))
        symbols = tuple(kept["symbols"].tolist())
        bar_seconds, first, last = kept["numbers"].tolist()
    nothing = np.zeros((len(arrays["starts_s"]), 0), np.float32)
    return Venue(
        symbols=symbols,
        tape=tape,
        rules=make_rules(),
        context=(((), nothing),) * len(symbols),
        bar_seconds=bar_seconds,
        first=first,
        last=last,
        **arrays,
    )


def main(folder: Path) -> None:
    for line in sys.stdin:
        point, count, seed = line.split(";")
        child = os.fork()
        if child == 0:
            try:
                live(folder, point, int(count), int(seed))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
