"""Trading one asset by a broker's books, in float64. Shares no formula with `jaxtrade`."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclasses.dataclass(kw_only=True)
class Broker:
    """Rates are fractions; limits as in `RiskLimits`; band: the smallest exposure traded."""

    rates: dict[str, float]
    limits: dict[str, float]
    band: float
    cash: float = 10_000.0
    units: float = 0.0
    price: float = 37.0

    def __post_init__(self) -> None:
        self.peak = self.morning = self.equity

    @property
    def equity(self) -> float:
        """Money."""
        return self.cash + self.units * self.price

    def permitted(self, wanted: float) -> float:
        """Exposure within the limits, 0 if a breaker is out."""
        bound = min(self.limits[name] for name in ("max_exposure", "max_gross", "max_net"))
        drawdown = 1 - self.equity / self.peak
        loss = 1 - self.equity / self.morning
        for name, fall in (("max_drawdown", drawdown), ("max_daily_loss", loss)):
            if self.limits[name] < 1 and fall >= self.limits[name]:
                return 0.0
        return min(max(wanted, -bound), bound)

    def step(self, wanted: float, bar: Array, years: float, is_new_day: bool) -> float:
        """Order at the close, fill at the next open, mark at the next close; the log return."""
        before, exposure = self.equity, self.units * self.price / self.equity
        target = self.permitted(wanted)
        bought = target * before / self.price - self.units
        if abs(target - exposure) <= self.band and not (target == 0 and exposure != 0):
            bought = 0.0
        if is_new_day:
            self.morning = before
        opening = self.price * (1 + bar[0])
        fee = abs(bought) * opening * (self.rates["commission_rate"] + self.rates["half_spread"])
        self.cash -= bought * opening + fee
        self.units += bought
        short, borrowed = max(-self.units * opening, 0.0), max(-self.cash, 0.0)
        interest = self.rates["borrow_rate"] * short + self.rates["margin_rate"] * borrowed
        self.cash -= interest * years
        self.price *= 1 + bar[3]
        self.peak = max(self.peak, self.equity)
        return float(np.log(self.equity / before))
