"""Keeps the processes of an account running: engine, alert worker, and what else is listed.

    python -m jaxtrade.live.supervisor FOLDER

A process with a heartbeat that is silent for `missed` beats is killed: it hangs, and its recovery
is its start. One that ends badly is started again after a pause that doubles; after
`max_restarts` within `window_s` it is not, the latch HALTED is set and people are told. Positions
keep the stops that they have at the broker. An engine that refuses to start at all, because of a
setting, is not started again, nor is one that people have told to end. The order to end, SIGTERM or
Ctrl-C, is passed on.

Exit codes: 0 stopped in order, or the engine was done; 1 wrong settings; 75 halted.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxtrade.live.alerts.outbox import post
from jaxtrade.live.clock import Clock, SystemClock
from jaxtrade.live.heartbeat import Listener
from jaxtrade.live.keeper import REFUSED_CODE, CrashLoopError, Keeper, Program, StartError
from jaxtrade.live.latches import Latch, set_latch
from jaxtrade.live.logs import start_logging
from jaxtrade.live.notify import notify, watchdog_s
from jaxtrade.live.sections import SupervisorSettings
from jaxtrade.live.settings import read
from jaxtrade.specs import JaxtradeError

HALTED_CODE = 75
"""Exit code after a crash loop; systemd is told not to start the service again."""

log = logging.getLogger("jaxtrade.supervisor")


def programs(folder: Path | str) -> tuple[Program, ...]:
    """Those of an account."""

    def module(name: str) -> tuple[str, ...]:
        return (sys.executable, "-m", f"jaxtrade.live.{name}", str(folder))

    return (
        Program(name="engine", command=module("run"), has_heartbeat=True, is_vital=True),
        Program(name="alerts", command=module("alerts.worker")),
    )


class Supervisor:
    """Keeps programs running until they are done, given up, or `stop` is called."""

    def __init__(
        self,
        folder: Path | str,
        listed: Sequence[Program],
        settings: SupervisorSettings,
        clock: Clock | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._listed = listed
        self._settings = settings
        self._clock = clock or SystemClock()
        self._listener = Listener()
        self._stopping = asyncio.Event()
        self._reason = ""
        self._code = 0
        self._keepers: list[Keeper] = []

    def stop(self, reason: str, code: int = 0) -> None:
        """End all processes in order; `run` then returns the first code that was given."""
        if not self._stopping.is_set():
            self._reason, self._code = reason, code
            self._stopping.set()

    async def run(self) -> int:
        """Start everything; the exit code, once everything has ended."""
        await self._listener.listen()
        self._keepers = [
            Keeper(program, self._settings, self._listener, self._clock) for program in self._listed
        ]
        tasks = [asyncio.create_task(self._keep(keeper)) for keeper in self._keepers]
        tasks.append(asyncio.create_task(self._tell_systemd()))
        try:
            await self._stopping.wait()
            notify(f"STOPPING=1\nSTATUS={self._reason}")
            log.info("stopping", extra={"reason": self._reason})
            for keeper in self._keepers:  # the engine first, the teller of what it did last
                await keeper.end()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for keeper in self._keepers:
                keeper.kill()
            self._listener.close()
        return self._code

    async def _keep(self, keeper: Keeper) -> None:
        """Run one program for as long as it may."""
        program = keeper.program
        try:
            why, code = f"ended with {await keeper.keep()}", 0
        except CrashLoopError as error:
            log.critical("given up", extra={"program": program.name, "why": str(error)})
            if program.is_vital:
                set_latch(self._folder, Latch.HALTED, str(error))
            level = "critical" if program.is_vital else "error"
            post(self._folder, level, str(error), f"crash-loop:{program.name}")
            why, code = "is given up", HALTED_CODE
        except (StartError, OSError) as error:
            log.critical("cannot start", extra={"program": program.name, "why": str(error)})
            post(self._folder, "critical", str(error), f"start:{program.name}")
            why, code = "cannot start", REFUSED_CODE
        if program.is_vital:
            self.stop(f"{program.name} {why}", code)

    async def _tell_systemd(self) -> None:
        """READY once everything has been started, then signs of life while all are well."""
        notify("READY=1\nSTATUS=running")
        pause = watchdog_s()
        while pause is not None:
            await asyncio.sleep(pause)
            notify("WATCHDOG=1")


async def supervise(
    folder: Path | str, listed: Sequence[Program], settings: SupervisorSettings
) -> int:
    """Run a supervisor that SIGTERM and SIGINT stop; its exit code."""
    supervisor = Supervisor(folder, listed, settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        name = signal.Signals(number).name
        try:
            loop.add_signal_handler(number, supervisor.stop, name)
        except NotImplementedError:  # Windows
            signal.signal(
                number,
                lambda *_, name=name: loop.call_soon_threadsafe(supervisor.stop, name),
            )
    return await supervisor.run()


def main() -> None:
    """Keep the account of the folder that is the only argument."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m jaxtrade.live.supervisor FOLDER")
    folder = sys.argv[1]
    try:
        settings = read(folder)
        with start_logging(folder, "supervisor", settings.logs):
            code = asyncio.run(supervise(folder, programs(folder), settings.supervisor))
    except JaxtradeError as error:
        sys.exit(f"jaxtrade: {error}")
    sys.exit(code)


if __name__ == "__main__":
    main()
