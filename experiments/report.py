"""A backtest for the eyes: one self-contained HTML page, and a table for the terminal."""

import html
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jaxtrade import metrics
from jaxtrade.experiments.results import Backtest, replace_file
from jaxtrade.specs import JaxtradeError

if TYPE_CHECKING:
    from rich.table import Table

MAX_POINTS = 4_000
"""Longest line drawn; of a longer one the extremes of each of MAX_POINTS / 2 stretches stay."""

MAX_TRIPS = 800
"""Most round trips marked in the price chart; of more, every n-th of each side."""

BENCHMARK = "buy and hold"
"""Name of the result whose drawdown is drawn beside the agent's."""

# Okabe & Ito's colours, which stay apart for colour-blind eyes; the first is the agent's.
_COLOURS = ("#0072B2", "#E69F00", "#8A8A8A", "#CC79A7", "#56B4E9", "#7A5C00", "#009E73")
_LONG, _SHORT, _EXIT = "#009E73", "#D55E00", "#4B5563"


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
    "sharpe": ("Sharpe ratio", _number, "mean over deviation of returns, annualised; no risk-free"),
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
_TERMINAL_ROWS = (
    "total_return",
    "cagr",
    "sharpe",
    "sortino",
    "max_drawdown",
    "trades",
    "turnover",
    "exposure",
    "costs",
)


def comparison_table(results: Sequence[Backtest]) -> "Table":
    """The most important figures for the terminal: a row each, a column per policy."""
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    table.add_column("")
    for result in results:
        suffix = " (ruined)" if result.ruined else ""
        table.add_column(Text(result.name + suffix), justify="right")
    figures = [result.metrics() for result in results]
    for name in _TERMINAL_ROWS:
        label, show, _ = _ROWS[name]
        table.add_row(label, *(show(each[name]) for each in figures))
    return table


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
        JaxtradeError: there are no results.
    """
    if not results:
        raise JaxtradeError("a report needs at least one result: the agent's")
    chart = _figure(results).to_html(
        full_html=False,
        include_plotlyjs=True,
        default_height="1180px",
        config={
            "displaylogo": False,
            "responsive": True,
            "modeBarButtonsToRemove": ["select2d", "lasso2d"],
        },
    )
    remarks = [*notes, *_remarks(results)]
    items = "".join(f"<li>{html.escape(remark)}</li>" for remark in remarks)
    page = _PAGE.format(
        title=html.escape(title),
        style=_STYLE,
        subtitle="".join(f"<p>{html.escape(line)}</p>" for line in subtitle),
        table=_metric_table(results),
        chart=chart,
        notes=f"<section><h2>Notes</h2><ul>{items}</ul></section>" if remarks else "",
    )
    replace_file(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def thin(values: NDArray[np.float64], max_points: int = MAX_POINTS) -> NDArray[np.int64]:
    """Indices, rising, of at most `max_points` points to draw of a line f64[T].

    All of them if they are few enough; otherwise the lowest and the highest of max_points / 2 - 1
    equal stretches, and the two ends. `max_points` is at least 4.
    """
    T = len(values)
    if max_points >= T:
        return np.arange(T)
    edges = np.linspace(0, T, max_points // 2, dtype=np.int64)
    kept = [0, T - 1]
    for start, stop in itertools.pairwise(edges):
        stretch = values[start:stop]
        kept += [int(start + np.argmin(stretch)), int(start + np.argmax(stretch))]
    return np.unique(np.array(kept, np.int64))


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
        f"<th scope='col'><i style='background:{_colour(index)}'></i>{html.escape(each.name)}"
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


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _figure(results: Sequence[Backtest]) -> Any:
    """The four panels over one time axis."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for index in reversed(range(len(results))):  # the agent is drawn last, on top
        _add_policy(figure, results[index], index)
    _add_agent(figure, results[0])
    _add_markers(figure, results[0].trips())
    _lay_out(figure)
    stamps = results[0].timestamps
    if len(stamps) == 1:
        day = np.timedelta64(1, "D")
        figure.update_xaxes(range=[str(stamps[0] - day), str(stamps[0] + day)])
    return figure


def _add_policy(figure: Any, result: Backtest, index: int) -> None:
    """Equity, and drawdown of the agent (index 0) and of the benchmark."""
    name = html.escape(result.name)
    shared = {
        "line": {"color": _colour(index), "width": 1.4 if index else 2.2},
        "legendgroup": str(index),
        "legendrank": index,
    }
    equity = _line(result.timestamps, result.equity[1:])
    figure.add_scatter(**equity, **shared, yaxis="y", name=name, hovertemplate="%{y:.4~f}")
    if index and result.name != BENCHMARK:
        return
    figure.add_scatter(
        **_line(result.timestamps, 0.0 - metrics.drawdown(result.returns)[1:]),
        **shared,
        yaxis="y2",
        name=f"{name}, drawdown",
        fill=None if index else "tozeroy",
        fillcolor="rgba(0,114,178,0.14)",
        hovertemplate="%{y:.2%}",
        showlegend=False,
    )


def _add_agent(figure: Any, agent: Backtest) -> None:
    """Exposure as steps, and the close price."""
    width = 1.2 if len(agent.timestamps) <= MAX_POINTS else 0.6
    for rank, axis, name, values, line, shown_as in (
        (21, "y3", "exposure", agent.exposure, {"color": _colour(0), "shape": "hv"}, ".2f"),
        (22, "y4", "close", agent.close_price, {"color": "#6B7280"}, ",.6~g"),
    ):
        figure.add_scatter(
            **_line(agent.timestamps, values),
            yaxis=axis,
            name=name,
            line={**line, "width": width},
            hovertemplate=f"%{{y:{shown_as}}}",
            showlegend=False,
            legendrank=rank,
        )


def _line(stamps: NDArray[np.datetime64], values: NDArray[np.float64]) -> dict[str, Any]:
    kept = thin(values)
    mode = "lines" if len(kept) > 1 else "markers"
    return {"x": stamps[kept].astype("datetime64[s]").astype(str), "y": values[kept], "mode": mode}


def _add_markers(figure: Any, trips: pd.DataFrame) -> None:
    """Entries over exits at their prices; every n-th trip of a side where there are too many."""
    step = max(1, math.ceil(len(trips) / MAX_TRIPS))
    some = f" (1 in {step})" if step > 1 else ""
    scale = 1.0 if len(trips) <= 100 else 0.7
    long = trips[trips["side"] == "long"].iloc[::step]
    short = trips[trips["side"] == "short"].iloc[::step]
    both = pd.concat([long, short])
    left = both[~both["open"]].sort_values("exit_time")
    for rank, name, rows, symbol, colour, size in (
        (33, "exit", left, "x-thin", _EXIT, 8),
        (31, "entry long", long, "triangle-up", _LONG, 10),
        (32, "entry short", short, "triangle-down", _SHORT, 10),
    ):
        side = name.split()[0]
        figure.add_scatter(
            x=rows[f"{side}_time"].dt.strftime("%Y-%m-%dT%H:%M:%S").to_numpy(),
            y=rows[f"{side}_price"].to_numpy(),
            yaxis="y4",
            mode="markers",
            name=name + some,
            legend="legend2",
            legendrank=rank,
            marker={
                "symbol": symbol,
                "color": colour,
                "size": size * scale,
                "line": {"width": 1.5, "color": _EXIT} if name == "exit" else {"width": 0},
            },
            hovertemplate="%{y:,.6~g} (%{x|%Y-%m-%d %H:%M})",  # the nearest may be another bar
        )


def _lay_out(figure: Any) -> None:
    grid = {"gridcolor": "#E5E7EB", "zerolinecolor": "#9CA3AF", "linecolor": "#9CA3AF"}
    for axis, (bottom, top, heading, settings) in _PANELS.items():
        figure.update_layout({axis: {"domain": [bottom, top], "anchor": "x", **grid, **settings}})
        figure.add_annotation(
            text=f"<b>{heading}</b>",
            xref="paper",
            yref="paper",
            x=0,
            y=top,
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": 14, "color": "#111827"},
        )
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "yanchor": "bottom"}
    figure.update_layout(
        template="none",
        font={"family": _FONT, "size": 13, "color": "#374151"},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 64, "r": 16, "t": 60, "b": 36},
        hovermode="x unified",
        hoversubplots="axis",
        hoverlabel={"bgcolor": "rgba(255,255,255,0.94)", "font": {"size": 12}},
        legend={**legend, "y": 1.0},
        legend2={**legend, "y": 0.26},
        xaxis={"type": "date", "anchor": "y4", "showspikes": True, "spikethickness": 1, **grid},
    )


_PANELS: dict[str, tuple[float, float, str, dict[str, str]]] = {
    # axis: bottom, top, heading, settings
    "yaxis": (0.69, 1.0, "Equity, log scale", {"type": "log", "tickformat": ".4~g"}),
    "yaxis2": (0.49, 0.63, "Drawdown", {"tickformat": ".2~%"}),
    "yaxis3": (0.32, 0.43, "Exposure of the agent, position value / equity", {}),
    "yaxis4": (0.0, 0.26, "Close price and trades of the agent", {"tickformat": ",.6~g"}),
}

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_STYLE = (
    ":root { color-scheme: light; } * { box-sizing: border-box; }\n"
    f"body {{ margin: 0; background: #F3F4F6; color: #111827; font: 15px/1.5 {_FONT}; }}"
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
