"""The risk review: from a requested to a permitted exposure.

The same function reviews inside the environment's step and inside the exported graph, so that
what was trained is what trades. It is stateless: what it needs of the past (drawdown, the day's
return, `Memory`) belongs to the account, which `remember` brings up to date after each bar.

    sized = size(requested, volatility, stop_distance, limits, bars_per_year=252)
    target, binding = review(requested, weights, mask, returns, limits, memory=memory, sized=sized)
    memory = remember(memory, drawdown, stopped, limits)    # after the next bar

A live engine whose graph has no memory gets the same breaker from its account's: while halted, it
tells the graph a `max_drawdown` of `drawdown_resume`.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.specs import BINDING_FLAGS, HARD_LIMITS, LIMIT_FIELDS, JaxtradeError

_TINY = 1e-15
"""Keeps a quotient finite, and its slope, where there is nothing to divide."""

_BELOW_ONE = 1.0 - 2.0**-24
"""No loss is as large as a breaker of 1, which is off: the float32 before 1."""

_MOST = 1e6
"""No request is scaled by more; any cap binds long before."""


@flax.struct.dataclass(kw_only=True)
class Memory:
    """What an account remembers for its review.

    is_halted: bool[], the drawdown breaker is out; cooldown: i32[A], decisions for which an asset
    may still not be opened or increased.
    """

    is_halted: jax.Array
    cooldown: jax.Array


def init_memory(num_assets: int) -> Memory:
    """Of a new account: nothing has happened."""
    return Memory(is_halted=jnp.zeros((), jnp.bool), cooldown=jnp.zeros(num_assets, jnp.int32))


def remember(memory: Memory, drawdown: jax.Array, stopped: jax.Array, limits: jax.Array) -> Memory:
    """The memory after a bar that ends with this drawdown f32[], fraction of equity, positive.

    stopped: bool[A], a stop closed the asset's position in this bar; its cooldown starts anew.
    limits: f32[10] in the order of `LIMIT_FIELDS`. The breaker comes out at `max_drawdown` and
    stays until the drawdown is back to `drawdown_resume`.
    """
    limit = _named(limits, need_all=True)
    loss = jnp.minimum(drawdown, _BELOW_ONE)
    resume = jnp.minimum(limit["drawdown_resume"], limit["max_drawdown"])
    bars = limit["cooldown_bars"].astype(jnp.int32)
    return Memory(
        is_halted=(loss >= limit["max_drawdown"]) | (memory.is_halted & (loss > resume)),
        cooldown=jnp.where(stopped, bars, jnp.maximum(memory.cooldown - 1, 0)),
    )


def size(
    requested: jax.Array,
    volatility: jax.Array | None,
    stop_distance: jax.Array | None,
    limits: jax.Array,
    *,
    bars_per_year: float | jax.Array,
) -> jax.Array:
    """The requested exposure f32[A] scaled by what it risks.

    volatility: f32[A], deviation of one bar's returns; stop_distance: f32[A], from entry to stop
    as a fraction of the price; either may be None, then its rule is left out. limits: f32[10] in
    the order of `LIMIT_FIELDS`.

    `target_volatility` over the yearly volatility, and `risk_per_trade` over the stop's distance:
    the smaller of the scales that are on; it may be above 1, the caps come later. A volatility of
    0 (nothing has moved) or a distance of 0 (no stop) says nothing; one that is not finite makes
    the request so, and the review then holds.
    """
    limit = _named(limits, need_all=True)
    scale = jnp.full_like(requested, jnp.inf)
    if volatility is not None:
        yearly = volatility * bars_per_year**0.5
        scale = jnp.minimum(scale, _scale(limit["target_volatility"], yearly))
    if stop_distance is not None:
        scale = jnp.minimum(scale, _scale(limit["risk_per_trade"], stop_distance))
    return requested * jnp.where(scale == jnp.inf, 1.0, scale)


def _scale(allowed: jax.Array, risked: jax.Array) -> jax.Array:
    """What is allowed f32[] over what is risked f32[A], infinite where the rule says nothing."""
    says = (allowed > 0) & (risked != 0)
    scale = jnp.minimum(allowed / jnp.abs(jnp.where(says, risked, 1.0)), _MOST)
    known = jnp.where(jnp.abs(risked) < jnp.inf, scale, jnp.nan)
    return jnp.where(says, known, jnp.inf)


def review(
    requested: jax.Array,
    weights: jax.Array,
    mask: jax.Array,
    returns: jax.Array | tuple[jax.Array, jax.Array],
    limits: jax.Array,
    *,
    memory: Memory | None = None,
    caps: jax.Array | None = None,
    sized: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The permitted target f32[A] and the limits that bound it, i32[] bits of `BINDING_FLAGS`.

    requested, weights: f32[A], wanted and present exposure; mask: f32[A], 1 where the asset may
    be traded now; returns: (drawdown, day_return) f32[2] or two f32[], fractions of equity,
    the drawdown positive; limits: f32[10] in the order of `LIMIT_FIELDS`, or the f32[5] of
    `HARD_LIMITS`, with which a breaker means flat. caps: f32[A], at least 0, caps of the assets
    beside `max_exposure`; sized: f32[A], the request after `size`, in its place.

    The order of the rules: what is not finite means hold; the size; each asset's cap; in cooldown
    no more than is held, on the same side; gross; net; the drawdown breaker leaves
    `drawdown_scale` of it, the daily-loss breaker nothing. A masked asset keeps its weight, which
    counts towards gross and net: the others get what it leaves.
    """
    limit = _named(limits, need_all=memory is not None)
    cap = limit["max_exposure"] if caps is None else jnp.minimum(limit["max_exposure"], caps)

    asked = requested if sized is None else sized
    is_number = jnp.abs(asked) < jnp.inf
    wanted = jnp.where(is_number, asked, weights)
    within = capped = jnp.clip(wanted, -cap, cap)
    if memory is not None:
        no_more = jnp.clip(within, jnp.minimum(weights, 0.0), jnp.maximum(weights, 0.0))
        capped = jnp.where(memory.cooldown > 0, no_more, within)
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
    calm = losses < limits[3:5]
    if memory is not None:
        calm = jnp.stack([calm[0] & ~memory.is_halted, calm[1]])
    if "drawdown_scale" in limit:
        scale = jnp.where(calm[0], 1.0, limit["drawdown_scale"])
        free, stuck = scale * free, scale * stuck
        is_open = calm[1].astype(jnp.float32)
    else:
        is_open = calm.all().astype(jnp.float32)
    target = free * jnp.minimum(jnp.minimum(gross_share, net_share), is_open) + held

    kept = {
        "not_finite": is_number.all(),
        "max_exposure": (wanted == within).all(),
        "max_gross": gross <= gross_room,
        "max_net": net_share >= gross_share,
        "max_drawdown": calm[0],
        "max_daily_loss": calm[1],
        "masked": (stuck * is_open == held).all(),
    }
    if memory is not None:
        kept["cooldown"] = (within == capped).all()
    if sized is not None:
        kept["size"] = ~(jnp.abs(sized) < jnp.abs(requested)).any()
    bits = np.asarray([1 << BINDING_FLAGS.index(name) for name in kept], np.int32)
    binds = ~jnp.stack(list(kept.values()))
    return target, (binds.astype(jnp.int32) * bits).sum()


def _named(limits: jax.Array, *, need_all: bool) -> dict[str, jax.Array]:
    """The limits f32[] by name: all, or where it is enough the hard ones alone."""
    enough = (LIMIT_FIELDS,) if need_all else (LIMIT_FIELDS, HARD_LIMITS)
    for names in enough:
        if limits.shape == (len(names),):
            return {name: limits[i] for i, name in enumerate(names)}
    shapes = " or ".join(f"({len(names)},)" for names in enough)
    raise JaxtradeError(f"limits have shape {limits.shape}: give {shapes}")
