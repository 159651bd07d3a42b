"""What people may ask of a running engine, by name; see `control.COMMANDS`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxtrade.live.desk import Desk
from jaxtrade.live.events import AgentPaused, AgentResumed
from jaxtrade.specs import JaxtradeError, unknown_name

if TYPE_CHECKING:
    from jaxtrade.live.engine import Engine


async def carry_out(engine: "Engine", name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Do what was asked; what there is to say of it.

    Raises:
        JaxtradeError: it cannot be done, in one line.
    """
    account, reason = engine.account, str(arguments.get("reason", ""))
    now_ns = account.clock.wall_ns()
    match name:
        case "pause":
            return {"paused": _pause(engine, _desks(engine, arguments["agent"]), reason)}
        case "resume":
            chosen = _desks(engine, arguments["agent"])
            for desk in chosen:
                desk.decider.failures = 0
            resumed = [AgentResumed(at_ns=now_ns, agent=d.name, reason=reason) for d in chosen]
            account.books.observe(*resumed, durable=True)
            return {"resumed": [desk.name for desk in chosen]}
        case "kill":
            await engine.governor.kill(reason, flatten=bool(arguments["flatten"]))
            return {"state": account.state.trading}
        case "flatten":
            return await _flatten(engine, reason)
        case "rearm":
            engine.governor.rearm(reason)
            return {"state": account.state.trading}
        case "set":
            version = engine.governor.propose(arguments["changes"], str(arguments["by"]))
            return {"version": version, "pending": dict(account.state.pending_settings)}
        case "swap":
            desk = _desk(engine, arguments["agent"])
            return {"note": engine.swaps.propose(desk, str(arguments["model"]))}
        case "rollback":
            desk = _desk(engine, arguments["agent"])
            return {"note": engine.swaps.roll_back(desk, reason)}
        case "stop":
            engine.stop(reason or "asked for")
            return {"stopping": True}
    raise JaxtradeError(f"{name}: the engine does not know how")


async def _flatten(engine: "Engine", reason: str) -> dict[str, Any]:
    """Pause everyone and close every position of theirs at the market."""
    account = engine.account
    paused = _pause(engine, _desks(engine, ""), reason or "flatten")
    for symbol, desk in account.owners.items():
        if account.state.quantity(symbol):
            await engine.trading.close(desk, symbol)
    return {"paused": paused}


def _pause(engine: "Engine", desks: Sequence[Desk], reason: str) -> list[str]:
    """Let agents open nothing until they are resumed; their names."""
    now_ns = engine.account.clock.wall_ns()
    events = [AgentPaused(at_ns=now_ns, agent=desk.name, reason=reason) for desk in desks]
    engine.account.books.observe(*events, durable=True)
    return [desk.name for desk in desks]


def _desks(engine: "Engine", name: str) -> list[Desk]:
    """The agent of a name, or all of them for ""."""
    return [_desk(engine, name)] if name else list(engine.account.desks.values())


def _desk(engine: "Engine", name: str) -> Desk:
    desk = engine.account.desks.get(name)
    if desk is None:
        raise unknown_name("agent", name, engine.account.desks)
    return desk
