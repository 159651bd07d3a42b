"""Bounds of the plain numbers that parameters are built from."""

import operator
from collections.abc import Mapping
from typing import SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.specs import JaxtradeError

Bounds = Mapping[str, tuple[float, float]]


def scalars(bounds: Bounds, values: Mapping[str, float]) -> dict[str, jax.Array]:
    """The values as f32[] leaves, each within its bounds, both included.

    Raises:
        JaxtradeError: a value out of bounds, or no number.
    """
    for name, (low, high) in bounds.items():
        value = values[name]
        if not isinstance(value, int | float | np.number) or not low <= value <= high:
            raise JaxtradeError(
                f"synthetic market: {name} is {value!r}: give a number from {low:g} to {high:g}"
            )
    return {name: jnp.float32(values[name]) for name in bounds}


def whole_number(name: str, value: SupportsIndex, low: int, high: int) -> int:
    """The value as a Python int within bounds.

    Raises:
        JaxtradeError: no whole number, or out of bounds.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if not low <= number <= high:
        raise JaxtradeError(
            f"synthetic market: {name} is {value!r}: give a whole number from {low} to {high}"
        )
    return number
