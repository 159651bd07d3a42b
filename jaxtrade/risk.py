"""The risk review: from a requested to a permitted exposure.

The same function reviews inside the environment's step and inside the exported graph, so that
what was trained is what trades. It is stateless: the memory it needs (drawdown, the day's return)
belongs to the account.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.specs import BINDING_FLAGS, LIMIT_FIELDS

_TINY = 1e-30
"""Keeps a quotient finite where there is nothing to divide."""

_BELOW_ONE = 1.0 - 2.0**-24
"""No loss is as large as a breaker of 1, which is off: the float32 before 1."""


def review(
    requested: jax.Array,
    weights: jax.Array,
    mask: jax.Array,
    returns: jax.Array | tuple[jax.Array, jax.Array],
    limits: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The permitted target f32[A] and the limits that bound it, i32[] bits of `BINDING_FLAGS`.

    requested, weights: f32[A], wanted and present exposure; mask: f32[A], 1 where the asset may
    be traded now; returns: (drawdown, day_return) f32[2] or two f32[], fractions of equity,
    the drawdown positive; limits: f32[5] in the order of `LIMIT_FIELDS`.

    A request that is not finite means hold. A masked asset keeps its weight, which counts towards
    gross and net: the others get what it leaves. Their order: each asset's cap, gross, net, then
    flat under the drawdown and daily-loss breakers.
    """
    limit = {name: limits[i] for i, name in enumerate(LIMIT_FIELDS)}
    cap = limit["max_exposure"]

    is_number = jnp.abs(requested) < jnp.inf
    wanted = jnp.where(is_number, requested, weights)
    capped = jnp.clip(wanted, -cap, cap)
    masked = (~(mask > 0)).astype(jnp.float32)
    held, stuck = masked * weights, masked * capped
    free = capped - stuck

    gross, net = jnp.abs(free).sum(), free.sum()
    gross_room, net_room = limit["max_gross"], limit["max_net"]
    if requested.shape[0] > 1:  # what masked assets hold is not there for the others
        gross_room = jnp.clip(gross_room - jnp.abs(held).sum(), 0.0)
        net_room = jnp.clip(net_room - jnp.sign(net) * held.sum(), 0.0)
    gross_share = jnp.clip(gross_room / jnp.clip(gross, _TINY), max=1.0)
    net_share = net_room / jnp.clip(jnp.abs(net), _TINY)

    losses = jnp.clip(jnp.asarray(returns) * np.asarray([1, -1], np.float32), max=_BELOW_ONE)
    calm = losses < limits[3:]
    is_open = calm.all().astype(jnp.float32)
    target = free * jnp.minimum(jnp.minimum(gross_share, net_share), is_open) + held

    kept = {
        "not_finite": is_number.all(),
        "max_exposure": (wanted == capped).all(),
        "max_gross": gross <= gross_room,
        "max_net": net_share >= gross_share,
        "max_drawdown": calm[0],
        "max_daily_loss": calm[1],
        "masked": (stuck * is_open == held).all(),
    }
    binds = ~jnp.stack([kept[name] for name in BINDING_FLAGS])
    bits = np.asarray([1 << bit for bit in range(len(kept))], np.int32)
    return target, (binds.astype(jnp.int32) * bits).sum()
