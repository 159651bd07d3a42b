"""Each algorithm on a market that can be learnt and on one that cannot, out of sample."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.agents import AGENTS
from jaxtrade.agents.rules import Rule
from jaxtrade.experiments.benchmarks.markets import (
    ALGORITHMS,
    COST,
    FIRST,
    LEVELS,
    TEST_BARS,
    make_task,
    scores,
    walk_oracle,
)

SEEDS = (0, 1)


def test_every_algorithm_is_judged():
    assert set(ALGORITHMS) == {name for name, kind in AGENTS.items() if not issubclass(kind, Rule)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_most_of_what_an_oracle_earns_is_learnt(name):
    for seed in SEEDS:
        assert scores(name, "regimes", seed)["share of the oracle's log return"] >= 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_random_walk_is_left_alone(name):
    for seed in SEEDS:
        found = scores(name, "random walk", seed)
        assert found["round trips per 100 bars"] <= 1
        assert found["return in round trips"] >= -1


@pytest.mark.slow
def test_the_oracle_is_right_and_pays_for_it():
    task = make_task("regimes", LEVELS)
    earned, traded = map(float, walk_oracle(task.env, task.test, task.regimes))
    side = np.asarray(task.regimes)[FIRST : TEST_BARS - 1]
    # Bought or sold at the next open; each change of regime turns the position round.
    bars = np.asarray(task.test.tape.rows[FIRST + 1 :, 0, 3], np.float64)  # closes
    changes = (side[1:] != side[:-1]).sum()
    # Besides it, a position that the trend has moved out of the band is put right.
    assert 1 + 2 * changes <= traded <= 1.1 * (1 + 2 * changes)
    expected = np.log1p(side * bars).sum() - COST * traded
    assert earned == pytest.approx(expected, rel=0.03)
    wrong, _ = walk_oracle(task.env, task.test, -task.regimes)
    assert wrong < -earned
    idle = walk_oracle(task.env, task.test, jnp.zeros_like(task.regimes))
    np.testing.assert_array_equal(idle, 0.0)
