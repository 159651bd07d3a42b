"""From working orders to what a bar is asked, and from what it did to fills.

Of one symbol a bar deals with the sum of its market orders, or else with one order that waits for a
price; of exits that guard a position with the nearest of each kind, where it covers all of it. An
exit that covers less trades at the market of the bar after the one that touched it.
"""

import dataclasses
import math
from decimal import Decimal
from typing import NamedTuple

from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.brokers.paper_books import Books, Events, Money, PaperOrder
from jaxtrade.live.events import Leg, OrderFilled, OrderKind, Side
from jaxtrade.live.executions import NONE

STOP, TARGET, LIQUIDATION = 1, 2, 3
"""Why a position ended inside a bar, as `jaxtrade.brackets` numbers it."""

NOTHING = 1e-5
"""Exposure that the ledger takes for rounding: it is filled at once, or left over."""

NAN = math.nan


class Asked(NamedTuple):
    """What a bar is asked to do, as lists of A numbers.

    held, quantity: exposures at the last close; limit, stop: prices of the order, stop_loss,
    take_profit: of the exits, over the last close minus one, NaN for none; lots: held.
    """

    held: list[float]
    quantity: list[float]
    limit: list[float]
    stop: list[float]
    stop_loss: list[float]
    take_profit: list[float]
    lots: list[int]


class Told(NamedTuple):
    """What the ledger made of it, as lists of A numbers, fractions of the equity at the last close
    or of prices.

    price: where the order traded, over the last close minus one; filled: exposure at the last
    close; fee: commission; edge: spread and slippage, a fraction of the price; code: of the exit;
    exit_price: over the last close minus one; exit_fee; exit_edge: slippage of the exit.
    """

    price: list[float]
    filled: list[float]
    fee: list[float]
    edge: list[float]
    code: list[int]
    exit_price: list[float]
    exit_fee: list[float]
    exit_edge: list[float]


@dataclasses.dataclass(slots=True)
class Choice:
    """What a bar is to do in one symbol: orders with the units of each, above 0; the sum of them,
    signed; whether it waits for a price; exits of each kind.
    """

    orders: list[tuple[PaperOrder, Decimal]] = dataclasses.field(default_factory=list)
    net: Decimal = NONE
    is_priced: bool = False
    stop_loss: list[PaperOrder] = dataclasses.field(default_factory=list)
    take_profit: list[PaperOrder] = dataclasses.field(default_factory=list)


NO_CHOICE = Choice()


class Way(NamedTuple):
    """How the rules fill: orders in parts, as the volume allows; after the exits of the bar."""

    in_parts: bool = False
    after_exits: bool = False


def choose(
    books: Books, instrument: Instrument, row: int, low: float, high: float, way: Way
) -> Choice:
    """What the bar at a row, which reaches from low to high, is to do in a symbol.

    Exits are left out where an order may turn the position round, or may not (it waits for a price,
    or is filled in parts): on the wrong side of the market they would trade at once.
    """
    symbol = instrument.symbol
    mine = [each for each in books.working.values() if each.intent.symbol == symbol]
    if not mine:
        return NO_CHOICE
    due = [each for each in mine if each.due <= row and not each.is_exit]
    orders = [each for each in due if is_market(each)]
    is_priced = not orders
    if is_priced:
        orders = [each for each in due if is_reached(each, low, high)][:1] or due[:1]
    choice = taken(books, orders, instrument)
    choice.is_priced = is_priced and bool(choice.orders)
    held = books.units[symbol]
    traded = held if way.after_exits else held + choice.net
    if held * traded < 0 and (choice.is_priced or way.in_parts):
        return choice
    after = held if choice.is_priced and held else traded
    side, most = (-1 if after < 0 else 1), max(abs(held), abs(traded))
    exits = [e for e in mine if e.is_exit and e.due <= row and e.intent.side.sign * after < 0]
    choice.stop_loss = _nearest(exits, Leg.STOP_LOSS, side * most)
    choice.take_profit = _nearest(exits, Leg.TAKE_PROFIT, side * most)
    return choice


def taken(books: Books, orders: list[PaperOrder], instrument: Instrument) -> Choice:
    """The units of each of some orders in one symbol; of those that reduce what there is left."""
    choice, step = Choice(), instrument.quantity_step
    left = held = books.units[instrument.symbol]
    for order in orders:
        quantity = order.remaining
        if books.fill_share < 1.0:
            part = Decimal(repr(books.fill_share)) * order.intent.quantity // step * step
            quantity = min(quantity, max(part, step))
        if order.reduces:
            is_against = left * order.intent.side.sign < 0
            quantity = min(quantity, abs(left)) if is_against else NONE
        if quantity > 0:
            choice.orders.append((order, quantity))
            left += order.intent.side.sign * quantity
    choice.net = left - held
    return choice


def is_market(order: PaperOrder) -> bool:
    """Whether an order waits for no price."""
    return order.intent.kind is OrderKind.MARKET or order.is_touched


def is_reached(order: PaperOrder, low: float, high: float) -> bool:
    """Whether a range of prices comes to the price of an order."""
    price = float(order.price or 0)
    is_below = (order.intent.kind is OrderKind.LIMIT) == (order.intent.side is Side.BUY)
    return low <= price if is_below else high >= price


def _nearest(exits: list[PaperOrder], leg: Leg, held: Decimal) -> list[PaperOrder]:
    """The exits of a kind at the nearest price, if they cover what may be held."""
    prices = [each.price or NONE for each in exits if each.intent.leg is leg]
    if not prices:
        return []
    is_highest = (leg is Leg.STOP_LOSS) == (held > 0)
    nearest = max(prices) if is_highest else min(prices)
    found = [each for each in exits if each.intent.leg is leg and each.price == nearest]
    return found if sum(each.remaining for each in found) >= abs(held) else []


def ask(books: Books, choices: list[Choice], instruments: tuple[Instrument, ...]) -> Asked:
    """Units and prices as the ledger wants them, over equity and the last close."""
    equity = books.equity
    asked = Asked([], [], [], [], [], [], [])
    for symbol, choice, instrument in zip(books.symbols, choices, instruments, strict=True):
        close, units = books.closes[symbol], books.units[symbol]
        asked.held.append(float(units) * close / equity)
        asked.quantity.append(float(choice.net) * close / equity)
        waiting = choice.orders[0][0] if choice.orders else None
        for kind, column in ((OrderKind.LIMIT, asked.limit), (OrderKind.STOP, asked.stop)):
            column.append(_level(waiting if choice.is_priced else None, close, kind))
        asked.stop_loss.append(_level(_first(choice.stop_loss), close))
        asked.take_profit.append(_level(_first(choice.take_profit), close))
        lots = units / instrument.quantity_step
        asked.lots.append(int(lots) if abs(lots) < 2**31 else 0)
    return asked


def _first(orders: list[PaperOrder]) -> PaperOrder | None:
    return orders[0] if orders else None


def _level(order: PaperOrder | None, close: float, kind: OrderKind | None = None) -> float:
    if order is None or order.price is None:
        return NAN
    if kind is not None and order.intent.kind is not kind:
        return NAN
    return float(order.price) / close - 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dealt:
    """A bar as it was dealt with: what was chosen, asked and told; the closes before and after it,
    the equity before it; whether what is not filled works on.
    """

    choices: list[Choice]
    asked: Asked
    told: Told
    before: list[float]
    after: list[float]
    equity: float
    works_on: bool


def settle(books: Books, dealt: Dealt, money: Money, instruments: tuple[Instrument, ...]) -> Events:
    """Book what a bar did; the events in which it is told."""
    cash = dealt.equity - books.value
    books.money = money
    events: Events = []
    for column, symbol in enumerate(books.symbols):
        choice = dealt.choices[column]
        if choice.orders:
            events += _traded(books, dealt, column, instruments[column])
        if dealt.told.code[column] in (STOP, TARGET) and books.units[symbol]:
            events += _exited(books, dealt, column)
        books.closes[symbol] = dealt.after[column]
    for fill in events:
        cash -= _cost(fill)
    if money.is_ruined or LIQUIDATION in dealt.told.code:
        events += _liquidated(books, dealt, cash)
    return events + ended_exits(books)


def _cost(event: object) -> float:
    """Cash that an event took."""
    if not isinstance(event, OrderFilled):
        return 0.0
    return event.side.sign * float(event.quantity * event.price) + float(event.fee)


def _traded(books: Books, dealt: Dealt, column: int, instrument: Instrument) -> Events:
    """Fills of the orders of one symbol, and what is cancelled of them."""
    choice, symbol = dealt.choices[column], instrument.symbol
    told, before = dealt.told, dealt.before[column]
    wanted, filled = dealt.asked.quantity[column], told.filled[column]
    is_market = not choice.is_priced
    is_wiped = told.code[column] == LIQUIDATION and filled == 0.0
    is_whole = abs(filled - wanted) <= NOTHING * 1.01 and (is_market or filled != 0.0)
    amount = abs(choice.net)
    if not is_whole or is_wiped:
        exact = Decimal(repr(abs(filled) * dealt.equity / before))
        amount = min(amount, exact // instrument.quantity_step * instrument.quantity_step)
    side = -1 if choice.net < 0 else 1
    middle = before * (1.0 + told.price[column])
    price = middle * (1.0 + (side * told.edge[column] if choice.net else 0.0))
    against = sum((q for order, q in choice.orders if order.intent.side.sign != side), NONE)
    left = {side: amount + against, -side: against}
    total = float(left[side] + left[-side])
    events: Events = []
    for order, quantity in choice.orders:
        sign = order.intent.side.sign
        part = min(quantity, left[sign])
        left[sign] -= part
        if part > 0:
            fee = told.fee[column] * dealt.equity * float(part) / total
            events.append(books.fill(order, symbol, sign * part, price, fee, middle))
        if part < quantity and is_market and not dealt.works_on and order.status == "working":
            has_ended = told.code[column] != 0
            reason = "the position has ended" if has_ended else "the equity cannot back it"
            events.append(books.cancel(order, reason))
    # What the ledger left out, or did more, of an order that counts as whole.
    missed = float(side * amount) * before / dealt.equity - filled
    if abs(missed) > 1e-7:
        end = told.exit_price[column] if told.code[column] in (STOP, TARGET) else None
        end = dealt.after[column] / before - 1.0 if end is None else end
        books.gain(missed * dealt.equity * (end - told.price[column]))
    return events


def _exited(books: Books, dealt: Dealt, column: int) -> Events:
    """Fills of the exits of one symbol: all of the position."""
    told, choice, symbol = dealt.told, dealt.choices[column], books.symbols[column]
    held = books.units[symbol]
    side = -1 if held > 0 else 1
    middle = dealt.before[column] * (1.0 + told.exit_price[column])
    price = middle * (1.0 + side * told.exit_edge[column])
    fee = told.exit_fee[column] * dealt.equity / float(abs(held))
    left = abs(held)
    events: Events = []
    exits = choice.stop_loss if told.code[column] == STOP else choice.take_profit
    for order in exits:
        part = min(order.remaining, left)
        left -= part
        if part > 0:
            paid = fee * float(part)
            events.append(books.fill(order, symbol, side * part, price, paid, middle))
    return events


def _liquidated(books: Books, dealt: Dealt, cash: float) -> Events:
    """Fills, of nobody's order, that close what the ledger has closed by force; `cash` is what
    there was before them. What they cost besides is the fee of the first.
    """
    fills: list[OrderFilled] = []
    for column, symbol in enumerate(books.symbols):
        units = books.units[symbol]
        if not units or not (books.money.is_ruined or dealt.told.code[column] == LIQUIDATION):
            continue
        price = max(dealt.before[column] * (1.0 + dealt.told.exit_price[column]), 1e-12)
        fills.append(books.fill(None, symbol, -units, price, 0.0))
        cash += float(units) * price
    if fills and not any(books.units.values()):
        paid = dataclasses.replace(fills[0], fee=Decimal(repr(cash - books.equity)))
        books.new_fills = [fill for fill in books.new_fills if fill is not fills[0]]
        books.enter(paid)
        fills[0] = paid
    events: Events = [*fills]
    if books.money.is_ruined:
        working = list(books.working.values())
        events += [books.cancel(order, "the account is ruined") for order in working]
    return events


def ended_exits(books: Books) -> Events:
    """Exits end with the position that they guard, and when their twin has filled; so does what
    was only to reduce a position.
    """
    events: Events = []
    for order in [each for each in books.working.values() if each.reduces]:
        intent = order.intent
        is_guarding = books.units[intent.symbol] * intent.side.sign < 0
        parent = books.order_of(intent.parent)
        is_awaited = parent is not None and parent.status == "working"
        if not is_guarding and not is_awaited:
            events.append(books.cancel(order, "there is no position to close"))
        elif intent.parent in books.fired:
            events.append(books.cancel(order, "the other exit has filled"))
    return events


def move_exits(books: Books, row: int, entries: dict[str, float]) -> None:
    """Keep the distance, as a fraction of the price, of exits from the market order that they came
    with: it was decided at its reference price, and trades in this bar at `entries`.
    """
    for order in books.working.values():
        parent = books.order_of(order.intent.parent) if order.is_exit else None
        if parent is None or parent.status != "working" or parent.due > row:
            continue
        reference, entry = parent.intent.reference_price, entries.get(order.intent.symbol)
        if reference > 0 and entry is not None and parent.intent.kind is OrderKind.MARKET:
            order.moved = Decimal(repr(float(order.intent.price or 0) / reference * entry))
            books.changed.add(order.number)


def touch(books: Books, choices: list[Choice], lows: list[float], highs: list[float]) -> None:
    """Note which exits, of those that cover less than the position, a bar has touched."""
    columns = {symbol: column for column, symbol in enumerate(books.symbols)}
    for order in books.working.values():
        intent, column = order.intent, columns[order.intent.symbol]
        if not order.is_exit or order.due > books.row:
            continue
        if order in choices[column].stop_loss or order in choices[column].take_profit:
            continue
        edge = books.rates[intent.symbol].edge * -intent.side.sign
        low, high = lows[column] * (1.0 - edge), highs[column] * (1.0 - edge)
        is_guarding = books.units[intent.symbol] * intent.side.sign < 0
        if is_guarding and is_reached(order, low, high):
            order.is_touched = True
            books.changed.add(order.number)
