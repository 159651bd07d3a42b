"""The venue of the paper broker: bars, rules, and what the simulator's ledger makes of an order.

The broker keeps units and equity as a real one does, in exact decimals and float64; each bar is
booked by `ledger.step` on an account that is made of them, so that a paper run and a backtest cost
the same. This module imports JAX; the broker itself does not.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxtrade import ledger
from jaxtrade.brackets import STOP, TARGET, Brackets, Levels
from jaxtrade.costs import half_spread, slippage, trade_cost
from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.brokers.paper_books import Money, Rates
from jaxtrade.live.brokers.paper_matching import Asked, Told
from jaxtrade.orders import Order, fill_price
from jaxtrade.rules import Rules
from jaxtrade.specs import JaxtradeError
from jaxtrade.tape import Bar, Tape, bar_of

F64 = NDArray[np.float64]

STEP_SHARE = 1e-10
"""Step of quantities where there are no lots: the power of ten below this fraction of the deposit's
units, so fine that an exposure survives its way through units and back."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Venue:
    """Bars of A symbols at T shared stamps, and the rules under which they are traded.

    tape: the same bars as the ledger reads them; prices: f64[T, A, 4], open, high, low, close in
    quote currency; volume: f64[T, A]; is_there: bool[T, A], whether a symbol has a bar at a stamp
    (its prices stand still where it has none); context: for each symbol the names and values
    f32[T, C] of its other columns, as in the market; starts_s: i64[T], UTC; bar_seconds: length of
    a bar; first, last: rows that are traded; the decision at `first` is the first one, and `last`
    the last bar; steps: of quantities, by default the rules' lots, or as fine as `STEP_SHARE`.
    """

    symbols: tuple[str, ...]
    tape: Tape
    rules: Rules
    prices: F64
    volume: F64
    is_there: NDArray[np.bool_]
    context: tuple[tuple[tuple[str, ...], NDArray[np.float32]], ...]
    starts_s: NDArray[np.int64]
    bar_seconds: int
    first: int
    last: int
    steps: tuple[Decimal, ...] | None = None

    def __post_init__(self) -> None:
        check_rules(self.rules)
        if not 0 <= self.first < self.last < len(self.starts_s):
            raise JaxtradeError(
                f"rows {self.first} to {self.last} of {len(self.starts_s)}: "
                "give 0 <= first < last < rows"
            )

    @property
    def deposit(self) -> float:
        """Equity at the start."""
        return float(self.rules.deposit)

    def instruments(self) -> tuple[Instrument, ...]:
        """The lots, or the finest step that means anything, of each symbol."""
        found = instruments(self.symbols, self.rules, self.prices[self.first, :, 3])
        if self.steps is None:
            return found
        return tuple(
            dataclasses.replace(one, quantity_step=step, min_quantity=step)
            for one, step in zip(found, self.steps, strict=True)
        )


def check_rules(rules: Rules) -> None:
    """Refuse rules that have no counterpart in orders sent to a broker.

    Raises:
        JaxtradeError: brackets or market impact.
    """
    if rules.brackets is not None:
        raise JaxtradeError(
            "rules.brackets are of environments: a paper broker is sent stop-loss and take-profit "
            "orders; give rules without them"
        )
    if rules.impact is not None:
        raise JaxtradeError("rules.impact: a paper broker has none; give rules without it")


def instruments(
    symbols: Sequence[str], rules: Rules, prices: Sequence[float] | F64
) -> tuple[Instrument, ...]:
    """What can be traded of each symbol, at about these prices."""
    made = []
    for column, symbol in enumerate(symbols):
        if rules.lot_size is None:
            units = float(rules.deposit) / float(prices[column])
            step = Decimal(10) ** int(np.floor(np.log10(STEP_SHARE * units)))
        else:
            step = Decimal(str(_of(rules.lot_size, column)))
        tick = Decimal(0) if rules.tick_size is None else Decimal(str(_of(rules.tick_size, column)))
        made.append(
            Instrument(symbol=symbol, quantity_step=step, price_step=tick, min_quantity=step)
        )
    return tuple(made)


def rates(rules: Rules, num_assets: int) -> list[Rates]:
    """What trading at a last price costs in each symbol."""
    costs, margin = rules.costs, rules.margin
    columns = (
        costs.half_spread,
        costs.slippage,
        costs.commission_rate,
        None if margin is None else margin.initial,
    )
    values = [np.asarray(0.0 if each is None else each, np.float64) for each in columns]
    table = np.stack([np.broadcast_to(each, num_assets) for each in values], axis=-1)
    return [
        Rates(edge=spread + slip, commission=commission, margin=needed)
        for spread, slip, commission, needed in table.tolist()
    ]


def _of(values: jax.Array, column: int) -> np.float32:
    """The number of one asset; its shortest text is what a person wrote."""
    return np.float32(np.broadcast_to(np.asarray(values), (column + 1,))[column])


class PaperLedger:
    """`ledger.step` as a function of plain numbers."""

    def __init__(self, rules: Rules, num_assets: int) -> None:
        """The rules of the venue; latency and what waits are kept by the broker, not by this."""
        check_rules(rules)
        self._rules = replace(rules, brackets=Brackets(), latency=0)
        self._num_assets = num_assets

    def over_row(self, tape: Tape, row: int, asked: Asked, money: Money) -> tuple[Told, Money]:
        """Book the bar at a row of a tape."""
        numbers, whole = self._packed(row, asked, money)
        return self._unpacked(np.asarray(_over_row(tape, self._rules, whole, numbers)))

    def over_bar(
        self, columns: NDArray[np.float32], names: tuple[str, ...], asked: Asked, money: Money
    ) -> tuple[Told, Money]:
        """Book a bar of columns f32[A, K]."""
        numbers, whole = self._packed(0, asked, money)
        out = _over_bar(columns, self._rules, whole, numbers, names)
        return self._unpacked(np.asarray(out))

    def _packed(
        self, row: int, asked: Asked, money: Money
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        lists = (*asked[:6], money)
        numbers = np.fromiter((x for each in lists for x in each), np.float32)
        return numbers, np.asarray([row, *asked.lots], np.int32)

    def _unpacked(self, out: NDArray[np.float32]) -> tuple[Told, Money]:
        table, scalars = out[:-3].reshape(8, self._num_assets).tolist(), out[-3:].tolist()
        told = Told._make(table)
        told = told._replace(code=[round(code) for code in told.code])
        return told, Money(scalars[0], scalars[1], scalars[2] > 0)


@jax.jit
def _over_row(tape: Tape, rules: Rules, whole: jax.Array, numbers: jax.Array) -> jax.Array:
    return _step(tape.bar(whole[0]), rules, whole[1:], numbers)


def _bar_step(
    columns: jax.Array,
    rules: Rules,
    whole: jax.Array,
    numbers: jax.Array,
    names: tuple[str, ...],
) -> jax.Array:
    return _step(bar_of(columns, names), rules, whole[1:], numbers)


_over_bar = jax.jit(_bar_step, static_argnames="names")


def _step(bar: Bar, rules: Rules, lots: jax.Array, numbers: jax.Array) -> jax.Array:
    """A bar: numbers f32[6A + 3] of `Asked` and `Money` in, f32[8A + 3] of `Told` and `Money` out.

    Empty `Brackets` leave the levels of the account as they are: those of the exits' orders.
    """
    A = lots.shape[0]
    held, quantity, limit, stop, stop_loss, take_profit = numbers[: 6 * A].reshape(6, A)
    account = replace(
        ledger.open_account(A, replace(rules, brackets=None)),
        weights=held,
        log_equity=numbers[-3],
        log_equity_error=numbers[-2],
        is_ruined=numbers[-1] > 0,
        levels=Levels(stop=stop_loss, target=take_profit),
    )
    if rules.lot_size is not None:
        account = replace(account, lots=lots)
        held = lots.astype(jnp.float32) * ledger.lot_value(account, bar.price, rules)
    order = Order(quantity=quantity, limit=limit, stop=stop)
    after, move = ledger.step(account, order, bar, rules)

    slip = slippage(rules.costs, bar)
    slip = jnp.zeros_like(held) + (0.0 if slip is None else slip)
    per_currency = ledger.per_currency(account, rules)
    traded = _traded(order, bar, move, rules, per_currency, slip)
    rows = (*traded, *_exited(held + traded[1], bar, move, rules, per_currency, slip))
    scalars = (after.log_equity, after.log_equity_error, after.is_ruined.astype(jnp.float32))
    return jnp.concatenate([*rows, jnp.stack(scalars)])


def _traded(
    order: Order,
    bar: Bar,
    move: ledger.Move,
    rules: Rules,
    per_currency: jax.Array,
    slip: jax.Array,
) -> tuple[jax.Array, ...]:
    """What `Told` says of the order, each f32[A]: price, filled, fee, edge."""
    column = "half_spread_close" if rules.fill == "next_close" else "half_spread_open"
    found = fill_price(order, bar.open, half_spread(rules.costs, bar), bar)
    assert found is not None  # there are columns of prices
    filled = move.traded / (1.0 + move.price)
    spread = jnp.where(found.is_inside, 0.0, half_spread(rules.costs, bar, column))
    edge = spread + jnp.where(found.is_passive, 0.0, slip)
    paid = trade_cost(
        rules.costs,
        bar,
        filled,
        move.price,
        per_currency,
        column=column,
        is_passive=found.is_passive,
        is_in_quote=found.is_inside,
    )
    return move.price, filled, paid - edge * jnp.abs(move.traded), edge


def _exited(
    held: jax.Array,
    bar: Bar,
    move: ledger.Move,
    rules: Rules,
    per_currency: jax.Array,
    slip: jax.Array,
) -> tuple[jax.Array, ...]:
    """What `Told` says of the exit of what is held by then, each f32[A]: code, price, fee, edge."""
    code = move.exit_code
    is_exit = (code == STOP) | (code == TARGET)
    edge = jnp.where(code == STOP, slip, 0.0)
    left = jnp.where(is_exit, held, 0.0)
    paid = trade_cost(
        rules.costs,
        bar,
        left,
        move.exit_price,
        per_currency,
        is_passive=code == TARGET,
        is_in_quote=is_exit,
    )
    fee = paid - edge * jnp.abs(left) * (1.0 + move.exit_price)
    return code.astype(jnp.float32), move.exit_price, fee, edge
