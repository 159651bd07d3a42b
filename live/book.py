"""The book of one agent: its cash and positions, and the memory behind the account vector.

    book = Book()
    book.apply(CashMoved(...))                           # what it may trade with
    book.fill("SPY", Decimal(3), Decimal("401.2"))       # each execution, signed, once
    book.pay(Decimal("0.35"))                            # its fee
    marked = book.preview(("SPY",), (402.0,), start_s)   # what a policy is told at a bar's close
    book.apply(BarDecided(...))                          # that bar is booked

Cash and quantities are `Decimal` sums without rounding, so that their order does not matter. The
rest is float64 and is what `ledger.Account` keeps: growth from bar to bar, multiplied up (deposits
leave it alone), its peak, its value before the day's first bar; of each open position what it has
earned without costs, as a sum of fractions of the equity at each bar's start, and for how many bars
it is held; dividends and interest come as `CashMoved`, which says of no position, so they count as
growth alone. Prices are in the account's currency. Invariant: equity = cash + quantities · prices.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxtrade.bars import DAY_SECONDS
from jaxtrade.live.events import BarDecided, CashMoved, PositionAdjusted
from jaxtrade.live.executions import EXACT, NONE
from jaxtrade.specs import JaxtradeError

CARRY = "carry"
"""The reason of a `CashMoved` that was earned or paid, and is no deposit."""

MIN_GROWTH = 1e-3
"""A bar that leaves no more of the equity is ruin, and booked as this; as in `ledger`."""

Execution = tuple[Decimal, Decimal, float]
"""Signed quantity, price, and middle of bid and ask then, 0 where it is not known."""


@dataclasses.dataclass(slots=True)
class Holding:
    """An open position: signed quantity; price it was last marked at; what it has gained since the
    last bar, account currency; what it had earned by then, as a sum of fractions of equity; bars
    held by then.
    """

    quantity: Decimal
    price: float
    gain: float = 0.0
    open_return: float = 0.0
    bars_held: int = 0


class Marked(NamedTuple):
    """An agent's account at the close of a bar.

    equity: account currency; vector: f32[3A + 3] as `ledger.account_vector`; reward: logarithmic
    growth of the equity in this bar; is_ruined: then or before.
    """

    equity: float
    vector: NDArray[np.float32]
    reward: float
    is_ruined: bool


@dataclasses.dataclass(slots=True)
class Book:
    """Money of one agent.

    cash: account currency, exact; holdings: by symbol, open ones only; capital: equity at the last
    bar and what was allotted since; index: growth since the start, 1 then; peak_index, day_index:
    the highest, and at the start of `day` (days since 1970, UTC; -1 before the first bar);
    last_return: of the last bar.
    """

    cash: Decimal = NONE
    holdings: dict[str, Holding] = dataclasses.field(default_factory=dict)
    capital: float = 0.0
    index: float = 1.0
    peak_index: float = 1.0
    day_index: float = 1.0
    day: int = -1
    last_return: float = 0.0
    is_ruined: bool = False

    def apply(self, event: CashMoved | PositionAdjusted | BarDecided) -> None:
        """Book an event of this agent. Executions come through `fill` and `pay`, by the one who
        knows which of them are new.
        """
        if isinstance(event, CashMoved):
            self.cash = EXACT.add(self.cash, event.amount)
            if event.reason != CARRY:
                self.capital += float(event.amount)
        elif isinstance(event, PositionAdjusted):
            self.fill(event.symbol, event.quantity, event.price)
        else:
            self._mark(event)

    def quantity(self, symbol: str) -> Decimal:
        """What is held, signed."""
        holding = self.holdings.get(symbol)
        return NONE if holding is None else holding.quantity

    def fill(self, symbol: str, quantity: Decimal, price: Decimal, middle: float = 0.0) -> None:
        """An execution of a signed quantity; its fee is paid apart. middle: between bid and ask
        then, from which the position counts what it earns; 0 for the price.
        """
        self.cash = EXACT.subtract(self.cash, EXACT.multiply(quantity, price))
        middle = middle or float(price)
        self._trade(symbol, quantity, float(quantity) * middle, middle)

    def correct(self, symbol: str, wrong: Execution, right: Execution) -> None:
        """Replace an execution that was booked by what it really was; of a quantity of 0 where it
        never was.
        """
        amounts = (EXACT.multiply(quantity, price) for quantity, price, _ in (right, wrong))
        self.cash = EXACT.subtract(self.cash, EXACT.subtract(*amounts))
        worth, before = (
            float(quantity) * (middle or float(price)) for quantity, price, middle in (right, wrong)
        )
        last = right if right[0] else wrong
        quantity = EXACT.subtract(right[0], wrong[0])
        self._trade(symbol, quantity, worth - before, last[2] or float(last[1]))

    def pay(self, amount: Decimal) -> None:
        """A fee, or the change of one; negative for a rebate."""
        self.cash = EXACT.subtract(self.cash, amount)

    def value(self, prices: Mapping[str, float]) -> float:
        """Equity at some prices; a position without one counts at its last."""
        return float(self.cash) + sum(
            float(held.quantity) * prices.get(symbol, held.price)
            for symbol, held in self.holdings.items()
        )

    def gross(self, prices: Mapping[str, float]) -> float:
        """Sum of the absolute values of the positions."""
        return sum(
            abs(float(held.quantity)) * abs(prices.get(symbol, held.price))
            for symbol, held in self.holdings.items()
        )

    def preview(self, symbols: Sequence[str], closes: Sequence[float], start_s: int) -> Marked:
        """What the `BarDecided` of the bar that started at `start_s` will make of the account.

        closes: f64[A], of its symbols.
        """
        if len(symbols) != len(closes):
            raise JaxtradeError(f"{len(closes)} closes for the symbols {', '.join(symbols)}")
        equity = float(self.value(dict(zip(symbols, closes, strict=True))))
        growth = self._growth(equity)
        index = self.index * (1.0 + growth)
        day_index = self.index if start_s // DAY_SECONDS != self.day else self.day_index
        opened = [self._at(symbol, price) for symbol, price in zip(symbols, closes, strict=True)]
        numbers = [value / equity if equity > 0 else 0.0 for value, _, _ in opened]
        numbers += [earned for _, earned, _ in opened]
        numbers += [float(bars) for _, _, bars in opened]
        peak = max(self.peak_index, index)
        numbers += [1.0 - index / peak, index / day_index - 1.0, growth]
        return Marked(
            equity=equity,
            vector=np.array(numbers, np.float32),
            reward=math.log1p(growth),
            is_ruined=self.is_ruined or _is_ruin(growth),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values for JSON, which read back as the same book."""
        tree = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        tree["cash"] = str(self.cash)
        tree["holdings"] = {
            symbol: {**dataclasses.asdict(held), "quantity": str(held.quantity)}
            for symbol, held in sorted(self.holdings.items())
        }
        return tree

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Book":
        """The book that `to_json` wrote."""
        holdings = {
            symbol: Holding(**{**held, "quantity": Decimal(held["quantity"])})
            for symbol, held in tree["holdings"].items()
        }
        return cls(**{**tree, "cash": Decimal(tree["cash"]), "holdings": holdings})

    def _trade(self, symbol: str, quantity: Decimal, worth: float, price: float) -> None:
        """Change a position by a quantity that was worth an amount, about `price` each."""
        held = self.holdings.get(symbol)
        if held is None:
            if quantity:
                self.holdings[symbol] = Holding(quantity=quantity, price=price)
            return
        before, held.quantity = held.quantity, EXACT.add(held.quantity, quantity)
        if not held.quantity:
            del self.holdings[symbol]
        elif (before > 0) == (held.quantity > 0):
            held.gain += float(quantity) * held.price - worth
        else:
            self.holdings[symbol] = Holding(quantity=held.quantity, price=price)

    def _growth(self, equity: float) -> float:
        """Return of the bar that ends with this equity."""
        if self.capital <= 0:
            return 0.0
        return max(equity / self.capital, MIN_GROWTH) - 1.0

    def _at(self, symbol: str, price: float) -> tuple[float, float, int]:
        """Of a position at a bar's close: its value, what it has earned, for how many bars."""
        held = self.holdings.get(symbol)
        if held is None:
            return 0.0, 0.0, 0
        quantity, price = float(held.quantity), float(price)
        gain = held.gain + quantity * (price - held.price)
        earned = gain / self.capital if self.capital > 0 else 0.0
        return quantity * price, held.open_return + earned, held.bars_held + 1

    def _mark(self, event: BarDecided) -> None:
        """Book a bar; one without an equity or a close that is a number leaves all as it is."""
        if not all(map(math.isfinite, (event.equity, *event.closes))):
            return
        closes = list(zip(event.symbols, event.closes, strict=True))
        equity, growth = float(event.equity), self._growth(float(event.equity))
        for symbol, price in closes:
            held = self.holdings.get(symbol)
            if held is not None:
                _, held.open_return, held.bars_held = self._at(symbol, price)
                held.price, held.gain = float(price), 0.0
        if event.start_s // DAY_SECONDS != self.day:
            self.day, self.day_index = event.start_s // DAY_SECONDS, self.index
        self.last_return = growth
        self.index *= 1.0 + growth
        self.peak_index = max(self.peak_index, self.index)
        self.capital = equity
        self.is_ruined = self.is_ruined or _is_ruin(growth)


def _is_ruin(growth: float) -> bool:
    return growth <= MIN_GROWTH - 1.0


DEPOSIT_SHARE = 0.01
"""A difference of more than this of the equity was no interest or dividend, but a deposit."""

_NOISE = 1e-9
"""A difference of no more than this of the equity is rounding."""


def share_of_difference(
    books: Mapping[str, Book], broker_equity: float, prices: Mapping[str, float]
) -> dict[str, Decimal]:
    """What the broker's equity has beyond the books, shared out; their sum is the difference.

    Interest, dividends and funding go to the agents by the gross value of their positions, by
    equity where none has one. What is too much for that, or has no one to go to, is for "": a
    deposit or a withdrawal, which no agent has earned. Nothing where the two agree but for
    rounding, or the equity is no number.
    """
    equity = sum(book.value(prices) for book in books.values())
    difference = broker_equity - equity
    if not math.isfinite(difference) or abs(difference) <= _NOISE * abs(broker_equity):
        return {}
    agents = {name: book for name, book in sorted(books.items()) if name}
    parts = {name: book.gross(prices) for name, book in agents.items()}
    if not sum(parts.values()) > 0:
        parts = {name: max(book.value(prices), 0.0) for name, book in agents.items()}
    total = sum(parts.values())
    if abs(difference) > DEPOSIT_SHARE * abs(equity) or not total > 0:
        return {"": cents(difference)}
    shares = {name: cents(difference * part / total) for name, part in parts.items() if part > 0}
    last = max(shares, key=lambda name: parts[name])
    shares[last] += cents(difference) - sum(shares.values())
    return {name: share for name, share in shares.items() if share}


def cents(amount: float) -> Decimal:
    """An amount of money as a decimal of eight places."""
    return Decimal(f"{amount:.8f}")
