"""Trading under its options: masks, sessions, one program for all, populations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrade
from jaxtrade.costs import make_costs
from jaxtrade.envs import PricedOrders
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError, RiskLimits
from tests.markets import random_frame
from tests.options import OPTIONS, make, market_of, play, random_actions
from tests.plays import KEY
from tests.steps import RATES

# Masks, sessions


def test_the_mask_is_what_the_review_lets_through():
    limits = RiskLimits(max_exposure=1.5, max_gross=9.0, max_net=9.0, max_drawdown=0.05)
    env, params = make(market_of(), limits=limits, no_trade_band=0.0)
    levels = np.asarray(env.levels)
    step = jax.jit(jax.vmap(lambda s, a: env.step_env(KEY, s, a, params)[4], in_axes=(None, 0)))
    mask_of = jax.jit(lambda state: env.action_mask(state, params))
    steps = play(env, params, jnp.full(80, 3))
    masks = []
    for row in range(0, 80, 10):
        state = jax.tree.map(lambda leaf, row=row: leaf[row], steps["state"])
        mask = np.asarray(mask_of(state))
        info = step(state, jnp.arange(5))
        np.testing.assert_array_equal(mask, np.asarray(info["target"])[:, 0] == levels)
        masks.append(mask.tolist())
    assert [False, True, True, True, False] in masks  # the cap
    assert [False, False, True, False, False] in masks  # the breaker


@pytest.mark.parametrize("fill", ["next_open", "next_close", "close"])
def test_a_session_ends_flat(fill):
    frame = random_frame(400, freq="h")
    stamps = frame["timestamp"]
    frame = frame[(stamps.dt.hour >= 14) & (stamps.dt.hour < 21)].reset_index(drop=True)
    market = jaxtrade.Market.from_frame(frame)
    rules = make_rules(costs=make_costs(), fill=fill)
    env, params = make(market, rules=rules, flat_at_session_end=True)
    steps = jax.tree.map(np.asarray, play(env, params, jnp.full(60, 3)))
    final = steps["info"]["final_state"]
    is_last = np.append(np.diff(market.timestamps) > np.timedelta64(2, "h"), True)[final.index]
    held = final.account.weights[:, 0] != 0
    if fill == "close":  # nothing is held over the night that follows
        held, is_last = held[1:], is_last[:-1]
    np.testing.assert_array_equal(held, ~is_last)
    assert is_last.sum() >= 7


@pytest.mark.parametrize("stop", [False, True])
def test_what_must_be_closed_does_not_wait_for_a_price(stop):
    frame = random_frame(400, freq="h")
    hour = frame["timestamp"].dt.hour
    market = jaxtrade.Market.from_frame(frame[(hour >= 14) & (hour < 21)].reset_index(drop=True))
    orders = PricedOrders(offsets=(0.0, 0.5), stop=stop)  # half the price away: never met
    env, params = make(market, actions=orders, flat_at_session_end=True, no_trade_band=0.0)
    actions = jnp.asarray([[0, 4]] + [[1, 0]] * 59, jnp.int32)
    steps = jax.tree.map(np.asarray, play(env, params, actions))
    final = steps["info"]["final_state"]
    is_last = np.append(np.diff(market.timestamps) > np.timedelta64(2, "h"), True)[final.index]
    assert final.account.weights[0].any()
    assert not final.account.weights[is_last].any()


def test_daily_bars_have_no_sessions():
    with pytest.raises(JaxtradeError, match="bars of a day or more have no sessions"):
        make(market_of(freq="D"), flat_at_session_end=True)


# Programs and populations


def test_fees_seeds_and_another_market_run_in_the_same_program():
    env, params = make(market_of(), **OPTIONS["lots"])
    rates = {name: 1.5 * rate for name, rate in RATES.items()}
    rules = OPTIONS["lots"]["rules"].replace(costs=make_costs(**rates))
    _, others = make(market_of(seed=5), **{**OPTIONS["lots"], "rules": rules})
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(key, params, actions):
        def step(state, action):
            _, state, reward, *_ = env.step(key, state, action, params)
            return state, reward

        return jax.lax.scan(step, env.reset(key, params)[1], actions)[1]

    actions = random_actions(env, params, 40)
    first = run(KEY, params, actions)
    second = run(jax.random.key(1), others, actions)
    assert not np.array_equal(first, second)


def test_a_population_over_fees_and_impact_is_a_loop():
    options = OPTIONS["next_close"]
    env, params = make(market_of(), **options)
    actions = random_actions(env, params, 40)
    fees, strengths = jnp.float32([0.0, 1e-3, 5e-3]), jnp.float32([0.0, 0.5, 2.0])

    def with_(fee, strength):
        rules = params.rules
        coefficients = {**rules.impact.coefficients, "transient": strength}
        rules = rules.replace(
            costs=rules.costs.replace(commission_rate=fee),
            impact=rules.impact.replace(coefficients=coefficients),
        )
        return params.replace(rules=rules)

    together = jax.jit(jax.vmap(lambda fee, s: play(env, with_(fee, s), actions)["reward"]))
    rewards = together(fees, strengths)
    for row, (fee, strength) in enumerate(zip(fees, strengths, strict=True)):
        alone = play(env, with_(fee, strength), actions)["reward"]
        np.testing.assert_allclose(rewards[row], alone, rtol=1e-5, atol=2e-6)
    assert len(set(np.asarray(rewards).sum(1).tolist())) == 3
