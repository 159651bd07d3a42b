"""What trading and holding cost. All rates are traced: vary them without a recompile.

A rate that is None is not there: it adds nothing to the program. Each rate is f32[], or f32[A]
where assets differ.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.specs import JaxtradeError
from jaxtrade.tape import Bar, Maybe


@flax.struct.dataclass(kw_only=True)
class Costs:
    """Rates of an account.

    Trading: commission_rate, of the traded value; maker_rate, the same for an order that waited
    for its price (below 0: a rebate); commission_per_unit, quote currency per unit of the asset,
    on top; minimum_ticket, the least commission of an order, quote currency; half_spread, half of
    bid to ask over the middle; slippage, of the traded value; volatility_slippage, the same in
    deviations of a bar's return.

    Holding, yearly: borrow_rate, on the value sold short; margin_rate, on negative cash;
    idle_rate, earned on cash that is not from short sales. Nightly: swap_long, swap_short, what
    the holder of one unit receives in quote currency (below 0: pays).
    """

    commission_rate: jax.Array
    half_spread: jax.Array
    borrow_rate: jax.Array
    margin_rate: jax.Array
    maker_rate: Maybe = None
    commission_per_unit: Maybe = None
    minimum_ticket: Maybe = None
    slippage: Maybe = None
    volatility_slippage: Maybe = None
    idle_rate: Maybe = None
    swap_long: Maybe = None
    swap_short: Maybe = None

    def columns(self) -> tuple[str, ...]:
        """The columns of the tape that these rates read."""
        needed = {
            "price": (self.commission_per_unit, self.swap_long, self.swap_short),
            "nights": (self.swap_long, self.swap_short),
            "volatility": (self.volatility_slippage,),
        }
        return tuple(name for name, rates in needed.items() if any(r is not None for r in rates))


_SIGNED = {"maker_rate": (-0.01, 1.0), "swap_long": None, "swap_short": None}
_UNBOUNDED = ("commission_per_unit", "minimum_ticket", "volatility_slippage")


def make_costs(
    *,
    commission_rate: Any = 1e-4,
    half_spread: Any = 1e-4,
    borrow_rate: Any = 0.03,
    margin_rate: Any = 0.05,
    **others: Any,
) -> Costs:
    """Costs from plain numbers, or one number per asset; `others` are the rates that may be None.

    Raises:
        JaxtradeError: a rate that is not one: negative, absurd, or of an unknown name.
    """
    rates = {
        "commission_rate": commission_rate,
        "half_spread": half_spread,
        "borrow_rate": borrow_rate,
        "margin_rate": margin_rate,
        **others,
    }
    known = [field.name for field in dataclasses.fields(Costs)]
    for name in rates:
        if name not in known:
            raise JaxtradeError(f"there is no rate {name!r}: there are {', '.join(known)}")
    rates = {name: rate for name, rate in rates.items() if rate is not None}
    for name, rate in rates.items():
        _check_rate(name, rate)
    if ("swap_long" in rates) != ("swap_short" in rates):
        raise JaxtradeError("swap_long and swap_short go together: give both, or neither")
    return Costs(**{name: jnp.asarray(rate, jnp.float32) for name, rate in rates.items()})


def changed_costs(costs: Costs, rates: Mapping[str, Any]) -> Costs:
    """`costs` with these rates in place of theirs; raises as `make_costs`."""
    own = {field.name: getattr(costs, field.name) for field in dataclasses.fields(Costs)}
    return make_costs(**{**own, **rates})


def _check_rate(name: str, rate: Any) -> None:
    """Raise JaxtradeError unless a rate, or each of an asset's, is in its range."""
    low, high = 0.0, 1.0
    if name in _SIGNED:
        low, high = _SIGNED[name] or (-np.inf, np.inf)
    elif name in _UNBOUNDED:
        high = np.inf
    try:
        values = np.asarray(rate, np.float64)
    except (TypeError, ValueError):
        values = np.asarray(np.nan)
    if values.ndim > 1 or not bool(((values >= low) & (values < high)).all()):
        right = f"from {low:g} to below {high:g}" if np.isfinite(high) else f"{low:g} or more"
        what = "a finite number" if np.isinf(low) else f"a number {right}"
        raise JaxtradeError(f"{name} is {rate}: give {what}, or one for each asset")


def trade_cost(
    costs: Costs,
    bar: Bar,
    quantity: jax.Array,
    price: jax.Array,
    per_currency: jax.Array,
    *,
    column: str = "half_spread_open",
    is_passive: jax.Array | None = None,
    is_in_quote: jax.Array | None = None,
) -> jax.Array:
    """Commission, spread and slippage of orders, f32[A], fractions of the equity at the last close.

    quantity: f32[A], exposure at the last close, signed; price: f32[A], of the fill, over that
    close minus one; per_currency: f32[], the fraction that one unit of quote currency is;
    column: of the tape that holds the spread of the moment;
    is_passive: bool[A], orders that waited for their price: they pay `maker_rate` and do not slip;
    is_in_quote: bool[A], orders whose price is a bid or ask already: they pay no spread.
    """
    value = jnp.abs(quantity) * (1.0 + price)
    rate = costs.commission_rate
    if is_passive is not None and costs.maker_rate is not None:
        rate = jnp.where(is_passive, costs.maker_rate, rate)
    commission = rate * value
    if costs.commission_per_unit is not None:
        commission += costs.commission_per_unit * jnp.abs(quantity) / bar.price
    if costs.minimum_ticket is not None:
        least = jnp.maximum(commission, costs.minimum_ticket * per_currency)
        is_bound = (quantity != 0) & (costs.minimum_ticket > 0)  # at 0 a rebate stays
        commission = jnp.where(is_bound, least, commission)

    spread = half_spread(costs, bar, column)
    if is_in_quote is not None:
        spread = jnp.where(is_in_quote, 0.0, spread)
    slipped = slippage(costs, bar)
    if slipped is None:
        return commission + spread * value
    if is_passive is not None:
        slipped = jnp.where(is_passive, 0.0, slipped)
    return commission + (spread + slipped) * value


def half_spread(costs: Costs, bar: Bar, column: str = "half_spread_open") -> jax.Array:
    """Half of bid to ask, over the middle, f32[] or f32[A]."""
    now = getattr(bar, column)
    return costs.half_spread if now is None else costs.half_spread + now


def slippage(costs: Costs, bar: Bar) -> jax.Array | None:
    """What an order that does not wait loses besides the spread, of its value; None if nothing."""
    parts = [] if costs.slippage is None else [costs.slippage]
    if costs.volatility_slippage is not None:
        parts.append(costs.volatility_slippage * bar.volatility)
    return sum(parts) if parts else None


def carry_cost(
    costs: Costs, bar: Bar, quantity: jax.Array, price: jax.Array, equity: jax.Array
) -> jax.Array:
    """What holding positions over a bar costs, f32[], a fraction of the equity at the last close.

    quantity: f32[A], exposure at the last close; price: f32[A], what it is held from, over that
    close minus one; equity: f32[], now. Interest compounds, because it is paid out of equity at
    every bar. Below 0: earned.
    """
    value = quantity * (1.0 + price)
    short = jnp.maximum(-value, 0.0)
    cash = equity - value.sum()
    yearly = (costs.borrow_rate * short).sum() + costs.margin_rate * jnp.maximum(-cash, 0.0)
    if costs.idle_rate is not None:
        yearly -= costs.idle_rate * jnp.maximum(cash - short.sum(), 0.0)
    carry = yearly * bar.years
    if bar.funding is not None:
        carry += (bar.funding * value).sum()
    if costs.swap_long is not None:
        swap = jnp.where(quantity > 0, costs.swap_long, costs.swap_short)
        carry -= (bar.nights * swap * jnp.abs(quantity) / bar.price).sum()
    return carry
