"""A broker that trades on paper: the simulator's ledger behind the interface of a real one.

On a replay it goes in lock-step with who reads its events: the next bar is booked when everything
told so far was dealt with, so that orders sent after a bar trade in the next one, as in a backtest.
Its books may lie in a file, which outlives the process, as a real broker does; another process may
open the same file, cancel and close at the last known prices, and the first one will see it.
"""

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Iterable
from decimal import Decimal
from pathlib import Path

from jaxtrade.live.brokers.base import Capabilities, Instrument, NotConnectedError, Snapshot
from jaxtrade.live.brokers.paper_desk import Desk
from jaxtrade.live.brokers.paper_faults import NEVER, Faults, Line
from jaxtrade.live.brokers.paper_feed import Feed, Standstill
from jaxtrade.live.brokers.paper_store import PaperStore
from jaxtrade.live.clock import SECOND_NS, Clock, SimulatedClock, SystemClock
from jaxtrade.live.events import (
    Bar,
    BrokerDisconnected,
    BrokerEvent,
    OrderFilled,
    OrderIntent,
    Side,
)
from jaxtrade.specs import JaxtradeError

HEARTBEAT_NS = 10 * SECOND_NS
"""A line that has been silent for longer is taken for dead."""

PROMPT = Capabilities(books_at_once=True, history_bars=1 << 30)
UNEVEN = dataclasses.replace(PROMPT, books_at_once=False)


class PaperBroker:
    """One account on paper; a `Broker`.

    The newest finished bar is the first that is told after each connection; `history` gives the
    bars before the next that will be told. An order that was sent twice is the same order.

    Usage:
        broker = PaperBroker(Replay(venue), clock=SimulatedClock(), path="paper.db")
        await broker.connect()
        async for event in broker.events():
            ...
    """

    def __init__(
        self,
        feed: Feed,
        *,
        clock: Clock | None = None,
        path: Path | str | None = None,
        speed: float = 0.0,
        with_quotes: bool = False,
        faults: Faults | None = None,
    ) -> None:
        """A new account, or the one in the file.

        Args:
            feed: the market.
            clock: a `SimulatedClock` is driven to the end of each bar of a replay.
            path: of the file of the books; None keeps them in memory.
            speed: bars a second of a replay, 0 for as fast as they are read.
            with_quotes: tell a quote of each symbol before its bar.
            faults: what goes wrong; may be changed while it runs.

        Raises:
            JaxtradeError: the file is another's, or cannot be opened.
        """
        self.faults = Faults() if faults is None else faults
        self._feed = feed
        self.clock = SystemClock() if clock is None else clock
        self._speed = speed
        self._with_quotes = with_quotes
        self._desk = Desk(feed, path, self.faults)
        self._line = Line(self.faults)
        self._is_connected = False
        self._frozen_since_ns: int | None = None
        self._passed_s = 0.0
        self._woken = asyncio.Event()
        self._subscribed = frozenset(feed.symbols)
        self._next_row = self._desk.books.row
        feed.listen(self._woken.set)

    # --- connection ----------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the connection; the newest bar will be told again.

        Raises:
            NotConnectedError: it was refused.
        """
        if self.faults.take("refuse_connections"):
            raise NotConnectedError("the paper broker refuses connections")
        self._line.clear()
        events = self._desk.connect()
        self._drive_clock(self._desk.books.at_ns)
        self._is_connected, self._frozen_since_ns = True, None
        self._tell(events)
        self._next_row = self._desk.books.row
        self._tell_market()
        self._woken.set()

    async def disconnect(self) -> None:
        """Close the connection; orders go on working."""
        self._is_connected = False
        self._line.clear()
        self._woken.set()

    @property
    def capabilities(self) -> Capabilities:
        """Accounts are told in step with fills, but where these are late or lost on their way."""
        return PROMPT if self._line.is_prompt else UNEVEN

    def is_connected(self) -> bool:
        """Whether the line is up, and was not silent for too long."""
        since_ns = self._frozen_since_ns
        is_silent = since_ns is not None and self.clock.steady_ns() - since_ns > HEARTBEAT_NS
        return self._is_connected and not is_silent

    def _require_connection(self) -> None:
        if not self._is_connected:
            raise NotConnectedError("the paper broker is not connected")

    # --- what is known -------------------------------------------------------------------------

    async def instruments(self, symbols: tuple[str, ...]) -> tuple[Instrument, ...]:
        """What is known of these symbols."""
        self._require_connection()
        known = self._desk.known
        return tuple(known[symbol] for symbol in symbols if symbol in known)

    async def subscribe(self, symbols: tuple[str, ...], *, bar_seconds: int) -> None:
        """Tell bars of these symbols only.

        Raises:
            JaxtradeError: a symbol that is not there, or bars of another length.
        """
        self._require_connection()
        known, seconds = self._desk.known, self._feed.bar_seconds
        unknown = [symbol for symbol in symbols if symbol not in known]
        if unknown or (seconds and bar_seconds != seconds):
            raise JaxtradeError(
                f"no bars of {bar_seconds} s of {', '.join(unknown or symbols)}: there are bars of "
                f"{seconds} s of {', '.join(known)}"
            )
        self._subscribed = frozenset(symbols)
        self._line.keep(self._subscribed)

    async def history(self, symbol: str, *, bar_seconds: int, count: int) -> tuple[Bar, ...]:
        """The last bars before the next that will be told."""
        self._require_connection()
        if symbol not in self._desk.known or bar_seconds != self._feed.bar_seconds:
            return ()
        return self._feed.history(symbol, count, before_row=self._next_row)

    async def snapshot(self) -> Snapshot:
        """The account, as it is.

        Raises:
            NotConnectedError: there is no connection, or no answer.
        """
        self._require_connection()
        if self.faults.take("failing_snapshots"):
            raise NotConnectedError("the paper broker does not answer")
        self._tell(self._desk.sync())
        whole = self._desk.books.snapshot(self.clock.wall_ns())
        if self.faults.take("incomplete_snapshots"):
            return dataclasses.replace(
                whole, positions=(), open_orders=(), closed_orders=(), fills=(), is_complete=False
            )
        return whole

    # --- orders --------------------------------------------------------------------------------

    async def submit_order(self, intent: OrderIntent) -> None:
        """Take an order; one whose cid is there already is only acknowledged again."""
        if self.faults.slow_submit_s:
            await asyncio.sleep(self.faults.slow_submit_s)
        self._require_connection()
        if self.faults.take("drop_orders"):
            return
        if self.faults.take("mute"):
            self._line.mute(intent.cid)
        self._tell(self._desk.submit(intent))

    async def cancel_order(self, cid: str) -> None:
        """Cancel an order at once."""
        self._require_connection()
        self._tell(self._desk.cancel(cid))

    async def cancel_all_orders(self, symbol: str | None = None) -> None:
        """Cancel whatever works."""
        self._require_connection()
        self._tell(self._desk.cancel_all(symbol))

    async def close_all_positions(self) -> None:
        """Close whatever is held, at once and at the last known prices."""
        self._require_connection()
        self._tell(self._desk.close_all())

    # --- events --------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[BrokerEvent]:
        """Everything that happens; ends with the replay."""
        while True:
            while self._frozen_since_ns is None:
                event = self._line.take(self.clock.wall_ns())
                if event is None:
                    break
                if isinstance(event, Bar):
                    self._next_row = self._desk.books.row + 1
                yield event
            if not await self._go_on():
                return

    async def _go_on(self) -> bool:
        """Let time pass until something has happened; False at the end of the data."""
        if not self._is_connected or self._frozen_since_ns is not None:
            await self._wait(math.inf)
            return True
        due_ns, late_ns = self._feed.next_ns(self._desk.books), self._line.next_late_ns()
        if due_ns is None and late_ns == NEVER:
            return False
        is_driven = isinstance(self.clock, SimulatedClock)
        if is_driven and late_ns < NEVER and (due_ns is None or late_ns <= due_ns):
            self._drive_clock(late_ns)
            return True
        market_s, late_s = self._seconds_to_market(due_ns), math.inf
        if late_ns < NEVER and not is_driven:
            late_s = (late_ns - self.clock.wall_ns()) / SECOND_NS
        if min(market_s, late_s) > 0:
            await self._wait(min(market_s, late_s))
        elif market_s <= 0 and due_ns is not None:
            await asyncio.sleep(0)  # whoever else has something to do, or to order
            if not self._line and self._is_connected and self._frozen_since_ns is None:
                self._pass(due_ns)
        return True

    def _seconds_to_market(self, due_ns: int | None) -> float:
        if due_ns is None or due_ns == NEVER:
            return math.inf
        return self._passed_s + 1.0 / self._speed - time.monotonic() if self._speed else 0.0

    async def _wait(self, seconds: float) -> None:
        """Wait to be woken, at most for so long."""
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), None if seconds == math.inf else seconds)

    def _pass(self, due_ns: int) -> None:
        """Let the market go on to a moment, and tell what that brings."""
        self._passed_s = time.monotonic()
        self._drive_clock(due_ns)
        self._tell(self._desk.advance())
        self._tell_market()

    def _drive_clock(self, wall_ns: int) -> None:
        if isinstance(self.clock, SimulatedClock):
            self.clock.advance_to(wall_ns)

    def _tell(self, events: Iterable[BrokerEvent]) -> None:
        now_ns = self.clock.wall_ns()
        for event in events:
            self._line.put(event, now_ns)
        self._woken.set()

    def _tell_market(self) -> None:
        told = self._feed.market_data(self._desk.books, with_quotes=self._with_quotes)
        self._tell(each for each in told if each.symbol in self._subscribed)

    # --- what others do, and what breaks -------------------------------------------------------

    def tell(self, event: BrokerEvent) -> None:
        """Send an event that nothing in the account has caused: a bad quote, an error."""
        self._tell([event])

    def trade_outside(self, symbol: str, quantity: Decimal, *, is_told: bool = True) -> None:
        """Somebody else trades a signed quantity at once; told or not."""
        events = self._desk.trade_outside(symbol, quantity)
        self._tell(e for e in events if is_told or not isinstance(e, OrderFilled))

    def order_outside(self, symbol: str, side: Side, quantity: Decimal, price: Decimal) -> None:
        """Somebody else leaves a limit order, of which nothing is told."""
        self._tell(self._desk.order_outside(symbol, side, quantity, price))

    def break_connection(self, *, bars: int = 0, reason: str = "broken") -> None:
        """Lose the connection and what is under way; the market goes on unseen for some bars."""
        self._line.clear()
        self._is_connected = False
        for _ in range(bars):
            due_ns = self._feed.next_ns(self._desk.books)
            if due_ns is None or due_ns == NEVER:
                break
            self._drive_clock(due_ns)
            self._desk.advance()
        at_ns = self._desk.books.at_ns
        self._tell([BrokerDisconnected(at_ns=at_ns, reason=reason)])

    def freeze(self) -> None:
        """Fall silent without a word; requests are still taken."""
        self._frozen_since_ns = self.clock.steady_ns()
        self._woken.set()

    def thaw(self) -> None:
        """Speak again, first of what was missed."""
        self._frozen_since_ns = None
        self._woken.set()


def connection(path: Path | str, *, clock: Clock | None = None) -> PaperBroker:
    """A further connection to the account in a file, at its last known prices; needs no JAX.

    Raises:
        JaxtradeError: there is no account.
    """
    if not Path(path).is_file():
        raise JaxtradeError(f"{path}: there is no paper account")
    store = PaperStore(path)
    meta = store.meta()
    if not meta:
        raise JaxtradeError(f"{path}: there is no paper account in it")
    symbols, seconds = tuple(meta["symbols"]), meta["bar_seconds"]
    feed = Standstill(symbols, store.instruments(), seconds)
    store.close()
    return PaperBroker(feed, clock=clock, path=path)
