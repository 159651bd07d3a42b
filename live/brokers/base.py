"""What the engine asks of a broker.

An adapter translates; it decides nothing. Its methods return when the request was handed to the
transport, and what becomes of it comes as an event. They raise `NotConnectedError`, nothing else.
"""

import dataclasses
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Protocol

from jaxtrade.live.clock import Clock
from jaxtrade.live.events import Bar, BrokerEvent, OrderFilled, OrderIntent


class NotConnectedError(Exception):
    """There is no connection: nothing was handed over."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instrument:
    """What can be traded: the step of quantities and of prices, and how much at once.

    quantity_step, min_quantity, max_quantity: units; price_step: quote currency, 0 for any price;
    unit_value: account currency that one unit gains when its price rises by one.
    """

    symbol: str
    quantity_step: Decimal
    price_step: Decimal = Decimal(0)
    min_quantity: Decimal = Decimal(0)
    max_quantity: Decimal = Decimal("1e12")
    unit_value: float = 1.0
    is_tradable: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a broker can do by itself.

    sends_bars: it sends finished bars; without it they are built of its ticks; holds_exits: stop
    and limit orders that guard a position work at the broker, also when the engine is not there;
    without it the engine watches prices; books_at_once: an `AccountState` holds all fills told
    before it and nothing else, so that what it has beyond them is interest, dividends or a deposit;
    history_bars: how many finished bars it can give, 0 for none.
    """

    sends_bars: bool = True
    holds_exits: bool = True
    books_at_once: bool = False
    history_bars: int = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
    """What the broker holds of a symbol, signed units, at a mean price in quote currency."""

    symbol: str
    quantity: Decimal
    price: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenOrder:
    """An order that works at the broker; `cid` is "" where it is not ours."""

    cid: str
    broker_id: str
    symbol: str
    filled: Decimal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedOrder:
    """An order that works no more; status: "filled", "canceled", "rejected" or "expired"."""

    cid: str
    broker_id: str
    symbol: str
    status: str
    filled: Decimal
    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that the broker says of the account at one moment.

    is_complete: false where any of the questions failed; such a snapshot proves nothing absent.
    fills: those that the broker still remembers.
    """

    at_ns: int
    equity: float
    cash: float
    positions: tuple[Position, ...] = ()
    open_orders: tuple[OpenOrder, ...] = ()
    closed_orders: tuple[ClosedOrder, ...] = ()
    fills: tuple[OrderFilled, ...] = ()
    is_complete: bool = True


class Broker(Protocol):
    """One account at a broker.

    clock: the time there, which is the machine's but where a market is replayed.
    """

    clock: Clock

    @property
    def capabilities(self) -> Capabilities:
        """What it can do by itself."""

    async def connect(self) -> None:
        """Open the transport and see a first snapshot. Raises NotConnectedError where it cannot."""

    async def disconnect(self) -> None:
        """Close the transport; orders go on working."""

    def is_connected(self) -> bool:
        """Whether data have come lately, not merely whether a socket is open."""

    async def instruments(self, symbols: tuple[str, ...]) -> tuple[Instrument, ...]:
        """What is known of these symbols; those that the broker does not know are left out."""

    async def subscribe(self, symbols: tuple[str, ...], *, bar_seconds: int) -> None:
        """Send `Tick` (where there are any) and finished `Bar` events of these symbols."""

    async def history(self, symbol: str, *, bar_seconds: int, count: int) -> tuple[Bar, ...]:
        """The last finished bars, oldest first, as many as there are up to `count`."""

    async def submit_order(self, intent: OrderIntent) -> None:
        """Hand an order over."""

    async def cancel_order(self, cid: str) -> None:
        """Ask for the cancellation of one of our orders."""

    async def cancel_all_orders(self, symbol: str | None = None) -> None:
        """Cancel whatever works, ours or not; needs no state of ours."""

    async def close_all_positions(self) -> None:
        """Close whatever is held at the market; needs no state of ours."""

    async def snapshot(self) -> Snapshot:
        """What the broker says now."""

    def events(self) -> AsyncIterator[BrokerEvent]:
        """Everything that happens, in order. Asking for the next means the last was dealt with."""
