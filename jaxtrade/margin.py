"""Margin: what a position must be backed with, and how an account is liquidated.

Cross-margin: the whole equity backs all positions. Inside a bar every asset is taken to move from
where its path begins to its adverse extreme together with the others; positions with a stop on
the way leave there; at the first point where equity is no more than the maintenance requirement,
what is left is closed.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.specs import JaxtradeError

NEVER = 2.0
"""A point of the path beyond its end, which is 1."""


@flax.struct.dataclass(kw_only=True)
class Margin:
    """Fractions of a position's value, f32[] or f32[A].

    initial: needed to open or increase (1 / leverage); maintenance: below it the account is
    liquidated; liquidation_fee: paid then, on top of commission and spread.
    """

    initial: jax.Array
    maintenance: jax.Array
    liquidation_fee: jax.Array


def make_margin(
    *,
    max_leverage: Any = None,
    initial: Any = None,
    maintenance: Any = None,
    liquidation_fee: float = 0.0,
) -> Margin:
    """Margin from plain numbers or one per asset; `max_leverage` is 1 / `initial`.

    `maintenance` is by default half of `initial`.

    Raises:
        JaxtradeError: a leverage or requirement that is none, or maintenance above initial.
    """
    if (max_leverage is None) == (initial is None):
        raise JaxtradeError("margin: give either max_leverage or initial")
    if initial is None:
        leverage = np.asarray(max_leverage, np.float64)
        if not bool((np.isfinite(leverage) & (leverage > 0)).all()):
            raise JaxtradeError(f"max_leverage is {max_leverage}: give a number above 0")
        initial = 1.0 / leverage
    first = np.asarray(initial, np.float64)
    kept = first / 2.0 if maintenance is None else np.asarray(maintenance, np.float64)
    if first.ndim > 1 or not bool((np.isfinite(first) & (first > 0)).all()):
        raise JaxtradeError(f"initial margin is {initial}: give a fraction above 0")
    if kept.ndim > 1 or not bool(((kept >= 0) & (kept <= first) & (kept < 1)).all()):
        raise JaxtradeError(
            f"maintenance margin is {maintenance}: give a fraction from 0 to the initial one "
            "and below 1"
        )
    if not 0 <= liquidation_fee < 1:
        raise JaxtradeError(f"liquidation_fee is {liquidation_fee}: give 0 to below 1")
    return Margin(
        initial=jnp.asarray(first, jnp.float32),
        maintenance=jnp.asarray(kept, jnp.float32),
        liquidation_fee=jnp.float32(liquidation_fee),
    )


def affordable(
    margin: Margin, held: jax.Array, quantity: jax.Array, price: jax.Array, equity: jax.Array
) -> jax.Array:
    """The part of orders f32[A] that the equity f32[] can back: what reduces a position, all of
    it; what increases one, as far as the initial requirement allows, by the same share for all.

    held, quantity: f32[A], exposures at the last close; price: f32[A], over that close minus one.
    """
    opposes = held * quantity < 0
    reducing = jnp.where(
        opposes, -jnp.sign(held) * jnp.minimum(jnp.abs(held), jnp.abs(quantity)), 0.0
    )
    increasing = quantity - reducing
    needed = (margin.initial * (1.0 + price) * jnp.abs(increasing)).sum()
    taken = (margin.initial * (1.0 + price) * jnp.abs(held + reducing)).sum()
    share = jnp.clip((equity - taken) / jnp.where(needed > 0, needed, 1.0), 0.0, 1.0)
    return reducing + jnp.where(needed > 0, share, 1.0) * increasing


def free_equity(margin: Margin, held: jax.Array, price: jax.Array, equity: jax.Array) -> jax.Array:
    """Equity less the maintenance requirement, f32[]: at 0 or below the account is liquidated."""
    return equity - (margin.maintenance * (1.0 + price) * jnp.abs(held)).sum()


def liquidation_point(
    margin: Margin,
    held: jax.Array,
    start: jax.Array,
    adverse: jax.Array,
    equity: jax.Array,
    exit_point: jax.Array,
    exit_gain: jax.Array,
) -> jax.Array:
    """How far along the adverse path the account is liquidated, f32[]: 0 to 1, or 2 if it is not.

    held: f32[A], exposures at the last close; start, adverse: f32[A], ends of the path, prices
    over that close minus one; equity: f32[], at its start, all positions marked there;
    exit_point: f32[A], where on the path a position leaves by itself, 0 at its start, 2 never;
    exit_gain: f32[A], what that makes against its mark at the start, costs paid.

    Equity less requirement is linear between exits and falls, so it is enough to look just before
    and just after each of them. One asset has one exit, after which nothing is left to liquidate.
    """
    reach = adverse - start
    backing = margin.maintenance * jnp.abs(held)
    if held.shape[0] == 1:
        at_start = equity - (backing * (1.0 + start)).sum()
        fall = -((held - backing) * reach).sum()
        way = at_start / jnp.where(fall > 0, fall, 1.0)
        point = jnp.where((fall > 0) & (at_start <= fall), jnp.maximum(way, 0.0), NEVER)
        point = jnp.where(at_start <= 0, 0.0, point)
        return jnp.where(exit_point.sum() <= point, NEVER, point)

    def free(point: jax.Array, has_left: jax.Array) -> jax.Array:
        gain = jnp.where(has_left, exit_gain, held * reach * point)
        required = jnp.where(has_left, 0.0, backing * (1.0 + start + reach * point))
        return equity + (gain - required).sum()

    leaves_at_once = exit_point <= 0.0
    points = jnp.concatenate([jnp.minimum(exit_point, 1.0), jnp.ones(1, jnp.float32)])
    has_left = leaves_at_once[None] | (exit_point[None] < points[:, None])
    before = jax.vmap(free)(points, has_left)
    first = jnp.where(before <= 0.0, points, NEVER).min()
    last = jnp.where(points < first, points, 0.0).max()
    after = free(last, exit_point <= last)
    at_first = free(first, leaves_at_once | (exit_point < first))
    fall = after - at_first
    share = jnp.clip(after / jnp.where(fall > 0, fall, 1.0), 0.0, 1.0)
    point = last + (first - last) * share
    point = jnp.where(first < NEVER, point, NEVER)
    return jnp.where(free(jnp.float32(0.0), leaves_at_once) <= 0.0, 0.0, point)
