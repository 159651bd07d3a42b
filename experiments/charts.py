"""The charts of a report: equity, drawdown, exposure, and trades on the price."""

import html
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jaxtrade import metrics
from jaxtrade.experiments.results import Backtest

MAX_POINTS = 4_000
"""Longest line drawn; of a longer one the extremes of each of MAX_POINTS / 2 stretches stay."""

MAX_TRIPS = 800
"""Most round trips marked in the price chart; of more, every n-th of each side."""

BENCHMARK = "buy and hold"
"""Name of the result whose drawdown is drawn beside the agent's."""

# Okabe & Ito's colours, which stay apart for colour-blind eyes; the first is the agent's.
_COLOURS = ("#0072B2", "#E69F00", "#8A8A8A", "#CC79A7", "#56B4E9", "#7A5C00", "#009E73")
_LONG, _SHORT, _EXIT = "#009E73", "#D55E00", "#4B5563"

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_PANELS: dict[str, tuple[float, float, str, dict[str, str]]] = {
    # axis: bottom, top, heading, settings
    "yaxis": (0.69, 1.0, "Equity, log scale", {"type": "log", "tickformat": ".4~g"}),
    "yaxis2": (0.49, 0.63, "Drawdown", {"tickformat": ".2~%"}),
    "yaxis3": (0.32, 0.43, "Exposure of the agent, position value / equity", {}),
    "yaxis4": (0.0, 0.26, "Close price and trades of the agent", {"tickformat": ",.6~g"}),
}


def figure_of(results: Sequence[Backtest]) -> Any:
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
        "line": {"color": colour(index), "width": 1.4 if index else 2.2},
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
        (21, "y3", "exposure", agent.exposure, {"color": colour(0), "shape": "hv"}, ".2f"),
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
        font={"family": FONT, "size": 13, "color": "#374151"},
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


def colour(index: int) -> str:
    """The colour of the result at this place, the agent's first."""
    return _COLOURS[index % len(_COLOURS)]


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
