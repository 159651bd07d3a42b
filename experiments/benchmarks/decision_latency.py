"""Time of one decision of an exported policy on one thread, all checks and copies included.

    python -m jaxtrade.experiments.benchmarks.decision_latency [--repeats 9] [--calls 2000]

Cases: `decide`, one call of `OnnxPolicy.decide`; `explain`, the same and `OnnxPolicy.explain`.
Window of 32 bars, all indicators, two layers of 64 units.
"""

import argparse
import functools
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import jaxtrade
from jaxtrade import agents, features
from jaxtrade.agents import loop
from jaxtrade.experiments.benchmarks.result import print_result
from jaxtrade.indicators import INDICATORS
from jaxtrade.live.export import export_policy
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.specs import BundleMetadata, RiskLimits
from jaxtrade.synthetic import make_market

WINDOW = 32
PERCENTILES = (50, 99)


def export(path: Path) -> None:
    """A bundle of an untrained policy."""
    market = make_market(num_bars=5_000)
    switches = dict.fromkeys(INDICATORS, True)
    env, params = jaxtrade.make("Trading-v0", market=market, window=WINDOW, features=switches)
    agent = agents.make("ppo", num_envs=4, rollout_steps=8)
    state = loop.init(agent, env, params, jax.random.key(0), total_steps=1)
    policy = agents.greedy_policy(agent, state.learner.actor, env, params)
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


def measure(policy: OnnxPolicy, *, calls: int, explain: bool) -> np.ndarray:
    """Microseconds of each of `calls` decisions, f64[calls]."""
    market = make_market(num_bars=calls)
    bars = np.concatenate([market.bars, market.volume[..., None]], axis=-1)
    nothing, mask = np.zeros(0, np.float32), np.ones(1, np.float32)
    account = np.zeros(6, np.float32)
    limits = np.asarray(RiskLimits().hard_vector(), np.float32)
    times = np.empty(calls)
    for t in range(calls):
        started = time.perf_counter_ns()
        policy.decide(bars[t], nothing, market.clock[t], mask, account, limits)
        if explain:
            policy.explain()
        times[t] = (time.perf_counter_ns() - started) / 1e3
    return times


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
    for case in ("decide", "explain"):
        measure(policy, calls=args.calls, explain=case == "explain")  # warms up
        runs = [
            np.percentile(measure(policy, calls=args.calls, explain=case == "explain"), PERCENTILES)
            for _ in range(args.repeats)
        ]
        for index, percentile in enumerate(PERCENTILES):
            values = [float(run[index]) for run in runs]
            show(case=case, metric=f"p{percentile}", values=values, unit="us")


if __name__ == "__main__":
    main()
