"""Exits that wait at a price: stop-loss, take-profit and trailing stop, attached to a position.

Levels are kept relative to the last close, as prices of bars are, and move with it. A long position
closes at the bid, a short one at the ask. Within a bar a gap through a level comes first, at the
open, then the stop, then the target: the worse of what the bar allows.
"""

from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.sizing import ticks
from jaxtrade.specs import JaxtradeError
from jaxtrade.tape import Bar, Maybe

NO_EXIT, STOP, TARGET, LIQUIDATION = range(4)
"""Why a position ended inside a bar."""


@flax.struct.dataclass(kw_only=True)
class Brackets:
    """Distances from the price of the entry: f32[] or f32[A], a fraction of it; None is none.

    With `in_price` (static) they are in quote currency instead, as pips are.
    """

    stop_loss: Maybe = None
    take_profit: Maybe = None
    trailing: Maybe = None
    in_price: bool = flax.struct.field(pytree_node=False, default=False)

    def reach(self, distance: jax.Array, price: jax.Array | float, bar: Bar) -> jax.Array:
        """A distance from a price, in closes before the bar, as a fraction of that close."""
        return distance / bar.price if self.in_price else distance * price


@flax.struct.dataclass(kw_only=True)
class Levels:
    """Prices at which positions end, over the last close minus one, f32[A]; None is none.

    stop, target: fixed; best: the best price since the entry, from which the stop trails.
    """

    stop: Maybe = None
    target: Maybe = None
    best: Maybe = None


@flax.struct.dataclass(kw_only=True)
class Exit:
    """What brackets do in a bar: code i32[A], `NO_EXIT`, `STOP` or `TARGET`; price f32[A], of the
    exit, over the last close minus one; is_gap: bool[A], it was at the start of the path;
    stop: f32[A], the level of the stop there is, in the middle of bid and ask.
    """

    code: jax.Array
    price: jax.Array
    is_gap: jax.Array
    stop: jax.Array


def make_brackets(
    *,
    stop_loss: Any = None,
    take_profit: Any = None,
    trailing: Any = None,
    in_price: bool = False,
) -> Brackets | None:
    """Brackets from plain numbers or one per asset; None if no distance is given.

    Raises:
        JaxtradeError: a distance that is not above 0, or a stop that a price cannot reach.
    """
    given = {"stop_loss": stop_loss, "take_profit": take_profit, "trailing": trailing}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        values = np.asarray(value, np.float64)
        below = np.inf if in_price or name == "take_profit" else 1.0
        if values.ndim > 1 or not bool(((values > 0) & (values < below)).all()):
            right = "above 0" if np.isinf(below) else "above 0 and below 1"
            raise JaxtradeError(f"{name} is {value}: give a distance {right}, or one per asset")
    if not given:
        return None
    levels = {name: jnp.asarray(value, jnp.float32) for name, value in given.items()}
    return Brackets(**levels, in_price=in_price)


def no_levels(brackets: Brackets, num_assets: int) -> Levels:
    """The levels of an account without positions."""
    none = jnp.zeros(num_assets, jnp.float32)
    return Levels(
        stop=None if brackets.stop_loss is None else none,
        target=None if brackets.take_profit is None else none,
        best=None if brackets.trailing is None else none,
    )


def attach(
    brackets: Brackets,
    levels: Levels,
    side: jax.Array,
    entry: jax.Array,
    is_new: jax.Array,
    bar: Bar,
    tick_size: jax.Array | None,
) -> Levels:
    """The levels after a trade: those of a new position from its entry price, the others as before.

    side: f32[A], the position's sign; entry: f32[A], the fill price over the last close minus one;
    is_new: bool[A], opened or turned round by this trade.
    """

    def at(distance: jax.Array, direction: jax.Array) -> jax.Array:
        level = entry + direction * brackets.reach(distance, 1.0 + entry, bar)
        return level if tick_size is None else to_tick(level, direction < 0, bar, tick_size)

    stop, target, best = levels.stop, levels.target, levels.best
    if brackets.stop_loss is not None:
        stop = jnp.where(is_new, at(brackets.stop_loss, -side), stop)
    if brackets.take_profit is not None:
        target = jnp.where(is_new, at(brackets.take_profit, side), target)
    if brackets.trailing is not None:
        best = jnp.where(is_new, entry, best)
    return Levels(stop=stop, target=target, best=best)


def to_tick(level: jax.Array, down: jax.Array, bar: Bar, tick_size: jax.Array) -> jax.Array:
    """A level f32[A] moved to a whole number of ticks from the last close, down or else up."""
    price_in_ticks = bar.price / tick_size
    return ticks(level, price_in_ticks, down, xp=jnp).astype(jnp.float32) / price_in_ticks


def check(
    brackets: Brackets,
    levels: Levels,
    side: jax.Array,
    start: jax.Array,
    half_spread: jax.Array,
    is_inside: jax.Array | None,
    bar: Bar,
) -> Exit:
    """Which positions end in a bar, and where.

    side: f32[A], sign of the position; start: f32[A], where its path through the bar begins;
    is_inside: bool[A], positions that a waiting order opened inside the bar: what the bar reached
    in their favour may have been before, so that their target looks at the close alone.
    """

    def quote(price: jax.Array) -> jax.Array:
        return price - side * half_spread * (1.0 + price)

    adverse = jnp.where(side > 0, bar.low, bar.high)
    favour = jnp.where(side > 0, bar.high, bar.low)
    if is_inside is not None:
        favour = jnp.where(is_inside, bar.close, favour)
    first, is_open = quote(start), side != 0

    stop = effective_stop(brackets, levels, side, bar)
    gaps = jnp.zeros_like(is_open)
    code = jnp.zeros_like(side, jnp.int32)
    price = first
    if levels.target is not None:
        gaps |= side * (first - levels.target) >= 0
        hit = side * (quote(favour) - levels.target) > 0
        code = jnp.where(hit | gaps, TARGET, code)
        price = jnp.where(hit, levels.target, price)
    if stop is not None:
        gapped = side * (first - stop) <= 0
        hit = (side * (quote(adverse) - stop) <= 0) & ~gaps
        code = jnp.where(hit | gapped, STOP, code)
        price = jnp.where(hit, stop, price)
        gaps |= gapped
    code = jnp.where(is_open, code, NO_EXIT)
    middle = adverse if stop is None else (stop + side * half_spread) / (1.0 - side * half_spread)
    return Exit(
        code=code,
        price=jnp.where(gaps, first, price),
        is_gap=gaps & is_open,
        stop=middle,
    )


def effective_stop(
    brackets: Brackets, levels: Levels, side: jax.Array, bar: Bar
) -> jax.Array | None:
    """The nearer of the fixed and the trailing stop, f32[A]; None if there is neither."""
    if levels.best is None:
        return levels.stop
    trail = levels.best - side * brackets.reach(brackets.trailing, 1.0 + levels.best, bar)
    if levels.stop is None:
        return trail
    return side * jnp.maximum(side * levels.stop, side * trail)


def seen(levels: Levels, side: jax.Array, is_inside: jax.Array | None, bar: Bar) -> Levels:
    """The levels when a bar is over: the best price has seen it.

    Of a bar inside which a waiting order opened the position (is_inside, bool[A]) it is the close.
    """
    if levels.best is None:
        return levels
    reached = jnp.where(side > 0, bar.high, bar.low)
    if is_inside is not None:
        reached = jnp.where(is_inside, bar.close, reached)
    best = side * jnp.maximum(side * levels.best, side * reached)
    return replace(levels, best=best)


def rebased(levels: Levels, bar: Bar) -> Levels:
    """The levels over the close of a bar instead of the close before it."""

    def over(price: jax.Array | None) -> jax.Array | None:
        return None if price is None else (price - bar.close) / (1.0 + bar.close)

    return Levels(stop=over(levels.stop), target=over(levels.target), best=over(levels.best))
