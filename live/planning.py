"""From target exposures and what the broker holds to orders.

    made = plan(terms, {"SPY": 0.5}, scene, start_s=start_s)
    made.cancels     # send these first; what waits for their confirmation is in made.waiting
    made.intents     # each goes through the guard, then the journal, then to the broker

The quantity is the one of the backtest (`envs.steps.order_for`, by the same `jaxtrade.sizing`):
sized at the bar's close and the equity then, nothing inside the no-trade band, a target of 0 closes
all. An order under way counts as filled. One that goes the wrong way is cancelled, and its
replacement waits until that is confirmed, so that no two orders of a symbol ever oppose each other;
while an order is UNKNOWN, or being cancelled, nothing is opened in its symbol, and a reduction is
measured by the broker's position alone.

Stops and targets work beside the order that closes: they are reduce-only, and protect until it is
filled. `exits` is what places, renews and clears them.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Protocol

import numpy as np

from jaxtrade import sizing
from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.events import Leg, OrderIntent, OrderKind, Side
from jaxtrade.live.orders import decision_key, make_cid

DUST = 1e-5
"""Exposure that is nothing, where there are no lots; as in `position`."""

FINE_STEPS = 2.0**23
"""Of more steps than this a position is not counted in lots: float32 does not tell them apart."""

_EXACT = Context(prec=200)
_NONE = Decimal(0)
_EXITS = (Leg.STOP_LOSS, Leg.TAKE_PROFIT)


class Working(Protocol):
    """An order that is not over, as `orders.Order` is one.

    remaining: units not filled; is_canceling: a cancel was sent; is_doubtful: nobody knows whether
    the broker has it.
    """

    @property
    def intent(self) -> OrderIntent: ...
    @property
    def remaining(self) -> Decimal: ...
    @property
    def is_canceling(self) -> bool: ...
    @property
    def is_doubtful(self) -> bool: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
    """How an agent trades.

    no_trade_band, minimum_order: exposures; stop_loss, take_profit: distance from the entry, a
    fraction of the price, 0 for none; max_order_age_s: after which what is not filled is cancelled,
    0 for never; holds_exits: the broker holds stops and targets, else the engine watches them.
    """

    agent: str
    no_trade_band: float = 0.0
    minimum_order: float = 0.0
    stop_loss: float = 0.0
    take_profit: float = 0.0
    max_order_age_s: float = 0.0
    holds_exits: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """What a plan is made from.

    equity: of the agent, account currency; prices: of symbols, what quantities are sized at: closes
    of the bar; positions: signed units at the broker; orders: all that are not over, also those of
    others; now_ns: UTC; references: middle of the quotes now, where there are any; entries: mean
    price at which positions were opened, where known.
    """

    equity: float
    prices: Mapping[str, float]
    positions: Mapping[str, Decimal]
    orders: Sequence[Working]
    instruments: Mapping[str, Instrument]
    now_ns: int
    references: Mapping[str, float] = dataclasses.field(default_factory=dict)
    entries: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def position(self, symbol: str) -> Decimal:
        """Signed units at the broker."""
        return self.positions.get(symbol, _NONE)

    def reference(self, symbol: str) -> float:
        """The price that an order is judged by."""
        price = self.references.get(symbol, math.nan)
        return price if is_price(price) else self.prices.get(symbol, math.nan)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do, in this order: cancel these cids, send these orders. waiting: symbols in which
    more is wanted, and what it waits for; plan again once that has come.
    """

    cancels: tuple[str, ...] = ()
    intents: tuple[OrderIntent, ...] = ()
    waiting: Mapping[str, str] = dataclasses.field(default_factory=dict)


def plan(
    terms: Terms,
    targets: Mapping[str, float],
    scene: Scene,
    *,
    start_s: int,
    attempt: int = 0,
    is_reducing: bool = False,
) -> Plan:
    """Orders that lead to target exposures, fractions of the agent's equity, of some symbols.

    start_s, attempt: of the decision, which the ids of orders follow from; is_reducing: nothing is
    opened, increased or turned round. A target that is not a number is no order; equity that is not
    above 0 closes everything.
    """
    raise NotImplementedError


def close(
    terms: Terms, symbol: str, scene: Scene, *, start_s: int, attempt: int = 0, leg: Leg = Leg.CLOSE
) -> Plan:
    """What closes a position at the market: orders that would trade it further are cancelled, one
    that reduces closes what they leave. Its exits stay until it is gone.
    """
    raise NotImplementedError


def exits(
    terms: Terms,
    symbol: str,
    scene: Scene,
    *,
    start_s: int,
    attempt: int = 0,
    is_overdue: bool = False,
) -> Plan:
    """What gives a position the stop and the target that it is to have.

    is_overdue: it has been without its stop for too long, or the stop was rejected: it is closed.
    """
    raise NotImplementedError


def breached(terms: Terms, quantity: Decimal, entry: float, price: float) -> Leg | None:
    """Which exit a price has reached, for positions whose exits the engine watches."""
    raise NotImplementedError


def is_stale_price(intent: OrderIntent, price: float, limit: float) -> bool:
    """Whether the price has moved by more than `limit`, a fraction, since an order was decided."""
    raise NotImplementedError


def is_price(price: float) -> bool:
    """Whether a number can be a price."""
    return 0.0 < price < math.inf
