"""Runs in every environment of one asset: trained, tested, exported and replayed by its rules."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxtrade.agents import loop
from jaxtrade.experiments import train as job
from jaxtrade.experiments.backtest import BASELINES, agent_backtest, baselines
from jaxtrade.experiments.checkpoint import Progress
from jaxtrade.experiments.commands import backtest, export
from jaxtrade.experiments.config import compose
from jaxtrade.experiments.outcome import describe_rules, notes, write_policy
from jaxtrade.experiments.replay import compare, replay
from jaxtrade.experiments.setup import build_setup
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.specs import JaxtradeError
from tests.small import SMALL

ON_MARGIN = ("forex", "perpetual")


def restless(setup):
    """An untrained actor, with larger weights so that its actions differ from bar to bar."""
    learner = loop.init(setup.agent, setup.env, setup.train, jax.random.key(3), total_steps=1)
    actor = learner.learner.actor
    return actor.replace(params=jax.tree.map(lambda leaf: leaf * 30.0, actor.params))


@pytest.mark.parametrize(
    "env",
    ["stock", *(pytest.param(each, marks=pytest.mark.slow) for each in ("etf", *ON_MARGIN))],
)
def test_a_replay_of_the_bundle_meets_the_backtest_under_the_environments_rules(
    env, tmp_path
) -> None:
    setup = build_setup(compose([*SMALL, f"env={env}"]))
    actor = restless(setup)
    args = (setup.env, setup.test, setup.market)
    tested = agent_backtest(setup.agent, actor, *args, span="test")
    path = tmp_path / "policy.onnx"
    write_policy(path, setup, actor, Progress(), figures=tested.metrics())
    replayed = replay(path, setup.market, setup.test, span="test")
    assert len(np.unique(tested.action)) > 2 and (tested.turnover > 0).mean() > 0.1
    assert " 0 other than in JAX" in compare(replayed, tested)
    np.testing.assert_allclose(replayed.equity, tested.equity, rtol=1e-5)
    np.testing.assert_allclose(replayed.exposure, tested.exposure, atol=1e-5)


@pytest.fixture(scope="module")
def etf(tmp_path_factory):
    """A short run with continuous actions."""
    screen = Console(file=io.StringIO(), width=300)
    folder = tmp_path_factory.mktemp("runs")
    config = compose(
        [*SMALL, "env=etf", "env.window=1", "total_steps=1024", f"output_dir={folder}"]
    )
    return *job.train(config, screen), screen.file.getvalue()


@pytest.mark.slow
def test_a_continuous_run_tells_its_results_beside_every_baseline(etf) -> None:
    run, results, screen = etf
    names = [result.name for result in results]
    assert names[:4] == ["agent", "buy and hold", "flat", "random"]
    assert names[4:] == ["SMA cross", "momentum", "volatility target"]
    agent, hold, flat, random, *_ = results
    assert agent.action.dtype == np.float32 and np.abs(agent.action).max() <= 1
    np.testing.assert_allclose(hold.action, 1.0)
    np.testing.assert_array_equal(flat.exposure, 0.0)
    assert len(np.unique(random.action)) > 100
    assert "param_norm" in screen and "grad_norm" in screen
    assert OnnxPolicy(run.policy).metadata.actions.kind == "exposure"
    assert "LeveragedETF-v0" in run.report.read_text()


@pytest.mark.slow
def test_idle_cash_earns_and_is_no_skill(etf) -> None:
    _, results, _ = etf
    flat = next(result for result in results if result.name == "flat")
    years = len(flat.returns) / flat.bars_per_year
    assert flat.equity[-1] == pytest.approx(np.exp(0.02 * years), rel=1e-3)
    np.testing.assert_array_equal(flat.excess, 0.0)
    assert flat.sharpe == flat.metrics()["sharpe"] == flat.metrics()["sortino"] == 0.0
    held = results[1]
    assert held.sharpe < np.mean(held.returns) / np.std(held.returns) * np.sqrt(held.bars_per_year)


@pytest.mark.slow
def test_the_commands_work_on_it(etf, capsys, tmp_path) -> None:
    run, results, _ = etf
    backtest(run=str(run.folder), overrides=[], onnx=True)
    text = capsys.readouterr().out
    assert " 0 other than in JAX" in text and "volatility target" in text
    output = tmp_path / "copy.onnx"
    export(run=str(run.folder), output=str(output))
    assert OnnxPolicy(output).metadata.metrics["sharpe"] == results[0].sharpe
    with pytest.raises(JaxtradeError, match=r"env.exposure: the policy was trained with another"):
        backtest(run=str(run.folder), overrides=["env.exposure=[0,1]"], onnx=False)


def test_the_rules_are_said_in_words() -> None:
    stock = build_setup(compose([*SMALL, "env=stock", "env.costs.half_spread=0"]))
    assert describe_rules(stock.test.rules) == (
        "0.005 a unit, at least 1 an order, slippage 0.0100%, borrow 3.00% a year, "
        "margin 6.00% a year, whole lots of 1"
    )
    assert "StockTrading-v0" in notes(stock)[1]
    assert "1 simple_return, 0.1 drawdown_increase" in notes(stock)[1]


def test_baselines_hold_what_the_environment_has() -> None:
    setup = build_setup(compose([*SMALL, "env.levels=[-3,0,3]"]))
    found = baselines(setup.env, setup.test, setup.market, span="test", seed=0)
    held = {result.name: set(np.unique(result.action).tolist()) for result in found}
    assert held["buy and hold"] == {2} and held["flat"] == {1}
    assert held["SMA cross"] == held["momentum"] == {0, 2}
    assert held["random"] == {0, 1, 2}
    assert [result.name for result in found] == list(BASELINES)
    begin = setup.test.replace(first=jnp.int32(8), last=jnp.int32(60))  # too soon to look back far
    found = baselines(setup.env, begin, setup.market, span="all", seed=0)
    assert [result.name for result in found] == ["buy and hold", "flat", "random"]
