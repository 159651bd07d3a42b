"""The account, and what a bar does to it: `step` = gap, trade, hold, book.

Holdings are weights (position value over equity) and the logarithm of equity, summed with
compensation so that float32 stays within 1e-6 over tens of thousands of steps (Kahan, 1965).
Inside a step everything is a fraction of the equity at the last close, and a price is a return
over that close: a position of exposure u earns u times the difference of two prices, and the step's
gain is a sum of small terms. Invariant: cash = equity - sum of position values.
"""

import math
from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade import brackets, impact
from jaxtrade.brackets import LIQUIDATION, NO_EXIT, Levels, no_levels
from jaxtrade.fills import FILL_RULES, Way
from jaxtrade.orders import Order
from jaxtrade.position import DUST, Book, Scene, moved
from jaxtrade.risk import Memory
from jaxtrade.rules import Rules
from jaxtrade.tape import Bar, Maybe

MIN_GROWTH = 1e-3
"""Ruin: the open, the trade, the way to the close or all of them leave no more than this fraction
of the equity. The step is then booked as this."""

_RUIN_LOG = math.log(MIN_GROWTH) + 1e-4  # float32 has the logarithm of a ruin within 1e-6


@flax.struct.dataclass(kw_only=True)
class Account:
    """One account of A assets.

    weights: f32[A]; open_return: f32[A], what each open position has earned since it was opened, as
    a sum of fractions of equity; bars_held: f32[A]; log_equity, log_equity_error: f32[], relative
    to the start;
    peak_log_equity, day_log_equity: f32[], highest so far and at the day's start;
    last_return: f32[], simple return of the last step; is_ruined: bool[].

    Where a rule needs them, else None: lots: i32[A], what is held, from which the weights follow;
    levels: prices of the brackets; displacement: f32[A], transient impact in the price;
    waiting: f32[L, A], exposures ordered and under way, the next due first; rest: f32[A], what the
    market has not yet taken of an order; memory: of the risk review.
    """

    weights: jax.Array
    open_return: jax.Array
    bars_held: jax.Array
    log_equity: jax.Array
    log_equity_error: jax.Array
    peak_log_equity: jax.Array
    day_log_equity: jax.Array
    last_return: jax.Array
    is_ruined: jax.Array
    lots: Maybe = None
    levels: Levels | None = None
    displacement: Maybe = None
    waiting: Maybe = None
    rest: Maybe = None
    memory: Memory | None = None


@flax.struct.dataclass(kw_only=True)
class Move:
    """What one step did; fractions of the equity at the last close unless said.

    gap: f32[], earned before the trade; cost: f32[], of trading, exits included; carry: f32[],
    paid for holding; gain: f32[], all in all; traded: f32[A], signed value of the order's fills,
    exits left out; price: f32[A], where they filled, over the last close minus one;
    weights_before, weights_after: f32[A], exposure just before and just after that trade, over
    equity then; exit_code: i32[A] of `brackets`; exit_price: f32[A]; margin_bound: bool[], an
    order was cut to what the equity can back.
    """

    gap: jax.Array
    cost: jax.Array
    carry: jax.Array
    gain: jax.Array
    traded: jax.Array
    price: jax.Array
    weights_before: jax.Array
    weights_after: jax.Array
    exit_code: jax.Array
    exit_price: jax.Array
    margin_bound: jax.Array


def open_account(num_assets: int, rules: Rules | None = None) -> Account:
    """A flat account under some rules."""
    zero = jnp.float32(0.0)
    none = jnp.zeros(num_assets, jnp.float32)
    account = Account(
        weights=none,
        open_return=none,
        bars_held=none,
        log_equity=zero,
        log_equity_error=zero,
        peak_log_equity=zero,
        day_log_equity=zero,
        last_return=zero,
        is_ruined=jnp.bool_(False),
    )
    if rules is None:
        return account
    has_transient = rules.impact is not None and rules.impact.is_transient
    return replace(
        account,
        lots=None if rules.lot_size is None else jnp.zeros(num_assets, jnp.int32),
        levels=None if rules.brackets is None else no_levels(rules.brackets, num_assets),
        displacement=none if has_transient else None,
        waiting=jnp.zeros((rules.latency, num_assets), jnp.float32) if rules.latency else None,
        rest=None if rules.participation is None else none,
    )


def in_flight(account: Account) -> jax.Array | None:
    """Exposure f32[A] that orders under way will add to the weights; None where there are none."""
    waiting = None if account.waiting is None else account.waiting.sum(axis=0)
    if waiting is None or account.rest is None:
        return account.rest if waiting is None else waiting
    return waiting + account.rest


def per_currency(account: Account, rules: Rules) -> jax.Array:
    """The fraction of equity that one unit of quote currency is, f32[]."""
    return jnp.exp(-account.log_equity) / rules.deposit


def lot_value(account: Account, price: jax.Array, rules: Rules) -> jax.Array:
    """Exposure f32[A] of one lot at a price f32[A] in quote currency."""
    return rules.lot_size * price * per_currency(account, rules)


def step(account: Account, order: Order, bar: Bar, rules: Rules) -> tuple[Account, Move]:
    """One bar under the rules.

    order: sized at the last close; bar: the next one. The static `rules.fill` says when it trades:

    next_open   the old position takes the gap; trade at the open; the new position meets carry,
                exits and margin; mark at the close
    next_close  the old position takes the gap, carry, exits and margin; trade at the close
    close       trade at the last close, which is optimistic: the order has seen that price; the
                new position takes the gap, carry, exits and margin; mark at the close

    An exit cancels what is under way in its asset. What is past the end of the data (`bar.years`
    is NaN) is ruin.
    """
    account = start_day(account, bar.new_day > 0)
    bar, displacement = _relaxed(account, bar, rules)
    lot = None if rules.lot_size is None else lot_value(account, bar.price, rules)
    scene = Scene(bar=bar, rules=rules, per_currency=per_currency(account, rules), lot=lot)
    held = account.weights if lot is None else account.lots.astype(jnp.float32) * lot
    zero, none = jnp.float32(0.0), jnp.zeros_like(held)
    start = Book(held=held, price=none, gain=none, cost=zero, carry=zero)
    order, waiting = _due(account, order)
    order = _on_ticks(order, bar, rules)
    if lot is not None:  # time under way has left a little less, or more, than whole lots
        order = replace(order, quantity=jnp.round(order.quantity / lot) * lot)
    way = FILL_RULES[rules.fill](start, account.levels, order, scene)
    return _book(account, way, waiting, displacement, scene)


def _relaxed(account: Account, bar: Bar, rules: Rules) -> tuple[Bar, jax.Array | None]:
    """The bar as past orders have left it: transient impact dies away over its time."""
    if rules.impact is None or account.displacement is None:
        return bar, None
    left = impact.relax(rules.impact, account.displacement, bar.years)
    return moved(bar, (left - account.displacement) / (1.0 + account.displacement)), left


def _on_ticks(order: Order, bar: Bar, rules: Rules) -> Order:
    """The order with its prices at whole ticks: a limit to the passive side, a stop further off."""
    if rules.tick_size is None:
        return order
    is_buy = order.quantity > 0
    limit, stop = order.limit, order.stop
    if limit is not None:
        at_tick = brackets.to_tick(limit, is_buy, bar, rules.tick_size)
        limit = jnp.where(jnp.isfinite(limit), at_tick, jnp.nan)
    if stop is not None:
        at_tick = brackets.to_tick(stop, ~is_buy, bar, rules.tick_size)
        stop = jnp.where(jnp.isfinite(stop), at_tick, jnp.nan)
    return replace(order, limit=limit, stop=stop)


def _due(account: Account, order: Order) -> tuple[Order, jax.Array | None]:
    """What trades in this bar, and what is still under way."""
    quantity, waiting = order.quantity, account.waiting
    if waiting is not None:
        quantity, waiting = waiting[0], jnp.concatenate([waiting[1:], quantity[None]])
    if account.rest is not None:
        is_none = jnp.abs(quantity) <= DUST  # and has no price that the rest would wait for
        order = replace(
            order, limit=_unless(is_none, order.limit), stop=_unless(is_none, order.stop)
        )
        quantity = quantity + account.rest
    return replace(order, quantity=quantity), waiting


def _unless(is_none: jax.Array, price: jax.Array | None) -> jax.Array | None:
    """Prices of orders, NaN where there is none."""
    return None if price is None else jnp.where(is_none, jnp.nan, price)


def _book(
    account: Account,
    way: Way,
    waiting: jax.Array | None,
    displacement: jax.Array | None,
    scene: Scene,
) -> tuple[Account, Move]:
    """The account after a bar: equity with compensation, peaks, open positions, ruin."""
    fill, book, close = way.fill, way.book, way.fill.bar.close
    change = book.change
    survived = (way.opened > MIN_GROWTH) & (fill.book.equity > MIN_GROWTH)
    survived &= change > MIN_GROWTH - 1
    growth = jnp.where(survived, change, MIN_GROWTH - 1.0)
    log_growth = jnp.log1p(growth)
    # Read off the logarithm, which XLA computes once; the above it repeats for each leaf below.
    survived = log_growth > _RUIN_LOG
    log_equity, error = add(account.log_equity, log_growth, account.log_equity_error)

    held = jnp.where(survived, book.held, 0.0)
    traded = fill.book.held
    same_side = account.weights * traded > 0
    before = jnp.where(same_side, account.open_return + way.before.gain, 0.0)
    bars_held = jnp.where(same_side, account.bars_held, 0.0) + 1.0
    code = way.hold.code
    if way.is_wiped is not None:
        code = jnp.where(way.is_wiped & (account.weights != 0), LIQUIDATION, code)
    is_open = held != 0
    scale = (1.0 + close) / (1.0 + growth)
    after = replace(
        account,
        weights=jnp.where(is_open, held * scale, 0.0),
        open_return=jnp.where(is_open, before + (book.gain - way.before.gain), 0.0),
        bars_held=jnp.where(is_open, bars_held, 0.0),
        log_equity=log_equity,
        log_equity_error=error,
        peak_log_equity=jnp.maximum(account.peak_log_equity, log_equity),
        last_return=growth,
        is_ruined=account.is_ruined | ~survived,
    )
    goes_on = survived & (code == NO_EXIT)
    return _remembered(after, way, waiting, displacement, goes_on, scale, scene), Move(
        gap=way.before.change,
        cost=book.cost,
        carry=book.carry,
        gain=growth,
        traded=fill.filled * (1.0 + fill.price),
        price=fill.price,
        weights_before=way.before.held * (1.0 + way.before.price) / _safe(way.before.equity),
        weights_after=jnp.where(survived, traded, 0.0)
        * (1.0 + fill.book.price)
        / _safe(fill.book.equity),
        exit_code=code,
        exit_price=way.hold.price,
        margin_bound=fill.is_cut,
    )


def _remembered(
    account: Account,
    way: Way,
    waiting: jax.Array | None,
    displacement: jax.Array | None,
    goes_on: jax.Array,
    scale: jax.Array,
    scene: Scene,
) -> Account:
    """The account with what only some rules remember.

    goes_on: bool[A], neither exit nor ruin; scale: f32[A], from exposure at the last close to now.
    """
    kept: dict[str, Any] = {}
    if way.levels is not None:
        kept["levels"] = brackets.rebased(way.levels, way.fill.bar)
    if waiting is not None:
        kept["waiting"] = jnp.where(goes_on[None], waiting * scale[None], 0.0)
    if way.fill.rest is not None:
        kept["rest"] = jnp.where(goes_on, way.fill.rest * scale, 0.0)
    if displacement is not None:
        pushed = impact.added(displacement, way.fill.transient)
        kept["displacement"] = jnp.where(account.is_ruined, 0.0, pushed)
    if scene.lot is not None:
        held = jnp.where(account.is_ruined, 0.0, way.book.held)
        lots = jnp.round(held / scene.lot)
        price = scene.bar.price * (1.0 + scene.bar.close)
        kept["lots"] = lots.astype(jnp.int32)
        kept["weights"] = lots * lot_value(account, price, scene.rules)
    return replace(account, **kept)


def add(total: jax.Array, part: jax.Array, error: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum, and what rounding has added to it too much (Kahan, 1965)."""
    part = part - error
    following = total + part
    return following, (following - total) - part


def start_day(account: Account, is_new_day: jax.Array) -> Account:
    """Remember the equity at the start of a day, before the day's first bar is booked."""
    return replace(
        account, day_log_equity=jnp.where(is_new_day, account.log_equity, account.day_log_equity)
    )


def drawdown(account: Account) -> jax.Array:
    """Fraction of equity below its peak, f32[] in [0, 1]."""
    return -jnp.expm1(account.log_equity - account.peak_log_equity)


def day_return(account: Account) -> jax.Array:
    """Return since the day's start, f32[]."""
    return jnp.expm1(account.log_equity - account.day_log_equity)


def account_vector(account: Account) -> jax.Array:
    """What a policy may know of the account, f32[3A + 3], as live trading reports it.

    weights[A], open_return[A], bars_held[A], drawdown, day_return, last_return.
    """
    scalars = jnp.stack([drawdown(account), day_return(account), account.last_return])
    return jnp.concatenate([account.weights, account.open_return, account.bars_held, scalars])


def _safe(divisor: jax.Array) -> jax.Array:
    """A divisor kept away from 0 where the step is ruin and the quotient is not used."""
    return jnp.where(divisor > MIN_GROWTH, divisor, 1.0)
