"""The rules of a venue and a broker: what `ledger.step` applies to an account.

A rule that is None is not there, and costs nothing. What is there is traced, so that a population
may vary it; whether it is there, and `fill` and `latency`, are static.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.brackets import Brackets
from jaxtrade.costs import Costs, make_costs
from jaxtrade.impact import Impact
from jaxtrade.margin import Margin
from jaxtrade.specs import JaxtradeError, unknown_name
from jaxtrade.tape import Maybe

FILLS = ("next_open", "next_close", "close")
"""When an order trades; see `ledger.step`."""


@flax.struct.dataclass(kw_only=True)
class Rules:
    """How orders are filled, what they cost and what ends a position.

    deposit: f32[], equity at the start, quote currency; delay: f32[], part of the bar that passes
    before an order is at the market (next_open only); participation: f32[], the largest part of a
    bar's volume that an order takes, the rest goes on working; lot_size: f32[] or f32[A], units of
    a lot, of which whole numbers are traded; tick_size: the same, quote currency, of which the
    prices of orders are whole numbers away from the last close. Ticks, swap and commission per unit
    are measured at the prices of the data, also where impact has moved on from them.
    fill: one of `FILLS`; latency: whole bars that an order is under way.
    """

    costs: Costs
    deposit: jax.Array
    impact: Impact | None = None
    margin: Margin | None = None
    brackets: Brackets | None = None
    delay: Maybe = None
    participation: Maybe = None
    lot_size: Maybe = None
    tick_size: Maybe = None
    fill: str = flax.struct.field(pytree_node=False, default="next_open")
    latency: int = flax.struct.field(pytree_node=False, default=0)

    def columns(self) -> tuple[str, ...]:
        """The columns of the tape that these rules read, beyond those that are always there."""
        is_given = {
            "price": self.lot_size is not None or self.tick_size is not None,
            "volume_value": self.participation is not None,
            "average_value": self.impact is not None,
            "volatility": self.impact is not None,
        }
        if self.brackets is not None and self.brackets.in_price:
            is_given["price"] = True
        needed = {name for name, given in is_given.items() if given}
        return tuple(sorted(needed | set(self.costs.columns())))


def make_rules(
    *,
    costs: Costs | None = None,
    deposit: float = 100_000.0,
    fill: str = "next_open",
    latency: int = 0,
    delay: float | None = None,
    participation: float | None = None,
    lot_size: Any = None,
    tick_size: Any = None,
    impact: Impact | None = None,
    margin: Margin | None = None,
    brackets: Brackets | None = None,
) -> Rules:
    """Rules from plain numbers and the parts that `make_costs`, `make_impact`, ... build.

    Raises:
        JaxtradeError: a number out of range, or rules that exclude each other.
    """
    if fill not in FILLS:
        raise unknown_name("fill rule", fill, FILLS)
    if not isinstance(latency, int) or not 0 <= latency <= 1_000:
        raise JaxtradeError(f"latency is {latency!r}: give whole bars, 0 to 1000")
    if delay is not None and (fill != "next_open" or not 0 <= delay <= 1):
        raise JaxtradeError(f"delay is {delay}: give 0 to 1, and fill='next_open' (it is {fill!r})")
    if participation is not None and not 0 < participation <= 1:
        raise JaxtradeError(f"participation is {participation}: give a part above 0, up to 1")
    if not (np.isfinite(deposit) and deposit > 0):
        raise JaxtradeError(f"deposit is {deposit}: give an amount above 0")
    if impact is not None and lot_size is not None:
        raise JaxtradeError(
            "impact and lot_size exclude each other: lots are valued at the prices of the data, "
            "which impact moves"
        )
    for name, size in {"lot_size": lot_size, "tick_size": tick_size}.items():
        values = np.asarray(1.0 if size is None else size, np.float64)
        if values.ndim > 1 or not bool((np.isfinite(values) & (values > 0)).all()):
            raise JaxtradeError(f"{name} is {size}: give a number above 0, or one per asset")

    def leaf(value: Any) -> jax.Array | None:
        return None if value is None else jnp.asarray(value, jnp.float32)

    return Rules(
        costs=make_costs() if costs is None else costs,
        deposit=jnp.float32(deposit),
        impact=impact,
        margin=margin,
        brackets=brackets,
        delay=leaf(delay),
        participation=leaf(participation),
        lot_size=leaf(lot_size),
        tick_size=leaf(tick_size),
        fill=fill,
        latency=latency,
    )
