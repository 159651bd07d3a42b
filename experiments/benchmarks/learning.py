"""Sharpe out of sample of the default run over seeds, beside flat, random and buy and hold.

    python -m jaxtrade.experiments.benchmarks.learning [--seeds 5] [key=value ...]

Further arguments are settings of `jaxtrade train`, such as data=csv data.path=FILE.
"""

import argparse
import functools
import io
import statistics
import tempfile
import time

from rich.console import Console

from jaxtrade.experiments.benchmarks.result import print_result
from jaxtrade.experiments.config import compose
from jaxtrade.experiments.train import train


def main() -> None:
    """Train one run for each seed and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()

    sharpes: dict[str, list[float]] = {}
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            started = time.perf_counter()
            config = compose([*args.overrides, f"seed={seed}", f"output_dir={folder}"])
            _, results = train(config, Console(file=io.StringIO()))
            seconds.append(time.perf_counter() - started)
            for result in results:
                sharpes.setdefault(result.name, []).append(result.metrics()["sharpe"])
    setting = {"total_steps": config.total_steps, "overrides": args.overrides}
    case = " ".join(args.overrides) or "default"
    show = functools.partial(print_result, bench="learning", case=case)
    for name, values in sharpes.items():
        each = {"sharpe_of_each_seed": [round(value, 3) for value in values]}
        show(
            impl=name,
            metric="mean test Sharpe",
            values=[statistics.mean(values)],
            unit="1",
            config={**setting, "seeds": args.seeds, **each},
        )
    show(impl="jaxtrade", metric="run", values=seconds, unit="s", config=setting)


if __name__ == "__main__":
    main()
