"""Every type of policy, exported and replayed bar by bar on real bars, against the environment."""

import functools

import jax
import numpy as np
import pytest

import jaxtrade
from jaxtrade import agents
from jaxtrade.assemble import combine
from jaxtrade.envs import Exposure, Levels, Weights
from jaxtrade.live.export import bundle
from jaxtrade.market import Market
from tests.parity import TIE, Walk, closed_loop, describe, lead, walked

ACTIONS = {
    "levels": (Levels(), ("SPY",)),
    "exposure": (Exposure(-1.5, 1.0), ("SPY",)),
    "branches": (Levels((-0.5, 0.0, 0.25, 0.5)), ("SPY", "QQQ")),
    "exposures": (Exposure(-0.5, 0.5), ("SPY", "QQQ")),
    "weights": (Weights(), ("SPY", "QQQ", "IWM")),
    "long_short": (Weights(long_short=True), ("SPY", "QQQ", "IWM")),
}
FEATURES = dict.fromkeys(("log_return", "rsi", "volatility"), True)
SOME = {("gru", "exposure"), ("attention", "weights")}
OFTEN = {("mlp", actions) for actions in ACTIONS} | {("gru", "levels"), ("conv", "branches")}


def marks_of(each):
    return () if each in SOME else pytest.mark.slow if each in OFTEN else pytest.mark.soak


TYPES = [
    pytest.param(*each, marks=marks_of(each))
    for torso in ("mlp", "conv", "gru", "attention")
    for each in ((torso, actions) for actions in ACTIONS)
]


@functools.cache
def exported(torso, kind, data_folder, num_bars):
    """A policy with opinions, untrained, and its bundle; costs are small, so that it trades."""
    actions, symbols = ACTIONS[kind]
    markets = [Market.load(data_folder / f"{symbol}_1d.csv.gz") for symbol in symbols]
    market = combine(markets) if len(markets) > 1 else markets[0]
    market = market.rows(0, num_bars - 1)
    # a band would make a rounding error a missed trade
    options = {"features": FEATURES, "actions": actions, "no_trade_band": 0.0}
    env, params = jaxtrade.make(
        "Trading-v0", market=market, window=13, episode_steps=None, **options
    )
    memory = {"hidden_size": 8} if torso == "gru" else {}
    agent = agents.make("ppo", torso=torso, hidden_sizes=(16,), **memory)
    actor = jax.jit(lambda key: agent.init(key, env, params).actor)(jax.random.key(1))
    own = actor.params["params"]
    louder = {**own, "actor": jax.tree.map(lambda leaf: 150 * leaf, own["actor"])}
    actor = actor.replace(params={"params": louder})
    policy = agents.greedy_policy(agent, actor, env, params)
    content = bundle(policy, describe(policy, market))
    return market, env, params, agent, actor, content


@pytest.fixture
def num_bars(request):
    is_quick = not any(map(request.node.get_closest_marker, ("slow", "soak")))
    return 500 if is_quick else 2_500


@pytest.mark.parametrize(("torso", "kind"), TYPES)
def test_an_exported_policy_is_the_one_in_the_environment(torso, kind, data_folder, num_bars):
    market, env, params, agent, actor, content = exported(torso, kind, data_folder, num_bars)
    walk = Walk(content, market, params)
    num_steps = walk.last - walk.first
    rows = jax.device_get(walked(agent, actor, env, params, num_steps))
    accounts, outputs, memories, targets, log_equity = rows
    is_tie = np.zeros(num_steps, bool)
    if isinstance(env.actions, Levels):
        is_tie = lead(outputs, len(env.levels)) <= TIE
    assert is_tie.mean() < 0.01
    assert np.std(targets, axis=0).min() > 0.05  # every asset is traded

    walk.warm_up(env.num_assets)
    for step in range(num_steps):
        decision = walk.decide(walk.first + step, accounts[step])
        np.testing.assert_allclose(walk.policy.carry().hidden, memories[step], atol=1e-5)
        if not is_tie[step]:
            np.testing.assert_allclose(decision.target, targets[step], rtol=0, atol=1e-5)
    assert walk.row_gap < 1e-5

    walk = Walk(content, market, params)
    loop = closed_loop(walk, params, env.num_assets)
    upto = int(np.argmax(is_tie)) if is_tie.any() else num_steps
    got = np.asarray([[*decision.target, equity] for decision, equity in loop[:upto]])
    wanted = np.column_stack([targets, log_equity])[:upto]
    gaps = np.abs(got - wanted).max(axis=0)
    print(f"{torso} {kind}: {upto:,} of {num_steps:,} decisions, apart by {gaps}")
    assert gaps[:-1].max() <= 1e-5
    assert gaps[-1] < 2e-6
    assert upto > 300
