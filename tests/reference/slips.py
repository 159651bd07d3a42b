"""What goes into the broker's books and what comes out, as plain float64 numbers.

`each` below means one number, or one per asset. None = the rule does not exist.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Seen = dict[tuple[str, int], Any]
"""What another engine decided in a bar: (decision, asset) -> value; -1 for the whole account."""

CLOSE_CALL = 1e-6
"""A decision this near its threshold, relatively, may fall either way."""


DUST = 1e-5
"""An exposure that is nothing: what is left over where larger ones cancel out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The rules of one account. Rates are fractions, yearly where they accrue."""

    deposit: float = 10_000.0
    fill: str = "next_open"
    latency: int = 0
    delay: float | None = None
    participation: float | None = None
    lot_size: Any = None
    tick_size: Any = None
    no_trade_band: float = 0.0
    minimum_order: float | None = None

    commission_rate: Any = 0.0
    maker_rate: Any = None
    commission_per_unit: Any = 0.0
    minimum_ticket: Any = 0.0
    half_spread: Any = 0.0
    slippage: Any = 0.0
    volatility_slippage: Any = 0.0
    borrow_rate: Any = 0.0
    margin_rate: float = 0.0
    idle_rate: float = 0.0
    swap_long: Any = 0.0
    swap_short: Any = 0.0

    stop_loss: Any = None
    take_profit: Any = None
    trailing: Any = None

    initial: Any = None
    maintenance: Any = None
    liquidation_fee: Any = 0.0

    impact: str | None = None
    coefficient: Any = 0.0
    fixed: Any = 0.0
    temporary: Any = 0.0
    permanent: Any = 0.0
    transient: Any = 0.0
    decay: Any = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Bar t+1: bars f64[A, 4] open, high, low, close over the close of bar t, minus one.

    price (close of bar t), volume_value and average_value are quote currency; the rest fractions.
    """

    bars: Array
    years: float = 0.0
    half_spread_open: Any = 0.0
    half_spread_close: Any = 0.0
    dividend: Any = 0.0
    funding: Any = 0.0
    nights: Any = 0.0
    price: Any = None
    volume_value: Any = np.inf
    average_value: Any = np.inf
    volatility: Any = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """One of target, exposure or lots, f64[A]; limit or stop: price over the last close, minus one.

    A target is the wanted exposure, sized by the books; NaN orders nothing. exposure and lots are
    amounts to trade, on top of what is under way. Levels are NaN for a market order.
    """

    target: Any = None
    exposure: Any = None
    lots: Any = None
    limit: Any = None
    stop: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ticket:
    """An order on its way for one asset: units (NaN = nothing new), levels in quote currency."""

    units: float
    limit: float = np.nan
    stop: float = np.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exit:
    """A position that leaves inside the bar, at `at` of the way to the adverse extreme."""

    code: int
    price: float
    at: float
    fee: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statement:
    """The account at the close of bar t+1; money in quote currency.

    exits: 0 none, 1 stop, 2 target, 3 liquidation. filled: exposure as of the close of bar t.
    """

    equity: float
    weights: Array
    units: Array
    cash: float
    price: Array
    trade_cost: float
    exit_cost: float
    carry: float
    dividends: float
    exits: NDArray[np.int64]
    filled: Array
    is_ruined: bool
