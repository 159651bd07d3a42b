"""Quotes that come in, as the market of a paper account.

An order trades at the first quote after it came, one that waits for a price at the first quote that
is there; a buy pays the ask, a sale the bid. What that costs, and what holding costs, is booked by
the simulator's ledger on a bar without extent, from the last prices that were booked to these.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Callable

import numpy as np

from jaxtrade.bars import DAY_SECONDS, YEAR_SECONDS
from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.brokers.paper_books import Books, Events, PaperOrder
from jaxtrade.live.brokers.paper_faults import NEVER
from jaxtrade.live.brokers.paper_matching import (
    NO_CHOICE,
    Choice,
    Dealt,
    ask,
    is_market,
    is_reached,
    settle,
    taken,
)
from jaxtrade.live.brokers.paper_venue import PaperLedger, instruments, rates
from jaxtrade.live.clock import SECOND_NS
from jaxtrade.live.events import AccountState, Bar, Side, Tick
from jaxtrade.rules import Rules
from jaxtrade.specs import JaxtradeError

NAMES = (
    "open",
    "high",
    "low",
    "close",
    "years",
    "new_day",
    "half_spread_open",
    "half_spread_close",
    "price",
)
"""Columns of the bars that quotes make."""


class Stream:
    """Quotes of some symbols, pushed in from outside.

    Usage:
        stream = Stream(("EURUSD",), rules, prices=(1.1,))
        broker = PaperBroker(stream)
        stream.push(Tick(at_ns=..., symbol="EURUSD", bid=1.1, ask=1.1001))
    """

    def __init__(
        self,
        symbols: tuple[str, ...],
        rules: Rules,
        *,
        prices: tuple[float, ...],
        mark_seconds: float = 1.0,
    ) -> None:
        """A market that begins at some prices.

        Args:
            symbols: A of them.
            rules: costs and lots; the spread is that of the quotes.
            prices: of each symbol at the start, quote currency.
            mark_seconds: how often, in time of the quotes, the account is valued and told.

        Raises:
            JaxtradeError: rules that need bars.
        """
        needed = sorted(set(rules.columns()) - set(NAMES))
        if needed or rules.latency or rules.participation is not None or rules.delay is not None:
            raise JaxtradeError(
                f"rules that need bars ({', '.join(needed) or 'latency, participation or delay'}): "
                "quotes have none; give rules without them"
            )
        costs = dataclasses.replace(rules.costs, half_spread=rules.costs.half_spread * 0.0)
        self.symbols = symbols
        self.bar_seconds = 0
        self.takes_prices = True
        self._deposit = float(rules.deposit)
        self._start = prices
        self._instruments = instruments(symbols, rules, prices)
        self._of = {one.symbol: one for one in self._instruments}
        rules = dataclasses.replace(rules, costs=costs, fill="next_open")
        self._ledger = PaperLedger(rules, len(symbols))
        self._rates = rates(rules, len(symbols))
        self._quotes: dict[str, Tick] = {}
        self._pending: deque[Tick] = deque()
        self._told: list[Tick | Bar] = []
        self._is_marked = False
        self._is_closed = False
        self._mark_ns = round(mark_seconds * SECOND_NS)
        self._wake: Callable[[], None] = lambda: None

    def push(self, tick: Tick) -> None:
        """A quote has come; one that cannot be traded on is told, and not traded on."""
        self._pending.append(tick)
        self._wake()

    def close(self) -> None:
        """No more quotes will come."""
        self._is_closed = True
        self._wake()

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever something new has come in."""
        self._wake = wake

    def instruments(self) -> tuple[Instrument, ...]:
        """What can be traded."""
        return self._instruments

    def open_books(self) -> Books:
        """A new account at the prices of the start."""
        books = Books(self.symbols, self._deposit)
        books.closes = dict(zip(self.symbols, self._start, strict=True))
        self._take_rates(books, [0.0] * len(self.symbols))
        return books

    def _take_rates(self, books: Books, halves: list[float]) -> None:
        """What trading costs now, at half spreads over the middle."""
        each = zip(self.symbols, self._rates, halves, strict=True)
        books.rates = {symbol: one._replace(edge=one.edge + half) for symbol, one, half in each}

    def next_ns(self, books: Books) -> int | None:
        """Now, if a quote waits; `NEVER` until one comes, None once no more will."""
        if self._pending:
            return self._pending[-1].at_ns
        return None if self._is_closed else NEVER

    def due_row(self, books: Books) -> int:
        """Orders trade at the next quote."""
        return 0

    def history(self, symbol: str, count: int, *, before_row: int) -> tuple[Bar, ...]:
        """Nothing is known of the past."""
        return ()

    def market_data(self, books: Books, *, with_quotes: bool) -> list[Tick | Bar]:
        """The quotes that were dealt with last."""
        told, self._told = self._told, []
        return told

    def account_state(self, books: Books) -> list[AccountState]:
        """The account, if it was valued."""
        return [books.account_state()] if self._is_marked else []

    def advance(self, books: Books) -> Events:
        """Deal with all quotes that wait, one after the other."""
        events: Events = []
        self._is_marked = False
        while self._pending:
            tick = self._pending.popleft()
            self._told.append(tick)
            if not is_sound(tick) or tick.symbol not in self._of:
                continue
            self._quotes[tick.symbol] = tick
            books.at_ns = max(tick.at_ns, books.at_ns)
            choice = self._triggered(books, tick) if books.working else NO_CHOICE
            if choice.orders or books.at_ns - books.marked_ns >= self._mark_ns:
                events += self._book(books, tick, choice)
                self._is_marked = True
        return events

    def _triggered(self, books: Books, tick: Tick) -> Choice:
        """The orders in a symbol that trade at a quote."""
        mine = [each for each in books.working.values() if each.intent.symbol == tick.symbol]
        orders = [each for each in mine if each.due <= books.row and _trades(each, tick)]
        return taken(books, orders, self._of[tick.symbol])

    def _book(self, books: Books, tick: Tick, choice: Choice) -> Events:
        before, equity = list(books.closes.values()), books.equity
        choices = [choice if symbol == tick.symbol else NO_CHOICE for symbol in self.symbols]
        asked = ask(books, choices, self._instruments)
        quotes = [self._quotes.get(symbol) for symbol in self.symbols]
        after = [
            close if quote is None else (quote.bid + quote.ask) / 2.0
            for quote, close in zip(quotes, before, strict=True)
        ]
        halves = [0.0 if q is None else (q.ask - q.bid) / (q.ask + q.bid) for q in quotes]
        elapsed_ns = books.at_ns - books.marked_ns if books.marked_ns else 0
        day_ns = DAY_SECONDS * SECOND_NS
        columns = np.zeros((len(self.symbols), len(NAMES)), np.float32)
        moved = [now / then - 1.0 for now, then in zip(after, before, strict=True)]
        columns[:, 0:4] = np.asarray(moved)[:, None]
        columns[:, 4] = elapsed_ns / SECOND_NS / YEAR_SECONDS
        columns[:, 5] = books.at_ns // day_ns != books.marked_ns // day_ns
        columns[:, 6] = columns[:, 7] = halves
        columns[:, 8] = before
        told, money = self._ledger.over_bar(columns, NAMES, asked, books.money)
        books.row += 1
        books.marked_ns = books.at_ns
        self._take_rates(books, halves)
        dealt = Dealt(
            choices=choices,
            asked=asked,
            told=told,
            before=before,
            after=after,
            equity=equity,
            works_on=False,
        )
        return settle(books, dealt, money, self._instruments)


def is_sound(tick: Tick) -> bool:
    """Whether a quote can be traded on."""
    return math.isfinite(tick.bid) and math.isfinite(tick.ask) and 0 < tick.bid <= tick.ask


def _trades(order: PaperOrder, tick: Tick) -> bool:
    """Whether an order trades at a quote: a limit order where it pays no more than it may, a stop
    order where the price has come that far.
    """
    quote = tick.ask if order.intent.side is Side.BUY else tick.bid
    return is_market(order) or is_reached(order, quote, quote)
