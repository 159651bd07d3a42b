"""The text of a state: canonical JSON, of which its digest is taken, and back.

An order is written as the statements that count, and read by folding them again, so that there is
one way to make an order. The text of an order that is terminal is kept, since it hardly changes.
"""

import dataclasses
import json
import typing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from jaxtrade.live.book import Book
from jaxtrade.live.events import (
    FeeReported,
    OrderEvent,
    OrderFilled,
    OrderInitialized,
    TradingState,
    encode,
    event_of,
)
from jaxtrade.live.executions import Execution
from jaxtrade.live.orders import Order, advance, begin
from jaxtrade.live.records import AgentRecord, Marks, Position
from jaxtrade.live.trades import Trades

if TYPE_CHECKING:
    from jaxtrade.live.state import State

VERSION = 2
"""Rises when a state is written, or folded, in another way: what is older is folded anew."""

_PLAIN = ("last_seq", "run_id", "epoch", "was_closed")


def write(state: "State") -> str:
    """Canonical JSON: sorted names, orders and executions in the order in which they came."""
    parts = {
        name: json.dumps(value, sort_keys=True, separators=(",", ":"))
        for name, value in _small(state).items()
    }
    parts["orders"] = f"[{','.join(_order(state, order) for order in state.orders.values())}]"
    parts["outside"] = f"[{','.join(map(_outside, state.register.outside.values()))}]"
    return "{" + ",".join(f'"{name}":{parts[name]}' for name in sorted(parts)) + "}"


def load(state: "State", tree: dict[str, Any]) -> None:
    """Fill an empty state with what `write` told."""
    if tree["version"] != VERSION:
        raise ValueError(f"version {tree['version']}, this jaxtrade writes {VERSION}")
    for name in _PLAIN:
        setattr(state, name, tree[name])
    state.register.forgotten_ns, state.register.seen = tree["orders_kept"]
    for begun, told in tree["orders"]:
        order = begin(typing.cast(OrderInitialized, event_of("OrderInitialized", begun)))
        for kind, body in told:
            order = advance(order, typing.cast(OrderEvent, event_of(kind, body)))
        state.register.load(order)
    for agent, fill, reported in tree["outside"]:
        one = Execution(
            fill=fill and typing.cast(OrderFilled, event_of("OrderFilled", fill)),
            reported=reported and typing.cast(FeeReported, event_of("FeeReported", reported)),
            agent=agent,
        )
        told = one.fill or one.reported
        assert told is not None
        state.register.outside[told.execution_id] = one
    holdings = state.holdings
    holdings.positions = {
        symbol: Position(owner=owner, quantity=Decimal(quantity))
        for symbol, (owner, quantity) in tree["positions"].items()
    }
    holdings.books = {name: Book.from_json(one) for name, one in tree["books"].items()}
    holdings.trades = Trades.from_json(tree["trades"])
    state.agents = {name: AgentRecord(**one) for name, one in tree["agents"].items()}
    trading, state.trading_reason, state.is_latched = tree["trading"]
    state.trading = TradingState(trading)
    state.marks = Marks(**tree["marks"])
    state.locks = {(name, symbol): until for name, symbol, until in tree["locks"]}
    state.settings_version, state.settings, state.pending_settings = tree["settings"]
    state.mismatches = tuple(tree["mismatches"])


def _small(state: "State") -> dict[str, Any]:
    """All but orders and executions, as plain values."""
    return {
        "version": VERSION,
        **{name: getattr(state, name) for name in _PLAIN},
        "orders_kept": [state.register.forgotten_ns, state.register.seen],
        "positions": {
            symbol: [position.owner, str(position.quantity)]
            for symbol, position in state.positions.items()
        },
        "trades": state.trades.to_json(),
        "agents": {name: dataclasses.asdict(one) for name, one in state.agents.items()},
        "books": {name: book.to_json() for name, book in state.books.items()},
        "trading": [state.trading, state.trading_reason, state.is_latched],
        "marks": dataclasses.asdict(state.marks),
        "locks": [[*key, until] for key, until in sorted(state.locks.items())],
        "settings": [state.settings_version, state.settings, state.pending_settings],
        "mismatches": list(state.mismatches),
    }


def _outside(one: Execution) -> str:
    fill = "null" if one.fill is None else encode(one.fill)
    reported = "null" if one.reported is None else encode(one.reported)
    return f"[{json.dumps(one.agent)},{fill},{reported}]"


def _order(state: "State", order: Order) -> str:
    known = state.register.texts.get(order.cid)
    if known is not None and known[0] is order:
        return known[1]
    begun = encode(OrderInitialized(at_ns=order.created_ns, cid=order.cid, intent=order.intent))
    told = ",".join(f'["{type(one).__name__}",{encode(one)}]' for one in order.events())
    text = f"[{begun},[{told}]]"
    if order.is_terminal:
        state.register.texts[order.cid] = order, text
    return text
