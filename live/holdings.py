"""What is held, whose it is and what it earns: positions, books and trades, moved by executions."""

import dataclasses
from decimal import Decimal

from jaxtrade.live.book import Book
from jaxtrade.live.events import Leg, OrderFilled, PositionAdjusted
from jaxtrade.live.executions import EXACT, NONE, Execution, signed
from jaxtrade.live.orders import Order
from jaxtrade.live.records import Position
from jaxtrade.live.trades import Trades


def execution_of(order: Order, execution_id: str) -> Execution:
    """What an order knows of one of its executions."""
    return Execution(order.fills.get(execution_id), order.fees.get(execution_id))


@dataclasses.dataclass(slots=True)
class Holdings:
    """positions: by symbol; books: by agent, "" for what is nobody's; trades: open and closed.

    Invariant: the position of a symbol is the sum of its quantities in all books.
    """

    positions: dict[str, Position] = dataclasses.field(default_factory=dict)
    books: dict[str, Book] = dataclasses.field(default_factory=dict)
    trades: Trades = dataclasses.field(default_factory=Trades)

    def owner(self, symbol: str) -> str:
        """The agent that a symbol's position belongs to, "" for nobody."""
        position = self.positions.get(symbol)
        return "" if position is None else position.owner

    def own(self, symbol: str, agent: str) -> None:
        """A symbol belongs to who trades it; someone who trades by hand takes nothing away."""
        position = self.positions.get(symbol)
        if position is None:
            self.positions[symbol] = Position(owner=agent)
        elif agent and position.owner != agent:
            self.positions[symbol] = Position(owner=agent, quantity=position.quantity)

    def book(self, agent: str) -> Book:
        """The book of an agent, opened where there is none."""
        book = self.books.get(agent)
        if book is None:
            book = self.books[agent] = Book()
        return book

    def change(self, agent: str, leg: Leg, before: Execution, after: Execution) -> None:
        """Book the difference between what was known of an execution and what is."""
        fill = after.fill or before.fill
        if fill is None:
            return
        if before.fill is None and after.fill is not None:
            self._trade(agent, leg, after.fill)
        elif before.fill is not None and before.fill is not after.fill:
            self._correct(agent, leg, before.fill, after.fill)
        fee = EXACT.subtract(after.fee, before.fee)
        if fee:
            self.book(agent).pay(fee)
            self.trades.pay(agent, fill.symbol, fee)

    def adjust(self, event: PositionAdjusted) -> None:
        """Book a quantity that no execution tells of."""
        symbol, owner = event.symbol, event.owner
        self.own(symbol, owner)
        self._move(symbol, event.quantity)
        self.book(owner).apply(event)
        self.trades.fill(owner, symbol, event.quantity, event.price, Leg.CLOSE, event.at_ns)

    def _trade(self, agent: str, leg: Leg, fill: OrderFilled) -> None:
        quantity = signed(fill)
        book = self.book(agent)
        self._move(fill.symbol, quantity)
        if quantity:
            book.fill(fill.symbol, quantity, fill.price, fill.middle)
            self.trades.fill(agent, fill.symbol, quantity, fill.price, leg, fill.at_ns)

    def _correct(self, agent: str, leg: Leg, wrong: OrderFilled, right: OrderFilled | None) -> None:
        """Replace an execution by what it was; None where it was not this agent's at all."""
        symbol, price = wrong.symbol, wrong.price if right is None else right.price
        was, quantity = signed(wrong), NONE if right is None else signed(right)
        more = EXACT.subtract(quantity, was)
        self._move(symbol, more)
        middle = 0.0 if right is None else right.middle
        self.book(agent).correct(
            symbol, (was, wrong.price, wrong.middle), (quantity, price, middle)
        )
        amount = EXACT.subtract(EXACT.multiply(quantity, price), EXACT.multiply(was, wrong.price))
        at_ns = wrong.at_ns if right is None else right.at_ns
        self.trades.correct(agent, symbol, more, amount, leg, at_ns)

    def _move(self, symbol: str, quantity: Decimal) -> None:
        position = self.positions.get(symbol)
        if position is not None:
            quantity = EXACT.add(position.quantity, quantity)
        owner = "" if position is None else position.owner
        self.positions[symbol] = Position(owner=owner, quantity=quantity)
