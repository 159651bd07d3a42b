"""What an account is worth, kept up price by price: cheap enough for every tick."""

import math
from collections.abc import Mapping

from jaxtrade.live.book import Book
from jaxtrade.live.state import State


class Worth:
    """The sum of all books at the last prices. A price moves the books that hold its symbol, and
    an event may move any, so that all are looked at anew after one.

    closes: the prices, by symbol; whoever changes one says so with `at`.
    """

    def __init__(self, state: State, closes: Mapping[str, float]) -> None:
        self._state, self._closes = state, closes
        self._seq = -1
        self._values: dict[str, float] = {}
        self._holders: dict[str, list[tuple[str, Book]]] = {}

    def at(self, symbol: str) -> float | None:
        """Equity of the account, now that a symbol has another price; None where nobody holds it,
        so that its price changes nothing.
        """
        if self._seq != self._state.last_seq:
            self._look()
        holders = self._holders.get(symbol)
        if holders is None:
            return None
        for name, book in holders:
            self._values[name] = book.value(self._closes)
        return math.fsum(self._values.values())

    def _look(self) -> None:
        """Look at all books."""
        self._seq = self._state.last_seq
        self._holders = {}
        for name, book in self._state.books.items():
            self._values[name] = book.value(self._closes)
            for symbol in book.holdings:
                self._holders.setdefault(symbol, []).append((name, book))
