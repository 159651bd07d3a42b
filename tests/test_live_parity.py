"""A paper run is the backtest of the same file: the same decisions at every bar, one equity."""

import numpy as np
import pytest

from jaxtrade.experiments.replay import replay
from jaxtrade.live.events import BarDecided
from jaxtrade.market import Market
from tests.live_runs import paper_of, params_of, run, settings_of, small_market, write_bundle

CHEAP = {"commission_rate": 1e-5, "half_spread": 1e-5}
"""Of what is traded tens of thousands of times: with more there is soon nothing left to compare."""

FILES = [
    pytest.param("SPY_1d", {}, marks=pytest.mark.slow),
    pytest.param("EURUSD_1h", CHEAP, marks=pytest.mark.soak),
    pytest.param("SPY_1m", CHEAP, marks=pytest.mark.soak),
]
WIDE = {"turnover_per_day": 1e9, "orders_per_day": 10**9}
"""What the guard allows: a backtest knows no such limits."""


def assert_equal_to_the_backtest(folder, market, **options):
    bundle = write_bundle(folder, market)
    params = params_of(market, **options)
    wanted = replay(bundle, market, params, span="all")
    settings = settings_of(folder / "account", bundle, guard=WIDE)
    broker = paper_of(market, params)
    made = run(settings, broker, kept=BarDecided).decisions

    actions = np.array([each.action[0] for each in made])
    np.testing.assert_array_equal(actions[:-1], wanted.action)  # the last has no bar to trade in
    assert len(np.unique(actions)) == 3
    equity = np.array([each.equity for each in made])
    gap = np.abs(equity / equity[0] / wanted.equity - 1.0).max()
    assert gap < 1e-6
    return made, gap


def test_a_paper_run_is_the_backtest(tmp_path):
    made, _ = assert_equal_to_the_backtest(tmp_path, small_market(400))
    assert sum(each.verdict == "traded" for each in made) > 50


def test_with_costs_that_no_fill_explains(tmp_path):
    costs = {"borrow_rate": 0.08, "idle_rate": 0.02}
    assert_equal_to_the_backtest(tmp_path, small_market(300), costs=costs)


@pytest.mark.parametrize(("name", "costs"), FILES)
def test_over_real_bars(name, costs, tmp_path, data_folder):
    market = Market.load(data_folder / f"{name}.csv.gz")
    made, gap = assert_equal_to_the_backtest(tmp_path, market, costs=costs)
    print(f"{name}: {len(made):,} decisions, equity within {gap:.1e}")
