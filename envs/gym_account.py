"""The money of gym-trading-env 0.3.5: one account, one asset, targets traded at the close.

That package keeps units A, cash F and the interest owed in each, IA and IF, and writes the interest
anew at each step: IA = rate max(0, -A), IF = rate max(0, -F). So from one trade to the next the
value V = (A - IA) P + F - IF is linear in the price P, and the account is a single number, its real
position (A - IA) P / V. Here it is kept as that, and everything else over the value of the moment:
no price, no units, no large sums, so that float32 is enough. Measured against the package over
5,000 steps, while the real position is below 20: rewards within 2e-7, the value and real position
within 1e-6 of their size.
"""

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.ledger import add


@flax.struct.dataclass(kw_only=True)
class Account:
    """real_position: f32[]; log_value: f32[], of the value over the initial value, at ruin the last
    one above 0; position_error, log_value_error: f32[], what rounding has added to them too much;
    last_return: f32[], simple return of the last step; is_charged: bool[], interest has been
    written before; is_ruined: bool[], nothing or less is left.
    """

    real_position: jax.Array
    position_error: jax.Array
    log_value: jax.Array
    log_value_error: jax.Array
    last_return: jax.Array
    is_charged: jax.Array
    is_ruined: jax.Array


def open_account(position: jax.Array) -> Account:
    """An account at a position f32[], bought without a fee."""
    zero = jnp.float32(0.0)
    return Account(
        real_position=position,
        position_error=zero,
        log_value=zero,
        log_value_error=zero,
        last_return=zero,
        is_charged=jnp.bool_(False),
        is_ruined=jnp.bool_(False),
    )


def step(
    account: Account,
    position: jax.Array,
    is_trade: jax.Array,
    price_return: jax.Array,
    fee: jax.Array,
    rate: jax.Array,
) -> tuple[Account, jax.Array]:
    """Trade to `position` at the close if `is_trade`, then go to the next close.

    Without a trade `position` is the last one taken. Gives the account, and the fee over the value
    before.
    """
    written = jnp.where(account.is_charged, rate, 0.0)
    cost, owed = trade(account.real_position, position, fee, written)
    asset, gain = charge(position, owed, rate)
    is_new = is_trade | ~account.is_charged  # the first interest is written as after a trade
    cost = jnp.where(is_new, cost, 0.0)
    asset = jnp.where(is_new, asset, account.real_position)
    change = asset * price_return + jnp.where(is_new, gain, 0.0)

    moved = asset * (price_return - change) / _nonzero(1.0 + change)
    error = jnp.where(is_new, 0.0, account.position_error)
    real_position, position_error = add(asset, moved, error)
    total = change - cost - change * cost
    survived = (total > -1.0) & ~account.is_ruined
    growth = jnp.log1p(jnp.where(survived, total, 0.0))
    log_value, log_value_error = add(account.log_value, growth, account.log_value_error)
    account = Account(
        real_position=real_position,
        position_error=position_error,
        log_value=log_value,
        log_value_error=log_value_error,
        last_return=total,
        is_charged=jnp.bool_(True),
        is_ruined=~survived,
    )
    return account, cost


def value(account: Account) -> jax.Array:
    """The value over the initial value, 0 or less at ruin."""
    above_zero = jnp.exp(account.log_value) * (1.0 - account.log_value_error)
    return above_zero * jnp.where(account.is_ruined, 1.0 + account.last_return, 1.0)


def trade(
    held: jax.Array, position: jax.Array, fee: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Trade from a real position to a target position: the fee, and the interest still owed after.

    rate: of the interest written on the debt so far. The fee is over the value before, what is
    owed over the value after. Debt paid back takes its part of the interest with it.
    """
    owed = _debt(held) * rate / (1.0 + rate)
    weight = jnp.where(held < 0, held + owed, held)  # of the units alone; a short owes units
    pays = ((weight < 0) & (position <= 0)) | ((weight > 1) & (position >= 1))
    kept = jnp.minimum(_debt(position) / jnp.where(pays, _debt(weight), 1.0), 1.0)
    kept = jnp.where(pays, kept, 1.0)
    weight = weight - jnp.where(held < 0, (1.0 - kept) * owed, 0.0)
    order = position - weight
    # withheld from what is bought, the fee leaves exactly the target position
    size = order / jnp.where(order > 0, 1.0 - fee + fee * position, 1.0 - fee * position)
    cost = fee * jnp.abs(size)
    return cost, kept * owed / _nonzero(1.0 - cost)


def charge(position: jax.Array, owed: jax.Array, rate: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Write the interest anew on units worth `position`, in place of what is `owed`.

    Gives the asset less interest, and what the value gains.
    """
    in_units = rate * jnp.maximum(-position, 0.0)
    in_cash = rate * jnp.maximum(position - owed - 1.0, 0.0)
    return position - in_units, owed - in_units - in_cash


def _debt(weight: jax.Array) -> jax.Array:
    """What is borrowed, in units or in cash, at an asset's weight."""
    return jnp.maximum(jnp.maximum(-weight, weight - 1.0), 0.0)


def _nonzero(divisor: jax.Array) -> jax.Array:
    """A divisor, 1 where it is 0: only at ruin."""
    return jnp.where(divisor == 0, 1.0, divisor)
