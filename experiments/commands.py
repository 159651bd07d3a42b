"""What the subcommands `train`, `export` and `backtest` do; `jaxtrade.cli` declares them."""

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from jaxtrade.agents.devices import is_main, use_device
from jaxtrade.experiments import train as job
from jaxtrade.experiments.backtest import BASELINES, agent_backtest, baselines
from jaxtrade.experiments.config import apply, compose, expand
from jaxtrade.experiments.outcome import span_notes, write_policy
from jaxtrade.experiments.replay import compare, replay
from jaxtrade.experiments.report import comparison_table, verdict
from jaxtrade.experiments.results import Backtest
from jaxtrade.experiments.rundir import RunDirectory
from jaxtrade.experiments.setup import build_setup, other_market
from jaxtrade.specs import JaxtradeError


def train(*, overrides: Sequence[str], multirun: bool, resume: str | None) -> None:
    """Train one run or a sweep, or go on with a run."""
    console = Console(quiet=not is_main())
    try:
        if resume is not None:
            if overrides or multirun:
                raise JaxtradeError("--resume goes on with a run as it is: give no settings, no -m")
            _show(console, *job.resume(resume, console))
        elif multirun:
            _sweep(console, expand(overrides))
        else:
            _show(console, *job.train(compose(overrides), console))
    except job.Stopped as stopped:
        hint = f"{stopped}; go on with: jaxtrade train --resume {stopped.run.folder}"
        console.print(hint, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None


def _sweep(console: Console, runs: Sequence[Sequence[str]]) -> None:
    """One run after the other, then a table of all."""
    configs = [compose(overrides) for overrides in runs]  # all of them, before the first starts
    table = Table("settings", "validation Sharpe", "test Sharpe", "buy and hold", "directory")
    for overrides, config in zip(runs, configs, strict=True):
        run, results = job.train(config, console)
        _show(console, run, results)
        best = max(row["validation_sharpe"] for row in run.read_metrics())
        sharpes = [f"{result.metrics()['sharpe']:.2f}" for result in results[:2]]
        table.add_row(" ".join(overrides), f"{best:.2f}", *sharpes, str(run.folder))
    console.print(table)


def _show(console: Console, run: RunDirectory, results: Sequence[Backtest]) -> None:
    """The comparison on the test span, and what was written."""
    _print_results(console, results)
    for path in (run.report, run.policy, run.trades, run.metrics, run.checkpoints):
        console.print(f"  {path}", highlight=False, soft_wrap=True)


def _print_results(console: Console, results: Sequence[Backtest]) -> None:
    stamps = results[0].timestamps
    console.print(
        f"{results[0].span} span, {stamps[0]} .. {stamps[-1]}, {len(stamps):,} bars",
        highlight=False,
    )
    console.print(comparison_table(results))
    others = [result for result in results[1:] if result.name in BASELINES]
    console.print(verdict([results[0], *others]), highlight=False, soft_wrap=True)


def export(*, run: str, output: str | None) -> None:
    """Write a run's best policy as an ONNX file."""
    directory = RunDirectory.open(run)
    setup = build_setup(directory.read_config())
    _, best, progress = job.restore(directory, setup)
    path = directory.policy if output is None else Path(output)
    result = agent_backtest(setup.agent, best, setup.env, setup.test, setup.market, span="test")
    write_policy(path, setup, best, progress, figures=result.metrics())
    Console().print(str(path), highlight=False, soft_wrap=True)


def backtest(*, run: str, overrides: Sequence[str], onnx: bool) -> None:
    """Test a run's policy on its own test span, or on all of another market."""
    console = Console()
    directory = RunDirectory.open(run)
    config = directory.read_config()
    use_device(config.device)
    setup = build_setup(config)
    _, best, _ = job.restore(directory, setup)
    market, params, span = setup.market, setup.test, "test"
    if overrides:
        market, params = other_market(setup, apply(config, overrides))
        span = "all"
    agent = agent_backtest(setup.agent, best, setup.env, params, market, span=span)
    results = [agent, *baselines(setup.env, params, market, span=span, seed=config.seed)]
    if onnx:
        replayed = replay(directory.policy, market, params, span=span)
        results.insert(1, replayed)
        console.print(compare(replayed, agent), highlight=False, soft_wrap=True)
    _print_results(console, results)
    for note in span_notes(setup, market, params):
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
