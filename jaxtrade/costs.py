"""What trading and holding cost. All rates are traced: vary them without a recompile."""

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.specs import JaxtradeError


@flax.struct.dataclass(kw_only=True)
class Costs:
    """Rates of an account; every leaf f32[].

    commission_rate and half_spread: fractions of traded value; borrow_rate: yearly rate on the
    value of assets sold short; margin_rate: yearly rate on negative cash.
    """

    commission_rate: jax.Array
    half_spread: jax.Array
    borrow_rate: jax.Array
    margin_rate: jax.Array


def make_costs(
    *,
    commission_rate: float = 1e-4,
    half_spread: float = 1e-4,
    borrow_rate: float = 0.03,
    margin_rate: float = 0.05,
) -> Costs:
    """Costs from plain numbers; a negative or absurd rate is refused."""
    rates = {
        "commission_rate": commission_rate,
        "half_spread": half_spread,
        "borrow_rate": borrow_rate,
        "margin_rate": margin_rate,
    }
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise JaxtradeError(f"{name} is {rate}: a rate is a fraction, from 0 to below 1")
    return Costs(**{name: jnp.float32(rate) for name, rate in rates.items()})


def trade_cost(costs: Costs, traded: jax.Array) -> jax.Array:
    """Cost of trading `traded` f32[A] (fractions of equity, signed), as a fraction of equity."""
    return (costs.commission_rate + costs.half_spread) * jnp.abs(traded).sum()


def carry_cost(costs: Costs, weights: jax.Array, years: jax.Array) -> jax.Array:
    """Interest on short positions and negative cash over `years`, as a fraction of equity.

    It compounds, because it is paid out of equity at every bar.
    """
    short = jnp.maximum(-weights, 0.0).sum()
    borrowed_cash = jnp.maximum(weights.sum() - 1.0, 0.0)
    return (costs.borrow_rate * short + costs.margin_rate * borrowed_cash) * years
