"""Backtests against the environment, baselines by hand, and the future left out."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrade
from jaxtrade import agents, features, ledger
from jaxtrade.costs import make_costs
from jaxtrade.experiments.backtest import agent_backtest, baselines
from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError, RiskLimits
from jaxtrade.synthetic import make_market

FREE = make_costs(commission_rate=0.0, half_spread=0.0, borrow_rate=0.0, margin_rate=0.0)


@functools.cache
def trained(num_bars: int = 1_200):
    """A market, an environment over one episode of it, and a hardly trained agent."""
    market = make_market(seed=3, num_bars=num_bars)
    env, params = jaxtrade.make("Trading-v0", market=market, window=8, episode_steps=None)
    agent = agents.make("ppo", num_envs=8, rollout_steps=8, num_minibatches=2, learning_rate=0.01)
    state, _ = agents.train(agent, env, params, jax.random.key(1), total_steps=640)
    return market, env, params, agent, state.learner.actor


def changed_after(market: Market, row: int) -> Market:
    """The same bars up to and with `row`, other ones behind it."""
    factor = np.ones((market.num_bars, 1, 1), np.float32)
    factor[row + 1 :] = -0.7
    bars = market.bars * factor
    bars[..., 1], bars[..., 2] = bars.max(axis=-1), bars.min(axis=-1)
    return market.replace(bars=bars, volume=market.volume * np.where(factor[:, 0] < 0, 3.0, 1.0))


def test_equity_is_the_environments() -> None:
    market, env, params, agent, actor = trained()
    result = agent_backtest(agent, actor, env, params, market, span="all")
    state = env.reset_state(jax.random.key(9), params)

    def step(state, action):
        state, *_ = env.advance(state, action, params)
        return state, state.account.log_equity

    _, log_equity = jax.lax.scan(step, state, jnp.asarray(result.action))
    np.testing.assert_allclose(result.equity[1:], np.exp(log_equity), rtol=2e-6)
    assert len(result.returns) == market.num_bars - 1 - int(params.first)
    assert len(set(result.action.tolist())) > 1


@pytest.mark.slow
def test_what_the_review_would_change_is_not_chosen_by_a_policy_that_masks() -> None:
    market = make_market(seed=3, num_bars=300)
    options = {"levels": (-0.5, 0.0, 0.5, 2.0), "limits": RiskLimits(max_exposure=0.5)}
    env, params = jaxtrade.make(
        "Trading-v0", market=market, window=8, episode_steps=None, **options
    )
    found = {}
    for masks in (False, True):
        agent = agents.make("ppo", num_envs=2, rollout_steps=4, mask_actions=masks)
        actor = agent.init(jax.random.key(0), env, params).actor
        bias = actor.params["params"]["actor"]["bias"].at[3].set(9.0).at[2].set(5.0)
        actor.params["params"]["actor"]["bias"] = bias
        found[masks] = agent_backtest(agent, actor, env, params, market, span="all")
    assert set(found[False].action.tolist()) == {3}
    assert set(found[True].action.tolist()) == {2}


def test_the_public_function_agrees_with_the_one_that_training_uses() -> None:
    market, env, params, agent, actor = trained()
    policy = agents.greedy_policy(agent, actor, env, params)
    one = jaxtrade.backtest(policy, market)
    other = agent_backtest(agent, actor, env, params, market, span="all")
    np.testing.assert_array_equal(one.action, other.action)
    np.testing.assert_array_equal(one.equity, other.equity)


def test_the_future_changes_nothing_in_the_past() -> None:
    market, env, params, agent, actor = trained()
    policy = agents.greedy_policy(agent, actor, env, params)
    row = 700
    other = changed_after(market, row)
    kept = row - int(params.first)
    one, two = jaxtrade.backtest(policy, market), jaxtrade.backtest(policy, other)
    np.testing.assert_array_equal(one.action[: kept + 1], two.action[: kept + 1])
    np.testing.assert_array_equal(one.equity[: kept + 1], two.equity[: kept + 1])
    assert not np.array_equal(one.equity, two.equity)
    tables = [features.raw_table(env.features, each) for each in (market, other)]
    np.testing.assert_array_equal(tables[0][: row + 1], tables[1][: row + 1])
    assert not np.array_equal(tables[0][row + 1], tables[1][row + 1])


def test_buy_and_hold_earns_the_market_less_one_trade() -> None:
    market, env, params, *_ = trained()
    costs = make_costs(commission_rate=1e-3, half_spread=0.0)
    params = params.replace(rules=params.rules.replace(costs=costs))
    hold, flat, random, *_ = baselines(env, params, market, span="all", seed=0)
    first = int(params.first)
    bought, sold = market.open_prices()[first + 1, 0], market.close_prices()[-1, 0]
    # A fraction 1e-3 of equity goes to the trade; what is left, 1 / (1 - 1e-3) of it held with a
    # sliver of credit, earns the price's move.
    assert hold.equity[-1] == pytest.approx((1 - 1e-3) * sold / bought, rel=2e-3)
    assert (hold.name, flat.name, random.name) == ("buy and hold", "flat", "random")
    np.testing.assert_array_equal(flat.equity, 1.0)
    assert flat.metrics()["sharpe"] == 0.0
    assert np.abs(random.exposure).max() > 0.9


def test_random_depends_on_its_seed_alone() -> None:
    market, env, params, *_ = trained()
    runs = [baselines(env, params, market, span="all", seed=seed)[2] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0].equity, runs[1].equity)
    assert not np.array_equal(runs[0].equity, runs[2].equity)


def test_ruin_is_booked_once_and_trades_no_more() -> None:
    market, env, params, *_ = trained()
    row = 500
    bars = market.bars.copy()
    bars[row, 0] = (0.0, 0.0, -0.9999, -0.9999)
    market = market.replace(bars=bars)
    params = env.params(market, episode_steps=None, costs=FREE)
    result = baselines(env, params, market, span="all", seed=0)[0]
    step = row - int(params.first) - 1
    assert result.ruined
    assert result.growth[step] == pytest.approx(ledger.MIN_GROWTH)
    np.testing.assert_array_equal(result.exposure[step + 1 :], 0.0)
    np.testing.assert_array_equal(result.growth[step + 1 :], 1.0)


def test_limits_and_costs_are_options() -> None:
    market, env, params, agent, actor = trained()
    policy = agents.greedy_policy(agent, actor, env, params)
    half = jaxtrade.backtest(policy, market, limits=RiskLimits(max_exposure=0.5), costs=FREE)
    assert np.abs(half.exposure).max() < 0.56
    np.testing.assert_array_equal(half.costs, 0.0)


def test_a_market_without_the_policys_columns_is_refused() -> None:
    market, env, params, agent, actor = trained()
    policy = agents.greedy_policy(agent, actor, env, params)
    needy = dataclasses.replace(
        policy, features=dataclasses.replace(env.features, context=("vix",))
    )
    with pytest.raises(JaxtradeError, match=r"need the column 'vix'"):
        jaxtrade.backtest(needy, market)
