"""Time of one decision of an exported policy on one thread.

    python -m jaxtrade.experiments.benchmarks.decision_latency [--repeats 9] [--calls 2000]

Cases: `graph`, the graph alone; `decide`, one call of `OnnxPolicy.decide`, all checks and copies
included; `explain`, the same and `OnnxPolicy.explain`; `decider`, one of `Decider.decide`, from
bars to plain numbers. Window of 32 bars, all indicators, two layers of 64 units. Pin it to a core
that has nothing else to do (`taskset -c 1`).
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

import jaxtrade
from jaxtrade import agents, features
from jaxtrade.agents import loop
from jaxtrade.experiments.benchmarks.result import print_result
from jaxtrade.indicators import INDICATORS
from jaxtrade.live.deciding import Decider
from jaxtrade.live.events import Bar
from jaxtrade.live.export import export_policy
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.live.rows import rows_of
from jaxtrade.market import Market
from jaxtrade.specs import BundleMetadata, RiskLimits
from jaxtrade.synthetic import make_market

WINDOW = 32
PERCENTILES = (50, 99)


def export(path: Path, *, strength: float = 1.0, bar_seconds: int = 3600) -> None:
    """A bundle of an untrained policy; one whose parameters are `strength` times as large has
    opinions, and changes them.
    """
    market = make_market(num_bars=5_000, bar_seconds=bar_seconds)
    switches = dict.fromkeys(INDICATORS, True)
    env, params = jaxtrade.make("Trading-v0", market=market, window=WINDOW, features=switches)
    agent = agents.make("ppo", num_envs=4, rollout_steps=8)
    state = loop.init(agent, env, params, jax.random.key(0), total_steps=1)
    actor = state.learner.actor
    actor = actor.replace(params=jax.tree.map(lambda leaf: strength * leaf, actor.params))
    policy = agents.greedy_policy(agent, actor, env, params)
    metadata = BundleMetadata(
        agent="ppo",
        features=env.features,
        actions=policy.actions.spec,
        symbols=market.spec.symbols,
        bar_seconds=market.spec.bar_seconds,
        warmup_bars=features.warmup_bars(env.features),
        limits=RiskLimits(),
        no_trade_band=0.05,
        spans={},
        fingerprint=market.fingerprint(),
        commit="",
        metrics={},
    )
    export_policy(path, policy, metadata)


def measure(policy: OnnxPolicy, case: str, *, calls: int) -> np.ndarray:
    """Microseconds of each of `calls` decisions, f64[calls]."""
    decide = decision(policy, case, calls=calls)
    times = np.empty(calls)
    for t in range(calls):
        started = time.perf_counter_ns()
        decide(t)
        times[t] = (time.perf_counter_ns() - started) / 1e3
    return times


def decision(policy: OnnxPolicy, case: str, *, calls: int) -> Callable[[int], object]:
    """What one of the cases does at a bar."""
    market = make_market(num_bars=calls)
    bars = np.concatenate([market.bars, market.volume[..., None]], axis=-1)
    nothing, mask = np.zeros(0, np.float32), np.ones(1, np.float32)
    account = np.zeros(6, np.float32)
    limits = np.asarray(RiskLimits().hard_vector(), np.float32)
    if case == "graph":
        policy.decide(bars[0], nothing, market.clock[0], mask, account, limits)
        run, binding = policy._session.run_with_iobinding, policy._decides[0]
        return lambda t: run(binding)
    if case == "decider":
        decider = Decider(policy, market.spec.symbols, limits=RiskLimits())
        rows = rows_of([_bars_of(market)])
        return lambda t: decider.decide(rows[t], account)

    def decide(t: int) -> None:
        policy.decide(bars[t], nothing, market.clock[t], mask, account, limits)
        if case == "explain":
            policy.explain()

    return decide


def _bars_of(market: Market) -> list[Bar]:
    before = market.previous_closes()[:, 0]
    prices = before[:, None] * (1 + market.bars[:, 0].astype(np.float64))
    starts = market.timestamps.astype(np.int64).tolist()
    names = ("open", "high", "low", "close")
    return [
        Bar(
            at_ns=0,
            symbol=market.spec.symbols[0],
            start_s=start,
            seconds=market.spec.bar_seconds,
            volume=float(market.volume[t, 0]),
            **dict(zip(names, prices[t].tolist(), strict=True)),
        )
        for t, start in enumerate(starts)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--calls", type=int, default=2_000)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.onnx"
        started = time.perf_counter()
        export(path)
        exporting = time.perf_counter() - started
        started = time.perf_counter()
        policy = OnnxPolicy(path)
        loading = time.perf_counter() - started
    config = {"window": WINDOW, "columns": len(policy.metadata.columns), "hidden": [64, 64]}
    show = functools.partial(print_result, bench="decision_latency", impl="jaxtrade", config=config)
    show(case="export", metric="time", values=[exporting], unit="s")
    show(case="load", metric="time", values=[loading], unit="s")
    for case in ("graph", "decide", "explain", "decider"):
        measure(policy, case, calls=args.calls)  # warms up
        runs = [
            np.percentile(measure(policy, case, calls=args.calls), PERCENTILES)
            for _ in range(args.repeats)
        ]
        for index, percentile in enumerate(PERCENTILES):
            values = [float(run[index]) for run in runs]
            show(case=case, metric=f"p{percentile}", values=values, unit="us")


if __name__ == "__main__":
    main()
