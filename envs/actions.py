"""What an action means: from an agent's choice to a requested exposure, and perhaps a price.

Each kind is a frozen value with `space(num_assets)`, the gymnax space of its actions, and
`read(action, held)`, what an action asks for: exposures f32[A] as fractions of equity, NaN where
it asks for nothing (hold). An index that is none holds; a number out of range is clipped.
"""

import dataclasses
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from jaxtrade.spaces import MultiDiscrete, Simplex
from jaxtrade.specs import ActionSpec, JaxtradeError


@flax.struct.dataclass(kw_only=True)
class Request:
    """exposure: f32[A], wanted, NaN for hold; limit, stop: f32[A] or None, prices to wait for, over
    the last close minus one; invalid, clipped: i32[], how many of an action's numbers were none,
    and out of range.
    """

    exposure: jax.Array
    limit: jax.Array | None = None
    stop: jax.Array | None = None
    invalid: jax.Array
    clipped: jax.Array


class Actions(Protocol):
    """A kind of action."""

    @property
    def spec(self) -> ActionSpec:
        """The kind in plain numbers, as a policy's bundle keeps it.

        Raises:
            JaxtradeError: a decision has no word for such actions.
        """

    def space(self, num_assets: int) -> Any:
        """The space of actions for A assets."""

    def exposure(self, action: jax.Array) -> jax.Array:
        """The exposures f32[A] of an action that a policy's head has chosen: one in range."""

    def read(self, action: jax.Array, held: jax.Array) -> Request:
        """What any action asks for; held: f32[A], exposures now, orders under way included."""


@dataclasses.dataclass(frozen=True)
class Levels:
    """One of several exposures, by index: i32[] for one asset, i32[A] for several."""

    levels: tuple[float, ...] = (-1.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        levels = tuple(map(float, self.levels))
        object.__setattr__(self, "levels", levels)  # equal and hashable, however they were given
        if len(levels) < 2 or len(set(levels)) < len(levels) or not np.isfinite(levels).all():
            raise JaxtradeError(
                f"levels are {levels}: give at least two different target exposures, as (-1, 0, 1)"
            )

    @property
    def spec(self) -> ActionSpec:
        """The levels."""
        return ActionSpec(kind="levels", numbers=self.levels)

    def space(self, num_assets: int) -> Any:
        """An index, or one for each asset."""
        if num_assets == 1:
            return spaces.Discrete(len(self.levels))
        return MultiDiscrete((len(self.levels),) * num_assets)

    def exposure(self, action: jax.Array) -> jax.Array:
        """See `Actions`."""
        levels = jnp.asarray(self.levels, jnp.float32).at[action.reshape(-1)]
        return levels.get(mode="promise_in_bounds", wrap_negative_indices=False)

    def read(self, action: jax.Array, held: jax.Array) -> Request:
        """The levels at these indices."""
        chosen = jnp.broadcast_to(action, held.shape)
        levels = jnp.asarray(self.levels, jnp.float32).at[chosen]
        exposure = levels.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        return Request(exposure=exposure, invalid=_count(exposure != exposure), clipped=_none())


@dataclasses.dataclass(frozen=True)
class Exposure:
    """Any exposure from `low` to `high`: f32[A]."""

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not -np.inf < self.low < self.high < np.inf:
            raise JaxtradeError(f"exposures from {self.low} to {self.high}: give low < high")

    @property
    def spec(self) -> ActionSpec:
        """The bounds."""
        return ActionSpec(kind="exposure", numbers=(self.low, self.high))

    def space(self, num_assets: int) -> Any:
        """A box."""
        return spaces.Box(self.low, self.high, (num_assets,), jnp.float32)

    def exposure(self, action: jax.Array) -> jax.Array:
        """See `Actions`; rounding may have taken it past a bound."""
        return jnp.clip(action, self.low, self.high)

    def read(self, action: jax.Array, held: jax.Array) -> Request:
        """The exposures themselves."""
        wanted = jnp.broadcast_to(jnp.asarray(action, jnp.float32), held.shape)
        is_number = jnp.abs(wanted) < jnp.inf
        exposure = self.exposure(jnp.where(is_number, wanted, 0.0))
        return Request(
            exposure=jnp.where(is_number, exposure, jnp.nan),
            invalid=_count(~is_number),
            clipped=_count(is_number & (exposure != wanted)),
        )


@dataclasses.dataclass(frozen=True)
class Weights:
    """A portfolio: f32[A + 1], shares of the assets and of cash, at least 0, taken over their sum.

    With `long_short` f32[A] from -1 to 1, scaled down so that absolute weights sum to `gross`.
    """

    long_short: bool = False
    gross: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.gross < np.inf:
            raise JaxtradeError(f"gross is {self.gross}: give a finite number above 0")

    @property
    def spec(self) -> ActionSpec:
        """The gross."""
        kind = "long_short" if self.long_short else "weights"
        return ActionSpec(kind=kind, numbers=(self.gross,))

    def space(self, num_assets: int) -> Any:
        """Shares, or a box; of shares what matters is the ratio."""
        if self.long_short:
            return spaces.Box(-1.0, 1.0, (num_assets,), jnp.float32)
        return Simplex(num_assets + 1)

    def exposure(self, action: jax.Array) -> jax.Array:
        """See `Actions`; without any share above 0, all cash."""
        total = jnp.abs(action).sum()
        if self.long_short:
            return action * self.gross / jnp.maximum(total, 1.0)
        return action[:-1] * self.gross / jnp.where(total > 0, total, 1.0)

    def read(self, action: jax.Array, held: jax.Array) -> Request:
        """The weights."""
        given = jnp.asarray(action, jnp.float32)
        is_number = jnp.abs(given) < jnp.inf
        lowest = -1.0 if self.long_short else 0.0
        shares = jnp.clip(jnp.where(is_number, given, 0.0), lowest, 1.0)
        return Request(
            exposure=jnp.where(is_number.all(), self.exposure(shares), jnp.nan),
            invalid=_count(~is_number),
            clipped=_count(is_number & (shares != given)),
        )


@dataclasses.dataclass(frozen=True)
class PricedOrders:
    """A price and a quantity: i32[2], indices into `offsets` and `quantities`; one asset.

    An offset is the distance from the last close, a fraction of it: a limit order waits that much
    below it to buy, above it to sell; with `stop` a stop order that much above it to buy, below it
    to sell. A quantity is an exposure to add, signed; 0 is no order. What is not filled in the
    next bar lapses.
    """

    offsets: tuple[float, ...] = (0.0, 5e-4, 1e-3, 2e-3)
    quantities: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    stop: bool = False

    def __post_init__(self) -> None:
        for name in ("offsets", "quantities"):
            values = tuple(map(float, getattr(self, name)))
            object.__setattr__(self, name, values)
            if not values or len(set(values)) < len(values) or not np.isfinite(values).all():
                raise JaxtradeError(f"{name} are {values}: give different finite numbers")
        if min(self.offsets) < 0 or max(self.offsets) >= 1:
            raise JaxtradeError(f"offsets are {self.offsets}: give fractions from 0 to below 1")

    @property
    def spec(self) -> ActionSpec:
        """There is none: a decision is exposures alone."""
        raise JaxtradeError(f"a decision has no prices: no policy can be made of {self}")

    def exposure(self, action: jax.Array) -> jax.Array:
        """There is none without a price."""
        raise JaxtradeError(f"a decision has no prices: no policy can be made of {self}")

    def space(self, num_assets: int) -> Any:
        """Two indices."""
        if num_assets != 1:
            raise JaxtradeError(f"priced orders are for one asset, there are {num_assets}")
        return MultiDiscrete((len(self.offsets), len(self.quantities)))

    def read(self, action: jax.Array, held: jax.Array) -> Request:
        """The exposure after the order, and its price."""
        price, size = action[0], action[1]
        offset = _at(self.offsets, price)
        quantity = _at(self.quantities, size)
        is_none = (offset != offset) | (quantity != quantity)
        is_order = ~is_none & (quantity != 0)
        side = jnp.sign(quantity) if self.stop else -jnp.sign(quantity)
        level = jnp.where(is_order, side * offset, jnp.nan)[None]
        return Request(
            exposure=jnp.where(is_order, held + quantity, jnp.nan),
            limit=None if self.stop else level,
            stop=level if self.stop else None,
            invalid=_count(is_none),
            clipped=_none(),
        )


def _at(values: tuple[float, ...], index: jax.Array) -> jax.Array:
    """One of some numbers, NaN where there is no such index."""
    table = jnp.asarray(values, jnp.float32).at[index]
    return table.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def _count(bad: jax.Array) -> jax.Array:
    return bad.sum(dtype=jnp.int32)


def _none() -> jax.Array:
    return jnp.int32(0)
