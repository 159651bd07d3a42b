"""One program that is kept running: started, listened to, killed when it hangs, started again."""

import asyncio
import contextlib
import dataclasses
import logging
import os
import subprocess
from collections import deque

from jaxtrade.live.clock import Clock
from jaxtrade.live.heartbeat import Listener
from jaxtrade.live.sections import SupervisorSettings

FIRST_PAUSE_S, LAST_PAUSE_S = 0.25, 30.0
"""Before a process that ended badly is started again; the pause doubles with each."""

REFUSED_CODE = 1
"""Exit code of an error that a person has to put right."""

log = logging.getLogger("jaxtrade.supervisor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A process to keep running.

    command: program and arguments; has_heartbeat: whether it sends signs of life; is_vital: the
    others end with it, be it done or given up, while another that is given up is only reported.
    """

    name: str
    command: tuple[str, ...]
    has_heartbeat: bool = False
    is_vital: bool = False


class CrashLoopError(Exception):
    """A program ended badly too often."""


class StartError(Exception):
    """A program refused to start the first time, with the exit code of a wrong setting: to start it
    again would change nothing.
    """


class Keeper:
    """One program and the process that it runs in now."""

    def __init__(
        self, program: Program, settings: SupervisorSettings, listener: Listener, clock: Clock
    ) -> None:
        self.program = program
        self._settings = settings
        self._listener = listener
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._crashes: deque[int] = deque()
        self._is_ending = False
        self._has_lived = False
        self._heard = asyncio.Event()
        self.restarts = 0

    async def keep(self) -> int:
        """Start it and start it again, until it ends with 0 or was told to; its last exit code.

        Raises:
            CrashLoopError: it ended badly too often.
            StartError: it never ran.
            OSError: there is no such program.
        """
        while True:
            code = await self._run_once()
            if self._is_ending or code == 0:
                return code
            if code == REFUSED_CODE and not self.restarts and self._must_live_first():
                raise StartError(f"{self.program.name} refused to start; its log says why")
            pause = self._pause_after_crash(code)
            log.error("ended badly", extra={"program": self.program.name, "code": code})
            await asyncio.sleep(pause)
            if self._is_ending:
                return code
            self.restarts += 1

    def _must_live_first(self) -> bool:
        """Whether it is known that it never got as far as a sign of life."""
        return self.program.has_heartbeat and not self._has_lived

    def _pause_after_crash(self, code: int) -> float:
        """Seconds to wait before the next start, twice those before."""
        now = self._clock.steady_ns()
        window_s, most = self._settings.window_s, self._settings.max_restarts
        self._crashes.append(now)
        while now - self._crashes[0] > window_s * 1e9:
            self._crashes.popleft()
        if len(self._crashes) > most:
            raise CrashLoopError(
                f"{self.program.name} ended badly {len(self._crashes)} times in {window_s:g} s, "
                f"last with {code}: it is not started again until a person has looked at its log"
            )
        return float(min(FIRST_PAUSE_S * 2 ** (len(self._crashes) - 1), LAST_PAUSE_S))

    async def _run_once(self) -> int:
        """The exit code of one process; one that hangs is killed."""
        self._heard.clear()
        expected = (
            self._listener.expect(self._heard.set, self._note_end)
            if self.program.has_heartbeat
            else {}
        )
        try:
            # a session of its own: Ctrl-C in a terminal reaches the supervisor alone, who passes it
            # on in order
            self._process = await asyncio.create_subprocess_exec(
                *self.program.command,
                env={**os.environ, **expected},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            log.info("started", extra={"program": self.program.name, "pid": self._process.pid})
            ended = asyncio.create_task(self._process.wait())
            if self.program.has_heartbeat:
                await self._listen(ended)
            return await ended
        finally:
            if expected:
                self._listener.forget(expected)

    async def _listen(self, ended: asyncio.Task[int]) -> None:
        """Return when the process has ended; kill it when it was silent for too long. One that was
        told to end may be so for as long as an orderly end takes.
        """
        patience = self._settings.start_s
        while not ended.done():
            heard = asyncio.create_task(self._heard.wait())
            await asyncio.wait({heard, ended}, timeout=patience, return_when="FIRST_COMPLETED")
            heard.cancel()
            if not self._heard.is_set() and not ended.done():
                log.error(
                    "hangs, killed", extra={"program": self.program.name, "silent_s": patience}
                )
                self.kill()
                return
            self._has_lived |= self._heard.is_set()
            self._heard.clear()
            patience = self._settings.heartbeat_s * self._settings.missed
            if self._is_ending:
                patience = max(patience, self._settings.stop_s)

    def _note_end(self) -> None:
        """It was told to end, by whomever."""
        self._is_ending = True
        self._heard.set()

    async def end(self) -> None:
        """Ask it to end, wait, and kill it if it does not."""
        self._note_end()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._settings.stop_s):
                await process.wait()
        except TimeoutError:
            log.error("does not end, killed", extra={"program": self.program.name})
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End it at once; also a process that is stopped."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
