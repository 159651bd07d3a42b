"""The terminal's picture of an account, drawn from a status and nothing else.

`picture(status)` is what rich prints: trading state and connection, equity, then agent by agent the
position, what the policy wants and how old its data are, working orders, latencies, and settings
that wait for the next bar.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

COLOURS = {"active": "green", "reducing": "yellow", "halted": "red", "killed": "bold red"}
STALE_S = 60.0
MOST_ORDERS = 10

Status = Mapping[str, Any]


def picture(status: Status) -> RenderableType:
    """The whole account."""
    agents = status.get("agents") or ()
    parts: list[RenderableType] = [_head(status), _agents(agents), _decisions(agents)]
    orders = status.get("orders") or ()
    if orders:
        parts.append(_orders(orders))
    parts += [_notices(status), _foot(status)]
    return Panel(
        Group(*(part for part in parts if part)),
        title=f"jaxtrade {status.get('name', '')}",
        title_align="left",
        border_style=COLOURS.get(str(status.get("state")), "white"),
    )


def line(status: Status) -> str:
    """The account in one line, for a log or a pipe."""
    held = [
        f"{each.get('symbol')} {_quantity(each.get('position'))}"
        for agent in status.get("agents") or ()
        for each in agent.get("symbols") or ()
    ]
    state, equity = str(status.get("state")).upper(), _money(status.get("equity"))
    text = f"{status.get('name')}: {state} equity {equity} {' '.join(held)}".rstrip()
    return f"{text} (by its journal: {status['note']})" if status.get("note") else text


def _head(status: Status) -> Text:
    """Trading state, broker, equity."""
    state = str(status.get("state", "?"))
    text = Text(state.upper(), style=COLOURS.get(state, "white"))
    if status.get("latched"):
        text.append(" latched", style="bold red")
    if status.get("reason"):
        text.append(f"  {status['reason']}")
    broker = status.get("broker") or {}
    if status.get("note"):
        text.append(f"\n{status['note']}; this is what the journal says", style="yellow")
    else:
        is_up = bool(broker.get("connected"))
        up = "connected" if is_up else "not connected"
        up = "comparing with the broker" if is_up and broker.get("reconciling") else up
        text.append(f"\n{broker.get('kind', '')} ")
        text.append(up, style="green" if up == "connected" else "red")
        text.append("  data ")
        text.append(_age(broker.get("age_s")))
        text.append(_refused(broker), style="yellow")
    text.append(f"\nequity {_money(status.get('equity'))}")
    text.append("  today ")
    text.append(_percent(status.get("day_return"), sign=True))
    text.append(f"  drawdown {_percent(status.get('drawdown'))}")
    return text


def _refused(broker: Status) -> str:
    """What of the data was not taken, and jumps of its clock."""
    refused, jumps = broker.get("refused") or {}, broker.get("clock_jumps")
    parts = [f"{reason} {count}" for reason, count in refused.items()]
    parts += [f"its clock jumped {jumps} times"] if jumps else []
    return f"  not taken: {', '.join(parts)}" if parts else ""


def _agents(agents: Sequence[Status]) -> Table:
    """A row for each symbol of each agent."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("agent", "symbol"):
        table.add_column(name)
    for name in ("position", "exposure", "target", "price"):
        table.add_column(name, justify="right")
    table.add_column("status")
    for agent in agents:
        symbols: Sequence[Status] = agent.get("symbols") or ({},)
        for number, each in enumerate(symbols):
            table.add_row(
                _name(agent) if number == 0 else "",
                str(each.get("symbol", "-")),
                _quantity(each.get("position")),
                _percent(each.get("exposure"), sign=True),
                _percent(each.get("target"), sign=True),
                _price(each.get("price")),
                str(each.get("status") or "-"),
            )
    return table


def _decisions(agents: Sequence[Status]) -> Text:
    """A line for each agent: the bar that it decided on last, and how."""
    lines = [
        Text(f"{agent.get('name')}: bar {_stamp(agent.get('last_bar'))}, {_decision(agent)}", "dim")
        for agent in agents
        if _is_number(agent.get("last_bar"))
    ]
    return Text("\n").join(lines)


def _name(agent: Status) -> Text:
    text = Text(str(agent.get("name", "")))
    if agent.get("paused"):
        text.append(f" paused: {agent['paused']}", style="yellow")
    if agent.get("failures"):
        text.append(f" {agent['failures']} failures", style="red")
    return text


def _decision(agent: Status) -> str:
    """The policy's last word: its action, how sure it is, and whether it was held."""
    made = agent.get("last_decision")
    if not made:
        return "no decision since its start"
    text = "action " + " ".join(f"{each:.4g}" for each in made.get("action") or ())
    if _is_number(made.get("confidence")):
        text += f" ({made['confidence']:.0%})"
    return f"{text} held: {made['held']}" if made.get("held") else text


def _orders(orders: Sequence[Status]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("order", "agent", "what", "filled", "status"):
        table.add_column(name)
    for each in orders[:MOST_ORDERS]:
        at = f" at {_quantity(each['price'])}" if each.get("price") else ""
        leg = "" if each.get("leg") == "target" else f" ({each.get('leg')})"
        table.add_row(
            str(each.get("cid", "")),
            str(each.get("agent", "")),
            f"{each.get('side')} {_quantity(each.get('quantity'))} {each.get('symbol')}{at}{leg}",
            _quantity(each.get("filled")),
            str(each.get("status", "")),
        )
    if len(orders) > MOST_ORDERS:
        table.add_row(f"and {len(orders) - MOST_ORDERS} more")
    return table


def _notices(status: Status) -> Text:
    """What a person should see: mismatches, settings that wait, notes of agents."""
    lines = [
        Text(f"differs from the broker: {each}", "red") for each in status.get("mismatches") or ()
    ]
    if status.get("is_journal_sound") is False:
        lines.append(Text("the journal cannot be written: nothing new is opened", "bold red"))
    pending = status.get("pending_settings") or {}
    if pending:
        waits = ", ".join(f"{key}={value}" for key, value in pending.items())
        lines.append(Text(f"from the next bar on: {waits}", "yellow"))
    for agent in status.get("agents") or ():
        lines += [Text(f"{agent.get('name')}: {note}", "dim") for note in agent.get("notes") or ()]
    return Text("\n").join(lines)


def _foot(status: Status) -> Text:
    latency = status.get("latency_us") or {}
    parts = [
        f"{what} {latency[f'{what}_p50']:.0f}/{latency[f'{what}_p99']:.0f} µs"
        for what in ("decision", "order")
        if _is_number(latency.get(f"{what}_p50")) and _is_number(latency.get(f"{what}_p99"))
    ]
    if parts:
        parts.append("(median/99 %)")
    parts.append(f"settings {status.get('settings_version', 0)}")
    if status.get("run_id"):
        parts.append(f"run {status['run_id']}")
    return Text("  ".join(parts), style="dim")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _money(value: Any) -> str:
    return f"{value:,.2f}" if _is_number(value) else "-"


def _percent(value: Any, *, sign: bool = False) -> Text:
    if not _is_number(value):
        return Text("-")
    style = "" if not sign or abs(value) < 5e-5 else "green" if value > 0 else "red"
    return Text(f"{value:+.2%}" if sign else f"{value:.2%}", style=style)


def _quantity(value: Any) -> str:
    """Units, to the eight digits that a person can use."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return "-"
    if not math.isfinite(number):
        return "-"
    return f"{number:,.0f}" if abs(number) >= 1e8 else f"{number:,.8g}"


def _price(value: Any) -> str:
    return f"{value:,.6g}" if _is_number(value) else "-"


def _age(seconds: Any) -> Text:
    """How old something is; red where it should be newer."""
    if not _is_number(seconds):
        return Text("never came", style="yellow")
    text = f"{seconds:.1f} s old" if seconds < 120 else f"{seconds / 60:.0f} min old"
    return Text(text, style="red" if seconds > STALE_S else "")


def _stamp(start_s: Any) -> str:
    if not _is_number(start_s) or start_s <= 0:
        return "-"
    return datetime.fromtimestamp(start_s, UTC).strftime("%Y-%m-%d %H:%M")
