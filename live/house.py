"""Keeping house: deadlines of every kind, and the sign of life that says they are kept."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaxtrade.live.clock import SECOND_NS, SystemClock
from jaxtrade.live.journal import JournalError
from jaxtrade.live.pace import Sweep
from jaxtrade.live.positions import PositionStatus

if TYPE_CHECKING:
    from jaxtrade.live.engine import Engine

TURN_S = 0.25
"""At least so often there is a look at deadlines and latches, and a sign of life."""

PATIENCE_NS = 60 * SECOND_NS
"""How long a look may be held up by something else before there is no sign of life any more."""


class House:
    """The deadlines of an engine.

    What is done every so often goes by the machine's clock; what waits for an answer, by the
    broker's.
    """

    def __init__(self, engine: "Engine", beat: Callable[[], object]) -> None:
        self._engine = engine
        self._beat = beat
        self._unprotected: dict[str, int] = {}
        self._saved_seq = engine.account.state.last_seq
        self._machine = SystemClock()
        self._backed_up_ns = self._compared_ns = self._machine.steady_ns()
        self._backup: asyncio.Task[None] | None = None
        self._sweep = Sweep()

    async def keep(self) -> None:
        """Until it is cancelled."""
        engine = self._engine
        while True:
            turn = asyncio.ensure_future(engine.exclusively(self._turn))
            since = self._machine.steady_ns()
            try:
                while not turn.done():  # a broker may take long to answer, but not for ever
                    if self._machine.steady_ns() - since < PATIENCE_NS:
                        self._beat()
                    await asyncio.wait({turn}, timeout=TURN_S)
            finally:
                turn.cancel()
            turn.result()
            self._sweep()
            await asyncio.sleep(TURN_S)

    async def look_after_if_due(self) -> None:
        """What is due, between two events; costs little where nothing is."""
        account = self._engine.account
        due = account.execution.due_ns
        now = account.clock.steady_ns()
        if account.execution.needs_evidence or (due is not None and due <= now):
            await self._look_after()
        elif self._is_compare_due(now):
            await self._compare()
        self._note_unprotected(now)

    async def _turn(self) -> None:
        engine = self._engine
        await engine.governor.obey()
        engine.account.books.settle()
        if engine.account.is_connected and not engine.account.broker.is_connected():
            engine.session.lost("the broker is silent")
        if not engine.account.is_connected:
            return
        await self._look_after()
        await engine.close_due_bars()
        await engine.governor.flatten()
        engine.swaps.look()
        await self._protect()
        await engine.trading.close_strays()
        self._expire_rows()
        self.save(only_if_due=True)
        self._back_up()

    async def _look_after(self) -> None:
        account, session = self._engine.account, self._engine.session
        await account.execution.look_after()
        now = account.clock.steady_ns()
        is_urgent = account.execution.needs_evidence and now - session.compared_ns >= SECOND_NS
        if is_urgent or self._is_compare_due(now):
            await self._compare()

    async def _compare(self) -> None:
        self._compared_ns = self._machine.steady_ns()
        engine = self._engine
        if engine.account.is_connected:
            await engine.session.compare()
            await engine.trading.undo(engine.session.outside)

    def _is_compare_due(self, now: int) -> bool:
        session = self._engine.session
        pause_ns = round(self._engine.account.settings.engine.reconcile_s * SECOND_NS)
        is_again = 0 < session.again_ns <= now
        return is_again or self._machine.steady_ns() - self._compared_ns >= pause_ns

    def _note_unprotected(self, now: int) -> None:
        """Note since when positions have been without the stop that they are to have."""
        account = self._engine.account
        for symbol, desk in account.owners.items():
            if not desk.settings.stop_loss:
                continue
            if account.status_of(symbol) is PositionStatus.UNPROTECTED:
                self._unprotected.setdefault(symbol, now)
            else:
                self._unprotected.pop(symbol, None)

    async def _protect(self) -> None:
        """Repair what is unprotected; close what has been so for too long."""
        engine, account = self._engine, self._engine.account
        now = account.clock.steady_ns()
        self._note_unprotected(now)
        limit = round(account.settings.engine.unprotected_s * SECOND_NS)
        for symbol, since in list(self._unprotected.items()):
            is_overdue = now - since >= limit
            await engine.trading.protect(account.owners[symbol], symbol, is_overdue=is_overdue)

    def _expire_rows(self) -> None:
        now = self._engine.account.clock.steady_ns()
        for desk in self._engine.account.desks.values():
            desk.rows.expire(now)

    def save(self, *, only_if_due: bool = False) -> None:
        """Write the state whole, so that the next start has little to read."""
        account = self._engine.account
        seq = account.state.last_seq
        if only_if_due and seq - self._saved_seq < account.settings.engine.snapshot_events:
            return
        if not account.books.is_sound:
            return
        try:
            account.books.journal.save_snapshot(account.state)
            self._saved_seq = seq
        except JournalError:
            return

    def _back_up(self) -> None:
        """A copy of the journal now and then, made beside the loop."""
        account = self._engine.account
        now = self._machine.steady_ns()
        settings = account.settings.engine
        if now - self._backed_up_ns < round(settings.backup_s * SECOND_NS):
            return
        if self._backup is not None and not self._backup.done():
            return
        self._backed_up_ns = now

        async def back_up() -> None:
            try:
                await asyncio.to_thread(account.books.journal.backup, kept=settings.keep_backups)
            except (JournalError, OSError, sqlite3.Error) as error:
                account.books.trouble = f"backup: {error}"

        self._backup = asyncio.create_task(back_up())
