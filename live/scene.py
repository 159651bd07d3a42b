"""What orders are planned from: an agent's terms, the account as it stands, what is under way."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.events import Leg, OrderIntent, OrderKind, Side
from jaxtrade.live.executions import EXACT, NONE
from jaxtrade.live.orders import decision_key, make_cid

EXITS = (Leg.STOP_LOSS, Leg.TAKE_PROFIT)


class Working(Protocol):
    """An order that is not over, as `orders.Order` is one.

    remaining: units not filled; is_canceling: a cancel was sent; is_doubtful: nobody knows whether
    the broker has it.
    """

    @property
    def intent(self) -> OrderIntent:
        """What was decided."""

    @property
    def remaining(self) -> Decimal:
        """Units not filled."""

    @property
    def is_canceling(self) -> bool:
        """A cancel was sent and not answered."""

    @property
    def is_doubtful(self) -> bool:
        """Nobody knows how it stands."""


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

    def distance(self, leg: Leg) -> float:
        """How far a stop or target is from the entry, a fraction of the price; 0 for none."""
        return self.stop_loss if leg is Leg.STOP_LOSS else self.take_profit


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

    def reference(self, symbol: str) -> float:
        """The price that an order is judged by; NaN where none is known."""
        prices = (source.get(symbol, math.nan) for source in (self.references, self.prices))
        return next((price for price in prices if is_price(price)), math.nan)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do, in this order: cancel these cids, send these orders. waiting: symbols in which
    more is wanted, and what that waits for; plan again once it has come.
    """

    cancels: tuple[str, ...] = ()
    intents: tuple[OrderIntent, ...] = ()
    waiting: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Name:
    """What the id of an order follows from, but for its leg."""

    agent: str
    symbol: str
    start_s: int
    attempt: int

    def key(self, leg: Leg) -> str:
        """The decision key of the order of a leg."""
        return decision_key(self.agent, self.symbol, self.start_s, leg, self.attempt)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """A symbol's position, signed units, and what is under way in it.

    in_flight: signed units of the orders to trade that are neither doubtful nor being cancelled,
    of which buys, sells are the cids; exits: stops and targets; is_canceling, is_doubtful: there is
    an order to trade that is.
    """

    position: Decimal
    in_flight: Decimal
    buys: tuple[str, ...]
    sells: tuple[str, ...]
    exits: tuple[Working, ...]
    is_canceling: bool
    is_doubtful: bool

    @property
    def committed(self) -> Decimal:
        """Signed units once what is under way is filled."""
        return EXACT.add(self.position, self.in_flight)

    def against(self, quantity: Decimal) -> tuple[str, ...]:
        """Orders under way that trade the other way than a signed quantity."""
        return self.sells if quantity > 0 else self.buys


def flow_of(symbol: str, scene: Scene) -> Flow:
    """What is under way in a symbol."""
    orders = [order for order in scene.orders if order.intent.symbol == symbol]
    trades = [order for order in orders if not rests(order.intent)]
    known = [order for order in trades if not (order.is_canceling or order.is_doubtful)]
    in_flight = NONE
    for order in known:
        in_flight = EXACT.add(in_flight, signed(order.intent.side, order.remaining))
    return Flow(
        position=scene.positions.get(symbol, NONE),
        in_flight=in_flight,
        buys=tuple(order.intent.cid for order in known if order.intent.side is Side.BUY),
        sells=tuple(order.intent.cid for order in known if order.intent.side is Side.SELL),
        exits=tuple(order for order in orders if rests(order.intent)),
        is_canceling=any(order.is_canceling and not order.is_doubtful for order in trades),
        is_doubtful=any(order.is_doubtful for order in trades),
    )


def market_order(
    terms: Terms, name: Name, leg: Leg, flow: Flow, quantity: Decimal, scene: Scene
) -> OrderIntent:
    """An order of a signed quantity at the market, reduce-only where it does no more than that."""
    after = EXACT.add(flow.committed, quantity)
    reduces = flow.position * quantity < 0 and after * flow.position >= 0
    reference = scene.reference(name.symbol)
    age_ns = round(terms.max_order_age_s * 1e9)
    key = name.key(leg)
    return OrderIntent(
        cid=make_cid(key),
        decision_key=key,
        agent=name.agent,
        symbol=name.symbol,
        side=Side.BUY if quantity > 0 else Side.SELL,
        quantity=quantity.copy_abs(),
        leg=leg,
        reduce_only=reduces,
        reference_price=reference if is_price(reference) else 0.0,
        reference_ns=scene.now_ns,
        expires_ns=scene.now_ns + age_ns if age_ns else 0,
    )


def whole(quantity: Decimal, instrument: Instrument) -> Decimal:
    """A signed quantity in whole steps towards zero, no more than can be ordered at once, and 0
    where that is less than the least, or the step is none.
    """
    if not instrument.quantity_step > 0:
        return NONE
    most = min(quantity.copy_abs(), instrument.max_quantity)
    steps = EXACT.divide_int(most, instrument.quantity_step)
    units = EXACT.multiply(steps, instrument.quantity_step)
    return units.copy_sign(quantity) if units and units >= instrument.min_quantity else NONE


def signed(side: Side, quantity: Decimal) -> Decimal:
    """A quantity as what it adds to a position."""
    return quantity if side is Side.BUY else quantity.copy_negate()


def rests(intent: OrderIntent) -> bool:
    """Whether an order is a stop or target that waits at the broker, not one to trade now."""
    return intent.leg in EXITS and intent.kind is not OrderKind.MARKET


def is_price(price: float) -> bool:
    """Whether a number can be a price."""
    return 0.0 < price < math.inf
