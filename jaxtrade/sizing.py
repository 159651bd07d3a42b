"""From a wanted exposure to an order. Written for `xp` = numpy or jax.numpy.

Environments pass `jax.numpy`, live trading passes `numpy`; a test holds the two equal, bit for bit.
That is also why thresholds are compared in lots: a product added to something may be fused into one
operation by a compiler, a quotient may not.
"""

from types import ModuleType
from typing import Any

TOLERANCE = 1e-6
"""A number this close to a whole one, relative to its size where that is above 1, is that: a target
of exactly three lots must not become two because float32 puts the quotient a little below 3."""

_MOST = 2.0**30
"""No more lots or ticks than this: sums of two still fit into an i32."""


def delta_order(
    target: Any, weights: Any, no_trade_band: Any, minimum_order: Any = 0.0, *, xp: ModuleType
) -> Any:
    """The exposure to trade, f32[A]: target minus weights, or 0 inside the band.

    target, weights: f32[A], position value over equity, signed. minimum_order: smallest exposure
    that can be traded, what is smaller is left. An order that closes a position is never held back
    by either.
    """
    delta = target - weights
    distance = xp.abs(delta)
    wanted = (distance > no_trade_band) & (distance >= minimum_order)
    wanted = wanted | ((target == 0) & (weights != 0))
    return xp.where(wanted, delta, xp.zeros_like(delta))


def lots_order(
    target: Any,
    lots: Any,
    lot_value: Any,
    no_trade_band: Any,
    minimum: Any = 0.0,
    *,
    xp: ModuleType,
) -> Any:
    """The whole lots to trade, i32[A].

    target: f32[A], exposure; lots: i32[A], held, signed; lot_value: f32[A], value of one lot over
    equity. The lots wanted are target / lot_value cut off towards zero (see `TOLERANCE`), so that
    their exposure is at most the target's.

    Nothing is traded while the exposure held is within the band of the target, or when the order
    is below the minimum, a traded exposure. A target of exactly 0 closes all lots, whatever band
    and minimum say. A target or lot value that is not a number, not above 0 (a lot value), or
    absurd (an exposure above a million) trades nothing.
    """
    is_known = (xp.abs(target) <= 1e6) & (lot_value > 1e-30) & (lot_value < xp.inf)
    one = xp.where(is_known, lot_value, xp.ones_like(lot_value))
    exact = xp.clip(xp.where(is_known, target, xp.zeros_like(target)) / one, -_MOST, _MOST)
    delta = _whole(exact, xp.trunc(exact), xp=xp) - lots

    distance = xp.abs(exact - lots.astype(xp.float32))
    size = xp.abs(delta).astype(xp.float32)
    is_worth_it = distance > no_trade_band / one * (1.0 + TOLERANCE)
    is_enough = size * (1.0 + TOLERANCE) >= minimum / one
    wanted = xp.where(is_known & is_worth_it & is_enough, delta, xp.zeros_like(delta))
    return xp.where(target == 0, -lots, wanted)


def ticks(offset: Any, price_in_ticks: Any, is_buy: Any, *, xp: ModuleType) -> Any:
    """The distance of a limit price from the price in whole ticks, i32[A], signed, up positive.

    offset: f32[A], of the wanted limit, as a fraction of the price; price_in_ticks: f32[A] or
    i32[A]; is_buy: bool[A]. It is rounded to the passive side, a buy's limit down and a sale's up
    (see `TOLERANCE`): the order never pays more than it was allowed to. An offset that is not
    finite puts the limit as far away as there is.
    """
    exact = offset * price_in_ticks.astype(xp.float32)
    side = xp.where(is_buy, xp.float32(-_MOST), xp.float32(_MOST))
    exact = xp.where(xp.isfinite(exact), xp.clip(exact, -_MOST, _MOST), side)
    return _whole(exact, xp.where(is_buy, xp.floor(exact), xp.ceil(exact)), xp=xp)


def _whole(exact: Any, rounded: Any, *, xp: ModuleType) -> Any:
    """The nearest whole number where it is within the tolerance, otherwise `rounded`; i32."""
    nearest = xp.rint(exact)
    is_near = xp.abs(exact - nearest) <= TOLERANCE * xp.maximum(xp.abs(exact), xp.float32(1.0))
    return xp.where(is_near, nearest, rounded).astype(xp.int32)
