"""Market impact: what an order moves, and what that costs it.

Each model gives, for an order of a `participation` x (its value over what trades in a bar on
average) and a bar's volatility s, a cost per traded value and a jump of the price:

square_root     I = coefficient s sqrt(x); cost 2/3 I, the mean of a square root along the order;
                jump `permanent` I (Almgren, Thum, Hauptmann, Li, "Direct estimation of equity
                market impact", 2005; Toth et al., Phys. Rev. X 1, 021006, 2011)
almgren_chriss  cost `fixed` + `temporary` s x, jump `permanent` s x, after the order's own fill
                (Almgren and Chriss, "Optimal execution of portfolio transactions", J. Risk 2001)
obizhaeva_wang  jump (permanent + transient) s x, of which an order pays half; the transient part
                dies away with `decay` a year (Obizhaeva and Wang, J. Financial Markets 16, 2013)

Positions are marked at the price that the order has moved: one that is built up in parts shows a
gain until it is sold. Parts of the price multiply while the law is linear, so that a round trip on
flat prices may earn to the second order of the jump: below 1e-4 for orders of a third of a bar's
volume, no longer small beyond it. Cap orders with `participation`.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.specs import JaxtradeError, unknown_name

MODELS = {
    "square_root": {"coefficient": 0.6, "permanent": 0.0},
    "almgren_chriss": {"fixed": 0.0, "temporary": 1.0, "permanent": 1.0},
    "obizhaeva_wang": {"permanent": 0.25, "transient": 0.75, "decay": 2_000.0},
}
"""The coefficients of each model and their defaults."""

MOST = 0.5
"""No order moves a price by more than this fraction, nor does what dies away add up to less than
minus it: prices stay above 0 where an order is many times what trades."""


@flax.struct.dataclass(kw_only=True)
class Impact:
    """model: a key of `MODELS`; coefficients: its f32[] or f32[A] by name, traced."""

    model: str = flax.struct.field(pytree_node=False)
    coefficients: dict[str, jax.Array]

    @property
    def is_transient(self) -> bool:
        """Whether a part of the impact dies away, which an account must remember."""
        return self.model == "obizhaeva_wang"


def make_impact(model: str, **coefficients: Any) -> Impact:
    """An impact model from plain numbers over its defaults.

    Raises:
        JaxtradeError: no such model or coefficient, one that is negative or not finite, or a
            permanent part so large that buying and selling back would earn.
    """
    if model not in MODELS:
        raise unknown_name("impact model", model, MODELS)
    for name, value in coefficients.items():
        if name not in MODELS[model]:
            raise unknown_name(f"coefficient of {model}", name, MODELS[model])
        values = np.asarray(value, np.float64)
        if values.ndim > 1 or not bool((np.isfinite(values) & (values >= 0)).all()):
            raise JaxtradeError(f"{model}: {name} is {value}: give a finite number, 0 or more")
    chosen = {**MODELS[model], **coefficients}
    most = {"square_root": 1.0, "almgren_chriss": 2.0 * np.asarray(chosen.get("temporary", 0.0))}
    if not bool((chosen["permanent"] <= np.asarray(most.get(model, np.inf))).all()):
        right = "at most 1" if model == "square_root" else "at most twice the temporary part"
        raise JaxtradeError(
            f"{model}: permanent is {chosen['permanent']}: give {right}, or round trips would earn"
        )
    return Impact(
        model=model,
        coefficients={name: jnp.asarray(value, jnp.float32) for name, value in chosen.items()},
    )


def strike(
    impact: Impact, value: jax.Array, volatility: jax.Array, capacity: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What orders of `value` f32[A] (signed) do: cost per traded value, jump, its transient part.

    volatility: f32[A], per bar; capacity: f32[A], what trades in a bar on average, in the units
    of `value`. Jumps are f32[A] fractions of the price, signed like the order, at most `MOST`.
    """
    cost, jump, transient = _laws(impact, value, volatility, capacity)
    part = MOST / jnp.maximum(jnp.abs(jump), MOST)
    return cost, part * jump, part * transient


def _laws(
    impact: Impact, value: jax.Array, volatility: jax.Array, capacity: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`strike` as the models have it, however large."""
    by = impact.coefficients
    participation = jnp.abs(value) / jnp.where(capacity > 0, capacity, 1.0)
    participation = jnp.where(capacity > 0, participation, 0.0)
    side, none = jnp.sign(value), jnp.zeros_like(value)
    if impact.model == "square_root":
        is_some = participation > 0
        root = jnp.where(is_some, jnp.sqrt(jnp.where(is_some, participation, 1.0)), 0.0)
        peak = by["coefficient"] * volatility * root
        return 2.0 / 3.0 * peak, side * by["permanent"] * peak, none
    if impact.model == "almgren_chriss":
        cost = by["fixed"] + by["temporary"] * volatility * participation
        return cost, side * by["permanent"] * volatility * participation, none
    transient = side * by["transient"] * volatility * participation
    jump = side * by["permanent"] * volatility * participation + transient
    return 0.5 * jnp.abs(jump), jump, transient


def added(displacement: jax.Array, transient: jax.Array) -> jax.Array:
    """The transient part of the price f32[A] after another jump of it."""
    return jnp.maximum(displacement + transient, -MOST)


def relax(impact: Impact, displacement: jax.Array, years: jax.Array) -> jax.Array:
    """What is left after a time of the transient part of the price f32[A]."""
    return displacement * jnp.exp(-impact.coefficients["decay"] * years)
