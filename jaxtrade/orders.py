"""Orders, and at which price of a bar they fill.

A buy deals at the ask, a sell at the bid. A limit order fills inside the bar when the bar trades
through it, a stop order when the bar touches it, both at their own price; each fills at the open
where the open is already there. What is not filled by the end of the bar lapses.
"""

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.tape import Bar


@flax.struct.dataclass(kw_only=True)
class Order:
    """Orders in A assets.

    quantity: f32[A], exposure to trade, signed, a fraction of equity at the last close; as units
    it stays what it is while prices move. limit, stop: f32[A], price over the last close minus
    one, NaN for none; without either it is a market order.
    """

    quantity: jax.Array
    limit: jax.Array | None = None
    stop: jax.Array | None = None


@flax.struct.dataclass(kw_only=True)
class FillPrice:
    """is_filled: bool[A]; price: f32[A], over the last close minus one; is_inside: bool[A], at the
    order's own price inside the bar, which is a bid or an ask; is_passive: bool[A], of these the
    limit orders.
    """

    is_filled: jax.Array
    price: jax.Array
    is_inside: jax.Array
    is_passive: jax.Array


def fill_price(
    order: Order, market: jax.Array, half_spread: jax.Array, bar: Bar
) -> FillPrice | None:
    """Where orders fill in a bar, if they are not all market orders, which fill at `market` f32[A].

    half_spread: f32[] or f32[A], of the middle price.
    """
    if order.limit is None and order.stop is None:
        return None
    side = jnp.sign(order.quantity)

    def past(price: jax.Array, level: jax.Array) -> jax.Array:
        """How far a price, as a bid or ask, is above a level for a buy, below it for a sell."""
        return side * (price + side * half_spread * (1.0 + price) - level)

    nothing = jnp.zeros_like(side, bool)
    is_filled, price, is_passive, is_inside = ~nothing, market, nothing, nothing
    if order.limit is not None:
        is_limit = jnp.isfinite(order.limit)
        level = jnp.where(is_limit, order.limit, 0.0)
        is_there = past(bar.open, level) <= 0
        is_through = past(jnp.where(side > 0, bar.low, bar.high), level) < 0
        is_passive = is_limit & ~is_there & is_through
        is_filled = ~is_limit | is_there | is_through
        is_inside = is_passive
        price = jnp.where(is_limit, jnp.where(is_passive, level, bar.open), price)
    if order.stop is not None:
        is_stop = jnp.isfinite(order.stop)
        level = jnp.where(is_stop, order.stop, 0.0)
        is_there = past(bar.open, level) >= 0
        is_hit = past(jnp.where(side > 0, bar.high, bar.low), level) >= 0
        is_triggered = is_stop & ~is_there & is_hit
        is_filled &= ~is_stop | is_there | is_hit
        is_inside = is_inside | is_triggered
        price = jnp.where(is_stop, jnp.where(is_triggered, level, bar.open), price)
    return FillPrice(is_filled=is_filled, price=price, is_inside=is_inside, is_passive=is_passive)
