"""The exported policy replayed bar by bar over whole files, against the environment."""

import functools

import jax
import numpy as np
import pytest

import jaxtrade
from jaxtrade import agents
from jaxtrade.experiments.backtest import agent_backtest
from jaxtrade.experiments.replay import replay
from jaxtrade.indicators import INDICATORS
from jaxtrade.live.export import export_policy
from jaxtrade.market import Market
from tests.parity import TIE, Walk, describe, walked

FILES = ["SPY_1d", pytest.param("EURUSD_1h", marks=pytest.mark.soak)]


@functools.cache
def exported(name: str, data_folder, folder):
    """A policy of two by 64 units that sees all features, trained a little, and its bundle."""
    market = Market.load(data_folder / f"{name}.csv.gz")
    options = {"window": 32, "features": dict.fromkeys(INDICATORS, True)}
    last = market.num_bars * 6 // 10
    env, params = jaxtrade.make("Trading-v0", market=market, last=last, **options)
    agent = agents.make("ppo", num_envs=64, entropy_coefficient=0.02)
    state, _ = agents.train(agent, env, params, jax.random.key(0), total_steps=40_000)
    policy = agents.greedy_policy(agent, state.learner.actor, env, params)
    path = folder / f"{name}.onnx"
    export_policy(path, policy, describe(policy, market))
    whole = env.params(market, normaliser=params.normaliser, episode_steps=None)
    return market, env, whole, agent, state.learner.actor, path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


@pytest.mark.parametrize("name", FILES)
def test_given_the_backtests_account_it_sees_and_decides_the_same(
    name: str, data_folder, folder
) -> None:
    market, env, params, agent, actor, path = exported(name, data_folder, folder)
    first, last = int(params.first), int(params.last)
    steps = walked(agent, actor, env, params, last - first)
    accounts, logits, _, targets, _ = jax.device_get(steps)
    walk = Walk(path, market, params)
    others, ties = 0, 0
    for t in range(last):
        decision = walk.decide(t, accounts[max(t - first, 0)])
        if t < first:
            continue
        second, best = np.sort(logits[t - first])[-2:]
        if best - second <= TIE:
            ties += 1
            continue
        others += decision.action != logits[t - first].argmax()
        np.testing.assert_allclose(decision.target, targets[t - first], atol=1e-6)
    print(f"{name}: {last - first:,} decisions, rows within {walk.row_gap:.1e}, {ties} ties")
    assert walk.row_gap < 1e-5
    assert others == 0
    assert ties < 0.01 * (last - first)
    assert len(set(logits.argmax(axis=1))) > 1


@pytest.mark.parametrize("name", FILES)
def test_in_closed_loop_it_earns_the_same(name: str, data_folder, folder) -> None:
    market, env, params, agent, actor, path = exported(name, data_folder, folder)
    expected = agent_backtest(agent, actor, env, params, market, span="all")
    replayed = replay(path, market, params, span="all")
    logits = np.asarray(walked(agent, actor, env, params, len(expected.action))[1])
    lead = np.diff(np.sort(logits, axis=1)[:, -2:], axis=1)[:, 0]
    differing = np.flatnonzero(replayed.action != expected.action)
    upto = differing[0] if len(differing) else len(expected.action)
    if len(differing):
        assert lead[differing[0]] <= TIE
    gap = np.abs(replayed.equity[: upto + 1] / expected.equity[: upto + 1] - 1).max()
    print(
        f"{name}: {upto:,} of {len(expected.action):,} steps up to a tie, equity within {gap:.1e}"
    )
    assert gap < 1e-6
    assert upto > 1_000
