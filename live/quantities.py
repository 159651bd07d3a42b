"""From target exposures to units in whole steps, as the backtest's orders are sized."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from jaxtrade.live import single
from jaxtrade.live.executions import EXACT
from jaxtrade.live.scene import Flow, Scene, Terms, is_price, whole

DUST = 1e-5
"""Exposure that is nothing, where there are no lots; as in `position`."""

FINE_STEPS = 2.0**23
"""Of more steps than this a position is not counted in lots: float32 does not tell them apart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sized:
    """A symbol whose order is to be sized: exposures wanted and held, of one step and of the least
    that can be ordered; step: units; committed: units held.
    """

    symbol: str
    target: float
    weight: float
    lot: float
    least: float
    step: Decimal
    committed: Decimal

    @property
    def is_fine(self) -> bool:
        """Whether steps are too small to be counted."""
        return max(abs(self.target), abs(self.weight)) > FINE_STEPS * self.lot


def quantities(
    terms: Terms,
    targets: Mapping[str, float],
    flows: Mapping[str, Flow],
    scene: Scene,
    *,
    is_reducing: bool,
) -> tuple[dict[str, Decimal], dict[str, str]]:
    """Signed units to trade, none of them 0, by symbol; and what symbols without an order lack."""
    lacking: dict[str, str] = {}
    orders: dict[str, Decimal] = {}
    known: list[Sized] = []
    for symbol, target in targets.items():
        instrument, committed = scene.instruments.get(symbol), flows[symbol].committed
        if instrument is None or not instrument.quantity_step > 0:
            lacking[symbol] = "an instrument of this name"
        elif target == 0 or scene.equity <= 0:
            orders[symbol] = committed.copy_negate()  # needs no price
        elif not math.isfinite(target):
            lacking[symbol] = "a target"
        elif not math.isfinite(scene.equity):
            lacking[symbol] = "an equity"
        elif not is_price(unit := scene.prices.get(symbol, math.nan) * instrument.unit_value):
            lacking[symbol] = "a price"
        else:
            unit /= scene.equity
            weight = float(committed) * unit
            if is_reducing:
                target = min(max(target, min(weight, 0.0)), max(weight, 0.0))
            known.append(
                Sized(
                    symbol=symbol,
                    target=target,
                    weight=weight,
                    lot=float(instrument.quantity_step) * unit,
                    least=max(float(instrument.min_quantity) * unit, terms.minimum_order),
                    step=instrument.quantity_step,
                    committed=committed,
                )
            )
    orders |= _in_units([one for one in known if one.is_fine], terms.no_trade_band)
    orders |= _in_lots([one for one in known if not one.is_fine], terms.no_trade_band)
    found = {}
    for symbol, quantity in orders.items():
        found[symbol] = whole(quantity, scene.instruments[symbol])
        if quantity and not found[symbol] and targets[symbol] == 0:
            lacking[symbol] = "a position that is large enough for an order"
    return {symbol: quantity for symbol, quantity in found.items() if quantity}, lacking


def _in_units(known: Sequence[Sized], band: float) -> dict[str, Decimal]:
    """Orders where there are no lots to speak of: what the ledger takes for dust is not traded, or
    not left.
    """
    orders = {}
    for one in known:
        wanted = single.delta_order(one.target, one.weight, band, one.least)
        if wanted and abs(one.target) <= DUST:
            orders[one.symbol] = one.committed.copy_negate()
        elif abs(wanted) > DUST:
            steps = round((one.target - one.weight) / one.lot)
            orders[one.symbol] = EXACT.multiply(Decimal(steps), one.step)
    return orders


def _in_lots(known: Sequence[Sized], band: float) -> dict[str, Decimal]:
    """Orders in whole lots, a step each."""
    orders = {}
    for one in known:
        held = int(EXACT.divide_int(one.committed, one.step))
        lots = single.lots_order(one.target, held, one.lot, band, one.least)
        orders[one.symbol] = EXACT.multiply(Decimal(lots), one.step)
    return orders
