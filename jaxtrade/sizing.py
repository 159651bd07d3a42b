"""From a wanted exposure to an order. Written for `xp` = numpy or jax.numpy.

Environments pass `jax.numpy`, live trading passes `numpy`; a test holds the two equal.
"""

from types import ModuleType
from typing import Any


def delta_order(target: Any, weights: Any, no_trade_band: Any, *, xp: ModuleType) -> Any:
    """The exposure to trade, f32[A]: target minus weights, or 0 inside the band.

    target, weights: f32[A], position value over equity, signed. An order that closes a position
    is never held back by the band.
    """
    delta = target - weights
    wanted = (xp.abs(delta) > no_trade_band) | ((target == 0) & (weights != 0))
    return xp.where(wanted, delta, xp.zeros_like(delta))
