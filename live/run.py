"""The process of an engine: `python -m jaxtrade.live.run FOLDER`, whose settings.yaml says all.

Exit codes: 0 ended in order; 1 an error, in one line, as where another engine works there.
"""

import asyncio
import contextlib
import functools
import logging
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from jaxtrade.live.account import Account
from jaxtrade.live.bookkeeper import Bookkeeper
from jaxtrade.live.brokers.base import Broker
from jaxtrade.live.brokers.making import make_broker
from jaxtrade.live.control import ControlServer
from jaxtrade.live.desk import Desk, owners
from jaxtrade.live.engine import Engine
from jaxtrade.live.event_log import EventLog
from jaxtrade.live.execution import Execution
from jaxtrade.live.heartbeat import Heartbeat
from jaxtrade.live.latches import Latch, is_latched
from jaxtrade.live.logs import start_logging
from jaxtrade.live.pace import steady
from jaxtrade.live.quotes import Quotes
from jaxtrade.live.rates import Rates
from jaxtrade.live.recorder import Recorder
from jaxtrade.live.recovery import Recovered, recover
from jaxtrade.live.settings import LiveSettings, read
from jaxtrade.live.swaps import first_seat
from jaxtrade.specs import JaxtradeError

log = logging.getLogger("jaxtrade.engine")


def make_engine(
    settings: LiveSettings,
    recovered: Recovered,
    broker: Broker,
    *,
    heartbeat: Heartbeat | None = None,
) -> Engine:
    """The engine of an account, ready to run.

    Raises:
        JaxtradeError: a model that cannot be had, or a symbol with two owners.
    """
    books = Bookkeeper(recovered.state, recovered.journal)
    desks = {
        name: Desk(agent, first_seat(settings, name, recovered.state), settings.decisions)
        for name, agent in settings.agents.items()
    }
    account = Account(
        settings=settings,
        broker=broker,
        clock=broker.clock,
        books=books,
        execution=Execution(
            books,
            broker,
            broker.clock,
            settings.engine,
            functools.partial(is_latched, settings.folder, Latch.KILLED),
        ),
        desks=desks,
        owners=owners(desks),
        rates=Rates(settings.guard),
        quotes=Quotes(settings.guard),
    )
    return Engine(account, folder=settings.path, beat=(heartbeat or Heartbeat("")).beat)


@contextlib.asynccontextmanager
async def prepared(settings: LiveSettings, broker: Broker) -> AsyncIterator[Engine]:
    """The engine of an account with all that goes with it: logs, metrics, journal, signs of life,
    and the door for people.

    Raises:
        JaxtradeError: as `make_engine`, or the folder is in use or cannot be.
    """
    run_id = secrets.token_hex(4)
    with (
        start_logging(settings.path, "engine", settings.logs),
        Recorder(settings.path) as recorder,
        recover(settings.path, clock=broker.clock, run_id=run_id) as recovered,
        contextlib.closing(Heartbeat()) as heartbeat,
        contextlib.ExitStack() as stack,
    ):
        for note in recovered.notes:
            log.warning(note)
        engine = make_engine(settings, recovered, broker, heartbeat=heartbeat)
        event_log = EventLog(engine, recorder)
        control = ControlServer(settings.path, engine)
        await control.start()
        stack.enter_context(steady())
        try:
            yield engine
        finally:
            await control.stop()
            event_log.close()


async def run(settings: LiveSettings) -> str:
    """Run an account until it is stopped or its data are over; why it ended."""
    async with prepared(settings, make_broker(settings, role="engine")) as engine:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, engine.stop, signal.Signals(number).name)
        await engine.run()
    return engine.stop_reason


def main(arguments: list[str]) -> int:
    """Run the engine of a folder."""
    if len(arguments) != 1:
        print("usage: python -m jaxtrade.live.run FOLDER", file=sys.stderr)
        return 2
    try:
        reason = asyncio.run(run(read(Path(arguments[0]))))
    except JaxtradeError as error:
        print(f"jaxtrade: {error}", file=sys.stderr)
        return 1
    print(f"stopped: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
