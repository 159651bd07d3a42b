"""On the embedded market the agent learns: out of sample it beats holding, chance and nothing."""

import io

import numpy as np
import pytest
from rich.console import Console

from jaxtrade.experiments.config import compose
from jaxtrade.experiments.train import train

SEEDS = range(5)
STEPS = 250_000


@pytest.mark.soak
def test_the_mean_sharpe_out_of_sample_beats_flat_random_and_buy_and_hold(tmp_path) -> None:
    """The default run with a quarter of its steps; the full one is quoted in the README."""
    sharpes: dict[str, list[float]] = {}
    for seed in SEEDS:
        config = compose([f"seed={seed}", f"total_steps={STEPS}", f"output_dir={tmp_path}"])
        _, results = train(config, Console(file=io.StringIO()))
        for result in results:
            sharpes.setdefault(result.name, []).append(result.metrics()["sharpe"])
    means = {name: float(np.mean(values)) for name, values in sharpes.items()}
    assert means["flat"] == 0.0
    assert means["agent"] > max(means["flat"], means["random"], means["buy and hold"]) + 0.5, means
