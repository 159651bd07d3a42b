"""The paper broker's side of the line: each request changes the books, which are stored, and only
then are the events of it told.
"""

import dataclasses
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.brokers.paper_books import Books, Events
from jaxtrade.live.brokers.paper_faults import Faults
from jaxtrade.live.brokers.paper_feed import Feed
from jaxtrade.live.brokers.paper_matching import ended_exits
from jaxtrade.live.brokers.paper_store import PaperStore
from jaxtrade.live.events import (
    BrokerConnected,
    OrderAccepted,
    OrderCanceled,
    OrderCancelRejected,
    OrderFilled,
    OrderIntent,
    OrderKind,
    OrderRejected,
    PositionReport,
    Side,
)
from jaxtrade.live.scene import EXITS
from jaxtrade.specs import JaxtradeError


class Desk:
    """The account at the broker; what each method returns is what the broker would tell of it."""

    def __init__(self, feed: Feed, path: Path | str | None, faults: Faults) -> None:
        """A new account, or the one in the file.

        Raises:
            JaxtradeError: the file is another's, or cannot be opened.
        """
        self.feed = feed
        self.faults = faults
        self.known = {one.symbol: one for one in feed.instruments()}
        self._store = None if path is None else PaperStore(path)
        self.books = self._open()
        self._is_stale = False  # the books hold what could not be stored
        self._corrected: list[OrderFilled] = []

    def _open(self) -> Books:
        if self._store is None:
            return self.feed.open_books()
        meta = self._store.meta()
        if not meta:
            books = self.feed.open_books()
            self._store.begin_account(books, self.feed.instruments(), self.feed.bar_seconds)
            return books
        if tuple(meta["symbols"]) != self.feed.symbols:
            raise JaxtradeError(
                f"{self._store.path}: is an account of {', '.join(meta['symbols'])}, "
                f"not of {', '.join(self.feed.symbols)}: give another path"
            )
        return self._store.load()[0]

    def _change(self, change: Callable[[Books], Events]) -> Events:
        """Change the books and store them; where another process has written, on what it wrote.

        Raises:
            NotConnectedError: they could not be stored; the change was not made.
        """
        seen: Events = self._reload() if self._is_stale else []
        while True:
            row = self.books.row
            events = change(self.books)
            if not (events or self.books.changed or self.books.row != row):
                return seen
            if self._store is None:
                self.books.changed.clear()
                self.books.new_fills.clear()
                return events
            self._is_stale = True
            if self._store.save(self.books):
                self._is_stale = False
                return seen + events
            seen += self._reload()

    def sync(self) -> Events:
        """What another process has done."""
        if self._store is None:
            return []
        return self._reload() if self._is_stale or self._store.is_changed() else []

    def _reload(self) -> Events:
        assert self._store is not None
        self.books, orders, fills = self._store.load()
        self._is_stale = False
        at_ns = self.books.at_ns
        canceled = [
            OrderCanceled(at_ns=at_ns, cid=order.intent.cid, reason=order.reason)
            for order in orders
            if order.status == "canceled"
        ]
        return [*fills, *canceled]

    def connect(self) -> Events:
        """A new connection and what is held."""

        def connected(books: Books) -> Events:
            books.epoch += 1
            reports = [_report(books, symbol) for symbol, units in books.units.items() if units]
            opened = BrokerConnected(at_ns=books.at_ns, epoch=books.epoch)
            return [opened, books.account_state(), *reports]

        self.sync()
        return self._change(connected)

    def submit(self, intent: OrderIntent) -> Events:
        """Take an order; one whose cid is there already is only acknowledged again."""

        def taken(books: Books) -> Events:
            order = books.order_of(intent.cid)
            if order is None:
                reason = self._refusal(intent, books)
                due = self.feed.due_row(books) + self.faults.latency_bars
                order = books.add(intent, due=due)
                if reason:
                    books.end(order, "rejected", reason)
                elif order.is_exit and self.faults.take("lose_exits"):
                    books.end(order, "canceled", "lost")
            if order.status == "rejected":
                return [OrderRejected(at_ns=books.at_ns, cid=intent.cid, reason=order.reason)]
            return [OrderAccepted(at_ns=books.at_ns, cid=intent.cid, broker_id=order.broker_id)]

        return self._change(taken)

    def _refusal(self, intent: OrderIntent, books: Books) -> str:
        is_exit = intent.leg in EXITS
        if (is_exit and self.faults.take("reject_exits")) or self.faults.take("reject"):
            return "refused"
        if intent.kind is not OrderKind.MARKET and not is_exit and not self.feed.takes_prices:
            return "orders trade at the close: give one at the market"
        return refusal(intent, self.known.get(intent.symbol), books)

    def cancel(self, cid: str) -> Events:
        """Cancel an order at once."""

        def canceled(books: Books) -> Events:
            order = books.order_of(cid)
            if order is None or order.status != "working":
                reason = "there is no such order" if order is None else f"it is {order.status}"
            elif self.faults.take("reject_cancels"):
                reason = "not now"
            elif self.faults.take("late_fills"):
                order.status = "canceled"  # and goes on working
                books.changed.add(order.number)
                return [OrderCanceled(at_ns=books.at_ns, cid=cid, reason="asked for")]
            else:
                return [books.cancel(order, "asked for"), *ended_exits(books)]
            return [OrderCancelRejected(at_ns=books.at_ns, cid=cid, reason=reason)]

        return self._change(canceled)

    def cancel_all(self, symbol: str | None) -> Events:
        """Cancel whatever works."""

        def canceled(books: Books) -> Events:
            found = [o for o in books.working.values() if symbol in (None, o.intent.symbol)]
            return [books.cancel(order, "all are cancelled") for order in found]

        return self._change(canceled)

    def close_all(self) -> Events:
        """Close whatever is held, at once and at the last known prices."""

        def closed(books: Books) -> Events:
            held = [(symbol, units) for symbol, units in books.units.items() if units]
            fills = [books.deal(symbol, -units) for symbol, units in held]
            reports = [_report(books, symbol) for symbol, _ in held]
            return [*fills, *ended_exits(books), books.account_state(), *reports]

        return self._change(closed)

    def advance(self) -> Events:
        """What the market brings next, the account after it included."""

        def advanced(books: Books) -> Events:
            books.fill_share = self.faults.fill_share
            corrected = [self._correct(books, fill) for fill in corrections]
            return [*corrected, *self.feed.advance(books), *self.feed.account_state(books)]

        corrections, self._corrected = self._corrected, []
        events = self._change(advanced)
        for event in events:
            is_new = isinstance(event, OrderFilled) and event.revision == 0
            if is_new and self.faults.take("corrections"):
                assert isinstance(event, OrderFilled)
                self._corrected.append(event)
        return events

    def _correct(self, books: Books, fill: OrderFilled) -> OrderFilled:
        """The same execution at another price, which its side pays."""
        change = Decimal(repr(self.faults.correction)) * fill.price * fill.side.sign
        books.gain(-fill.side.sign * float(change * fill.quantity))
        price, revision = fill.price + change, fill.revision + 1
        after = dataclasses.replace(fill, at_ns=books.at_ns, price=price, revision=revision)
        books.enter(after)
        return after

    def trade_outside(self, symbol: str, quantity: Decimal) -> Events:
        """Somebody else trades a signed quantity on the account, at once."""

        def traded(books: Books) -> Events:
            fill = books.deal(symbol, quantity)
            return [fill, *ended_exits(books), _report(books, symbol), books.account_state()]

        return self._change(traded)

    def order_outside(self, symbol: str, side: Side, quantity: Decimal, price: Decimal) -> Events:
        """Somebody else leaves a limit order on the account, of which nothing is told."""
        intent = OrderIntent(
            cid="",
            decision_key="",
            agent="",
            symbol=symbol,
            side=side,
            quantity=quantity,
            kind=OrderKind.LIMIT,
            price=price,
        )

        def left(books: Books) -> Events:
            books.add(intent, due=self.feed.due_row(books))
            return []

        return self._change(left)


def _report(books: Books, symbol: str) -> PositionReport:
    return PositionReport(
        at_ns=books.at_ns,
        symbol=symbol,
        quantity=books.units[symbol],
        price=books.mean_price[symbol],
    )


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
        if held * intent.side.sign >= 0:
            return "there is nothing to reduce"
    return ""
