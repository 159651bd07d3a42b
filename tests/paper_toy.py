"""A paper account on a market made of nothing, without JAX: a process of it starts at once."""

from decimal import Decimal

from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_books import Books, Rates
from jaxtrade.live.brokers.paper_feed import Standstill
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import Bar, OrderAccepted, OrderFilled, OrderIntent, Side

SYMBOL, SECONDS = "TOY", 60
TOY = Instrument(symbol=SYMBOL, quantity_step=Decimal("0.01"))


class Toy(Standstill):
    """Bars whose price goes up and down; an order trades at the close of the next one."""

    def __init__(self):
        super().__init__((SYMBOL,), (TOY,), SECONDS)

    def open_books(self):
        books = Books((SYMBOL,), 1e6)
        books.closes, books.rates = {SYMBOL: 100.0}, {SYMBOL: Rates(1e-4, 1e-4)}
        return books

    def next_ns(self, books):
        return (books.row + 1) * SECONDS * 10**9

    def advance(self, books):
        books.row += 1
        books.at_ns = books.row * SECONDS * 10**9
        move = 1.0 + (books.row * 7 % 11 - 5) / 1000
        books.gain(books.value * (move - 1.0))
        books.closes = {SYMBOL: books.closes[SYMBOL] * move}
        due = [order for order in books.working.values() if order.due <= books.row]
        return [books.deal(SYMBOL, o.intent.side.sign * o.remaining, o) for o in due]

    def account_state(self, books):
        return [books.account_state()]

    def market_data(self, books, *, with_quotes):
        price = books.closes[SYMBOL]
        start_s = (books.row - 1) * SECONDS
        bar = Bar(
            at_ns=books.at_ns,
            symbol=SYMBOL,
            start_s=start_s,
            seconds=SECONDS,
            open=price,
            high=price,
            low=price,
            close=price,
        )
        return [bar]


def order(number: int) -> OrderIntent:
    return OrderIntent(
        cid=f"C{number:015d}",
        decision_key=str(number),
        agent="toy",
        symbol=SYMBOL,
        side=Side.BUY if number % 3 else Side.SELL,
        quantity=Decimal(1 + number % 5),
    )


async def play(path: str) -> None:
    """Send an order after each bar, and say what is told, until killed."""
    broker = PaperBroker(Toy(), clock=SimulatedClock(), path=path)
    await broker.connect()
    async for event in broker.events():
        if isinstance(event, OrderFilled):
            print("fill", event.execution_id, event.cid, event.quantity, event.price, flush=True)
        elif isinstance(event, OrderAccepted):
            print("accepted", event.cid, flush=True)
        elif isinstance(event, Bar):
            await broker.submit_order(order(event.start_s // SECONDS))
