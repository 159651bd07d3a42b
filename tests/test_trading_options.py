"""Trading under its options: odd actions, no look-ahead, masks, sessions, history, populations."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jaxtrade
from jaxtrade.assemble import combine
from jaxtrade.brackets import make_brackets
from jaxtrade.costs import make_costs
from jaxtrade.envs import Exposure, PricedOrders, Weights
from jaxtrade.impact import make_impact
from jaxtrade.margin import make_margin
from jaxtrade.rules import make_rules
from jaxtrade.specs import FeatureSpec, JaxtradeError, RiskLimits
from tests import kit
from tests.markets import random_frame
from tests.plays import FREE, KEY, WIDE
from tests.steps import RATES

RETURNS = FeatureSpec(names=("log_return",), window=2)
CONTEXT = {
    "half_spread_open": 2e-4,
    "half_spread_close": 3e-4,
    "dividend": 0.05,
    "funding": 1e-4,
}


def market_of(num_bars=96, seed=0, *, freq="h", deviation=0.01, columns=True, assets=1):
    """Bars with every context column, or none."""
    markets = []
    for number in range(assets):
        frame = random_frame(num_bars, seed=seed + number, freq=freq, deviation=deviation)
        frame["volume"] += 500
        generator = np.random.default_rng([seed, 9])
        if columns:
            for name, size in CONTEXT.items():
                frame[name] = size * generator.random(num_bars)
        markets.append(jaxtrade.Market.from_frame(frame, symbol=f"M{number}"))
    return markets[0] if assets == 1 else combine(markets)


def full_rules(**options):
    return make_rules(
        costs=make_costs(**RATES),
        margin=make_margin(max_leverage=4.0, liquidation_fee=0.01),
        brackets=make_brackets(stop_loss=0.01, take_profit=0.03, trailing=0.02),
        **options,
    )


FULL_LIMITS = RiskLimits(
    **WIDE,
    max_drawdown=0.2,
    max_daily_loss=0.1,
    target_volatility=0.8,
    risk_per_trade=0.02,
    drawdown_resume=0.1,
    drawdown_scale=0.5,
    cooldown_bars=2,
)
REWARDS = dict.fromkeys(jaxtrade.rewards.REWARDS, 0.1)

OPTIONS = {
    "plain": {},
    "lots": {
        "rules": full_rules(lot_size=3.0, tick_size=0.01, latency=2, participation=0.5, delay=0.4),
        "limits": FULL_LIMITS,
        "rewards": REWARDS,
        "history": 3,
        "spread_from_data": True,
        "flat_at_session_end": True,
    },
    "next_close": {
        "rules": full_rules(
            fill="next_close", latency=1, participation=0.3, impact=make_impact("obizhaeva_wang")
        ),
        "actions": Exposure(-3.0, 3.0),
        "spread_from_data": True,
        "history": 2,
        "caps": [1.2],
        "minimum_order": 0.01,
    },
    "close": {
        "rules": full_rules(fill="close", impact=make_impact("square_root", permanent=0.1)),
        "limits": FULL_LIMITS,
        "actions": Exposure(-3.0, 3.0),
        "flat_at_session_end": True,
    },
    "limit orders": {
        "rules": full_rules(tick_size=0.01, participation=0.5),
        "actions": PricedOrders(),
        "limits": RiskLimits(**WIDE),
    },
    "stop orders": {"rules": full_rules(), "actions": PricedOrders(stop=True)},
}


def make(market, *, kind="Trading-v0", **options):
    options = {"first": 4, "episode_steps": None, "features": RETURNS, **options}
    if "actions" not in options:
        options.setdefault("levels", (-2.0, -1.0, 0.0, 1.0, 2.0))
    return jaxtrade.make(kind, market=market, **options)


@functools.partial(jax.jit, static_argnums=0)
def play(env, params, actions, key=KEY):
    """Everything that the steps give for actions [T, ...]; `action` after it as well."""

    def step(state, action):
        obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
        outcome = {"obs": obs, "state": state, "reward": reward, "info": info}
        return state, {**outcome, "terminated": terminated, "truncated": truncated}

    return jax.lax.scan(step, env.reset(key, params)[1], actions)[1]


def random_actions(env, params, steps, seed=0):
    keys = jax.random.split(jax.random.key(seed), steps)
    return jax.vmap(env.action_space(params).sample)(keys)


def walk(name, steps=80, **changes):
    env, params = make(market_of(), **{**OPTIONS[name], **changes})
    actions = random_actions(env, params, steps)
    return env, params, actions, jax.tree.map(np.asarray, play(env, params, actions))


# The account's leaf


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_seen_lies_in_its_space_and_is_finite(name):
    env, params, _, steps = walk(name)
    space = env.observation_space(params)
    for obs in (steps["obs"], steps["info"]["final_observation"]):
        assert kit._contains(space, obs)
    move = steps["info"]["move"]
    assert (np.abs(move.traded).sum(0) > 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((steps["reward"], move)))
    assert steps["obs"].account.shape[1:] == space.spaces["account"].shape


def test_the_account_s_leaf_grows_by_what_options_add():
    # 6 as ever; under way 1, cooldown 1, breaker 1; three rows of action and return.
    sizes = []
    for name in ("plain", "lots"):
        env, params = make(market_of(), **OPTIONS[name])
        sizes.append(env.observation_space(params).spaces["account"].shape)
    assert sizes == [(6,), (6 + 3 + 3 * 2,)]


def test_history_shows_the_last_actions_and_returns():
    env, params = make(market_of(columns=False), history=2, costs=make_costs(**FREE))
    steps = play(env, params, jnp.int32([3, 1, 2, 4]))
    asked, returned = [1.0, -1.0, 0.0], np.asarray(steps["info"]["final_state"].account.last_return)
    scaled = np.clip(20 * returned, -3, 3)
    seen = np.asarray(steps["obs"].account)[:, -4:]
    np.testing.assert_allclose(seen[0], [0, 0, asked[0], scaled[0]], rtol=1e-6)
    np.testing.assert_allclose(seen[2], [asked[1], scaled[1], asked[2], scaled[2]], rtol=1e-6)


# Odd actions


def test_exposures_that_are_none_hold_and_those_out_of_range_are_clipped():
    env, params = make(
        market_of(columns=False),
        actions=Exposure(-1.0, 1.0),
        costs=make_costs(**FREE),
        no_trade_band=0.0,
    )
    actions = jnp.float32([[0.5], [np.nan], [np.inf], [-np.inf], [7.0], [-7.0]])
    steps = jax.tree.map(np.asarray, play(env, params, actions))
    info = steps["info"]
    np.testing.assert_array_equal(info["invalid_actions"], [0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(info["clipped_actions"], [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(info["move"].traded[1:4], 0)
    np.testing.assert_allclose(info["target"][[0, 4, 5], 0], [0.5, 1, -1], rtol=1e-6)
    assert np.isfinite(steps["reward"]).all()
    assert np.isfinite(steps["obs"].account).all()


@pytest.mark.parametrize("action", [[-1, 0], [0, 5], [4, 0], [2**31 - 1, 1]])
def test_priced_orders_that_are_none_hold(action):
    env, params = make(market_of(columns=False), actions=PricedOrders())
    steps = play(env, params, jnp.int32([[0, 4], action]))
    np.testing.assert_array_equal(steps["info"]["invalid_actions"], [0, 1])
    np.testing.assert_array_equal(steps["info"]["move"].traded[1], 0)
    assert np.isfinite(steps["reward"]).all()


@pytest.mark.parametrize("options", [{"fill": "next_close"}, {"fill": "close"}, {"latency": 1}])
def test_priced_orders_need_a_bar_to_wait_in(options):
    with pytest.raises(JaxtradeError, match="give fill='next_open' and latency=0"):
        make(market_of(columns=False), actions=PricedOrders(), rules=make_rules(**options))


def test_debugging_makes_an_action_that_is_none_an_error():
    market = market_of(columns=False)
    env, params = make(market, actions=Exposure(-1.0, 1.0), debug=True)
    _, state = env.reset(KEY, params)
    step = jax.jit(checkify.checkify(lambda state, a: env.step(KEY, state, a, params)[2]))
    assert step(state, jnp.float32([0.3]))[0].get() is None
    assert "not a number" in step(state, jnp.float32([np.nan]))[0].get()


# The future


@pytest.mark.parametrize("name", OPTIONS)
def test_the_future_changes_nothing_before_it(name):
    market, change = market_of(), 50
    other, is_after = market_of(seed=77), np.arange(96) > change

    def mixed(now, then):
        return np.where(is_after.reshape(-1, *[1] * (now.ndim - 1)), then, now)

    arrays = {key: mixed(getattr(market, key), getattr(other, key)) for key in ("bars", "volume")}
    arrays["context"] = mixed(market.context, other.context)
    changed = market.replace(**arrays)
    env, params = make(market, **OPTIONS[name])
    fixed = {"normaliser": params.normaliser, **OPTIONS[name]}
    _, other_params = make(changed, **fixed)
    actions = random_actions(env, params, 80, seed=2)
    first, second = (
        jax.tree.map(np.asarray, play(env, p, actions)) for p in (params, other_params)
    )
    seen = np.asarray(first["info"]["final_state"].index)
    known = np.cumprod(seen <= change).astype(bool)
    assert 10 < known.sum() < 80
    for path, leaf in jax.tree_util.tree_leaves_with_path(first):
        now = dict(jax.tree_util.tree_leaves_with_path(second))[path]
        np.testing.assert_array_equal(leaf[known], now[known], jax.tree_util.keystr(path))
    assert not np.array_equal(first["reward"][~known], second["reward"][~known])


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


# Several assets


def test_a_portfolio_s_weights_add_up_and_none_holds():
    env, params = make(
        market_of(assets=3, columns=False),
        actions=Weights(),
        no_trade_band=0.0,
        costs=make_costs(**FREE),
    )
    actions = jnp.float32([[1, 1, 1, 1], [0, 0, 0, 0], [2, -1, 0, 1], [1, np.nan, 0, 0]])
    steps = play(env, params, actions)
    targets = np.asarray(steps["info"]["target"])
    np.testing.assert_allclose(targets[0], [0.25] * 3, rtol=1e-6)
    np.testing.assert_array_equal(targets[1], 0)
    np.testing.assert_allclose(targets[2], [0.5, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(steps["info"]["clipped_actions"], [0, 0, 2, 0])
    np.testing.assert_array_equal(steps["info"]["invalid_actions"], [0, 0, 0, 1])
    np.testing.assert_array_equal(steps["info"]["move"].traded[3], 0)
