"""What the journal says of an account whose engine does not answer: read only, changing nothing."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from jaxtrade.live.control import NotRunningError, ask
from jaxtrade.live.events import TradingState
from jaxtrade.live.journal import newest_snapshot, open_readonly, read_events
from jaxtrade.live.journal_db import JOURNAL
from jaxtrade.live.latches import Latch, latched
from jaxtrade.live.orders import Order
from jaxtrade.live.records import AgentRecord
from jaxtrade.live.state import SEVERITY, State
from jaxtrade.specs import JaxtradeError


def status(folder: Path | str, *, timeout_s: float = 2.0) -> dict[str, Any]:
    """What the engine says or, where none answers, what the journal says; `note` tells which.

    Raises:
        JaxtradeError: neither can be had.
    """
    try:
        return {**ask(folder, "status", timeout_s=timeout_s), "note": ""}
    except NotRunningError as error:
        return {**from_journal(folder), "note": str(error)}


def from_journal(folder: Path | str) -> dict[str, Any]:
    """The same fields, as far as they outlive a process.

    Raises:
        JaxtradeError: there is no journal, or it cannot be read.
    """
    path = Path(folder) / JOURNAL
    if not path.exists():
        raise JaxtradeError(f"{folder}: no account has traded there yet")
    try:
        with contextlib.closing(open_readonly(path)) as db:
            state = _newest(db, str(path))
    except sqlite3.Error as error:
        raise JaxtradeError(f"{path}: cannot be read: {error}") from error
    found, trading = None, state.trading
    for meant in (TradingState.HALTED, TradingState.KILLED):
        if (is_set := latched(folder, Latch[meant.name])) is not None:
            found, trading = is_set, max(trading, meant, key=SEVERITY.index)
    marks = state.marks
    return {
        "name": Path(folder).name,
        "run_id": state.run_id,
        "state": trading,
        "reason": state.trading_reason if found is None else found.reason,
        "latched": state.is_latched or found is not None,
        "broker": {"kind": "", "connected": False, "epoch": state.epoch, "age_s": None},
        "equity": marks.equity,
        "day_return": growth(marks.equity, marks.day_start_equity),
        "drawdown": max(-growth(marks.equity, marks.peak_equity), 0.0),
        "agents": [_agent(state, name, record) for name, record in state.agents.items()],
        "orders": [order_row(each) for each in state.working_orders()],
        "latency_us": {},
        "settings_version": state.settings_version,
        "pending_settings": dict(state.pending_settings),
        "mismatches": list(state.mismatches),
    }


def _newest(db: sqlite3.Connection, name: str) -> State:
    """The newest snapshot and all events after it."""
    state = newest_snapshot(db) or State()
    state.apply_all(event for _, event in read_events(db, state.last_seq, name=name))
    return state


def _agent(state: State, name: str, record: AgentRecord) -> dict[str, Any]:
    symbols = [symbol for symbol, position in state.positions.items() if position.owner == name]
    return {
        "name": name,
        "model": record.model,
        "paused": record.paused,
        "last_bar": record.last_start_s,
        "last_decision": None,
        "symbols": [
            {"symbol": symbol, "position": str(state.quantity(symbol))} for symbol in symbols
        ],
    }


def order_row(order: Order) -> dict[str, Any]:
    """A working order, as a status tells of it."""
    intent = order.intent
    return {
        "cid": intent.cid,
        "agent": intent.agent,
        "symbol": intent.symbol,
        "side": intent.side,
        "leg": intent.leg,
        "quantity": str(intent.quantity),
        "filled": str(order.filled),
        "price": None if intent.price is None else str(intent.price),
        "status": order.status,
    }


def growth(now: float, before: float) -> float:
    """By which fraction a number has grown; 0 where it cannot be said."""
    return now / before - 1.0 if before > 0 else 0.0
