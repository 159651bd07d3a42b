"""A margin account by its books in float64, as gym-trading-env 0.3.5 keeps them: prices, units and
cash. Shares no formula with `jaxtrade`.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclasses.dataclass(kw_only=True)
class Books:
    """units, cash: below 0 if borrowed; units_due, cash_due: interest owed in each."""

    units: float
    cash: float
    units_due: float = 0.0
    cash_due: float = 0.0

    def value(self, price: float) -> float:
        """What is owned less what is owed, money."""
        return (self.units - self.units_due) * price + self.cash - self.cash_due

    def exposure(self, price: float) -> float:
        """Units less those due, over the value."""
        return (self.units - self.units_due) * price / self.value(price)

    def after(self, ordered: float, price: float, fee: float) -> "Books":
        """Pay for units ordered, a buyer's fee taken from the units, a seller's from the cash."""
        is_buy = ordered > 0
        received = ordered * (1 - fee) if is_buy else ordered
        paid = ordered * price if is_buy else ordered * price * (1 - fee)
        return dataclasses.replace(self, units=self.units + received, cash=self.cash - paid)

    def pay_interest(self, target: float, price: float) -> None:
        """Pay as large a part of the interest as the target pays back of the debt."""
        held = self.units * price / self.value(price)
        if held < 0 and target <= 0:
            left = target / held
        elif held > 1 and target >= 1:
            left = (target - 1) / (held - 1)
        else:
            return
        paid = max(1 - left, 0)
        self.units -= paid * self.units_due
        self.cash -= paid * self.cash_due
        self.units_due *= 1 - paid
        self.cash_due *= 1 - paid

    def trade(self, target: float, price: float, fee: float) -> "Books":
        """Order so many units that they are worth `target` times the value once the fee is paid.

        By how much they miss it is linear in the order on either side: two points give its zero.
        """
        self.pay_interest(target, price)

        def missing(ordered: float) -> float:
            books = self.after(ordered, price, fee)
            return target * books.value(price) - books.units * price

        size = self.value(price) / price
        side = np.sign(missing(0.0))
        if side == 0:
            return self
        near, far = missing(1e-9 * side * size), missing(side * size)
        return self.after(side * size * (1e-9 + (1 - 1e-9) * near / (near - far)), price, fee)

    def charge(self, rate: float) -> None:
        """Interest on what is borrowed now, in place of what was due."""
        self.units_due, self.cash_due = max(-self.units, 0) * rate, max(-self.cash, 0) * rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """Per step: value in money, real exposure, reward; ends after the step of ruin."""

    value: Array
    exposure: Array
    reward: Array


def simulate(
    targets: Array, close: Array, *, first: float, fee: float, rate: float, deposit: float
) -> Record:
    """From `first` at close[0], trade to targets[t] at close[t]; NaN, or the last one: no trade."""
    books = Books(units=first * deposit / close[0], cash=(1 - first) * deposit)
    last, values, rows = first, [deposit], []
    for target, price, following in zip(targets, close[:-1], close[1:], strict=True):
        if not np.isnan(target) and target != last:
            books, last = books.trade(target, price, fee), target
        books.charge(rate)
        values.append(books.value(following))
        is_ruin = values[-1] <= 0
        reward = 0.0 if is_ruin else np.log(values[-1] / values[-2])
        rows.append((values[-1], books.exposure(following), reward))
        if is_ruin:
            break
    value, exposure, reward = np.array(rows).T
    return Record(value=value, exposure=exposure, reward=reward)
