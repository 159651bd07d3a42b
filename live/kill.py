"""The kill switch: a process and a connection of its own, for when nothing else can be trusted.

First the latch, durably, so that no engine trades again before a person says so; then the engine is
told, if it listens; meanwhile, over this process's own connection, everything that works is
cancelled and, where asked to, every position closed, until the broker itself says that it is done.
An engine that was told closes first, so that no position is closed by both; this process does when
the engine was silent, or has not done it in time.
It needs neither the engine nor its journal.

An account on paper is a file, so an engine that is stopped in the middle of writing to it holds up
this process too, until the supervisor has killed that engine: after three heartbeats or, where it
was told to stop, after `stop_s`.
"""

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxtrade.live.brokers.base import Broker, NotConnectedError, Snapshot
from jaxtrade.live.brokers.making import make_broker
from jaxtrade.live.clock import Clock, SystemClock
from jaxtrade.live.control import NotRunningError, ask
from jaxtrade.live.latches import Latch, set_latch
from jaxtrade.live.settings import read
from jaxtrade.specs import JaxtradeError

ENGINE_S = 0.5
"""How long the engine may take to answer."""
CALL_S = 5.0
"""How long one request to the broker may take."""
PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Between looks at the broker; the last one repeats."""
CLOSE_S = 3.0
"""How long closing orders are given before whatever is left is cancelled and closed again: asking
sooner could close a position twice."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of it.

    is_done: the broker says, completely, that no order works and, where asked to, that nothing is
    held; engine: what the engine said; orders, positions: what was left, one text each; problem:
    why it is not done, "" where it is; seconds: that it took.
    """

    is_done: bool
    engine: str
    orders: tuple[str, ...]
    positions: tuple[str, ...]
    problem: str
    seconds: float


def kill(
    folder: Path | str, reason: str, *, flatten: bool = False, timeout_s: float = 60.0
) -> Outcome:
    """Stop all trading of an account.

    The latch is set even where the settings cannot be read or the broker cannot be reached, and
    all is cancelled even where the latch cannot be written; then `Outcome.problem` says so.

    Raises:
        JaxtradeError: there is no such folder, or there is no broker to be made of the settings.
    """
    if not Path(folder).is_dir():
        raise JaxtradeError(f"{folder}: there is no such folder; give the account's")
    problem = ""
    try:
        set_latch(folder, Latch.KILLED, reason, flatten=flatten)
    except JaxtradeError as error:
        problem = f"{error}, so an engine that starts anew would trade"
    settings = read(folder)

    def tell() -> Answer:
        return _tell(folder, reason, flatten)

    async def run() -> Outcome:
        broker = make_broker(settings, role="kill")
        return await sweep(broker, tell, flatten=flatten, timeout_s=timeout_s)

    outcome = asyncio.run(run())
    if not problem:
        return outcome
    problem = f"{problem}; {outcome.problem}" if outcome.problem else problem
    return dataclasses.replace(outcome, is_done=False, problem=problem)


class Answer(NamedTuple):
    """What the engine says to being killed, and whether it has heard it at all."""

    is_heard: bool
    text: str


def _tell(folder: Path | str, reason: str, flatten: bool) -> Answer:
    try:
        ask(folder, "kill", timeout_s=ENGINE_S, reason=reason, flatten=flatten)
    except NotRunningError as error:
        return Answer(False, str(error))
    except JaxtradeError as error:
        return Answer(False, f"the engine refused: {error}")
    return Answer(True, "the engine stopped trading")


async def sweep(
    broker: Broker,
    tell: Callable[[], Answer],
    *,
    flatten: bool,
    timeout_s: float,
    clock: Clock | None = None,
) -> Outcome:
    """Cancel, and close where `flatten`, until a complete snapshot shows nothing more to do."""
    clock = clock or SystemClock()
    started = clock.steady_ns()
    cleaner = _Cleaner(broker, flatten, clock)
    telling = asyncio.create_task(asyncio.to_thread(tell))
    telling.add_done_callback(lambda task: cleaner.begin_closing(task.result()))
    problem = f"not done in {timeout_s:g} s"
    try:
        async with asyncio.timeout(timeout_s):
            await cleaner.until_done()
            await telling
            await cleaner.until_done()  # what the engine sent before it was told
        problem = ""
    except TimeoutError:
        problem = f"{problem}: {cleaner.problem}" if cleaner.problem else problem
    finally:
        engine = (await telling).text
        await _disconnect(broker)
    seen = cleaner.snapshot
    return Outcome(
        is_done=not problem,
        engine=engine,
        orders=tuple(f"{each.symbol} {each.cid or each.broker_id}" for each in seen.open_orders),
        positions=tuple(
            f"{each.symbol} {each.quantity}" for each in seen.positions if each.quantity
        ),
        problem=problem,
        seconds=(clock.steady_ns() - started) / 1e9,
    )


class _Cleaner:
    """Asks the broker for the same until it is so; whatever fails is tried again."""

    def __init__(self, broker: Broker, flatten: bool, clock: Clock) -> None:
        self._broker = broker
        self._flatten = flatten
        self._clock = clock
        self._may_begin = False
        self._closed_ns: int | None = None
        self.snapshot = Snapshot(at_ns=0, equity=0.0, cash=0.0, is_complete=False)
        self.problem = ""

    def begin_closing(self, answer: Answer) -> None:
        """Positions may be closed from now on, or later where the engine has begun to."""
        self._may_begin = True
        if answer.is_heard and self._flatten:
            self._closed_ns = self._clock.steady_ns()

    async def until_done(self) -> None:
        """Return once there is nothing left to do."""
        pauses = iter(PAUSES_S)
        while not await self._round():
            await asyncio.sleep(next(pauses, PAUSES_S[-1]))

    async def _round(self) -> bool:
        """Ask once; whether all is done."""
        try:
            async with asyncio.timeout(CALL_S):
                await self._ask()
        except NotConnectedError as error:
            self.problem = f"no connection to the broker: {error}"
        except TimeoutError:
            self.problem = f"the broker does not answer in {CALL_S:g} s"
        except Exception as error:  # the kill switch does not stop at a defect
            self.problem = f"{type(error).__name__}: {error}"
        else:
            incomplete = "the broker's answers are incomplete"
            self.problem = "" if self.snapshot.is_complete else incomplete
            return self._is_done()
        return False

    async def _ask(self) -> None:
        if not self._broker.is_connected():
            await self._broker.connect()
        if not self._is_closing():
            await self._broker.cancel_all_orders()
            self._closed_ns = None
        self.snapshot = await self._broker.snapshot()
        if self._may_close():
            self._closed_ns = self._clock.steady_ns()
            await self._broker.close_all_positions()
            self.snapshot = await self._broker.snapshot()

    def _is_closing(self) -> bool:
        """Whether closing orders are on their way and must not be cancelled yet."""
        if self._closed_ns is None:
            return False
        return self._clock.steady_ns() - self._closed_ns < CLOSE_S * 1e9

    def _may_close(self) -> bool:
        """Whether something is, or may be, held, and nothing works that could change it."""
        seen = self.snapshot
        held = any(each.quantity for each in seen.positions) or not seen.is_complete
        is_idle = self._may_begin and not seen.open_orders and not self._is_closing()
        return self._flatten and held and is_idle

    def _is_done(self) -> bool:
        """Whether the broker has proved it; an incomplete snapshot proves nothing."""
        seen = self.snapshot
        if not seen.is_complete or seen.open_orders:
            return False
        return not (self._flatten and any(each.quantity for each in seen.positions))


async def _disconnect(broker: Broker) -> None:
    try:
        async with asyncio.timeout(CALL_S):
            await broker.disconnect()
    except Exception:  # it is done, or was said not to be
        return
