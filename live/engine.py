"""The engine of one account: events in, orders out, one at a time, in one thread.

    engine = make_engine(settings, recovered, broker)  # of `run`
    await engine.run()                                 # until it is stopped, or a replay ends

Broker, clock and people (through `control`) all come in by one lock, first come first served, so
every handler sees a state that nobody else is changing. Nothing is polled: what has to happen by a
moment is a deadline, and one keeper of the house looks after those, and shows signs of life.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxtrade.live import commanding
from jaxtrade.live.account import Account
from jaxtrade.live.bar_builder import BarBuilder
from jaxtrade.live.brokers.base import NotConnectedError
from jaxtrade.live.buffers import F32
from jaxtrade.live.desk import Desk
from jaxtrade.live.events import (
    AccountState,
    Bar,
    BrokerConnected,
    BrokerDegraded,
    BrokerDisconnected,
    BrokerEvent,
    EngineStopped,
    OrderEvent,
    OrderFilled,
    PositionReport,
    Tick,
)
from jaxtrade.live.governor import Governor
from jaxtrade.live.house import House
from jaxtrade.live.meters import Meter
from jaxtrade.live.rows import Row
from jaxtrade.live.session import Session
from jaxtrade.live.status import status_of
from jaxtrade.live.swaps import Swaps
from jaxtrade.live.trading import Trading, has_ended

log = logging.getLogger("jaxtrade.engine")

YIELD_NS = 2_000_000
"""How long events are dealt with before others get their turn."""

END_S = 2.0
"""How long what is being done is given to end before it is broken off."""


class Engine:
    """One account at work.

    decision_latency: of policies; order_latency: from a bar to what it led to being handed over;
    after_decision: who looks at a decision, its bars and the account f32[3A + 3] that it was made
    with, once its orders are on their way; where one fails, that is logged.
    """

    def __init__(self, account: Account, *, folder: Path, beat: Callable[[], object]) -> None:
        self.account = account
        self.decision_latency, self.order_latency = Meter(), Meter()
        self.started_ns = account.clock.wall_ns()
        self.swaps = Swaps(account)
        self.session = Session(account, beat)
        self.trading = Trading(account)
        self.governor = Governor(account, folder)
        self.house = House(self, beat)
        account.builders = self._make_builders()
        self._one_at_a_time = asyncio.Lock()
        self._stopping = asyncio.Event()
        self.stop_reason = ""
        self._seen_ns = 0
        self.after_decision: list[Callable[[Desk, Row, F32], None]] = []

    # --- life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, trade, and stop in order."""
        self.governor.begin()
        keeper = asyncio.create_task(self.house.keep())
        follower = asyncio.create_task(self._follow())
        stopper = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait(
                {keeper, follower, stopper}, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {stopper}:
                task.result()  # an exception of theirs ends the engine
        finally:
            await self._end(keeper, follower, stopper)
            await self._close()

    async def _end(self, *tasks: asyncio.Task[Any]) -> None:
        """Cancel tasks, if possible not in the middle of something."""
        is_ours = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                is_ours = await self._one_at_a_time.acquire()
        for task in tasks:
            task.cancel()
        if is_ours:
            self._one_at_a_time.release()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self, reason: str) -> None:
        """End in order: orders that work go on working."""
        self.stop_reason = self.stop_reason or reason
        self._stopping.set()

    async def exclusively(self, work: Callable[[], Any]) -> Any:
        """Do something that changes the account while nobody else does."""
        async with self._one_at_a_time:
            result = work()
            return await result if asyncio.iscoroutine(result) else result

    # --- what people ask for -------------------------------------------------------------------

    def status(self) -> Mapping[str, Any]:
        """The state of everything; see `view`."""
        return status_of(self)

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do one of `control.COMMANDS`."""
        return await self.exclusively(lambda: commanding.carry_out(self, name, arguments))

    # --- what the broker says ------------------------------------------------------------------

    async def _follow(self) -> None:
        """Deal with one event after the other, over one connection after the other."""
        is_lost = self.session.is_lost
        while True:
            await self.reopen()
            following = asyncio.create_task(self._follow_connection())
            losing = asyncio.create_task(is_lost.wait())
            try:
                await asyncio.wait({following, losing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await self._end(following, losing)
            if not following.cancelled():
                following.result()  # an exception of it ends the engine
            if self.account.is_connected:  # a replay is over
                self.stop("the data are over")
                return

    async def _follow_connection(self) -> None:
        """Deal with events until there are no more, or the connection is lost."""
        clock, since = self.account.clock, self.account.clock.steady_ns()
        try:
            async with contextlib.aclosing(self.account.broker.events()) as events:  # type: ignore[type-var]
                async for event in events:
                    async with self._one_at_a_time:
                        await self.deal_with(event)
                    if self._stopping.is_set() or not self.account.is_connected:
                        return
                    now = clock.steady_ns()
                    if now - since > YIELD_NS:
                        await asyncio.sleep(0)
                        since = clock.steady_ns()
        except NotConnectedError as error:
            async with self._one_at_a_time:
                self.session.lost(str(error))

    async def reopen(self) -> None:
        """Take up a connection, the first or one that was lost, however long that takes; people
        and latches get their turn between two tries.
        """
        while True:
            async with self._one_at_a_time:
                try:
                    await self._open()
                    return
                except NotConnectedError as error:
                    self.session.lost(str(error))
            await self.session.pause()

    async def deal_with(self, event: BrokerEvent) -> None:
        """What follows from an event of the broker."""
        if isinstance(event, Tick):  # first, and by itself: there may be tens of thousands a second
            await self._see_tick(event)
            return
        account = self.account
        if isinstance(event, Bar):
            self._seen_ns = account.clock.steady_ns()
            await self._see_bar(event)
            account.watch(event)
        elif isinstance(event, OrderEvent):
            await self._hear(event)
        elif isinstance(event, AccountState):
            self.session.see_account(event)
            await self.governor.look()
        elif isinstance(event, PositionReport):
            account.reported[event.symbol] = event.quantity
            if event.quantity != account.state.quantity(event.symbol):
                account.execution.needs_evidence = True
        elif isinstance(event, BrokerDisconnected):
            self.session.lost(event.reason)
        elif isinstance(event, BrokerConnected):
            pass  # of `connect`, which the session has dealt with
        else:
            account.books.observe(event)
            if isinstance(event, BrokerDegraded):
                account.execution.needs_evidence = True
        await self.house.look_after_if_due()

    async def _see_tick(self, tick: Tick) -> None:
        account, symbol = self.account, tick.symbol
        self._seen_ns = now = account.clock.steady_ns()
        account.watch(tick)
        builder = account.builders.get(symbol)
        if builder is not None:
            bar = builder.add(tick, now)
            if bar is not None:
                await self._see_bar(bar)
                account.watch(bar)
        desk = account.owners.get(symbol)
        if desk is None or not account.see_quote(tick):
            return
        price = account.closes[symbol]
        if account.settings.decisions.max_move:
            await self.trading.compensate(symbol, price)
        if desk.has_exits:
            await self.trading.watch(desk, symbol, price)
        await self.governor.look_at_price(symbol)

    async def _see_bar(self, bar: Bar) -> None:
        account = self.account
        desk = account.owners.get(bar.symbol)
        if desk is None:
            return
        started = time.perf_counter_ns()
        account.see_bar(bar)
        row = desk.rows.add(bar, steady_ns=account.clock.steady_ns())
        if row is None:
            return
        self.governor.apply_pending()
        self.swaps.turn(desk)
        vector = await self.trading.decide(desk, row)
        self.order_latency.add_ns(time.perf_counter_ns() - started)
        assert desk.made is not None
        self.decision_latency.add_ns(desk.made.duration_ns)
        self.swaps.follow(desk, row, vector)
        for look in self.after_decision:
            try:
                look(desk, row, vector)
            except Exception:  # who looks on must not stop who trades
                log.exception("a decision could not be explained")
        await self.governor.look()

    async def _hear(self, event: OrderEvent) -> None:
        account = self.account
        before = account.state.orders.get(event.cid)
        if before is None:  # not ours: someone trades by hand, and what follows the broker knows
            account.execution.needs_evidence = True
            return
        account.books.observe(event)
        if isinstance(event, OrderFilled):  # what was told to be held is so no more
            account.reported.pop(event.symbol, None)
        order = account.state.orders[event.cid]
        symbol = order.intent.symbol
        desk = account.owners.get(symbol)
        if desk is None or order is before:
            return
        if symbol in self.trading.waiting and has_ended(order):
            await self.trading.replan(desk, symbol)
        is_end = order.is_terminal and self.trading.may_repair(order)
        if isinstance(event, OrderFilled) or is_end or order.intent.parent:
            await self.trading.protect(desk, symbol)
        if isinstance(event, OrderFilled):
            await self.governor.look()

    # --- parts ---------------------------------------------------------------------------------

    async def _open(self) -> None:
        rows = await self.session.open()
        await self.governor.obey()
        for desk, row in rows:
            await self.trading.decide(desk, row)
            desk.rows.begin_after(desk.decider.last_start_s)
        now_ns = self.account.clock.wall_ns()
        for builder in set(self.account.builders.values()):
            builder.begin(now_ns)
        for symbol, desk in self.account.owners.items():
            await self.trading.protect(desk, symbol)

    async def _close(self) -> None:
        """The end: positions are kept or closed, as the settings say."""
        account = self.account
        await self.swaps.close()
        try:
            is_flattening = account.settings.engine.on_stop == "flatten"
            if is_flattening and account.is_connected:
                await account.execution.cancel_all("the engine stops")
                await account.broker.close_all_positions()
                await self.session.see_closed()
            await account.broker.disconnect()
        except Exception as error:  # whatever the broker says now, the books are closed in order
            log.warning("the connection did not end in order: %r", error)
        now_ns = account.clock.wall_ns()
        account.books.observe(EngineStopped(at_ns=now_ns, reason=self.stop_reason), durable=True)
        self.house.save()

    def _make_builders(self) -> dict[str, BarBuilder]:
        """Who makes bars of ticks, where the broker sends none."""
        account = self.account
        if account.broker.capabilities.sends_bars:
            return {}
        lengths = {desk.bar_seconds for desk in account.desks.values()}
        builders: dict[str, BarBuilder] = {}
        for seconds in lengths:
            symbols = tuple(s for s, d in account.owners.items() if d.bar_seconds == seconds)
            builder = BarBuilder(symbols, bar_seconds=seconds, limits=account.settings.guard)
            builders |= dict.fromkeys(symbols, builder)
        return builders

    async def close_due_bars(self) -> None:
        """Bars whose time is over though no tick has come since."""
        now = self.account.clock.steady_ns()
        for builder in set(self.account.builders.values()):
            if builder.due_ns is not None and builder.due_ns <= now:
                for bar in builder.close_due(now):
                    self.account.watch(bar)
                    await self._see_bar(bar)

    def data_age_s(self) -> float | None:
        """Since the last bar or quote, by the steady clock; None before the first."""
        if not self._seen_ns:
            return None
        return (self.account.clock.steady_ns() - self._seen_ns) / 1e9
