"""Which events people are told of, at which level, in which words.

The key of an alert starts with the name of its event, so that a rule in the settings
(`alerts.rules.OrderRejected=critical`, or `off`) finds it, and goes on with what it is about, so
that the same matter is told once.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtrade.live import events as e
from jaxtrade.live.journal import Alert
from jaxtrade.live.orders import Order

LATE_FILL = "LateFill"
"""The rule of a fill of an order that was taken for over."""

Rule = Callable[[Any], tuple[str, str, str] | None]
"""An event to level, text and what it is about; None where nobody need know."""

_STATE_LEVEL = {
    e.TradingState.ACTIVE: "info",
    e.TradingState.REDUCING: "error",
    e.TradingState.HALTED: "critical",
    e.TradingState.KILLED: "critical",
}


def _filled(event: e.OrderFilled) -> tuple[str, str, str]:
    what = f"{event.symbol}: {event.side} {event.quantity} at {event.price}"
    if event.revision:
        return "error", f"execution corrected, now {what}", event.execution_id
    return "info", f"filled {what}", event.execution_id


def _connected(event: e.BrokerConnected) -> tuple[str, str, str]:
    return "info", f"connected to the broker (connection {event.epoch})", ""


def _trading(event: e.TradingStateChanged) -> tuple[str, str, str]:
    latched = ", until a person lifts it" if event.is_latched else ""
    text = f"trading is {event.state.upper()}{latched}: {event.reason}"
    return _STATE_LEVEL[event.state], text, event.state


def _reconciled(event: e.Reconciled) -> tuple[str, str, str] | None:
    if not event.mismatches:
        return None
    text = "broker and books differ: " + "; ".join(event.mismatches)
    return "error", text, event.mismatches[0]


def _adjusted(event: e.PositionAdjusted) -> tuple[str, str, str]:
    text = f"position of {event.symbol} booked as {event.quantity} without a fill: {event.reason}"
    return "error", text, event.symbol


def _tripped(event: e.ProtectionTripped) -> tuple[str, str, str]:
    where = event.symbol or "all symbols"
    return "warning", f"{event.protection}, no new exposure in {where}: {event.reason}", where


def _refused(event: e.ModelRefused) -> tuple[str, str, str]:
    text = f"agent {event.agent} keeps its model: {event.model} refused: {event.reason}"
    return "error", text, event.agent


RULES: dict[type[e.Event], Rule] = {
    e.OrderRejected: lambda it: ("warning", f"order {it.cid} rejected: {it.reason}", it.reason),
    e.OrderDenied: lambda it: (
        "warning",
        f"{it.agent}: order in {it.symbol} refused by {it.check}: {it.reason}",
        f"{it.agent} {it.symbol} {it.check}",
    ),
    e.OrderUnknown: lambda it: (
        "error",
        f"order {it.cid}: nobody knows whether the broker has it: {it.reason}",
        it.cid,
    ),
    e.OrderLost: lambda it: (
        "error",
        f"order {it.cid} never reached the broker: {it.reason}",
        it.cid,
    ),
    e.OrderCancelRejected: lambda it: (
        "warning",
        f"order {it.cid} could not be cancelled: {it.reason}",
        it.cid,
    ),
    e.OrderFilled: _filled,
    e.BrokerConnected: _connected,
    e.BrokerDisconnected: lambda it: ("error", f"no connection to the broker: {it.reason}", ""),
    e.BrokerDegraded: lambda it: ("warning", f"the broker is degraded: {it.reason}", it.reason),
    e.BrokerError: lambda it: ("warning", f"the broker says {it.code}: {it.text}", str(it.code)),
    e.PositionAdjusted: _adjusted,
    e.Reconciled: _reconciled,
    e.TradingStateChanged: _trading,
    e.Rearmed: lambda it: ("warning", f"a person lifted the latch: {it.reason}", ""),
    e.ProtectionTripped: _tripped,
    e.AgentPaused: lambda it: ("warning", f"agent {it.agent} paused: {it.reason}", it.agent),
    e.AgentResumed: lambda it: ("info", f"agent {it.agent} resumed: {it.reason}", it.agent),
    e.SettingsChanged: lambda it: (
        "info",
        f"settings {it.version} by {it.by}: "
        + ", ".join(f"{key}={value}" for key, value in it.settings.items()),
        f"{it.version} {it.is_applied}",
    ),
    e.ModelSwapped: lambda it: (
        "info",
        f"agent {it.agent} decides with {it.model}: {it.reason}",
        f"{it.agent} {it.sha256}",
    ),
    e.ModelRefused: _refused,
    e.EngineStarted: lambda it: ("info", f"the engine started ({it.run_id})", it.run_id),
    e.EngineStopped: lambda it: ("info", f"the engine stopped: {it.reason}", ""),
}

NAMES = frozenset({LATE_FILL, *(kind.__name__ for kind in RULES)})
"""What a rule in the settings may be about."""


def alerts_for(event: e.Event, orders: Mapping[str, Order] | None = None) -> tuple[Alert, ...]:
    """What people are told of an event: nothing, or one alert.

    orders: as they stand before the event; with them a fill of an order that was over is told as
    what it is.
    """
    rule = RULES.get(type(event))
    made = None if rule is None else rule(event)
    if made is None:
        return ()
    level, text, about = made
    name = type(event).__name__
    if isinstance(event, e.OrderFilled) and _is_late(event, orders):
        level, name = "error", LATE_FILL
        text = f"order {event.cid} was over, and yet {text}"
    return (Alert(level=level, text=text, key=f"{name}:{about}"),)


def _is_late(event: e.OrderFilled, orders: Mapping[str, Order] | None) -> bool:
    """Whether an execution is new of an order whose status says that it is over."""
    order = None if orders is None else orders.get(event.cid)
    return order is not None and order.is_terminal and event.execution_id not in order.fills
