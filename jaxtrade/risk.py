"""The risk review: from a requested to a permitted exposure.

The same function reviews inside the environment's step and inside the exported graph, so that
what was trained is what trades. It is stateless: the memory it needs (drawdown, the day's return)
belongs to the account.
"""

import jax
import jax.numpy as jnp

from jaxtrade.specs import BINDING_FLAGS, LIMIT_FIELDS

_BIT = {name: 1 << bit for bit, name in enumerate(BINDING_FLAGS)}


def review(
    requested: jax.Array,
    weights: jax.Array,
    mask: jax.Array,
    returns: tuple[jax.Array, jax.Array],
    limits: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The permitted target f32[A] and the limits that bound it, i32[] bits of `BINDING_FLAGS`.

    requested, weights: f32[A], wanted and present exposure; mask: f32[A], 1 where the asset may
    be traded now; returns: (drawdown, day_return) f32[], fractions of equity, the drawdown
    positive; limits: f32[5] in the order of `LIMIT_FIELDS`.

    A request that is not finite means hold. A masked asset keeps its weight, which counts towards
    gross and net: the others get what it leaves. Their order: each asset's cap, gross, net, then
    flat under the drawdown and daily-loss breakers.
    """
    drawdown, day_return = returns
    limit = {name: limits[i] for i, name in enumerate(LIMIT_FIELDS)}

    finite = jnp.isfinite(requested)
    wanted = jnp.where(finite, requested, weights)
    capped = jnp.clip(wanted, -limit["max_exposure"], limit["max_exposure"])
    masked = ~(mask > 0)
    held = jnp.where(masked, weights, 0.0)
    free = jnp.where(masked, 0.0, capped)
    gross = _shrink(jnp.abs(free).sum(), limit["max_gross"] - jnp.abs(held).sum())
    free_net = (free * gross).sum()
    net = _shrink(jnp.abs(free_net), limit["max_net"] - jnp.sign(free_net) * held.sum())
    in_drawdown = (limit["max_drawdown"] < 1) & (drawdown >= limit["max_drawdown"])
    lost_today = (limit["max_daily_loss"] < 1) & (day_return <= -limit["max_daily_loss"])
    flat = in_drawdown | lost_today
    bounded = jnp.where(flat, 0.0, capped * gross * net)
    target = jnp.where(masked, weights, bounded)

    binding = (
        _flag("not_finite", ~finite.all())
        + _flag("max_exposure", (wanted != capped).any())
        + _flag("max_gross", gross < 1)
        + _flag("max_net", net < 1)
        + _flag("max_drawdown", in_drawdown)
        + _flag("max_daily_loss", lost_today)
        + _flag("masked", (masked & (bounded != weights)).any())
    )
    return target, binding


def _shrink(amount: jax.Array, room: jax.Array) -> jax.Array:
    """The factor that brings `amount` within `room`: 1 where it already is, 0 without room."""
    exceeds = (amount > room) & (amount > 0)
    return jnp.where(exceeds, jnp.maximum(room, 0.0) / jnp.where(exceeds, amount, 1.0), 1.0)


def _flag(name: str, binds: jax.Array) -> jax.Array:
    return binds.astype(jnp.int32) * jnp.int32(_BIT[name])
