"""What happens in live trading: frozen records, each with a JSON form that reads back as itself.

Whatever changes the engine's state is one of these, written to the journal before it is applied, so
that reading the journal again leads to the same state. Quantities, prices and fees of orders and
fills are `Decimal`, whose sums are exact and thus the same in any order; market data and equity are
floats. `at_ns` is UTC in nanoseconds since 1970, as told by whoever observed the event.
"""

import dataclasses
import enum
import json
import operator
import types
import typing
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from jaxtrade.specs import JaxtradeError


class Side(enum.StrEnum):
    """Which way an order trades."""

    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """1 of a buy, -1 of a sell."""
        return 1 if self is Side.BUY else -1


class OrderKind(enum.StrEnum):
    """How an order is priced: at the market, at `price` or better, at the market past `price`."""

    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"


class Leg(enum.StrEnum):
    """What an order is for: a target of the policy, the exits that guard a position, or closing it
    for a reason that is not the policy's.
    """

    TARGET = "target"
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"
    CLOSE = "close"


class TradingState(enum.StrEnum):
    """ACTIVE trades; REDUCING only lowers exposure; HALTED only cancels; KILLED is latched, cancels
    and, where asked to, flattens.
    """

    ACTIVE = "active"
    REDUCING = "reducing"
    HALTED = "halted"
    KILLED = "killed"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderIntent:
    """An order as it was decided.

    cid: our id, 16 characters that follow from `decision_key`, which no other order has; quantity:
    units, above 0, whole steps of the instrument; price: of a limit or stop order; parent: cid of
    the order whose position a stop-loss or take-profit guards: when one of these fills the other is
    cancelled; reduce_only: never more than what is held; reference_price: middle of the quote, or
    close, at the decision, reference_ns: when that was known; expires_ns: when the engine cancels
    what is not filled, 0 for never.
    """

    cid: str
    decision_key: str
    agent: str
    symbol: str
    side: Side
    quantity: Decimal
    kind: OrderKind = OrderKind.MARKET
    price: Decimal | None = None
    leg: Leg = Leg.TARGET
    parent: str = ""
    reduce_only: bool = False
    reference_price: float = 0.0
    reference_ns: int = 0
    expires_ns: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened at `at_ns`."""

    at_ns: int


# --- market data: never journalled -------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tick(Event):
    """A quote, or a trade where bid and ask are the same; in quote currency."""

    symbol: str
    bid: float
    ask: float
    volume: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bar(Event):
    """A finished bar over [start_s, start_s + seconds), UTC; `at_ns` is when it was known.

    Prices in quote currency; context: the columns that the data have beside prices, by name.
    """

    symbol: str
    start_s: int
    seconds: int
    open: float
    high: float
    low: float
    close: float
    volume: float = 0.0
    context: tuple[tuple[str, float], ...] = ()


# --- of a broker, about orders -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderEvent(Event):
    """Something that happened to the order `cid`."""

    cid: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderAccepted(OrderEvent):
    """It works at the broker."""

    broker_id: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderRejected(OrderEvent):
    """The broker says that it has refused it: proof, not a timeout."""

    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderCanceled(OrderEvent):
    """The broker says that what was not filled is cancelled."""

    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderExpired(OrderEvent):
    """Its time at the broker is over."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderCancelRejected(OrderEvent):
    """The broker will not, or need not, cancel it."""

    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderFilled(OrderEvent):
    """An execution, or with a higher `revision` of the same `execution_id` its correction.

    A correction replaces quantity, price and fee; a quantity of 0 takes the execution back.
    middle: price between bid and ask at that moment, 0 where it is not known: what a position has
    earned without costs is counted from there.
    """

    execution_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal = Decimal(0)
    revision: int = 0
    middle: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FeeReported(OrderEvent):
    """The commission of an execution, where it comes on its own, before or after the fill."""

    execution_id: str
    fee: Decimal
    revision: int = 0


# --- of a broker, about itself -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AccountState(Event):
    """The account as the broker books it, in its currency; not journalled."""

    equity: float
    cash: float
    margin_used: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PositionReport(Event):
    """What the broker holds now, signed; zero where it holds nothing. Not journalled."""

    symbol: str
    quantity: Decimal
    price: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BrokerConnected(Event):
    """The transport is up and a first snapshot was taken; `epoch` counts connections."""

    epoch: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BrokerDisconnected(Event):
    """Nothing is known from here on: what was sent and not answered may or may not be there."""

    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BrokerDegraded(Event):
    """Connected, but part of it does not work: data are late, a file cannot be read."""

    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BrokerError(Event):
    """A message of the broker that ends nothing by itself."""

    code: int
    text: str
    cid: str = ""


# --- of the engine, about orders ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderInitialized(OrderEvent):
    """An intent that passed the guard; it is sent only once this is durable."""

    intent: OrderIntent


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderDenied(Event):
    """The guard refused an order, which was never sent; `check` is the name of the check."""

    agent: str
    symbol: str
    decision_key: str
    check: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderSubmitted(OrderEvent):
    """It was handed to the broker's transport."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderUnknown(OrderEvent):
    """Whether the broker has it is not known: no answer in time, a disconnect, a crash."""

    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderLost(OrderEvent):
    """It is proved that the broker never had it."""

    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderPendingCancel(OrderEvent):
    """A cancel was sent."""

    reason: str = ""


# --- of the engine, about agents, money and itself ---------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BarDecided(Event):
    """An agent has decided on the bars that started at `start_s`: the one decision on them.

    requested, target: exposures of its symbols before and after the policy's risk review, as
    fractions of its equity; inputs_hash: of all that the graph was told; verdict: what became of
    it ("traded", "held", or why not); equity: of its sub-account at the bar's close; symbols: its
    symbols, in the order of all that is one number each; closes: of these, quote currency.
    """

    agent: str
    start_s: int
    symbols: tuple[str, ...]
    model: str
    inputs_hash: str
    requested: tuple[float, ...]
    target: tuple[float, ...]
    action: tuple[float, ...]
    probabilities: tuple[float, ...]
    value: float
    confidence: float
    binding: int
    equity: float
    reward: float
    closes: tuple[float, ...]
    verdict: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CashMoved(Event):
    """Money was allotted to an agent, or taken from it; account currency, signed."""

    agent: str
    amount: Decimal
    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PositionAdjusted(Event):
    """What the broker holds differs from what was booked, and `quantity` was booked without a fill.

    `owner` is the agent whose position it is, "" for one that has no owner.
    """

    owner: str
    symbol: str
    quantity: Decimal
    price: Decimal
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EquityMarked(Event):
    """Equity of the whole account, for the marks that limits are measured from.

    `day` counts days since 1970 in the account's own time zone.
    """

    equity: float
    day: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TradingStateChanged(Event):
    """The engine trades under another state; `reason` says which rule, or who, asked for it."""

    state: TradingState
    reason: str
    is_latched: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rearmed(Event):
    """A person lifted a latch, and said why; was_closed: a kill that closed positions was lifted,
    so what has changed at the broker is no surprise.
    """

    reason: str
    was_closed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ProtectionTripped(Event):
    """New exposure is refused until `until_ns`; in `symbol`, or everywhere where it is ""."""

    protection: str
    symbol: str
    until_ns: int
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AgentPaused(Event):
    """An agent opens nothing until it is resumed."""

    agent: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AgentResumed(Event):
    """An agent trades again."""

    agent: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SettingsChanged(Event):
    """Settings as `key: value` that were validated; version rises by one; in force from the next
    bar on, when `is_applied` says so.
    """

    version: int
    settings: dict[str, Any]
    by: str
    is_applied: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelSwapped(Event):
    """An agent decides with another bundle."""

    agent: str
    model: str
    sha256: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelRefused(Event):
    """A bundle was not taken, and the old one decides on."""

    agent: str
    model: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reconciled(Event):
    """State and broker were compared; `mismatches` says, one line each, what did not agree."""

    mismatches: tuple[str, ...] = ()
    is_complete: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EngineStarted(Event):
    """The first event of a process: `run_id` names it."""

    run_id: str
    version: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EngineStopped(Event):
    """An orderly end."""

    reason: str


BrokerEvent = (
    Tick
    | Bar
    | OrderAccepted
    | OrderRejected
    | OrderCanceled
    | OrderExpired
    | OrderCancelRejected
    | OrderFilled
    | FeeReported
    | AccountState
    | PositionReport
    | BrokerConnected
    | BrokerDisconnected
    | BrokerDegraded
    | BrokerError
)
"""What an adapter may say."""

JOURNALLED: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        OrderAccepted,
        OrderRejected,
        OrderCanceled,
        OrderExpired,
        OrderCancelRejected,
        OrderFilled,
        FeeReported,
        BrokerConnected,
        BrokerDisconnected,
        BrokerDegraded,
        BrokerError,
        OrderInitialized,
        OrderDenied,
        OrderSubmitted,
        OrderUnknown,
        OrderLost,
        OrderPendingCancel,
        BarDecided,
        CashMoved,
        PositionAdjusted,
        EquityMarked,
        TradingStateChanged,
        Rearmed,
        ProtectionTripped,
        AgentPaused,
        AgentResumed,
        SettingsChanged,
        ModelSwapped,
        ModelRefused,
        Reconciled,
        EngineStarted,
        EngineStopped,
    )
}
"""The events that the journal keeps, by name."""


def encode(event: Event) -> str:
    """The fields of an event, or of an intent, as one line of JSON; `Decimal` as text."""
    return _ENCODER.encode(fields_of(event))


def decode(kind: str, text: str) -> Event:
    """The event that `encode` wrote.

    Raises:
        JaxtradeError: no such kind of event, or the text is not one.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise JaxtradeError(f"event {kind}: cannot be read: {error!r}") from error
    return event_of(kind, tree)


def event_of(kind: str, tree: dict[str, Any]) -> Event:
    """The same of what JSON made of the text; raises as `decode`."""
    try:
        return _record(JOURNALLED[kind], tree)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise JaxtradeError(f"event {kind}: cannot be read: {error!r}") from error


def fields_of(record: Any) -> dict[str, Any]:
    """The fields of a record by name, as they are."""
    kind = type(record)
    known = _GETTERS.get(kind)
    if known is None:
        names = tuple(_hints(kind))
        known = _GETTERS[kind] = names, operator.attrgetter(*names, "__class__")
    names, get = known
    return dict(zip(names, get(record), strict=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if dataclasses.is_dataclass(value):
        return fields_of(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain)

_GETTERS: dict[type, tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]] = {}
"""The fields of a record, and what gets them all at once, and one more: never a single one."""

_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    """The fields of a record and their types; looking them up anew would cost 50 microseconds."""
    if kind not in _HINTS:
        hints = typing.get_type_hints(kind)
        _HINTS[kind] = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return _HINTS[kind]


def _record(kind: type, tree: dict[str, Any]) -> Any:
    hints = _hints(kind).items()  # a field that came later is not in what was written before
    return kind(**{name: _value(hint, tree[name]) for name, hint in hints if name in tree})


def _value(hint: Any, value: Any) -> Any:
    """What JSON made of a field, as the field's type."""
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        inner = next(one for one in typing.get_args(hint) if one is not type(None))
        return None if value is None else _value(inner, value)
    if origin is tuple:
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, one) for one in value)
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast(type, hint), value)
    if hint in (Decimal, float) or (isinstance(hint, type) and issubclass(hint, enum.Enum)):
        return hint(value)
    return value
