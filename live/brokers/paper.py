"""A broker that trades on paper: the simulator's ledger behind the interface of a real one.

On a replay it goes in lock-step with who reads its events: the next bar is booked when everything
told so far was dealt with, so that orders sent after a bar trade in the next one, as in a backtest.
Its books may lie in a file, which outlives the process, as a real broker does; another process may
open the same file, cancel and close at the last known prices, and the first one will see it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path

from jaxtrade.live.brokers.base import Capabilities, Instrument, NotConnectedError, Snapshot
from jaxtrade.live.brokers.paper_books import Books, Events
from jaxtrade.live.brokers.paper_feed import Feed, Standstill
from jaxtrade.live.brokers.paper_matching import ended_exits
from jaxtrade.live.brokers.paper_store import PaperStore
from jaxtrade.live.clock import Clock, SimulatedClock, SystemClock
from jaxtrade.live.events import (
    Bar,
    BrokerConnected,
    BrokerEvent,
    OrderAccepted,
    OrderCanceled,
    OrderCancelRejected,
    OrderIntent,
    OrderKind,
    OrderRejected,
    PositionReport,
)
from jaxtrade.specs import JaxtradeError


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

    capabilities = Capabilities(holds_exits=True, has_history=True)

    def __init__(
        self,
        feed: Feed,
        *,
        clock: Clock | None = None,
        path: Path | str | None = None,
        speed: float = 0.0,
        with_quotes: bool = False,
    ) -> None:
        """A new account, or the one in the file.

        Args:
            feed: the market.
            clock: a `SimulatedClock` is driven to the end of each bar.
            path: of the file of the books; None keeps them in memory.
            speed: bars a second of a replay, 0 for as fast as they are read.
            with_quotes: tell a quote of each symbol before its bar.

        Raises:
            JaxtradeError: the file is another's, or cannot be opened.
        """
        self._feed = feed
        self._clock = SystemClock() if clock is None else clock
        self._speed = speed
        self._with_quotes = with_quotes
        self._queue: deque[BrokerEvent] = deque()
        self._is_connected = False
        self._woken = asyncio.Event()
        self._subscribed = frozenset(feed.symbols)
        self._known = {one.symbol: one for one in feed.instruments()}
        self._store = None if path is None else PaperStore(path)
        self._books = self._open()
        self._next_row = self._books.row

    def _open(self) -> Books:
        if self._store is None:
            return self._feed.open_books()
        meta = self._store.meta()
        if not meta:
            books = self._feed.open_books()
            self._store.begin_account(books, self._feed.instruments(), self._feed.bar_seconds)
            return books
        if tuple(meta["symbols"]) != self._feed.symbols:
            raise JaxtradeError(
                f"{self._store.path}: is an account of {', '.join(meta['symbols'])}, "
                f"not of {', '.join(self._feed.symbols)}: give another path"
            )
        return self._store.load()[0]

    # --- connection ----------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the connection; the newest bar will be told again."""
        self._sync()

        def connected(books: Books) -> Events:
            books.epoch += 1
            reports = [
                PositionReport(
                    at_ns=books.at_ns,
                    symbol=symbol,
                    quantity=units,
                    price=books.mean_price[symbol],
                )
                for symbol, units in books.units.items()
                if units
            ]
            return [
                BrokerConnected(at_ns=books.at_ns, epoch=books.epoch),
                books.account_state(),
                *reports,
            ]

        self._queue.clear()
        self._change(connected)
        if isinstance(self._clock, SimulatedClock):
            self._clock.advance_to(self._books.at_ns)
        self._is_connected = True
        self._next_row = self._books.row
        self._tell_bars()
        self._woken.set()

    async def disconnect(self) -> None:
        """Close the connection; orders go on working."""
        self._is_connected = False
        self._queue.clear()

    def is_connected(self) -> bool:
        """Whether bars may come."""
        return self._is_connected

    def _require_connection(self) -> None:
        if not self._is_connected:
            raise NotConnectedError("the paper broker is not connected")

    # --- what is known -------------------------------------------------------------------------

    async def instruments(self, symbols: tuple[str, ...]) -> tuple[Instrument, ...]:
        """What is known of these symbols."""
        self._require_connection()
        return tuple(self._known[symbol] for symbol in symbols if symbol in self._known)

    async def subscribe(self, symbols: tuple[str, ...], *, bar_seconds: int) -> None:
        """Tell bars of these symbols only.

        Raises:
            JaxtradeError: a symbol that is not there, or bars of another length.
        """
        self._require_connection()
        unknown = [symbol for symbol in symbols if symbol not in self._known]
        if unknown or bar_seconds != self._feed.bar_seconds:
            raise JaxtradeError(
                f"no bars of {bar_seconds} s of {', '.join(unknown or symbols)}: there are bars of "
                f"{self._feed.bar_seconds} s of {', '.join(self._known)}"
            )
        self._subscribed = frozenset(symbols)
        kept = [
            e
            for e in self._queue
            if getattr(e, "symbol", None) not in (self._known.keys() - self._subscribed)
        ]
        self._queue = deque(kept)

    async def history(self, symbol: str, *, bar_seconds: int, count: int) -> tuple[Bar, ...]:
        """The last bars before the next that will be told."""
        self._require_connection()
        if symbol not in self._known or bar_seconds != self._feed.bar_seconds:
            return ()
        return self._feed.history(symbol, count, before_row=self._next_row)

    async def snapshot(self) -> Snapshot:
        """The account, as it is."""
        self._require_connection()
        self._sync()
        return self._books.snapshot(self._clock.wall_ns())

    # --- orders --------------------------------------------------------------------------------

    async def submit_order(self, intent: OrderIntent) -> None:
        """Take an order; one whose cid is there already is only acknowledged again."""
        self._require_connection()
        self._change(lambda books: self._taken(books, intent))

    def _taken(self, books: Books, intent: OrderIntent) -> Events:
        order = books.order_of(intent.cid)
        if order is None:
            reason = refusal(intent, self._known.get(intent.symbol), books)
            order = books.add(intent, due=self._feed.due_row(books))
            if reason:
                books.end(order, "rejected", reason)
        at_ns = books.at_ns
        if order.status == "rejected":
            return [OrderRejected(at_ns=at_ns, cid=intent.cid, reason=order.reason)]
        return [OrderAccepted(at_ns=at_ns, cid=intent.cid, broker_id=order.broker_id)]

    async def cancel_order(self, cid: str) -> None:
        """Cancel an order at once."""
        self._require_connection()

        def canceled(books: Books) -> Events:
            order = books.order_of(cid)
            if order is None or order.status != "working":
                reason = "there is no such order" if order is None else f"it is {order.status}"
                return [OrderCancelRejected(at_ns=books.at_ns, cid=cid, reason=reason)]
            return [books.cancel(order, "asked for"), *ended_exits(books)]

        self._change(canceled)

    async def cancel_all_orders(self, symbol: str | None = None) -> None:
        """Cancel whatever works."""
        self._require_connection()

        def canceled(books: Books) -> Events:
            found = [o for o in books.working.values() if symbol in (None, o.intent.symbol)]
            return [books.cancel(order, "all are cancelled") for order in found]

        self._change(canceled)

    async def close_all_positions(self) -> None:
        """Close whatever is held, at once and at the last known prices."""
        self._require_connection()

        def closed(books: Books) -> Events:
            held = [(symbol, units) for symbol, units in books.units.items() if units]
            fills: Events = [books.deal(symbol, -units) for symbol, units in held]
            return [*fills, *ended_exits(books), books.account_state()]

        self._change(closed)

    # --- events --------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[BrokerEvent]:
        """Everything that happens; ends with the replay."""
        while True:
            while self._queue:
                event = self._queue.popleft()
                if isinstance(event, Bar):
                    self._next_row = self._books.row + 1
                yield event
            if not self._is_connected:
                self._woken.clear()
                await self._woken.wait()
                continue
            due_ns = self._feed.next_ns(self._books)
            if due_ns is None:
                return
            if self._speed:
                await asyncio.sleep(1.0 / self._speed)
                if self._queue or not self._is_connected:
                    continue  # orders came while it waited
            if isinstance(self._clock, SimulatedClock):
                self._clock.advance_to(due_ns)
            self._sync()
            self._change(self._feed.advance)
            self._queue.append(self._books.account_state())
            self._tell_bars()

    def _tell_bars(self) -> None:
        told = self._feed.market_data(self._books, with_quotes=self._with_quotes)
        self._queue.extend(each for each in told if each.symbol in self._subscribed)

    def _change(self, change: Callable[[Books], Events]) -> None:
        """Change the books, store them, and only then tell it."""
        while True:
            events = change(self._books)
            if self._store is None:
                self._books.changed.clear()
                self._books.new_fills.clear()
                break
            if self._store.save(self._books):
                break
            self._reload()
        self._queue.extend(events)

    def _sync(self) -> None:
        """See what another process has done."""
        if self._store is not None and self._store.is_changed():
            self._reload()

    def _reload(self) -> None:
        assert self._store is not None
        self._books, orders, fills = self._store.load()
        at_ns = self._books.at_ns
        self._queue.extend(fills)
        for order in orders:
            if order.status == "canceled":
                cid, reason = order.intent.cid, order.reason
                self._queue.append(OrderCanceled(at_ns=at_ns, cid=cid, reason=reason))


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


def refusal(intent: OrderIntent, instrument: Instrument | None, books: Books) -> str:
    """Why an order is rejected, "" if it is not."""
    if instrument is None:
        return f"there is no {intent.symbol}"
    if books.money.is_ruined:
        return "the account is ruined"
    step, quantity = instrument.quantity_step, intent.quantity
    if not quantity.is_finite() or quantity <= 0 or quantity % step:
        return f"quantity {quantity} is not a number of whole steps of {step}"
    if not instrument.min_quantity <= quantity <= instrument.max_quantity:
        return f"quantity {quantity} is not within the least and the most"
    if intent.kind is not OrderKind.MARKET:
        price = intent.price
        if price is None or not price.is_finite() or price <= 0:
            return f"a {intent.kind} order needs a price above 0"
        if instrument.price_step and price % instrument.price_step:
            return f"price {price} is not a number of whole steps of {instrument.price_step}"
    if intent.reduce_only and not intent.parent:
        held = books.units[intent.symbol]
        if held * intent.side.sign >= Decimal(0):
            return "there is nothing to reduce"
    return ""
