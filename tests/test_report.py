import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxtrade import metrics
from jaxtrade.experiments import report
from jaxtrade.experiments.charts import thin
from jaxtrade.experiments.report import comparison_table, verdict, write_report
from jaxtrade.experiments.results import Backtest
from jaxtrade.specs import JaxtradeError


def backtest(name: str, exposure: np.ndarray, ruined: bool = False) -> Backtest:
    T = len(exposure)
    before = np.concatenate([[0.0], exposure[:-1]])
    moves = 0.01 * np.sin(np.arange(T, dtype=np.float64))
    price: np.ndarray = 100 * np.cumprod(1 + moves)
    bar_growth = 1 + exposure * moves
    if ruined:
        bar_growth[-1] = 1e-3
    return Backtest(
        name=name,
        span="test",
        timestamps=np.datetime64("2024-01-01", "s") + np.arange(T) * np.timedelta64(1, "h"),
        gap_growth=np.ones(T),
        cost_growth=1 - 0.001 * np.abs(exposure - before),
        bar_growth=bar_growth,
        weights_before=before,
        exposure=exposure,
        turnover=np.abs(exposure - before),
        interest=np.zeros(T),
        action=np.zeros(T, np.int32),
        open_price=price / (1 + moves),
        close_price=price,
        bars_per_year=8760.0,
        ruined=ruined,
    )


def policies(T: int = 50) -> list[Backtest]:
    return [
        backtest("agent", np.where(np.arange(T) // 3 % 2, 1.0, -0.5)),
        backtest("buy and hold", np.ones(T)),
        backtest("flat", np.zeros(T)),
    ]


class Page(HTMLParser):
    """Collects the tags, and the text outside of scripts and styles, and checks the nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.stack: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.texts.append(data)


def written(path: Path, results: list[Backtest], **changes: object) -> tuple[str, Page]:
    fields: dict = {"title": "Report", "subtitle": ["one line"], **changes}
    write_report(path, results=results, **fields)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_page_is_self_contained_and_complete(tmp_path: Path) -> None:
    results = policies()
    text, page = written(tmp_path / "report.html", results, notes=["a note"])
    assert text.startswith("<!DOCTYPE html>")
    assert "<script src=" not in text
    assert "<link" not in text
    assert not any(
        attributes.get(name) for _, attributes in page.tags for name in ("src", "href", "srcset")
    )
    assert not re.search(r"@import|url\(", "".join(re.findall(r"<style>(.*?)</style>", text, re.S)))
    shown = " ".join(page.texts)
    for name in metrics.METRICS:
        assert report._ROWS[name][0] in shown
    for result in results:
        assert result.name in shown
    assert "a note" in shown
    assert "promise nothing" in shown
    assert "thinned" not in shown
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_figures_are_shown_as_readers_expect(tmp_path: Path) -> None:
    _, page = written(tmp_path / "report.html", policies())
    total = policies()[0].metrics()["total_return"]
    assert f"{100 * total:.2f} %".replace("-", "−") in page.texts
    assert "–" in page.texts  # the win rate of no trips
    show = report._ROWS
    assert show["cagr"][1](0.12345) == "12.35 %"
    assert show["trades"][1](12345.0) == "12,345"
    assert show["sharpe"][1](-1e-9) == "0.00"
    assert show["cagr"][1](float("inf")) == "inf %"
    assert show["cagr"][1](1e12) == "1.00e+14 %"


def test_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>&<b>"
    results = [backtest(evil, np.ones(5)), backtest("buy and hold", np.ones(5))]
    text, page = written(
        tmp_path / "report.html", results, title=evil, subtitle=[evil], notes=[evil, "{title}"]
    )
    assert "<script>alert(1)" not in text
    assert page.texts.count(evil) >= 4  # title, heading, subtitle, table, note
    assert "{title}" in page.texts


@pytest.mark.parametrize(
    "results",
    [
        [backtest("flat", np.zeros(20))],
        [backtest("agent", np.ones(1))],
        [backtest("agent", np.full(9, -1.0), ruined=True), backtest("flat", np.zeros(9))],
    ],
    ids=["no trades", "one bar", "ruined"],
)
def test_degenerate_results(tmp_path: Path, results: list[Backtest]) -> None:
    _, page = written(tmp_path / "report.html", results)
    shown = " ".join(page.texts)
    assert ("ruined" in shown) == results[0].ruined
    assert "extrapolated" in shown
    assert "nan" not in shown.lower().split()


def test_long_series_are_thinned_and_the_report_says_so(tmp_path: Path) -> None:
    text, page = written(tmp_path / "report.html", policies(30_000))
    assert "thinned" in " ".join(page.texts)
    assert "entry long (1 in " in text
    assert len(text) < 8e6


def test_thinning_keeps_extremes_ends_and_order() -> None:
    values = np.sin(np.arange(100_003) / 50)
    values[[77, 50_001]] = [9.0, -9.0]
    kept = thin(values, 400)
    assert len(kept) <= 400
    assert (np.diff(kept) > 0).all()
    assert {0, 77, 50_001, 100_002} <= set(kept.tolist())
    np.testing.assert_array_equal(thin(values[:400], 400), np.arange(400))


def test_a_report_needs_an_agent(tmp_path: Path) -> None:
    with pytest.raises(JaxtradeError, match="at least one result"):
        written(tmp_path / "report.html", [])


def test_terminal_table() -> None:
    results = [*policies(), backtest("[red]odd[/red]", np.ones(9), ruined=True)]
    console = Console(width=160)
    with console.capture() as capture:
        console.print(comparison_table(results))
    shown = capture.get()
    for name in report._TERMINAL_COLUMNS:
        assert report._ROWS[name][0] in shown
    assert "[red]odd[/red] (ruined)" in shown
    assert f"{100 * results[1].metrics()['total_return']:.2f} %" in shown


def test_the_verdict_names_who_was_not_beaten() -> None:
    agent, holder, flat = policies()
    figures = [each.metrics()["sharpe"] for each in (agent, holder, flat)]
    order = sorted(range(3), key=lambda index: figures[index])
    worst, middle, best = ([agent, holder, flat][index] for index in order)
    assert figures[order[0]] < figures[order[1]] < figures[order[2]]
    lost = verdict([worst, middle, best])
    assert f"not above {middle.name} ({figures[order[1]]:.2f}), {best.name}" in lost
    assert f"above all of them ({worst.name}, {middle.name})" in verdict([best, worst, middle])
    assert f"Sharpe ratio {figures[order[2]]:.2f} with a standard error of" in verdict([best])
