"""A replay of a venue, in lock-step with who reads it."""

from collections.abc import Callable

import numpy as np

from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.brokers.paper_books import Books, Events
from jaxtrade.live.brokers.paper_matching import (
    NO_CHOICE,
    Dealt,
    Way,
    ask,
    choose,
    move_exits,
    settle,
    touch,
)
from jaxtrade.live.brokers.paper_venue import PaperLedger, Venue, rates
from jaxtrade.live.clock import SECOND_NS
from jaxtrade.live.events import AccountState, Bar, Tick


class Replay:
    """Rows first to last of a venue: the first is only told, then one is traded at a time.

    With `moves_exits` a stop or target that is sent together with a market order keeps its distance
    from where that trades, as the brackets of a backtest do; otherwise its price is what it says.
    """

    def __init__(self, venue: Venue, *, moves_exits: bool = False) -> None:
        self.venue = venue
        self._moves_exits = moves_exits
        self.symbols = venue.symbols
        self.bar_seconds = venue.bar_seconds
        self.takes_prices = venue.rules.fill != "next_close"  # else it trades at the close
        self._ledger = PaperLedger(venue.rules, len(venue.symbols))
        rules = venue.rules
        self._way = Way(rules.participation is not None, rules.fill == "next_close")
        self._instruments = venue.instruments()
        self._latency = venue.rules.latency

    def instruments(self) -> tuple[Instrument, ...]:
        """What can be traded."""
        return self._instruments

    def open_books(self) -> Books:
        """A new account at the first row."""
        venue = self.venue
        books = Books(venue.symbols, venue.deposit)
        books.row = venue.first
        books.at_ns = self._end_ns(venue.first)
        books.closes = dict(zip(self.symbols, self._prices(venue.first, 3), strict=True))
        books.rates = dict(zip(self.symbols, rates(venue.rules, len(self.symbols)), strict=True))
        return books

    def due_row(self, books: Books) -> int:
        """The row from which on an order that comes now may fill."""
        return books.row + 1 + self._latency

    def account_state(self, books: Books) -> list[AccountState]:
        """The account after each bar."""
        return [books.account_state()]

    def listen(self, wake: Callable[[], None]) -> None:
        """Nothing comes in by itself."""

    def _end_ns(self, row: int) -> int:
        return (int(self.venue.starts_s[row]) + self.bar_seconds) * SECOND_NS

    def _prices(self, row: int, field: int) -> list[float]:
        prices: list[float] = self.venue.prices[row, :, field].tolist()
        return prices

    def next_ns(self, books: Books) -> int | None:
        """When the next bar is known, UTC; None at the end."""
        return None if books.row >= self.venue.last else self._end_ns(books.row + 1)

    def advance(self, books: Books) -> Events:
        """Book the next bar with the orders that work: fills and cancellations."""
        row = books.row + 1
        lows, highs = self._prices(row, 2), self._prices(row, 1)
        is_there = self.venue.is_there[row].tolist()
        if self._moves_exits and books.working:
            move_exits(books, row, self._entries(books, row))
        choices = [
            choose(books, one, row, low, high, self._way) if there else NO_CHOICE
            for one, low, high, there in zip(self._instruments, lows, highs, is_there, strict=True)
        ]
        asked = ask(books, choices, self._instruments)
        before, equity = list(books.closes.values()), books.equity
        told, money = self._ledger.over_row(self.venue.tape, row, asked, books.money)
        books.row, books.at_ns = row, self._end_ns(row)
        dealt = Dealt(
            choices=choices,
            asked=asked,
            told=told,
            before=before,
            after=self._prices(row, 3),
            equity=equity,
            works_on=self._way.in_parts,
        )
        events = settle(books, dealt, money, self._instruments)
        if books.working:
            touch(books, choices, lows, highs)
        return events

    def _entries(self, books: Books, row: int) -> dict[str, float]:
        """Where market orders trade in a bar, of the symbols that have one."""
        rules, delay = self.venue.rules, self.venue.rules.delay
        if rules.fill == "close":
            return books.closes
        opens, closes = self._prices(row, 0), self._prices(row, 3)
        share = 0.0 if delay is None else float(delay)
        share = 1.0 if rules.fill == "next_close" else share
        there = self.venue.is_there[row].tolist()
        each = zip(self.symbols, opens, closes, there, strict=True)
        return {symbol: a + share * (b - a) for symbol, a, b, is_there in each if is_there}

    def market_data(self, books: Books, *, with_quotes: bool) -> list[Tick | Bar]:
        """The bars that were booked last, of the symbols that have one, quotes at their close."""
        columns = np.flatnonzero(self.venue.is_there[books.row]).tolist()
        quotes = [self._quote(books, self.symbols[c]) for c in columns] if with_quotes else []
        return [*quotes, *(self._bar(column, books.row) for column in columns)]

    def _quote(self, books: Books, symbol: str) -> Tick:
        close = books.closes[symbol]
        half = books.rates[symbol].edge * close
        return Tick(at_ns=books.at_ns, symbol=symbol, bid=close - half, ask=close + half)

    def history(self, symbol: str, count: int, *, before_row: int) -> tuple[Bar, ...]:
        """The last `count` bars before a row, oldest first."""
        column = self.symbols.index(symbol)
        rows = np.flatnonzero(self.venue.is_there[:before_row, column])[-count:] if count else ()
        return tuple(self._bar(column, int(row)) for row in rows)

    def _bar(self, column: int, row: int) -> Bar:
        venue = self.venue
        names, values = venue.context[column]
        prices = venue.prices[row, column].tolist()
        return Bar(
            at_ns=self._end_ns(row),
            symbol=self.symbols[column],
            start_s=int(venue.starts_s[row]),
            seconds=self.bar_seconds,
            open=prices[0],
            high=prices[1],
            low=prices[2],
            close=prices[3],
            volume=float(venue.volume[row, column]),
            context=tuple(zip(names, values[row].tolist(), strict=True)) if names else (),
        )
