"""The account and the two halves of a step: `fill` an order, `accrue` the bar.

Holdings are weights (position value over equity) and the logarithm of equity, summed with
compensation so that float32 stays within 1e-6 over tens of thousands of steps (Kahan, 1965).
Invariant: cash = 1 - sum of weights, so equity is one by construction and only its growth moves.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.costs import Costs, carry_cost, trade_cost

MIN_GROWTH = 1e-3
"""Ruin: the open, the trade, the way to the close or all of them leave no more than this fraction
of the equity. The step is then booked as this."""

_RUIN_LOG = math.log(MIN_GROWTH) + 1e-4  # float32 has the logarithm of a ruin within 1e-6


@flax.struct.dataclass(kw_only=True)
class Account:
    """One account of A assets.

    weights: f32[A]; open_return: f32[A], what each open position has earned since it was opened, as
    a sum of fractions of equity; bars_held: f32[A]; log_equity, log_equity_error: f32[], relative
    to the start;
    peak_log_equity, day_log_equity: f32[], highest so far and at the day's start;
    last_return: f32[], simple return of the last step; is_ruined: bool[].
    """

    weights: jax.Array
    open_return: jax.Array
    bars_held: jax.Array
    log_equity: jax.Array
    log_equity_error: jax.Array
    peak_log_equity: jax.Array
    day_log_equity: jax.Array
    last_return: jax.Array
    is_ruined: jax.Array


@flax.struct.dataclass(kw_only=True)
class Move:
    """What one step did to the equity; each a fraction of the equity just before it.

    gap: the old position's return from the last close to the open; cost: paid for trading at the
    open; inside: the new position's return from open to close, interest paid; interest: the part
    of `inside` paid as interest; traded: f32[A], signed; weights_before, weights_after: f32[A],
    exposure just before and just after trading.
    """

    gap: jax.Array
    cost: jax.Array
    inside: jax.Array
    interest: jax.Array
    traded: jax.Array
    weights_before: jax.Array
    weights_after: jax.Array


def open_account(num_assets: int) -> Account:
    """A flat account."""
    zero = jnp.float32(0.0)
    none = jnp.zeros(num_assets, jnp.float32)
    return Account(
        weights=none,
        open_return=none,
        bars_held=none,
        log_equity=zero,
        log_equity_error=zero,
        peak_log_equity=zero,
        day_log_equity=zero,
        last_return=zero,
        is_ruined=jnp.bool_(False),
    )


def next_open(
    account: Account, order: jax.Array, bar: jax.Array, years: jax.Array, costs: Costs
) -> tuple[Account, Move]:
    """One step under the `next_open` rule.

    order: f32[A], exposure to trade, sized at the last close; bar: f32[A, 4], the next bar over
    that close; years: f32[], since the last bar. The old position takes the gap, the order trades
    at the open, the new position earns open to close and pays interest.
    """
    opening, closing = bar[:, 0], bar[:, 3]
    weights, gap, cost, traded = fill(account.weights, order, opening, costs)
    inside_return = (closing - opening) / (1.0 + opening)
    marked, inside, interest = accrue(weights, inside_return, years, costs)
    move = Move(
        gap=gap,
        cost=cost,
        inside=inside,
        interest=interest,
        traded=traded,
        weights_before=account.weights * (1.0 + opening) / _safe(1.0 + gap),
        weights_after=weights,
    )
    return book(account, marked, move, bar), move


def fill(
    weights: jax.Array, order: jax.Array, price_move: jax.Array, costs: Costs
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Trade an order after the price has moved since it was sized.

    weights, order: f32[A], fractions of equity at the price the order was sized at; price_move:
    f32[A], return since then. Units are what was ordered, so the traded value moves with the
    price. Gives the new weights, the gap return, the cost (over equity after the gap), traded.
    """
    gap = (weights * price_move).sum()
    after_gap = _safe(1.0 + gap)
    scale = (1.0 + price_move) / after_gap
    traded = order * scale
    cost = trade_cost(costs, traded)
    # (weights + order) first: a closing order then leaves exactly 0, fused multiply-add or not
    return (weights + order) * scale / _safe(1.0 - cost), gap, cost, traded


def accrue(
    weights: jax.Array, returns: jax.Array, years: jax.Array, costs: Costs
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hold weights f32[A] through returns f32[A] and pay interest.

    Gives the weights at the end, the equity's return with interest, and the interest.
    """
    interest = carry_cost(costs, weights, years)
    change = (weights * returns).sum() - interest
    return weights * (1.0 + returns) / _safe(1.0 + change), change, interest


def book(account: Account, weights: jax.Array, move: Move, bar: jax.Array) -> Account:
    """The account after a move: equity with compensation, peaks, open positions, ruin."""
    gained = move.gap - move.cost - move.gap * move.cost
    total = gained + move.inside + gained * move.inside
    survived = (move.gap > MIN_GROWTH - 1) & (1.0 - move.cost > MIN_GROWTH)
    survived &= (move.inside > MIN_GROWTH - 1) & (total > MIN_GROWTH - 1)
    growth = jnp.where(survived, total, MIN_GROWTH - 1.0)
    log_growth = jnp.log1p(growth)
    # Read off the logarithm, which XLA computes once; the above it repeats for each leaf below.
    survived = log_growth > _RUIN_LOG
    increment = log_growth - account.log_equity_error
    log_equity = account.log_equity + increment
    error = (log_equity - account.log_equity) - increment

    after = jnp.where(survived, move.weights_after, 0.0)
    same_side = account.weights * after > 0
    kept = jnp.where(same_side, account.open_return + account.weights * bar[:, 0], 0.0)
    earned = kept + after * (bar[:, 3] - bar[:, 0]) / (1.0 + bar[:, 0])
    held = jnp.where(same_side, account.bars_held, 0.0) + 1.0
    return account.replace(  # type: ignore[attr-defined]
        weights=jnp.where(survived, weights, 0.0),
        open_return=jnp.where(after != 0, earned, 0.0),
        bars_held=jnp.where(after != 0, held, 0.0),
        log_equity=log_equity,
        log_equity_error=error,
        peak_log_equity=jnp.maximum(account.peak_log_equity, log_equity),
        last_return=growth,
        is_ruined=account.is_ruined | ~survived,
    )


def start_day(account: Account, is_new_day: jax.Array) -> Account:
    """Remember the equity at the start of a day; call before booking the day's first bar."""
    return account.replace(  # type: ignore[attr-defined]
        day_log_equity=jnp.where(is_new_day, account.log_equity, account.day_log_equity)
    )


def drawdown(account: Account) -> jax.Array:
    """Fraction of equity below its peak, f32[] in [0, 1]."""
    return -jnp.expm1(account.log_equity - account.peak_log_equity)


def day_return(account: Account) -> jax.Array:
    """Return since the day's start, f32[]."""
    return jnp.expm1(account.log_equity - account.day_log_equity)


def account_vector(account: Account) -> jax.Array:
    """What a policy may know of the account, f32[3A + 3], as live trading reports it.

    weights[A], open_return[A], bars_held[A], drawdown, day_return, last_return.
    """
    scalars = jnp.stack([drawdown(account), day_return(account), account.last_return])
    return jnp.concatenate([account.weights, account.open_return, account.bars_held, scalars])


def _safe(divisor: jax.Array) -> jax.Array:
    """A divisor kept away from 0 where the step is ruin and the quotient is not used."""
    return jnp.where(divisor > MIN_GROWTH, divisor, 1.0)
