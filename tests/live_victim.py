"""An engine that is killed: `python -m tests.live_victim FOLDER POINT COUNT SEED`.

It trades on paper until the COUNT-th time that POINT is reached, and then kills its own process
without a word. The broker's books are in a file, as a broker's are on another machine. Where POINT
is "none" it goes on to the end of its data. It writes how long it took to be ready. It imports no
more than it needs, for it starts often: its venue comes from a file that `keep_venue` writes.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

START = time.monotonic()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jaxtrade.live.brokers.paper import PaperBroker  # noqa: E402
from jaxtrade.live.brokers.paper_replay import Replay  # noqa: E402
from jaxtrade.live.brokers.paper_venue import Venue  # noqa: E402
from jaxtrade.live.clock import SimulatedClock  # noqa: E402
from jaxtrade.live.events import OrderAccepted, OrderFilled  # noqa: E402
from jaxtrade.live.journal import Journal  # noqa: E402
from jaxtrade.live.recovery import recover  # noqa: E402
from jaxtrade.live.run import make_engine  # noqa: E402
from jaxtrade.live.settings import from_tree  # noqa: E402
from jaxtrade.rules import make_rules  # noqa: E402
from jaxtrade.tape import Tape  # noqa: E402

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


def main(folder: Path, point: str, count: int, seed: int) -> None:
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
                file.write(f"{time.monotonic() - START:.3f}\n")
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
