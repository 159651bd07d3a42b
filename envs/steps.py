"""The parts of a step between the action and the ledger, and between the ledger and the agent."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp

from jaxtrade import ledger, rewards
from jaxtrade.envs.actions import Request
from jaxtrade.envs.params import EnvParams
from jaxtrade.orders import Order
from jaxtrade.rules import Rules
from jaxtrade.sizing import delta_order, lots_order
from jaxtrade.tape import Bar

Recent = tuple[tuple[jax.Array, jax.Array], ...]
"""The target f32[A] and the return f32[] of some steps, the newest last."""

EXTRA_SCALE, EXTRA_BOUND = 20.0, 3.0
"""Of returns, and the bound of what the account leaf has beyond `features.account_features`."""


def committed(account: ledger.Account) -> jax.Array:
    """Exposures f32[A] once all orders under way are filled."""
    under_way = ledger.in_flight(account)
    return account.weights if under_way is None else account.weights + under_way


def order_for(
    account: ledger.Account, target: jax.Array, request: Request, bar: Bar, params: EnvParams
) -> Order:
    """The order that leads from what is held and under way to a target."""
    held, band = committed(account), params.no_trade_band
    least = 0.0 if params.minimum_order is None else params.minimum_order
    if params.rules.lot_size is None:
        quantity = delta_order(target, held, band, least, xp=jnp)
    else:
        lot = ledger.lot_value(account, bar.price, params.rules)
        under_way = ledger.in_flight(account)
        lots = account.lots
        if under_way is not None:
            lots = lots + jnp.round(under_way / lot).astype(jnp.int32)
        quantity = lots_order(target, lots, lot, band, least, xp=jnp).astype(jnp.float32) * lot
    return Order(quantity=quantity, limit=request.limit, stop=request.stop)


def unless_forced(request: Request, target: jax.Array, held: jax.Array, bar: Bar) -> Request:
    """The request, whose prices to wait for hold only for the order that was asked for: what the
    end of a session or the review wants closed, or turned round, is traded at the market.
    """
    if request.limit is None and request.stop is None:
        return request
    is_forced = (target == 0) & (request.exposure != 0)
    is_forced |= (request.exposure - held) * (target - held) < 0
    if bar.session_end is not None:
        is_forced |= bar.session_end > 0

    def free(level: jax.Array | None) -> jax.Array | None:
        return None if level is None else jnp.where(is_forced, jnp.nan, level)

    return replace(request, limit=free(request.limit), stop=free(request.stop))


def stop_distance(bar: Bar, rules: Rules) -> jax.Array | None:
    """From a new position's entry to its stop, a fraction of the price; None without a stop."""
    brackets = rules.brackets
    if brackets is None:
        return None
    distances = [d for d in (brackets.stop_loss, brackets.trailing) if d is not None]
    if not distances:
        return None
    nearest = functools.reduce(jnp.minimum, distances)
    return jnp.broadcast_to(brackets.reach(nearest, 1.0, bar), bar.close.shape)


def facts_of(
    before: ledger.Account, after: ledger.Account, move: ledger.Move, is_last: jax.Array
) -> rewards.Facts:
    """What a step did, for the reward."""
    return rewards.Facts(
        log_return=jnp.log1p(after.last_return),
        simple_return=after.last_return,
        cost=move.cost,
        carry=move.carry,
        turnover=jnp.abs(move.traded).sum(),
        gross=jnp.abs(after.weights).sum(),
        drawdown=ledger.drawdown(after),
        previous_drawdown=ledger.drawdown(before),
        is_ruined=after.is_ruined,
        is_last=is_last,
        log_equity=after.log_equity,
    )


def extra_features(account: ledger.Account, recent: Recent) -> list[jax.Array]:
    """What the account leaf has only under some rules, each f32[k], clipped."""
    extra = []
    under_way, memory = ledger.in_flight(account), account.memory
    if under_way is not None:
        extra.append(jnp.clip(under_way, -EXTRA_BOUND, EXTRA_BOUND))
    if memory is not None:
        extra.append((memory.cooldown > 0).astype(jnp.float32))
        extra.append(memory.is_halted.astype(jnp.float32)[None])
    for target, gained in recent:
        extra.append(jnp.clip(target, -EXTRA_BOUND, EXTRA_BOUND))
        extra.append(jnp.clip(gained * EXTRA_SCALE, -EXTRA_BOUND, EXTRA_BOUND)[None])
    return extra
