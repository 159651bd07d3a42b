"""What every adapter must do, as cases that anybody may run against theirs.

A case knows the `Broker` interface alone, and a handle on the faults where the other side can be
made to misbehave; without one, the cases that need it are skipped. Cases trade: run them against a
simulator or a paper account that nobody else uses.

Usage:
    outcomes = asyncio.run(check_broker(make_rig))
    assert all(outcome.status != "failed" for outcome in outcomes)
"""

import asyncio
import dataclasses
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from decimal import Decimal
from typing import Any, Protocol, TypeVar

from jaxtrade.live.brokers.base import Broker, Instrument, Snapshot
from jaxtrade.live.events import (
    Bar,
    BrokerEvent,
    OrderAccepted,
    OrderFilled,
    OrderIntent,
    OrderRejected,
    Side,
    Tick,
)

E = TypeVar("E")


class FaultHandle(Protocol):
    """Makes the other side misbehave."""

    def can(self, fault: str) -> bool:
        """Whether it knows a fault of this name; see the cases for those that there are."""

    async def inject(self, fault: str, **options: Any) -> None:
        """Let it happen: now, or to the next order, fill, cancellation or snapshot."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rig:
    """A broker to judge, not connected, on an account that holds nothing.

    symbols: at least one that is traded now; bar_seconds: of bars that it tells, 0 for none;
    patience_s: how long to wait for anything; steps: size of an order, in steps of the quantity.
    """

    broker: Broker
    symbols: tuple[str, ...]
    bar_seconds: int
    faults: FaultHandle | None = None
    patience_s: float = 5.0
    steps: int = 1_000
    seed: int = 0


class NotSeenError(AssertionError):
    """Something did not happen in time."""


class Session:
    """A connected broker and all that it has told."""

    def __init__(self, rig: Rig, name: str) -> None:
        self.rig = rig
        self.broker = rig.broker
        self.symbol = rig.symbols[0]
        self.told: list[BrokerEvent] = []
        self._name = name
        self._random = random.Random(f"{name} {rig.seed}")
        self._count = 0
        self._events: AsyncIterator[BrokerEvent] | None = None
        self._next: asyncio.Future[BrokerEvent] | None = None

    async def open(self) -> None:
        """Connect and subscribe."""
        await self.broker.connect()
        await self.broker.subscribe(self.rig.symbols, bar_seconds=self.rig.bar_seconds)

    async def close(self) -> None:
        """Leave nothing behind: no order, no position, no connection."""
        if not self.broker.is_connected():
            await self.broker.connect()
        await self.broker.cancel_all_orders()
        await self.broker.close_all_positions()
        await self.broker.disconnect()
        if self._next is not None:
            self._next.cancel()

    async def next(self) -> BrokerEvent:
        """The next event.

        Raises:
            NotSeenError: none came in time, or none will.
        """
        if self._events is None:
            self._events = self.broker.events()
        if self._next is None:
            self._next = asyncio.ensure_future(_one(self._events))
        await asyncio.wait({self._next}, timeout=self.rig.patience_s)
        if not self._next.done():
            raise NotSeenError(f"nothing was told within {self.rig.patience_s:g} s")
        coming, self._next = self._next, None
        try:
            event = coming.result()
        except StopAsyncIteration:
            raise NotSeenError("the events have ended") from None
        self.told.append(event)
        return event

    async def until(
        self, kind: type[E], found: Callable[[E], bool] = lambda _: True, *, most: int = 500
    ) -> E:
        """The next event of a kind that is the one; what is told before is kept.

        Raises:
            NotSeenError: it was not among the next `most` events, or none came in time.
        """
        for _ in range(most):
            event = await self.next()
            if isinstance(event, kind) and found(event):
                return event
        raise NotSeenError(f"no {kind.__name__} among {most} events")

    async def market(self, times: int = 1) -> None:
        """Let the market move: so many bars or quotes of the symbol."""

        def is_ours(event: Bar | Tick) -> bool:
            return event.symbol == self.symbol

        for _ in range(times):
            if self.rig.bar_seconds:
                await self.until(Bar, is_ours)
            else:
                await self.until(Tick, is_ours)

    async def price(self) -> float:
        """The last price; lets the market move if there is none yet."""
        while True:
            for event in reversed(self.told):
                if isinstance(event, Bar) and event.symbol == self.symbol:
                    return event.close
                if isinstance(event, Tick) and event.symbol == self.symbol and event.bid > 0:
                    return (event.bid + event.ask) / 2
            await self.market()

    async def instrument(self) -> Instrument:
        """What is known of the symbol."""
        [instrument] = await self.broker.instruments((self.symbol,))
        return instrument

    async def order(self, signed_steps: int, **changes: Any) -> OrderIntent:
        """An order of so many steps of the quantity, signed, that was not sent yet."""
        self._count += 1
        step = (await self.instrument()).quantity_step
        cid = f"{self._random.getrandbits(80):020d}"[-16:]
        fields = {
            "cid": cid,
            "decision_key": f"{self._name} {self._count}",
            "agent": "conformance",
            "symbol": self.symbol,
            "side": Side.BUY if signed_steps > 0 else Side.SELL,
            "quantity": abs(signed_steps) * step,
            "reference_price": await self.price(),
        }
        return OrderIntent(**{**fields, **changes})

    async def price_at(self, factor: float) -> Decimal:
        """A price that the broker takes, about this factor from the last one."""
        wanted = Decimal(repr(await self.price() * factor))
        step = (await self.instrument()).price_step
        return wanted // step * step if step else wanted.quantize(Decimal("1e-8"))

    async def filled(self, intent: OrderIntent) -> list[OrderFilled]:
        """Wait until all of an order is filled; its fills, each once."""
        while self.quantity_of(intent.cid) < intent.quantity:
            await self.until(OrderFilled, lambda fill: fill.cid == intent.cid)
        return self.fills(intent.cid)

    async def send(self, signed_steps: int | None = None, **changes: Any) -> OrderIntent:
        """Send an order, by default to buy at the market, and wait until it is filled."""
        steps = self.rig.steps if signed_steps is None else signed_steps
        intent = await self.order(steps, **changes)
        await self.broker.submit_order(intent)
        await self.filled(intent)
        return intent

    async def rejected(self, intent: OrderIntent) -> OrderRejected:
        """Send an order that is to be refused, and wait for that."""
        await self.broker.submit_order(intent)
        return await self.until(OrderRejected, lambda event: event.cid == intent.cid)

    async def accepted(self, intent: OrderIntent) -> OrderAccepted:
        """Send an order and wait until it works."""
        await self.broker.submit_order(intent)
        return await self.until(OrderAccepted, lambda event: event.cid == intent.cid)

    def fills(self, cid: str | None = None) -> list[OrderFilled]:
        """The executions told, each with its last revision; of one order or of all."""
        newest: dict[str, OrderFilled] = {}
        for event in self.told:
            if isinstance(event, OrderFilled) and cid in (None, event.cid):
                known = newest.get(event.execution_id)
                if known is None or event.revision >= known.revision:
                    newest[event.execution_id] = event
        return list(newest.values())

    def quantity_of(self, cid: str) -> Decimal:
        """Units filled of an order, as told."""
        return sum((fill.quantity for fill in self.fills(cid)), Decimal(0))

    async def snapshot(self) -> Snapshot:
        """What the broker says now."""
        return await self.broker.snapshot()

    async def held(self) -> Decimal:
        """Units of the symbol that the broker says are held."""
        positions = (await self.snapshot()).positions
        return sum((each.quantity for each in positions if each.symbol == self.symbol), Decimal(0))

    async def inject(self, fault: str, **options: Any) -> None:
        """Let a fault happen."""
        assert self.rig.faults is not None
        await self.rig.faults.inject(fault, **options)


async def _one(events: AsyncIterator[BrokerEvent]) -> BrokerEvent:
    return await anext(events)


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing that an adapter must do; `needs` names the fault without which it is skipped."""

    name: str
    play: Callable[[Session], Awaitable[None]]
    needs: str = ""
    needs_bars: bool = False
    needs_exits: bool = False

    @property
    def about(self) -> str:
        """What must hold, in a sentence."""
        return (self.play.__doc__ or "").strip()

    def missing(self, rig: Rig) -> str:
        """Why it cannot be played; "" if it can."""
        if self.needs and (rig.faults is None or not rig.faults.can(self.needs)):
            return f"needs the fault {self.needs}"
        if self.needs_bars and not rig.bar_seconds:
            return "needs bars"
        if self.needs_exits and not rig.broker.capabilities.holds_exits:
            return "the broker holds no exits"
        return ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a case: status "passed", "failed" or "skipped", and why."""

    case: str
    status: str
    detail: str = ""


def cases() -> dict[str, Case]:
    """All cases by name."""
    from jaxtrade.live.brokers.conformance_faults import ALL

    return {case.name: case for case in ALL}


async def check_case(case: Case, rig: Rig) -> Outcome:
    """Play one case on a rig of its own."""
    missing = case.missing(rig)
    if missing:
        return Outcome(case.name, "skipped", missing)
    session = Session(rig, case.name)
    try:
        await session.open()
        await case.play(session)
        await session.close()
    except AssertionError as error:
        where = traceback.extract_tb(error.__traceback__)
        line = next((each.line for each in reversed(where) if each.line), "")
        return Outcome(case.name, "failed", f"{case.about} {error or line}")
    return Outcome(case.name, "passed")


async def check_broker(
    make_rig: Callable[[], Rig], *, only: Iterable[str] | None = None
) -> list[Outcome]:
    """Play all cases, or some, each on a fresh rig."""
    wanted = None if only is None else set(only)
    chosen = [case for name, case in cases().items() if wanted is None or name in wanted]
    return [await check_case(case, make_rig()) for case in chosen]
