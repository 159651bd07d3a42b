"""A broker's books in float64: prices, units and cash. Shares no formula with `jaxtrade.ledger`."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Books:
    """Per bar, at its close: equity and fees in money, exposure by asset."""

    equity: Array
    weights: Array
    fees: Array


def simulate(
    targets: Array, bars: Array, years: Array, rates: dict[str, float], deposit: float = 10_000.0
) -> Books:
    """Trade towards targets f64[T, A] (NaN = leave it) at each next open; bars f64[T, A, 4].

    The number of units to trade is fixed at the last close. Interest is charged at the close, on
    the value sold short and the money borrowed as they stood after the trade.
    """
    num_assets = targets.shape[1]
    close = 7.0 * 13.0 ** np.arange(num_assets)  # any prices will do
    units, cash = np.zeros(num_assets), deposit
    equity_curve, weight_rows, fee_rows = [], [], []
    for target, bar, elapsed in zip(targets, bars, years, strict=True):
        equity = cash + units @ close
        wanted_units = np.where(np.isnan(target), units, target * equity / close)
        bought = wanted_units - units
        opening = close * (1 + bar[:, 0])
        fee = sum(abs(bought) * opening) * (rates["commission_rate"] + rates["half_spread"])
        cash = cash - bought @ opening - fee
        units = wanted_units
        value_short = -(units * opening)[units < 0].sum()
        interest = rates["borrow_rate"] * value_short + rates["margin_rate"] * max(-cash, 0.0)
        cash = cash - interest * elapsed
        close = close * (1 + bar[:, 3])
        equity = cash + units @ close
        equity_curve.append(equity)
        weight_rows.append(units * close / equity)
        fee_rows.append(fee)
    return Books(
        equity=np.array(equity_curve) / deposit,
        weights=np.array(weight_rows),
        fees=np.array(fee_rows) / deposit,
    )
