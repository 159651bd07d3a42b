"""What a finished run leaves: the exported policy, the report, the trades."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrade import features
from jaxtrade.agents import greedy_policy
from jaxtrade.agents.devices import is_main
from jaxtrade.envs import EnvParams
from jaxtrade.experiments.backtest import agent_backtest, baselines
from jaxtrade.experiments.checkpoint import Progress
from jaxtrade.experiments.report import write_report
from jaxtrade.experiments.results import Backtest, write_trades
from jaxtrade.experiments.rundir import RunDirectory
from jaxtrade.experiments.setup import Setup
from jaxtrade.live.export import export_policy
from jaxtrade.market import Market
from jaxtrade.rules import Rules
from jaxtrade.spans import Span
from jaxtrade.specs import BundleMetadata


def write_outcome(run: RunDirectory, setup: Setup, best: Any, progress: Progress) -> list[Backtest]:
    """Test the best actor and, on the main host, write policy.onnx, report.html, trades.parquet.

    Returns the results on the test span: the agent's, then those of the baselines.
    """
    agent = agent_backtest(setup.agent, best, setup.env, setup.test, setup.market, span="test")
    others = baselines(setup.env, setup.test, setup.market, span="test", seed=setup.config.seed)
    results = [agent, *others]
    if not is_main():
        return results
    write_policy(run.policy, setup, best, progress, figures=agent.metrics())
    write_trades(run.trades, results)
    write_report(
        run.report,
        title=f"{setup.config.agent.name.upper()} on {', '.join(setup.market.spec.symbols)}",
        subtitle=describe(setup, progress),
        results=results,
        notes=notes(setup),
    )
    return results


def describe(setup: Setup, progress: Progress) -> list[str]:
    """What was trained on what, for the head of a report."""
    steps = progress.best_iteration * setup.agent.num_envs * setup.agent.rollout_steps
    sharpe = "none" if progress.best_sharpe is None else f"{progress.best_sharpe:.2f}"
    return [
        setup.market.describe(),
        "; ".join(f"{name} {begin} .. {end}" for name, (begin, end) in spans(setup).items()),
        f"policy after {steps:,} of {setup.config.total_steps:,} steps, chosen by its validation "
        f"Sharpe of {sharpe}; seed {setup.config.seed}",
    ]


def notes(setup: Setup) -> list[str]:
    """How the figures came about, for the foot of a report."""
    rewards = ", ".join(f"{weight:g} {name}" for name, weight in setup.config.env.weights.items())
    return [
        "All figures are of the test span, which neither training nor the choice of the policy "
        f"has seen; {features.lookback(setup.env.features)} bars, what one observation reaches "
        "back, are left out between spans.",
        "A decision at a bar's close is filled at the next bar's open. "
        f"{setup.env.name}: {describe_rules(setup.test.rules)}. The reward was {rewards}.",
    ]


_RATES = {
    "commission_rate": "commission {:.4%} of traded value",
    "commission_per_unit": "{:g} a unit",
    "minimum_ticket": "at least {:g} an order",
    "half_spread": "half spread {:.4%}",
    "slippage": "slippage {:.4%}",
    "borrow_rate": "borrow {:.2%} a year",
    "margin_rate": "margin {:.2%} a year",
    "idle_rate": "{:.2%} a year earned on idle cash",
    "swap_long": "swap of {:g} a night and unit held",
    "swap_short": "of {:g} sold short",
}


def describe_rules(rules: Rules) -> str:
    """Costs, lots and margin in words; what is 0 or not there is left out."""
    rates = {name: getattr(rules.costs, name) for name in _RATES}
    parts = [
        _RATES[name].format(float(np.asarray(rate).mean()))
        for name, rate in rates.items()
        if rate is not None and bool(np.any(rate))
    ]
    if rules.lot_size is not None:
        parts.append(f"whole lots of {float(rules.lot_size):g}")
    if rules.margin is not None:
        parts.append(f"liquidation below {float(rules.margin.maintenance):.2%} of the position")
    if rules.brackets is not None:
        parts.append("stops at the broker")
    return ", ".join(parts) or "no costs"


def span_notes(setup: Setup, market: Market, env_params: EnvParams) -> list[str]:
    """What a reader must know of a backtest: that it covers bars which training has seen."""
    seen = setup.market.timestamps[[setup.spans.train.first, setup.spans.validation.last]]
    first, last = market.timestamps[[int(env_params.first), int(env_params.last)]]
    synthetic = setup.config.data.kind == "synthetic"
    other = market.spec.symbols != setup.market.spec.symbols or (
        synthetic and market.spec.source != setup.market.spec.source
    )
    if other or first > seen[1] or last < seen[0]:
        return []
    return [
        f"bars {max(first, seen[0])} .. {min(last, seen[1])} were seen in training or in choosing "
        "the policy: figures that cover them are not out of sample"
    ]


def spans(setup: Setup) -> dict[str, tuple[str, str]]:
    """First and last stamp of each span."""
    stamps = setup.market.timestamps
    named: dict[str, Span] = {
        "train": setup.spans.train,
        "validation": setup.spans.validation,
        "test": setup.spans.test,
    }
    return {name: (str(stamps[span.first]), str(stamps[span.last])) for name, span in named.items()}


def write_policy(
    path: Path, setup: Setup, best: Any, progress: Progress, *, figures: dict[str, float]
) -> None:
    """Export an actor's greedy policy as a bundle.

    Raises:
        JaxtradeError: the graph does not compute what JAX does, or the file cannot be written.
    """
    policy = greedy_policy(setup.agent, best, setup.env, setup.train)
    metadata = BundleMetadata(
        agent=setup.config.agent.name,
        features=setup.env.features,
        actions=policy.actions.spec,
        symbols=setup.market.spec.symbols,
        bar_seconds=setup.market.spec.bar_seconds,
        warmup_bars=features.warmup_bars(setup.env.features),
        limits=setup.config.env.limits,
        no_trade_band=setup.config.env.no_trade_band,
        spans=spans(setup),
        fingerprint=progress.fingerprint,
        commit=source_commit(),
        metrics={**figures, "validation_sharpe": progress.best_sharpe or 0.0},
    )
    export_policy(path, policy, metadata)


def source_commit() -> str:
    """The commit of the source tree that runs, with `-dirty` if changed; "" outside of one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
