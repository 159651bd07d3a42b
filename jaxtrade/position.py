"""Positions inside one step: the gap, the trade and the hold, of which `ledger.step` is composed.

All amounts are fractions of the equity at the last close, all prices returns over that close.
"""

from dataclasses import replace

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade import brackets, impact
from jaxtrade.brackets import LIQUIDATION, NO_EXIT, STOP, TARGET, Levels
from jaxtrade.costs import carry_cost, half_spread, trade_cost
from jaxtrade.margin import NEVER, Margin, affordable, free_equity, liquidation_point
from jaxtrade.orders import Order, fill_price
from jaxtrade.rules import Rules
from jaxtrade.tape import Bar, Maybe

DUST = 1e-5
"""Exposure that is nothing: what rounding leaves of orders and positions that cancel out. It would
pay a minimum ticket, and have a stop of its own."""

_WHOLE = 1.0 + 1e-6
"""What is whole but for rounding is taken as whole."""


@flax.struct.dataclass(kw_only=True)
class Scene:
    """What a step happens in: the bar, the rules, the fraction of equity that one unit of quote
    currency is f32[], and that a lot is at the last close f32[A] (None without lots).
    """

    bar: Bar
    rules: Rules
    per_currency: jax.Array
    lot: Maybe


@flax.struct.dataclass(kw_only=True)
class Book:
    """Where a step stands: held f32[A], exposure at the last close; price f32[A], what it is marked
    at; gain f32[A], earned so far; cost, carry: f32[], paid so far.
    """

    held: jax.Array
    price: jax.Array
    gain: jax.Array
    cost: jax.Array
    carry: jax.Array

    @property
    def change(self) -> jax.Array:
        """Gain less what was paid, f32[]."""
        return self.gain.sum() - self.cost - self.carry

    @property
    def equity(self) -> jax.Array:
        """Equity at these prices, f32[]."""
        return 1.0 + self.change

    def marked(self, price: jax.Array) -> "Book":
        """The same positions at other prices."""
        gain = self.gain + self.held * (price - self.price)
        return replace(self, gain=gain, price=price)


@flax.struct.dataclass(kw_only=True)
class Fill:
    """A trade: the book after it and, with impact, the bar as it goes on from there; filled, rest:
    f32[A], exposure at the last close, what was taken of an order and what works on; price: f32[A];
    transient: f32[A], jump of the price that will die away; is_inside: bool[A], or None, filled at
    the order's own price; is_cut: bool[], to what the equity can back.
    """

    book: Book
    bar: Bar
    filled: jax.Array
    rest: Maybe
    price: jax.Array
    transient: Maybe
    is_inside: Maybe
    is_cut: jax.Array


@flax.struct.dataclass(kw_only=True)
class Hold:
    """The way to the close: the book at its end, with positions that ended there at their exit;
    code: i32[A], why they ended; price: f32[A], where.
    """

    book: Book
    code: jax.Array
    price: jax.Array


def with_dividends(book: Book, scene: Scene) -> Book:
    """Dividends of the positions held at the last close; short ones pay them."""
    if scene.bar.dividend is None:
        return book
    return replace(book, gain=book.gain + book.held * scene.bar.dividend)


def wipe_out(book: Book, scene: Scene) -> tuple[Book, jax.Array | None]:
    """Liquidate all at the present price if equity is no more than the maintenance requirement.

    Gives the book and bool[], whether it was; None without margin.
    """
    rules = scene.rules
    if rules.margin is None:
        return book, None
    free = free_equity(rules.margin, book.held, book.price, book.equity)
    is_wiped = (free <= 0) & (book.held != 0).any()
    closed = jnp.where(is_wiped, book.held, 0.0)
    cost = _liquidation_cost(rules.margin, scene, closed, book.price).sum()
    return replace(book, held=book.held - closed, cost=book.cost + cost), is_wiped


def trade(book: Book, order: Order, scene: Scene, *, column: str = "half_spread_open") -> Fill:
    """Fill an order at the book's prices, or at its own; `column` holds the spread of the moment.

    What the equity cannot back is cut, what the bar's volume cannot take goes on working.
    """
    rules, bar = scene.rules, scene.bar
    found = fill_price(order, book.price, half_spread(rules.costs, bar), bar)
    quantity, is_inside, is_passive = order.quantity, None, None
    if found is not None:
        quantity = jnp.where(found.is_filled, quantity, 0.0)
        is_inside, is_passive = found.is_inside, found.is_passive
        book = book.marked(found.price)

    quantity, rest, is_cut = _taken(book, quantity, scene)
    if rest is not None and found is not None:
        rest = jnp.where(_is_market(order), rest, 0.0)
    is_plain = rules.margin is None and rules.brackets is None and rules.impact is None
    if not is_plain:
        quantity = computed_once(quantity, bar)

    fee = trade_cost(
        rules.costs,
        bar,
        quantity,
        book.price,
        scene.per_currency,
        column=column,
        is_passive=is_passive,
        is_in_quote=is_inside,
    )
    transient = None
    held = _added(scene, book.held, quantity)
    if rules.impact is not None:
        value = quantity * (1.0 + book.price)
        capacity = bar.average_value * scene.per_currency
        if is_passive is not None:  # the others came to it
            value = jnp.where(is_passive, 0.0, value)
        rate, jump, transient = impact.strike(rules.impact, value, bar.volatility, capacity)
        fee += rate * jnp.abs(value)
        after = replace(book, held=held)
        after = after.marked(book.price + jump * (1.0 + book.price))
        bar = moved(bar, jump)
    else:
        after = replace(book, held=held)
    cost = book.cost + fee.sum()
    after = replace(after, cost=cost if is_plain else computed_once(cost, bar))
    return Fill(
        book=after,
        bar=bar,
        filled=quantity,
        rest=rest,
        price=book.price,
        transient=transient,
        is_inside=is_inside,
        is_cut=is_cut,
    )


def _taken(
    book: Book, wanted: jax.Array, scene: Scene
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """Of orders f32[A] what is filled, what works on (None if all is), and whether they were cut.

    The equity has to back them, the bar's volume to take them.
    """
    rules, quantity, rest = scene.rules, wanted, None
    if rules.margin is not None:
        backed = affordable(rules.margin, book.held, quantity, book.price, book.equity)
        quantity = _whole(scene, backed)
    is_cut = (jnp.abs(quantity - wanted) > DUST).any()
    if rules.participation is not None:
        most = rules.participation * scene.bar.volume_value * scene.per_currency
        filled = _whole(scene, jnp.clip(quantity, -most, most))
        rest, quantity = quantity - filled, filled
    return _without_dust(scene, book.held, quantity), rest, is_cut


def hold(
    book: Book,
    levels: Levels | None,
    start: jax.Array,
    is_inside: jax.Array | None,
    scene: Scene,
) -> Hold:
    """Take positions through a bar: carry, exits, liquidation, and the mark at the close.

    start: f32[A], where their path through the bar begins, the open or their entry;
    is_inside: bool[A], or None, positions entered inside the bar.
    """
    rules, bar = scene.rules, scene.bar
    carry = carry_cost(rules.costs, bar, book.held, book.price, book.equity)
    book = replace(book, carry=book.carry + carry)
    nothing = jnp.zeros_like(book.held)
    code, price, cost = nothing.astype(jnp.int32), bar.close, nothing
    point = nothing + NEVER
    if rules.brackets is None and rules.margin is None:
        return Hold(book=book.marked(price), code=code, price=price)

    side = jnp.sign(book.held)
    adverse = jnp.where(side > 0, bar.low, bar.high)
    if rules.brackets is not None and levels is not None:
        spread = half_spread(rules.costs, bar)
        found = brackets.check(rules.brackets, levels, side, start, spread, is_inside, bar)
        code = computed_once(found.code, bar)
        price = computed_once(jnp.where(code != NO_EXIT, found.price, price), bar)
        cost = _exit_cost(scene, book.held, code, price)
        reach = adverse - start
        way = (found.stop - start) / jnp.where(reach != 0, reach, 1.0)
        on_the_way = jnp.where(code == STOP, jnp.clip(way, 0.0, 1.0), NEVER)
        point = jnp.where(found.is_gap, 0.0, on_the_way)

    if rules.margin is not None:
        at_start = book.marked(start)
        gain = book.held * (price - start) - cost
        end = liquidation_point(
            rules.margin, book.held, start, adverse, at_start.equity, point, gain
        )
        end = computed_once(end, bar)
        is_liquidated = (end <= 1.0) & (point > end) & (side != 0)
        price = jnp.where(is_liquidated, start + end * (adverse - start), price)
        code = jnp.where(is_liquidated, LIQUIDATION, code)
        closed = jnp.where(is_liquidated, book.held, 0.0)
        cost = jnp.where(is_liquidated, _liquidation_cost(rules.margin, scene, closed, price), cost)

    marked = book.marked(price)
    return Hold(
        book=replace(
            marked, held=jnp.where(code != NO_EXIT, 0.0, book.held), cost=book.cost + cost.sum()
        ),
        code=code,
        price=price,
    )


def computed_once(value: jax.Array, bar: Bar) -> jax.Array:
    """The value itself, i32 or f32.

    XLA on CPUs computes again, for each result that needs it, what it takes for cheap; a division
    it takes for dear. So this one, by a 1 that it cannot know, keeps all that is above it from
    being computed for every leaf of the account.
    """
    one = 1.0 + 0.0 * bar.new_day
    dear = value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(one.dtype)
    return (dear / one).astype(value.dtype)


def moved(bar: Bar, change: jax.Array) -> Bar:
    """A bar whose prices are all another `change` f32[A] away, as a fraction of them."""

    def shifted(price: jax.Array) -> jax.Array:
        return price + change * (1.0 + price)

    return replace(
        bar,
        open=shifted(bar.open),
        high=shifted(bar.high),
        low=shifted(bar.low),
        close=shifted(bar.close),
    )


def _whole(scene: Scene, quantity: jax.Array) -> jax.Array:
    """Whole lots towards zero, where there are lots."""
    if scene.lot is None:
        return quantity
    return jnp.trunc(quantity / scene.lot * _WHOLE) * scene.lot


def _without_dust(scene: Scene, held: jax.Array, quantity: jax.Array) -> jax.Array:
    """The order, none if it is dust, and all of the position if dust would remain."""
    if scene.lot is not None:
        return quantity
    quantity = jnp.where(jnp.abs(held + quantity) > DUST, quantity, -held)
    return jnp.where(jnp.abs(quantity) > DUST, quantity, 0.0)


def _added(scene: Scene, held: jax.Array, quantity: jax.Array) -> jax.Array:
    """Exposure after a trade; a position that is closed is exactly 0."""
    if scene.lot is None:
        return held + quantity
    return (jnp.round(held / scene.lot) + jnp.round(quantity / scene.lot)) * scene.lot


def _is_market(order: Order) -> jax.Array:
    """Which orders wait for no price, bool[A]."""
    levels = [level for level in (order.limit, order.stop) if level is not None]
    return jnp.stack([~jnp.isfinite(level) for level in levels]).all(axis=0)


def _exit_cost(scene: Scene, held: jax.Array, code: jax.Array, price: jax.Array) -> jax.Array:
    """What brackets pay, f32[A]: their price is a bid or ask; a target waited, a stop slips."""
    return trade_cost(
        scene.rules.costs,
        scene.bar,
        jnp.where(code != NO_EXIT, held, 0.0),
        price,
        scene.per_currency,
        is_passive=code == TARGET,
        is_in_quote=code != NO_EXIT,
    )


def _liquidation_cost(
    margin: Margin, scene: Scene, closed: jax.Array, price: jax.Array
) -> jax.Array:
    """What closing positions by force costs, f32[A]."""
    fee = margin.liquidation_fee * jnp.abs(closed) * (1.0 + price)
    return fee + trade_cost(scene.rules.costs, scene.bar, closed, price, scene.per_currency)
