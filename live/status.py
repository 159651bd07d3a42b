"""What a running engine says of itself: plain values for the terminal, the API and the tests."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from jaxtrade.live.account import Account
from jaxtrade.live.desk import Desk
from jaxtrade.live.journal_status import growth, order_row

if TYPE_CHECKING:
    from jaxtrade.live.engine import Engine


def status_of(engine: "Engine") -> dict[str, Any]:
    """The state of everything; numbers that are not finite are left for JSON to make null."""
    account, state = engine.account, engine.account.state
    marks, equity = state.marks, account.equity
    decision, order = engine.decision_latency, engine.order_latency
    return {
        "name": account.settings.name,
        "run_id": state.run_id,
        "started": engine.started_ns,
        "state": account.trading,
        "reason": state.trading_reason or account.books.trouble,
        "latched": state.is_latched,
        "broker": {
            "kind": account.settings.broker.kind,
            "connected": account.is_connected,
            "reconciling": account.is_reconciling,
            "epoch": account.epoch,
            "age_s": engine.data_age_s(),
            "refused": _refused(account),
            "clock_jumps": sum(builder.jumps for builder in set(account.builders.values())),
        },
        "equity": equity,
        "day_return": growth(equity, marks.day_start_equity),
        "drawdown": max(-growth(equity, marks.peak_equity), 0.0),
        "agents": [_agent(engine, desk) for desk in account.desks.values()],
        "orders": [order_row(each) for each in state.working_orders()],
        "latency_us": {
            "decision_p50": decision.percentile(50),
            "decision_p99": decision.percentile(99),
            "order_p50": order.percentile(50),
            "order_p99": order.percentile(99),
        },
        "settings_version": state.settings_version,
        "pending_settings": dict(state.pending_settings),
        "mismatches": list(state.mismatches),
        "is_journal_sound": account.books.is_sound,
    }


def _refused(account: Account) -> dict[str, int]:
    """Ticks that no bar was made of, by reason, and quotes that orders do not go by."""
    counts: Counter[str] = Counter(quote=account.quotes.refused)
    for builder in set(account.builders.values()):
        counts.update(builder.refused)
    return {reason: count for reason, count in counts.most_common() if count}


def _agent(engine: "Engine", desk: Desk) -> dict[str, Any]:
    account, state = engine.account, engine.account.state
    record, book = state.agents.get(desk.name), state.books.get(desk.name)
    equity = 0.0 if book is None else book.value(account.closes)
    made = desk.made
    return {
        "name": desk.name,
        "model": desk.model,
        "paused": "" if record is None else record.paused,
        "equity": equity,
        "failures": desk.decider.failures,
        "last_bar": desk.decider.last_start_s,
        "last_decision": None
        if made is None
        else {
            "start_s": made.start_s,
            "action": list(made.action),
            "requested": list(made.requested),
            "target": list(made.target),
            "confidence": made.confidence,
            "value": made.value,
            "held": made.held,
            "duration_us": made.duration_ns / 1e3,
        },
        "symbols": [
            {
                "symbol": symbol,
                "position": str(state.quantity(symbol)),
                "exposure": _exposure(engine, symbol, equity),
                "target": desk.target(symbol),
                "status": account.status_of(symbol),
                "price": account.closes.get(symbol),
            }
            for symbol in desk.symbols
        ],
        "notes": list(desk.notes)[-5:],
    }


def _exposure(engine: "Engine", symbol: str, equity: float) -> float:
    account = engine.account
    quantity = float(account.state.quantity(symbol))
    return quantity * account.closes.get(symbol, 0.0) / equity if equity > 0 else 0.0
