"""A backtest for the eyes: one self-contained HTML page, and a table for the terminal."""

import html
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtrade import metrics
from jaxtrade.experiments.charts import FONT, MAX_POINTS, colour, figure_of
from jaxtrade.experiments.results import Backtest
from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import write_atomic

if TYPE_CHECKING:
    from rich.table import Table


def _percent(value: float) -> str:
    return _number(100 * value) + " %"


def _number(value: float) -> str:
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = f"{value:,.2f}" if abs(value) < 1e7 else f"{value:.2e}"
    return "0.00" if text == "-0.00" else text


def _count(value: float) -> str:
    return f"{value:,.0f}"


_ROWS: dict[str, tuple[str, Callable[[float], str], str]] = {
    "total_return": ("Total return", _percent, "final over initial equity, minus one"),
    "cagr": ("CAGR", _percent, "yearly growth that compounds to the total return"),
    "sharpe": (
        "Sharpe ratio",
        _number,
        "mean over deviation of returns beyond idle cash, annualised",
    ),
    "sortino": ("Sortino ratio", _number, "the same over the deviation of losses only"),
    "volatility": ("Volatility", _percent, "deviation of returns, annualised"),
    "max_drawdown": ("Max drawdown", _percent, "deepest fall below an earlier peak of equity"),
    "max_drawdown_bars": ("Longest drawdown, bars", _count, "from a peak to recovery or the end"),
    "calmar": ("Calmar ratio", _number, "CAGR over max drawdown"),
    "win_rate": ("Win rate", _percent, "share of round trips that gained"),
    "profit_factor": ("Profit factor", _number, "gains over losses of round trips"),
    "trades": ("Round trips", _count, "runs of bars on one side of the market, an open one too"),
    "turnover": ("Turnover per year", _number, "traded value over equity"),
    "exposure": ("Mean exposure", _percent, "absolute position value over equity"),
    "costs": ("Costs", _percent, "sum of fractions of equity paid for trading and as interest"),
}
_OF_TRIPS = ("win_rate", "profit_factor")
_TERMINAL_COLUMNS = (
    "total_return",
    "sharpe",
    "max_drawdown",
    "trades",
    "turnover",
    "exposure",
    "costs",
)


def comparison_table(results: Sequence[Backtest]) -> "Table":
    """The most important figures for the terminal, 80 columns: a row per policy."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("", no_wrap=True)
    for name in _TERMINAL_COLUMNS:
        table.add_column(_ROWS[name][0], justify="right")
    for result in results:
        figures = result.metrics()
        suffix = " (ruined)" if result.ruined else ""
        cells = (_ROWS[name][1](figures[name]) for name in _TERMINAL_COLUMNS)
        table.add_row(Text(result.name + suffix), *cells)
    return table


def verdict(results: Sequence[Backtest]) -> str:
    """One sentence on the agent, `results[0]`, against the others, as plain when it lost."""
    agent, *others = results
    sharpes = [each.sharpe for each in results]
    error = metrics.sharpe_error(agent.excess, agent.bars_per_year)
    lost = [
        f"{other.name} ({value:.2f})"
        for other, value in zip(others, sharpes[1:], strict=True)
        if value >= sharpes[0]
    ]
    names = ", ".join(other.name for other in others)
    compared = f"not above {', '.join(lost)}" if lost else f"above all of them ({names})"
    return f"Sharpe ratio {sharpes[0]:.2f} with a standard error of {error:.2f}" + (
        f": {compared}." if others else "."
    )


def write_report(
    path: str | Path,
    *,
    title: str,
    subtitle: Sequence[str],
    results: Sequence[Backtest],
    notes: Sequence[str] = (),
) -> None:
    """Write one HTML file that works offline: figures, charts and notes.

    `results[0]` is the agent, whose exposure and trades are drawn; the others are for comparison.
    `subtitle` and `notes` are lines of plain text; all text is escaped. The file takes its place
    in one step.

    Raises:
        JaxtradeError: there are no results, or the file cannot be written.
    """
    if not results:
        raise JaxtradeError("a report needs at least one result: the agent's")
    chart = figure_of(results).to_html(
        full_html=False,
        include_plotlyjs=True,
        default_height="1180px",
        config={
            "displaylogo": False,
            "responsive": True,
            "modeBarButtonsToRemove": ["select2d", "lasso2d"],
        },
    )
    remarks = [f"{results[0].name}: {verdict(results)}", *notes, *_remarks(results)]
    items = "".join(f"<li>{html.escape(remark)}</li>" for remark in remarks)
    page = _PAGE.format(
        title=html.escape(title),
        style=_STYLE,
        subtitle="".join(f"<p>{html.escape(line)}</p>" for line in subtitle),
        table=_metric_table(results),
        chart=chart,
        notes=f"<section><h2>Notes</h2><ul>{items}</ul></section>" if remarks else "",
    )
    write_atomic(path, page)


def _remarks(results: Sequence[Backtest]) -> list[str]:
    """What a reader should know of these results to not be misled by the table."""
    remarks = [
        f"{each.name}: the account was ruined and its position liquidated."
        for each in results
        if each.ruined
    ]
    if len(results[0].timestamps) < results[0].bars_per_year:
        remarks.append("The span is shorter than a year: annualised figures are extrapolated.")
    if max(len(each.timestamps) for each in results) > MAX_POINTS:
        remarks.append(
            f"Lines of more than {MAX_POINTS:,} points are thinned for display: of each stretch "
            "the lowest and the highest point stay. The figures in the table use every bar."
        )
    return remarks


def _metric_table(results: Sequence[Backtest]) -> str:
    figures = [result.metrics() for result in results]
    head = "".join(
        f"<th scope='col'><i style='background:{colour(index)}'></i>{html.escape(each.name)}"
        f"<small>{'ruined' if each.ruined else html.escape(each.span)}</small></th>"
        for index, each in enumerate(results)
    )
    rows = []
    for name in metrics.METRICS:
        label, _, meaning = _ROWS[name]
        cells = "".join(f"<td>{_cell(name, each)}</td>" for each in figures)
        rows.append(f"<tr><th scope='row'>{label}<small>{meaning}</small></th>{cells}</tr>")
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(name: str, figures: dict[str, float]) -> str:
    if name in _OF_TRIPS and not figures["trades"]:
        return "–"
    return _ROWS[name][1](figures[name]).replace("-", "−").replace("inf", "∞")


_STYLE = (
    ":root { color-scheme: light; } * { box-sizing: border-box; }\n"
    f"body {{ margin: 0; background: #F3F4F6; color: #111827; font: 15px/1.5 {FONT}; }}"
    """
main { max-width: 1240px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { margin: 0 0 4px; font-size: 28px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 17px; }
header { margin-bottom: 24px; }
header p { margin: 2px 0; color: #4B5563; overflow-wrap: anywhere; }
section { background: white; border: 1px solid #E5E7EB; border-radius: 10px;
  padding: 20px 24px; margin-bottom: 20px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px; text-align: right; border-bottom: 1px solid #EEF0F2; }
th:first-child { text-align: left; padding-left: 0; font-weight: 500; }
thead th { border-bottom: 2px solid #D1D5DB; vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 0; }
td { white-space: nowrap; }
td:nth-child(2) { font-weight: 600; }
small { display: block; color: #6B7280; font-size: 12px; font-weight: 400; line-height: 1.3; }
tbody small { display: inline; margin-left: 10px; }
i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 7px; }
ul { margin: 0; padding-left: 20px; }
footer { color: #6B7280; font-size: 13px; }
@media (max-width: 860px) { main { padding: 20px 12px; } tbody small { display: none; } }
"""
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>{title}</h1>{subtitle}</header>
<section><h2>Figures</h2>{table}</section>
<section>{chart}</section>
{notes}
<footer>Past and simulated results promise nothing about the future.</footer>
</main>
</body>
</html>
"""
