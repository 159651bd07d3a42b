"""What the paper broker knows of an account: orders, fills, units, and the ledger's equity.

Units and fills are exact decimals. Equity is the ledger's; cash is what of it is not in positions,
so that it changes by fills and by what they do not explain: interest, dividends, funding, swap.
"""

import dataclasses
import itertools
import math
from decimal import Decimal
from typing import NamedTuple

from jaxtrade.live.brokers.base import ClosedOrder, OpenOrder, Position, Snapshot
from jaxtrade.live.events import (
    AccountState,
    BrokerEvent,
    OrderCanceled,
    OrderFilled,
    OrderIntent,
    Side,
)
from jaxtrade.live.executions import NONE
from jaxtrade.live.scene import EXITS, rests

REMEMBERED = 1_000
"""How many fills, and orders that are over, a snapshot has."""


class Money(NamedTuple):
    """Equity over the deposit: its logarithm is the difference of two float32 numbers, the sum of
    the ledger and what rounding has added to it too much.
    """

    log_equity: float = 0.0
    log_error: float = 0.0
    is_ruined: bool = False

    def growth(self) -> float:
        """Equity over the deposit."""
        return math.exp(self.log_equity - self.log_error)


class Rates(NamedTuple):
    """What trading at the last known price costs: `edge`, half the spread and slippage, a fraction
    of the price; `commission`, of the value; `margin`, that a position is to be backed with, too.
    """

    edge: float = 0.0
    commission: float = 0.0
    margin: float = 0.0


@dataclasses.dataclass(slots=True)
class PaperOrder:
    """An order at the broker.

    number: the broker's own; due: row from which on it may fill; status: "working" or how it ended;
    is_touched: an exit whose price was seen, and which now trades at the market; moved: the price
    to which an exit was moved with the fill of its parent.
    """

    number: int
    intent: OrderIntent
    due: int = 0
    status: str = "working"
    filled: Decimal = NONE
    reason: str = ""
    is_touched: bool = False
    moved: Decimal | None = None

    @property
    def price(self) -> Decimal | None:
        """At which it waits; None at the market."""
        return self.intent.price if self.moved is None else self.moved

    @property
    def broker_id(self) -> str:
        """The broker's name for it."""
        return f"P{self.number}"

    @property
    def remaining(self) -> Decimal:
        """Units that are not filled."""
        return self.intent.quantity - self.filled

    @property
    def reduces(self) -> bool:
        """Whether it only ends what is held."""
        return self.intent.reduce_only or self.intent.leg in EXITS

    @property
    def is_exit(self) -> bool:
        """Whether it waits at a price to end the position that it guards."""
        return rests(self.intent) and not self.is_touched


class Books:
    """One account. `changed` and `new_fills` are what is not yet stored; `row` is the newest bar
    that was booked, `at_ns` its end; of a stream `at_ns` is the time of the newest quote, and
    `marked_ns` of that on which the account was valued.
    """

    def __init__(self, symbols: tuple[str, ...], deposit: float) -> None:
        self.symbols = symbols
        self.deposit = deposit
        self.row = 0
        self.at_ns = 0
        self.marked_ns = 0
        self.epoch = 0
        self.money = Money()
        self.units: dict[str, Decimal] = dict.fromkeys(symbols, NONE)
        self.fill_share = 1.0  # the largest part of an order that one bar fills
        self.mean_price: dict[str, float] = dict.fromkeys(symbols, 0.0)
        self.closes: dict[str, float] = dict.fromkeys(symbols, 0.0)
        self.rates: dict[str, Rates] = dict.fromkeys(symbols, Rates())
        self.orders: dict[int, PaperOrder] = {}
        self.numbers: dict[str, int] = {}
        self.working: dict[int, PaperOrder] = {}
        self.fills: dict[str, OrderFilled] = {}
        self.fired: set[str] = set()  # parents of which an exit has filled
        self.changed: set[int] = set()
        self.new_fills: list[OrderFilled] = []

    @property
    def equity(self) -> float:
        """Account currency."""
        return self.deposit * self.money.growth()

    @property
    def value(self) -> float:
        """Of all positions, signed, at the last prices."""
        return sum(float(units) * self.closes[symbol] for symbol, units in self.units.items())

    def order_of(self, cid: str) -> PaperOrder | None:
        """The order with our id, None if it never came."""
        number = self.numbers.get(cid)
        return None if number is None else self.orders[number]

    def add(self, intent: OrderIntent, *, due: int = 0) -> PaperOrder:
        """A new order that works."""
        order = PaperOrder(number=len(self.orders) + 1, intent=intent, due=due)
        self.put(order)
        self.changed.add(order.number)
        return order

    def put(self, order: PaperOrder) -> None:
        """Enter an order as it is."""
        self.orders[order.number] = order
        if order.intent.cid:
            self.numbers[order.intent.cid] = order.number
        if order.status == "working":
            self.working[order.number] = order
        self._fire(order)

    def end(self, order: PaperOrder, status: str, reason: str = "") -> None:
        """An order works no more."""
        order.status, order.reason = status, reason
        self.working.pop(order.number, None)
        self.changed.add(order.number)

    def cancel(self, order: PaperOrder, reason: str) -> OrderCanceled:
        """End an order, and say so."""
        self.end(order, "canceled", reason)
        return OrderCanceled(at_ns=self.at_ns, cid=order.intent.cid, reason=reason)

    def fill(
        self,
        order: PaperOrder | None,
        symbol: str,
        signed: Decimal,
        price: float,
        fee: float,
        middle: float = 0.0,
    ) -> OrderFilled:
        """Book units at a price; `signed` is above 0 for a buy, order None for what no order of
        anybody did; middle: the price without spread and slippage. Equity is not touched.
        """
        fill = OrderFilled(
            at_ns=self.at_ns,
            cid="" if order is None else order.intent.cid,
            execution_id=f"X{len(self.fills) + 1}",
            symbol=symbol,
            side=Side.BUY if signed > 0 else Side.SELL,
            quantity=abs(signed),
            price=Decimal(repr(price)),
            fee=Decimal(repr(fee)),
            middle=middle,
        )
        self.enter(fill)
        self._move(symbol, signed, price)
        if order is not None:
            order.filled += abs(signed)
            self.changed.add(order.number)
            if order.remaining <= 0:
                self.end(order, "filled")
                self._fire(order)
        return fill

    def _fire(self, order: PaperOrder) -> None:
        if order.intent.leg in EXITS and order.status == "filled" and order.intent.parent:
            self.fired.add(order.intent.parent)

    def enter(self, fill: OrderFilled) -> None:
        """Keep a fill, or a correction of one."""
        self.fills[fill.execution_id] = fill
        self.new_fills.append(fill)

    def _move(self, symbol: str, signed: Decimal, price: float) -> None:
        held = self.units[symbol]
        after = held + signed
        if after == 0:
            self.mean_price[symbol] = 0.0
        elif held * after <= 0:
            self.mean_price[symbol] = price
        elif held * signed > 0:
            value = float(held) * self.mean_price[symbol] + float(signed) * price
            self.mean_price[symbol] = value / float(after)
        self.units[symbol] = after

    def gain(self, amount: float) -> None:
        """Change the equity beside the ledger, account currency; what is left is at least a
        thousandth, as in the ledger.
        """
        growth = max(1.0 + amount / self.equity, 1e-3)
        exact = self.money.log_equity - self.money.log_error + math.log(growth)
        self.money = self.money._replace(log_equity=exact, log_error=0.0)

    def deal(self, symbol: str, signed: Decimal, order: PaperOrder | None = None) -> OrderFilled:
        """Trade at once, at the last known price and the usual cost."""
        rates, close = self.rates[symbol], self.closes[symbol]
        price = close * (1.0 + math.copysign(rates.edge, signed))
        fee = rates.commission * float(abs(signed)) * price
        self.gain(float(signed) * (close - price) - fee)
        return self.fill(order, symbol, signed, price, fee, close)

    def account_state(self) -> AccountState:
        """The account at the last prices."""
        equity, value, margin = self.equity, 0.0, 0.0
        for symbol, units in self.units.items():
            if units:
                worth = float(units) * self.closes[symbol]
                value += worth
                margin += abs(worth) * self.rates[symbol].margin
        return AccountState(
            at_ns=self.at_ns, equity=equity, cash=equity - value, margin_used=margin
        )

    def snapshot(self, at_ns: int) -> Snapshot:
        """Everything that a broker would answer now; of what is over, the newest `REMEMBERED`."""
        equity = self.equity
        newest = reversed(self.orders.values())
        over = (order for order in newest if order.status != "working")
        ended = [*itertools.islice(over, REMEMBERED)][::-1]
        fills = [*itertools.islice(reversed(self.fills.values()), REMEMBERED)][::-1]
        return Snapshot(
            at_ns=at_ns,
            equity=equity,
            cash=equity - self.value,
            positions=tuple(
                Position(symbol=symbol, quantity=units, price=self.mean_price[symbol])
                for symbol, units in self.units.items()
                if units
            ),
            open_orders=tuple(
                OpenOrder(
                    cid=order.intent.cid,
                    broker_id=order.broker_id,
                    symbol=order.intent.symbol,
                    filled=order.filled,
                )
                for order in self.working.values()
                if order.status == "working"
            ),
            closed_orders=tuple(
                ClosedOrder(
                    cid=order.intent.cid,
                    broker_id=order.broker_id,
                    symbol=order.intent.symbol,
                    status=order.status,
                    filled=order.filled,
                    reason=order.reason,
                )
                for order in ended
            ),
            fills=tuple(fills),
        )


Events = list[BrokerEvent]
