"""The exported policy replayed bar by bar over whole files, against the environment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrade
from jaxtrade import agents, features, ledger
from jaxtrade.experiments.backtest import agent_backtest
from jaxtrade.experiments.replay import replay
from jaxtrade.indicators import INDICATORS
from jaxtrade.live.export import export_policy
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.market import Market
from jaxtrade.specs import HARD_LIMITS, BundleMetadata, RiskLimits

FILES = ["SPY_1d", pytest.param("EURUSD_1h", marks=pytest.mark.slow)]
TIE = 1e-4
"""Two logits no further apart may be ordered either way."""


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


def describe(policy, market: Market) -> BundleMetadata:
    return BundleMetadata(
        agent="ppo",
        features=policy.features,
        actions=policy.actions.spec,
        symbols=market.spec.symbols,
        bar_seconds=market.spec.bar_seconds,
        warmup_bars=features.warmup_bars(policy.features),
        limits=RiskLimits(),
        no_trade_band=0.05,
        spans={},
        fingerprint=market.fingerprint(),
        commit="",
        metrics={},
    )


@functools.partial(jax.jit, static_argnames=("env", "num_steps"))
def walked(agent, actor, env, params, num_steps):
    """The environment's own accounts, logits and targets, one row for each decision."""

    def step(state, _):
        obs = env.observation(state, params)
        one = jax.tree.map(lambda leaf: leaf[None], obs)
        logits = agent.assess(actor, one, jnp.zeros((1, 0))).outputs[0]
        vector = ledger.account_vector(state.account)
        state, _, _, info = env.advance(state, jnp.argmax(logits), params)
        return state, (vector, logits, info["target"])

    start = env.reset_state(jax.random.key(0), params)
    return jax.lax.scan(step, start, None, length=num_steps)[1]


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
    accounts, logits, targets = jax.device_get(steps)
    policy = OnnxPolicy(path)
    table, limits = np.asarray(params.table), np.asarray(params.limits)[: len(HARD_LIMITS)]
    bars = np.concatenate([market.bars, market.volume[..., None]], axis=-1)
    nothing, mask = np.zeros(0, np.float32), np.ones(1, np.float32)
    row_gap, others, ties = 0.0, 0, 0
    for t in range(last):
        account = accounts[max(t - first, 0)]
        decision = policy.decide(bars[t], nothing, market.clock[t], mask, account, limits)
        row_gap = max(row_gap, float(np.abs(policy.carry().window[-1] - table[t]).max()))
        if t < first:
            continue
        second, best = np.sort(logits[t - first])[-2:]
        if best - second <= TIE:
            ties += 1
            continue
        others += decision.action != logits[t - first].argmax()
        np.testing.assert_allclose(decision.target, targets[t - first], atol=1e-6)
    print(f"{name}: {last - first:,} decisions, rows within {row_gap:.1e}, {ties} ties")
    assert row_gap < 1e-5
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
