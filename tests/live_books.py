"""Books that are filled by the ledger's own moves, and random bars for them."""

from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade import ledger
from jaxtrade.brackets import NO_EXIT
from jaxtrade.live.book import Book
from jaxtrade.live.events import CashMoved
from jaxtrade.orders import Order
from jaxtrade.tape import Bar
from tests.live_events import decided

DEPOSIT = 100_000.0
HOUR = 3_600
COSTS = {"commission_rate": 2e-4, "half_spread": 1e-4, "borrow_rate": 0.05, "margin_rate": 0.03}


def moved(amount, reason=""):
    """Money for the agent, or from it."""
    return CashMoved(at_ns=0, agent="a", amount=Decimal(amount), reason=reason)


def booked(book, closes, start_s, symbols=("A", "B")):
    """Book a bar; what was told of it before."""
    marked = book.preview(symbols, closes, start_s)
    fields = {"closes": tuple(closes), "equity": marked.equity}
    book.apply(decided(start_s, agent="a", symbols=symbols, **fields))
    return marked


def funded(amount=1_000):
    """A book with some cash."""
    book = Book()
    book.apply(moved(amount))
    return book


def random_bars(num_bars, seed):
    """Opens, highs, lows and closes over the close before f64[T, 2, 4]."""
    generator = np.random.default_rng(seed)
    gap = np.exp(0.004 * generator.standard_normal((num_bars, 2))) - 1
    body = np.exp(0.01 * generator.standard_normal((num_bars, 2))) - 1
    close = (1 + gap) * (1 + body) - 1
    reach = np.abs(0.004 * generator.standard_normal((2, num_bars, 2)))
    high = np.maximum(gap, close) + reach[0]
    low = np.minimum(gap, close) - reach[1]
    return np.stack([gap, high, low, close], axis=-1).astype(np.float32).astype(np.float64)


def stepper(rules):
    """A step of the ledger towards targets f32[2], NaN for none: account, vector, move."""

    @jax.jit
    def step(account, target, bar, new_day):
        quantity = jnp.where(jnp.isnan(target), 0.0, target - account.weights)
        prices = {name: bar[:, i] for i, name in enumerate(("open", "high", "low", "close"))}
        row = Bar(**prices, years=jnp.float32(HOUR / 31_557_600), new_day=new_day)
        account, move = ledger.step(account, Order(quantity=quantity), row, rules)
        return account, ledger.account_vector(account), move

    return step


def trade(book, move, price, equity):
    """The fills of a step and its costs, as a broker reports them."""
    for i, symbol in enumerate(("A", "B")):
        paid = Decimal(float(price[i] * (1 + float(move.price[i]))))
        quantity = Decimal(float(move.traded[i]) * equity) / paid
        if move.weights_after[i] == 0 and move.weights_before[i] != 0:
            quantity = book.quantity(symbol).copy_negate()  # closed is exactly nothing
        if quantity:
            book.fill(symbol, quantity, paid)
        if move.exit_code[i] != NO_EXIT:
            out = Decimal(float(price[i] * (1 + float(move.exit_price[i]))))
            book.fill(symbol, book.quantity(symbol).copy_negate(), out)
    book.pay(Decimal(float(move.cost) * equity))
    book.apply(moved(Decimal(-float(move.carry) * equity), "carry"))
