"""How many orders there may be in a time: what a policy gone wild cannot exceed.

Each symbol, each agent and the account has a bucket of as many tokens as orders are allowed to it
in a minute; it fills up again at that rate, by the steady clock. Orders that only reduce have a
bucket of their own, so that a flood of others never takes the place of an exit. The day's orders
and turnover are counted from midnight UTC.
"""

import math
from collections.abc import Iterable
from typing import Protocol

from jaxtrade.bars import DAY_SECONDS
from jaxtrade.live.clock import SECOND_NS
from jaxtrade.live.events import OrderIntent
from jaxtrade.live.limits import GuardLimits

_MINUTE_NS = 60 * SECOND_NS
_DAY_NS = DAY_SECONDS * SECOND_NS

_SLACK = 1e-9


class Sent(Protocol):
    """An order that was sent, as `orders.Order` is one."""

    @property
    def intent(self) -> OrderIntent:
        """What was decided."""

    @property
    def created_ns(self) -> int:
        """When it was journalled, UTC."""


class Rates:
    """Counts of the orders that were sent.

    limits: in force; day: UTC, days since 1970; orders, turnover: of that day, exits left out,
    turnover a multiple of equity.
    """

    def __init__(self, limits: GuardLimits) -> None:
        self.limits = limits
        self.day = -1
        self.orders = 0
        self.turnover = 0.0
        self._buckets: dict[tuple[str, str], tuple[float, int]] = {}

    def restore(self, sent: Iterable[Sent], *, equity: float, wall_ns: int) -> None:
        """Count the orders of today that were sent before a restart."""
        self._begin(wall_ns // _DAY_NS)
        for order in sent:
            intent = order.intent
            if order.created_ns // _DAY_NS == self.day and not intent.reduce_only:
                value = float(intent.quantity) * intent.reference_price
                self.orders += 1
                self.turnover += value / equity if equity > 0 else math.inf

    def admit(
        self,
        intent: OrderIntent,
        *,
        steady_ns: int,
        wall_ns: int,
        turnover: float,
        is_exit: bool,
    ) -> str:
        """Count one more order, or say which limit it would exceed; "" if it was counted.

        turnover: value of the order over equity; is_exit: it only reduces.
        """
        limits, day = self.limits, wall_ns // _DAY_NS
        if day > self.day:
            self._begin(day)
        if not is_exit:
            if self.orders >= limits.orders_per_day:
                return f"more than {limits.orders_per_day} orders today"
            total = self.turnover + turnover
            if not total <= limits.turnover_per_day:
                most = limits.turnover_per_day
                return f"a turnover of {total:.1f} times equity today, {most:g} may be"
        buckets = self._buckets_of(intent, is_exit=is_exit)
        left = [self._tokens(key, capacity, steady_ns) for key, capacity in buckets]
        for (key, capacity), tokens in zip(buckets, left, strict=True):
            if not tokens >= 1.0 - _SLACK:
                whose = " ".join(part for part in key if part)
                return f"more than {capacity} orders in a minute ({whose})"
        for (key, _), tokens in zip(buckets, left, strict=True):
            self._buckets[key] = tokens - 1.0, steady_ns
        if not is_exit:
            self.orders += 1
            self.turnover += turnover
        return ""

    def _begin(self, day: int) -> None:
        self.day, self.orders, self.turnover = day, 0, 0.0

    def _tokens(self, key: tuple[str, str], capacity: int, steady_ns: int) -> float:
        """Orders that a bucket has left."""
        left, since_ns = self._buckets.get(key, (float(capacity), steady_ns))
        return min(left + (steady_ns - since_ns) * capacity / _MINUTE_NS, float(capacity))

    def _buckets_of(
        self, intent: OrderIntent, *, is_exit: bool
    ) -> tuple[tuple[tuple[str, str], int], ...]:
        """The buckets that an order takes a token of, and what they hold."""
        limits = self.limits
        if is_exit:
            return ((("exits", ""), limits.exits_per_minute),)
        return (
            (("symbol", intent.symbol), limits.orders_per_minute_symbol),
            (("agent", intent.agent), limits.orders_per_minute_agent),
            (("account", ""), limits.orders_per_minute),
        )
