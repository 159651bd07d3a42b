"""What the paper broker asks of a market, and one of which only the last prices are known.

`paper_replay` has the rows of a file, `paper_stream` quotes that come in; these two import JAX.
"""

from collections.abc import Callable
from typing import Protocol

from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.brokers.paper_books import Books, Events
from jaxtrade.live.events import AccountState, Bar, Tick
from jaxtrade.specs import JaxtradeError


class Feed(Protocol):
    """A market that the paper broker trades on.

    takes_prices: whether an order, other than an exit, may wait for a price.
    """

    symbols: tuple[str, ...]
    bar_seconds: int
    takes_prices: bool

    def instruments(self) -> tuple[Instrument, ...]:
        """What can be traded."""

    def open_books(self) -> Books:
        """A new account at the start."""

    def next_ns(self, books: Books) -> int | None:
        """When the market goes on, UTC; `NEVER` until something comes in, None at the end."""

    def advance(self, books: Books) -> Events:
        """Book the next bar with the orders that work: fills and cancellations."""

    def account_state(self, books: Books) -> list[AccountState]:
        """The account, where it is to be told after what was booked last."""

    def due_row(self, books: Books) -> int:
        """The row from which on an order that comes now may fill."""

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever something new has come in."""

    def market_data(self, books: Books, *, with_quotes: bool) -> list[Tick | Bar]:
        """The bars that were booked last."""

    def history(self, symbol: str, count: int, *, before_row: int) -> tuple[Bar, ...]:
        """The last `count` bars before a row, oldest first."""


class Standstill:
    """The instruments of an account whose market is elsewhere: nothing moves, nothing is told."""

    def __init__(
        self, symbols: tuple[str, ...], instruments: tuple[Instrument, ...], bar_seconds: int
    ) -> None:
        self.symbols = symbols
        self.bar_seconds = bar_seconds
        self.takes_prices = True
        self._instruments = instruments

    def instruments(self) -> tuple[Instrument, ...]:
        """What can be traded."""
        return self._instruments

    def open_books(self) -> Books:
        """Raise JaxtradeError: an account begins where its market is."""
        raise JaxtradeError(f"no account of {', '.join(self.symbols)}: begin one on a market")

    def next_ns(self, books: Books) -> int | None:
        """There is no next bar."""
        return None

    def advance(self, books: Books) -> Events:
        """Nothing happens."""
        return []

    def account_state(self, books: Books) -> list[AccountState]:
        """Nothing is told."""
        return []

    def due_row(self, books: Books) -> int:
        """The next row of whoever has the market."""
        return books.row + 1

    def listen(self, wake: Callable[[], None]) -> None:
        """Nothing comes in."""

    def market_data(self, books: Books, *, with_quotes: bool) -> list[Tick | Bar]:
        """Nothing is told."""
        return []

    def history(self, symbol: str, count: int, *, before_row: int) -> tuple[Bar, ...]:
        """Nothing is known."""
        return ()
