"""A broker in memory that takes every order at once: what is timed beside it is the engine alone.

It knows nothing but the last price of each symbol, fills there and then, and tells so after the
event that it is dealing with. No JAX, no disk, no net.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from time import perf_counter_ns

from jaxtrade.live.brokers.base import Capabilities, Instrument, Position, Snapshot
from jaxtrade.live.clock import Clock, SystemClock
from jaxtrade.live.events import (
    Bar,
    BrokerEvent,
    OrderAccepted,
    OrderFilled,
    OrderIntent,
    Side,
    Tick,
)
from jaxtrade.live.settings import LiveSettings

HISTORY_BARS = 400
REMEMBERED = 500
"""Fills in a snapshot."""

PRICE, DEPOSIT = 100.0, 1_000_000.0


class StandIn:
    """The broker; see the module.

    dealt: called with each event that was dealt with, and the nanoseconds that this took; sent:
    nanoseconds from an event to the return of each order that it led to; longest: most events that
    have waited.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.capabilities = Capabilities(sends_bars=False, holds_exits=False)
        self.clock: Clock = clock or SystemClock()
        self.dealt: Callable[[BrokerEvent, int], object] | None = None
        self.sent: list[int] = []
        self.longest = 0
        self.prices: dict[str, float] = {}
        self._cash = Decimal(repr(DEPOSIT))
        self._held: dict[str, Decimal] = {}
        self._fills: deque[OrderFilled] = deque(maxlen=REMEMBERED)
        self._queue: deque[BrokerEvent] = deque()
        self._orders: deque[OrderIntent] = deque()
        self._news = asyncio.Event()
        self._since_ns = self._number = 0

    def push(self, event: BrokerEvent) -> None:
        """Let something happen."""
        if isinstance(event, Tick):
            self.prices[event.symbol] = 0.5 * (event.bid + event.ask)
        self._queue.append(event)
        self._news.set()

    @property
    def waiting(self) -> int:
        """Events that are still to be dealt with."""
        return len(self._queue) + len(self._orders)

    async def events(self) -> AsyncIterator[BrokerEvent]:
        """All that happens, for ever."""
        queue = self._queue
        while True:
            while queue or self._orders:
                while self._orders:
                    self._fill(self._orders.popleft())
                self.longest = max(self.longest, len(queue))
                event = queue.popleft()
                self._since_ns = perf_counter_ns()
                yield event
                if self.dealt is not None:
                    self.dealt(event, perf_counter_ns() - self._since_ns)
            self._news.clear()
            await self._news.wait()

    async def submit_order(self, intent: OrderIntent) -> None:
        """Take an order; it is filled at once, but after this has returned."""
        self._orders.append(intent)
        self._news.set()
        self.sent.append(perf_counter_ns() - self._since_ns)

    def _fill(self, intent: OrderIntent) -> None:
        """Fill an order at the last price."""
        price = Decimal(repr(self.prices[intent.symbol]))
        signed = intent.quantity * intent.side.sign
        self._held[intent.symbol] = self._held.get(intent.symbol, Decimal(0)) + signed
        self._cash -= signed * price
        self._number += 1
        now_ns = self.clock.wall_ns()
        fill = OrderFilled(
            at_ns=now_ns,
            cid=intent.cid,
            execution_id=f"{intent.cid}-{self._number}",
            symbol=intent.symbol,
            side=Side(intent.side),
            quantity=intent.quantity,
            price=price,
        )
        self._fills.append(fill)
        self.push(OrderAccepted(at_ns=now_ns, cid=intent.cid, broker_id=str(self._number)))
        self.push(fill)

    async def snapshot(self) -> Snapshot:
        """What is held."""
        held = [
            Position(symbol=s, quantity=q, price=self.prices[s]) for s, q in self._held.items() if q
        ]
        worth = sum(float(each.quantity) * each.price for each in held)
        cash = float(self._cash)
        return Snapshot(
            at_ns=self.clock.wall_ns(),
            equity=cash + worth,
            cash=cash,
            positions=tuple(held),
            fills=tuple(self._fills),
        )

    async def history(self, symbol: str, *, bar_seconds: int, count: int) -> tuple[Bar, ...]:
        """Bars up to now, of a price that goes up and down."""
        end_s = self.clock.wall_ns() // 10**9 // bar_seconds * bar_seconds
        bars, price = [], PRICE
        for index in range(HISTORY_BARS, 0, -1):
            close = PRICE * (1.0 + 1e-4 * ((index * 7919) % 13 - 6))
            bars.append(
                Bar(
                    at_ns=0,
                    symbol=symbol,
                    start_s=end_s - index * bar_seconds,
                    seconds=bar_seconds,
                    open=price,
                    high=max(price, close),
                    low=min(price, close),
                    close=close,
                    volume=1.0,
                )
            )
            price = close
        self.prices.setdefault(symbol, price)
        return tuple(bars)

    async def connect(self) -> None:
        """Nothing to open."""

    async def disconnect(self) -> None:
        """Nothing to close."""

    def is_connected(self) -> bool:
        """Always."""
        return True

    async def instruments(self, symbols: tuple[str, ...]) -> tuple[Instrument, ...]:
        """Any symbol can be traded, in small steps."""
        step = Decimal("0.0001")
        return tuple(Instrument(symbol=symbol, quantity_step=step) for symbol in symbols)

    async def subscribe(self, symbols: tuple[str, ...], *, bar_seconds: int) -> None:
        """Whatever is pushed is sent."""

    async def cancel_order(self, cid: str) -> None:
        """Nothing works here for longer than a moment."""

    async def cancel_all_orders(self, symbol: str | None = None) -> None:
        """Nothing works here for longer than a moment."""

    async def close_all_positions(self) -> None:
        """Forget what is held, at no price: nothing here is about money."""
        self._held.clear()


def make(settings: LiveSettings, *, role: str) -> StandIn:
    """A stand-in, for the setting broker.kind."""
    del settings, role
    return StandIn()
