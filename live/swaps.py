"""Other policies for agents that trade: found, prepared beside the loop, offered, put in place.

What an agent's setting `model` points at is looked at now and then. A bundle that is new is read,
checked and warmed in a thread; `swap` says what happens to it then.
"""

import asyncio
import contextlib

from jaxtrade.live.account import Account
from jaxtrade.live.brokers.base import NotConnectedError
from jaxtrade.live.buffers import F32
from jaxtrade.live.clock import SystemClock
from jaxtrade.live.desk import Desk
from jaxtrade.live.events import Bar, ModelRefused, ModelSwapped
from jaxtrade.live.pointer import Bundle, Pointer, Shelf
from jaxtrade.live.records import AgentRecord
from jaxtrade.live.rows import Row, rows_of
from jaxtrade.live.settings import LiveSettings
from jaxtrade.live.state import State
from jaxtrade.live.swap import Seat, prepare
from jaxtrade.specs import JaxtradeError

SHELF = "bundles"
"""Folder of the account with copies of what was traded with."""

LOOK_NS = 2_000_000_000
"""Between two looks at what the settings point at."""


def first_seat(settings: LiveSettings, name: str, state: State) -> Seat:
    """The policy that an agent begins with: after a restart the one it had, else its model.

    Raises:
        JaxtradeError: there is none, or it is not whole.
    """
    agent, decisions = settings.agents[name], settings.decisions
    shelf = Shelf(settings.path / SHELF)
    known = state.agents.get(name)
    if known is not None and known.sha256:
        try:
            return prepare(shelf.find(known.sha256, name=known.model), agent, decisions)
        except JaxtradeError:  # then what the setting points at, as at the first start
            pass
    bundle = Pointer(agent.model, registry=settings.registry).read()
    shelf.keep(bundle)
    return prepare(bundle, agent, decisions)


class Swaps:
    """The pointers of all agents, and what is being prepared."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._shelf = Shelf(account.settings.path / SHELF)
        self._pointers = {
            name: Pointer(desk.settings.model, registry=account.settings.registry)
            for name, desk in account.desks.items()
        }
        self._tokens = {name: pointer.token() for name, pointer in self._pointers.items()}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        for name, desk in account.desks.items():
            self._note_other(desk, account.state.agents.get(name))
        self._machine = SystemClock()
        self._looked_ns = self._machine.steady_ns()

    def _note_other(self, desk: Desk, record: AgentRecord | None) -> None:
        """Tell where an agent goes on with what it was swapped to, not with its setting."""
        if record is None or not record.sha256:
            return
        with contextlib.suppress(JaxtradeError):
            bundle = self._pointers[desk.name].read()
            if bundle.sha256 != desk.slot.active.sha256:
                desk.notes.append(
                    f"goes on with {desk.model}, which it was swapped to; its setting is "
                    f"{desk.settings.model}: jaxtrade swap {desk.name} MODEL changes it"
                )

    def look(self) -> None:
        """See whether any agent is to have another policy; costs little where not."""
        now = self._machine.steady_ns()
        if now - self._looked_ns < LOOK_NS:
            return
        self._looked_ns = now
        for name, pointer in self._pointers.items():
            token = pointer.token()
            if token and token != self._tokens[name]:
                self._tokens[name] = token
                self._prepare(self._account.desks[name], pointer, is_asked=False)

    def propose(self, desk: Desk, model: str) -> str:
        """Prepare another model because a person asked for it.

        Raises:
            JaxtradeError: there is none.
        """
        pointer = Pointer(model or desk.settings.model, registry=self._account.settings.registry)
        pointer.read()
        self._prepare(desk, pointer, is_asked=True)
        return f"{pointer.model} is being prepared"

    def roll_back(self, desk: Desk, reason: str) -> str:
        """Go back to the policy before, from the next bar on.

        Raises:
            JaxtradeError: there is none.
        """
        desk.slot.rollback(reason or "asked for")
        return f"{desk.name} goes back at the next bar"

    def turn(self, desk: Desk) -> None:
        """Between two bars: put another policy in place where it is time."""
        swapped = desk.slot.turn()
        if swapped is None:
            return
        now_ns = self._account.clock.wall_ns()
        self._account.books.observe(
            ModelSwapped(
                at_ns=now_ns,
                agent=desk.name,
                model=swapped.name,
                sha256=swapped.sha256,
                reason=swapped.reason,
            ),
            durable=True,
        )

    def follow(self, desk: Desk, row: Row, vector: F32) -> None:
        """Let the policies that do not trade see a row, once its orders are on their way."""
        followed = desk.slot.follow(row, vector)
        if followed is not None and followed.refused:
            self._refuse(desk, followed.name, followed.refused)

    async def close(self) -> None:
        """Leave what is being prepared."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _prepare(self, desk: Desk, pointer: Pointer, *, is_asked: bool) -> None:
        if desk.name in self._tasks:
            self._tasks[desk.name].cancel()
        task = asyncio.create_task(self._prepared(desk, pointer, is_asked))
        self._tasks[desk.name] = task
        task.add_done_callback(lambda done: self._forget(desk.name, done))

    def _forget(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled() and task.exception() is not None:
            self._refuse(self._account.desks[name], "", f"unexpected {task.exception()!r}"[:200])

    async def _prepared(self, desk: Desk, pointer: Pointer, is_asked: bool) -> None:
        """Read, check and warm a bundle, then offer it."""
        name = pointer.model
        try:
            bundle = await asyncio.to_thread(pointer.read)
            name = bundle.name
            if not is_asked and not desk.slot.wants(bundle.sha256):
                return
            histories = await self._account.histories(desk)
            seat = await asyncio.to_thread(self._warmed, desk, bundle, histories)
            self._shelf.keep(bundle)
            seat.use(desk.settings, desk.decisions)  # which may have changed meanwhile
            desk.slot.offer(seat)
            desk.notes.append(f"{name} follows for {desk.slot.shadow_bars} bars, then takes over")
        except (JaxtradeError, NotConnectedError) as error:
            if isinstance(error, NotConnectedError) and not is_asked:
                self._tokens[desk.name] = ""  # it is looked at again with the next connection
            self._refuse(desk, name, str(error))

    def _warmed(self, desk: Desk, bundle: Bundle, histories: list[tuple[Bar, ...]]) -> Seat:
        like = desk.decider.policy.metadata
        seat = prepare(bundle, desk.settings, desk.decisions, like=like)
        seat.decider.warm(rows_of(histories))
        return seat

    def _refuse(self, desk: Desk, model: str, reason: str) -> None:
        now_ns = self._account.clock.wall_ns()
        self._account.books.observe(
            ModelRefused(at_ns=now_ns, agent=desk.name, model=model, reason=reason)
        )
