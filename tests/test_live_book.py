import itertools
import json
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import ledger
from jaxtrade.brackets import NO_EXIT, make_brackets
from jaxtrade.costs import make_costs
from jaxtrade.live.book import Book, Holding
from jaxtrade.live.events import BarDecided, CashMoved, PositionAdjusted
from jaxtrade.orders import Order
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from jaxtrade.tape import Bar

DEPOSIT = 100_000.0
HOUR = 3_600
COSTS = {"commission_rate": 2e-4, "half_spread": 1e-4, "borrow_rate": 0.05, "margin_rate": 0.03}


def moved(amount, reason=""):
    return CashMoved(at_ns=0, agent="a", amount=Decimal(amount), reason=reason)


def decided(closes, start_s, equity, symbols=("A", "B")):
    n = len(symbols)
    return BarDecided(
        at_ns=0,
        agent="a",
        start_s=start_s,
        symbols=symbols,
        model="m",
        inputs_hash="",
        requested=(0.0,) * n,
        target=(0.0,) * n,
        action=(0.0,) * n,
        probabilities=(),
        value=0.0,
        confidence=0.0,
        binding=0,
        equity=equity,
        reward=0.0,
        closes=tuple(closes),
        verdict="held",
    )


def booked(book, closes, start_s, symbols=("A", "B")):
    """Book a bar; what was told of it before."""
    marked = book.preview(symbols, closes, start_s)
    book.apply(decided(closes, start_s, marked.equity, symbols))
    return marked


def funded(amount=1_000):
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
        paid = Decimal(float(price[i] * (1 + move.price[i])))
        quantity = Decimal(float(move.traded[i]) * equity) / paid
        if move.weights_after[i] == 0 and move.weights_before[i] != 0:
            quantity = -book.quantity(symbol)  # closed is exactly nothing
        if quantity:
            book.fill(symbol, quantity, paid)
        if move.exit_code[i] != NO_EXIT:
            out = Decimal(float(price[i] * (1 + move.exit_price[i])))
            book.fill(symbol, -book.quantity(symbol), out)
    book.pay(Decimal(float(move.cost) * equity))
    book.apply(moved(Decimal(-float(move.carry) * equity), "carry"))


@pytest.mark.parametrize("fill", ["next_open", "next_close", "close"])
@pytest.mark.parametrize("stops", [False, True])
def test_a_book_of_the_ledgers_fills_tells_what_the_ledger_tells(fill, stops):
    brackets = make_brackets(stop_loss=0.02, take_profit=0.03) if stops else None
    rules = make_rules(costs=make_costs(**COSTS), fill=fill, brackets=brackets)
    step, num_bars = stepper(rules), 3_000
    bars = random_bars(num_bars, seed=3)
    generator = np.random.default_rng(4)
    targets = generator.choice([-0.8, -0.3, 0.0, 0.0, 0.5, np.nan, np.nan, np.nan], (num_bars, 2))
    targets[np.arange(0, num_bars, 50)] = 0.0

    account, book = ledger.open_account(2, rules), funded(DEPOSIT)
    price = np.array([400.0, 1.1])
    booked(book, price, 0)
    equity, worst = DEPOSIT, 0.0
    for t in range(num_bars):
        start_s = (t + 1) * HOUR
        new_day = np.float32(start_s % 86_400 == 0)
        account, vector, move = step(
            account, targets[t].astype(np.float32), bars[t].astype(np.float32), new_day
        )
        vector, move, log_equity = jax.device_get((vector, move, account.log_equity))
        trade(book, move, price, equity)
        price = price * (1 + bars[t, :, 3])
        marked = booked(book, price, start_s)
        equity = DEPOSIT * np.exp(np.float64(log_equity))
        assert marked.equity == pytest.approx(equity, rel=1e-6)
        assert marked.reward == pytest.approx(np.log1p(np.float64(move.gain)), abs=1e-7)
        np.testing.assert_array_equal(marked.vector[4:6], vector[4:6])
        worst = max(worst, np.abs(marked.vector - vector).max())
        equity = marked.equity
    assert worst < 1e-6
