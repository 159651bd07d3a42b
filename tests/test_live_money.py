"""Book and planning around the ledger, bar by bar, beside the backtest's own orders."""

from decimal import Decimal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import ledger
from jaxtrade.costs import make_costs
from jaxtrade.envs.actions import Request
from jaxtrade.envs.steps import order_for
from jaxtrade.live.planning import plan
from jaxtrade.orders import Order
from jaxtrade.rules import make_rules
from jaxtrade.tape import Bar
from tests.live_books import COSTS, DEPOSIT, HOUR, booked, funded, moved, random_bars
from tests.live_orders import instrument, scene_of, terms_of

SYMBOLS = ("A", "B")


def paths(num_bars, seed):
    """Bars of which a fifth stand still, and targets that last for some bars."""
    generator = np.random.default_rng(seed)
    bars = random_bars(num_bars, seed)
    bars[generator.random(num_bars) < 0.2] = 0.0
    levels = generator.choice([-0.5, -0.25, 0.0, 0.0, 0.25, 0.5], (num_bars, 2))
    lasting = np.maximum.accumulate(
        np.where(generator.random((num_bars, 2)) < 0.25, np.arange(num_bars)[:, None], 0), axis=0
    )
    return bars.astype(np.float32), np.take_along_axis(levels, lasting, axis=0).astype(np.float32)


def row_of(bar, new_day, price):
    prices = {name: bar[:, i] for i, name in enumerate(("open", "high", "low", "close"))}
    return Bar(**prices, years=jnp.float32(HOUR / 31_557_600), new_day=new_day, price=price)


def steppers(rules, band):
    """The backtest's step towards targets, and a broker's step with the exposures of orders."""
    params = SimpleNamespace(no_trade_band=band, minimum_order=None, rules=rules)

    @jax.jit
    def backtest(account, target, bar, new_day, price):
        row = row_of(bar, new_day, price)
        request = Request(exposure=target, invalid=jnp.int32(0), clipped=jnp.int32(0))
        account, move = ledger.step(
            account, order_for(account, target, request, row, params), row, rules
        )
        return account, ledger.account_vector(account), move

    @jax.jit
    def broker(account, quantity, bar, new_day, price):
        row = row_of(bar, new_day, price)
        account, move = ledger.step(account, Order(quantity=quantity), row, rules)
        return account, ledger.account_vector(account), move

    return backtest, broker


def ordered(terms, target, book, price, start_s, instruments):
    """Signed units of the plan for a bar, by symbol."""
    equity = book.value(dict(zip(SYMBOLS, price, strict=True)))
    scene = scene_of(
        equity=equity,
        prices=dict(zip(SYMBOLS, price.tolist(), strict=True)),
        positions={symbol: book.quantity(symbol) for symbol in SYMBOLS},
        instruments=instruments,
    )
    targets = dict(zip(SYMBOLS, target.tolist(), strict=True))
    made = plan(terms, targets, scene, start_s=start_s)
    units = {one.symbol: one.side.sign * one.quantity for one in made.intents}
    return [units.get(symbol, Decimal(0)) for symbol in SYMBOLS], equity


@pytest.mark.parametrize(
    ("fill", "band", "lot"),
    [
        ("next_open", 0.0, None),
        ("next_open", 0.02, 5.0),
        ("next_close", 0.02, None),
    ],
)
def test_the_loop_of_book_and_plan_is_the_backtest(fill, band, lot):
    costs = make_costs(**COSTS)
    rules = make_rules(costs=costs, deposit=DEPOSIT, fill=fill, lot_size=lot)
    backtest, broker = steppers(rules, band)
    num_bars = 300
    bars, targets = paths(num_bars, seed=7)
    step = "1e-9" if lot is None else str(lot)
    instruments = {symbol: instrument(symbol, step) for symbol in SYMBOLS}
    terms = terms_of(no_trade_band=band)

    expected = held = ledger.open_account(2, rules)
    book = funded(DEPOSIT)
    price = np.array([400.0, 11.0])
    booked(book, price, 0)
    traded = 0
    for t in range(num_bars):
        start_s = (t + 1) * HOUR
        new_day = np.float32(start_s % 86_400 == 0)
        now = (bars[t], new_day, price.astype(np.float32))
        expected, vector, move = backtest(expected, targets[t], *now)
        units, equity = ordered(terms, targets[t], book, price, start_s, instruments)
        exposure = np.array([float(u) for u in units]) * price / equity
        held, _, filled = broker(held, exposure.astype(np.float32), *now)
        vector, move, filled = jax.device_get((vector, move, filled))

        np.testing.assert_array_equal(move.traded != 0, [u != 0 for u in units])
        np.testing.assert_array_equal(move.traded != 0, filled.traded != 0)
        for i, symbol in enumerate(SYMBOLS):
            if units[i]:
                paid = price[i] * (1 + float(filled.price[i]))
                book.fill(symbol, units[i], Decimal(paid))
        book.pay(Decimal(float(filled.cost) * equity))
        book.apply(moved(Decimal(-float(filled.carry) * equity), "carry"))
        traded += int((move.traded != 0).sum())

        price = price * (1 + bars[t, :, 3].astype(np.float64))
        marked = booked(book, price, start_s)
        reached = DEPOSIT * np.exp(np.float64(expected.log_equity))
        assert marked.equity == pytest.approx(reached, rel=1e-6)
        np.testing.assert_allclose(marked.vector, vector, atol=2e-6)
    assert traded > 100
