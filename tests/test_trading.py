"""Trading-v0: its money, its limits, its observations, and nothing of the future in them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrade
from jaxtrade import features
from jaxtrade.costs import make_costs
from jaxtrade.indicators import INDICATORS
from jaxtrade.specs import RiskLimits, binding_names
from jaxtrade.synthetic import make_market
from tests.plays import (
    DEAR,
    FLAT,
    FREE,
    LONG,
    SHORT,
    WIDE,
    make,
    make_still,
    market_of,
    play,
    random_actions,
)
from tests.reference.trading import Broker

# By hand


def test_six_bars_by_hand():
    # Equity 1000 at row 1, price 100; a trade costs 1 % of its value.
    # Long: 10 units ordered. Open 110: 1100 paid, 11 of cost, cash -111. Close 121: 1210 - 111.
    # Long: exposure 1210 / 1099, within the band: held. Close 99: 990 - 111 = 879.
    # Short: 10 units and 879 / 99 more are sold at 90: 1699.0909, cost 16.990909,
    #     cash 1571.1; 8.8787879 units owed at 81 = 719.18182: 851.91818.
    # Flat: bought back at the open, 81: 719.18182, cost 7.1918182: 844.72636, whatever the close.
    market = market_of([100, 100, 110, 110, 90, 81], [100, 100, 121, 99, 81, 100])
    rates = {**FREE, "commission_rate": 0.004, "half_spread": 0.006}
    env, params = make(market, rates=rates, no_trade_band=0.2)
    (obs, state), steps = play(env, params, jnp.int32([LONG, LONG, SHORT, FLAT]))
    equity = np.array([1000, 1099, 879, 851.918182, 844.726364])
    np.testing.assert_allclose(steps["reward"], np.log(equity[1:] / equity[:-1]), rtol=1e-5)
    final = steps["info"]["final_state"]
    np.testing.assert_allclose(final.account.log_equity, np.log(equity[1:] / 1000), rtol=1e-5)
    weights = [1210 / 1099, 990 / 879, -719.181818 / 851.918182, 0]
    np.testing.assert_allclose(final.account.weights[:, 0], weights, rtol=1e-6)
    np.testing.assert_array_equal(final.index, [2, 3, 4, 5])
    np.testing.assert_array_equal(steps["truncated"], [False, False, False, True])
    assert not steps["terminated"].any()

    # Observations: log returns of two bars; the account scaled as `account_features` says.
    # Observations: two log returns; exposure, open return x 10, bars held / 100, drawdown x 5,
    # the day's and the last bar's return x 20, clipped. The open return is the sum over the bars
    # of what the position made, over the equity at the last close.
    log_returns = np.log([1, 1, 1.21, 99 / 121, 81 / 99, 100 / 81])
    seen = steps["info"]["final_observation"]
    windows = [log_returns[row - 1 : row + 1] for row in (2, 3, 4, 5)]
    np.testing.assert_allclose(seen.market[..., 0], windows, atol=1e-6)
    np.testing.assert_allclose(obs.market[:, 0], [0, 0], atol=1e-7)
    open_return = (1210 - 1100) / 1000 - (1210 - 990) / 1099
    rest = [5 * (1 - 879 / 1099), 20 * -0.1, 20 * -0.1]  # -20 % is clipped at -2 / 20
    account = [990 / 879, 10 * open_return, 0.02, *rest]
    np.testing.assert_allclose(seen.account[1], account, rtol=1e-5)
    np.testing.assert_array_equal(obs.account, np.zeros(6))
    np.testing.assert_array_equal(steps["obs"].account[-1], np.zeros(6))
    assert state.index == 1


# Against a broker's books in float64

WALKS = {
    "defaults": ((-1.0, 0.0, 1.0), {}, {}, 0.05),
    "limits": (
        (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0),
        DEAR,
        {"max_exposure": 1.5, "max_gross": 1.2, "max_drawdown": 0.25, "max_daily_loss": 0.02},
        0.1,
    ),
    "borrowed money": ((-3.0, -1.0, 0.0, 1.0, 3.0), DEAR, WIDE, 0.02),
}


@pytest.mark.parametrize("case", WALKS)
def test_random_actions_equal_the_books(case):
    levels, rates, limits, band = WALKS[case]
    market, steps = make_market(seed=3, num_bars=2_100), 2_000
    costs = make_costs(**rates)
    env, params = jaxtrade.make(
        "Trading-v0",
        market=market,
        levels=levels,
        costs=costs,
        limits=RiskLimits(**limits),
        no_trade_band=band,
        first=99,
        episode_steps=steps,
    )
    actions = random_actions(env, steps)
    _, played = play(env, params, actions)
    account = played["info"]["final_state"].account

    exact = {name: float(getattr(costs, name)) for name in FREE}
    broker = Broker(rates=exact, limits=dataclasses.asdict(RiskLimits(**limits)), band=band)
    is_new_day = np.diff(market.day, prepend=-1) != 0
    reward, equity, exposure, breakers = [], [], [], 0
    for row, action in enumerate(np.asarray(actions), start=100):
        wanted = levels[action]
        breakers += broker.permitted(wanted) == 0 != wanted
        bar, years = market.bars[row, 0].astype(float), float(market.clock[row, 2])
        reward.append(broker.step(wanted, bar, years, bool(is_new_day[row])))
        equity.append(broker.equity / 10_000)
        exposure.append(broker.units * broker.price / broker.equity)
    np.testing.assert_allclose(played["reward"], reward, rtol=0, atol=2e-6)
    np.testing.assert_allclose(np.exp(account.log_equity), equity, rtol=2e-5)
    np.testing.assert_allclose(account.weights[:, 0], exposure, rtol=0, atol=2e-5)
    total = np.asarray(played["reward"], float).sum()
    assert total == pytest.approx(float(account.log_equity[-1]), abs=1e-4)
    assert (breakers > 50) == (case == "limits")


# The future


def test_the_future_changes_nothing_before_it():
    market, change = make_market(num_bars=700), 300
    noise = np.random.default_rng(0).uniform(0.9, 1.1, (700, 1, 1)).astype(np.float32)
    after = (np.arange(700) > change)[:, None]
    other = market.replace(
        bars=np.where(after[..., None], market.bars * noise + 0.001, market.bars),
        volume=np.where(after, market.volume * 3, market.volume),
    )
    switches = dict.fromkeys(INDICATORS, True)
    options = {"window": 16, "first": 100, "episode_steps": None, "features": switches}
    env, params = jaxtrade.make("Trading-v0", market=market, **options)
    fixed = {**options, "normaliser": params.normaliser}
    _, other_params = jaxtrade.make("Trading-v0", market=other, **fixed)
    actions = random_actions(env, 400)
    played = [play(env, p, actions) for p in (params, other_params)]
    known = np.asarray(played[0][1]["info"]["final_state"].index) <= change
    assert known.sum() == 200
    jax.tree.map(np.testing.assert_array_equal, played[0][0], played[1][0])
    before = [jax.tree.map(lambda leaf: leaf[known], steps) for _, steps in played]
    jax.tree.map(np.testing.assert_array_equal, *before)
    after = [jax.tree.map(lambda leaf: leaf[~known], steps) for _, steps in played]
    for name in ("obs", "reward", "state"):
        same = jax.tree.map(np.array_equal, *(steps[name] for steps in after))
        assert not all(jax.tree.leaves(same)), name
    assert not np.array_equal(*(steps["obs"].market[0] for steps in after))


def test_an_observation_is_the_rows_up_to_its_bar():
    market = make_market(num_bars=700)
    env, params = jaxtrade.make("Trading-v0", market=market)
    raw = features.raw_table(env.features, market)
    table = np.asarray(features.normalise(params.normaliser, raw, env.features.clip))[:, 0]
    _, steps = play(env, params, random_actions(env, 300))
    for name, state in (("obs", steps["state"]), ("final", steps["info"]["final_state"])):
        seen = steps["obs"] if name == "obs" else steps["info"]["final_observation"]
        rows = np.asarray(state.index)[:, None] + np.arange(-31, 1)
        np.testing.assert_allclose(seen.market, table[rows], rtol=0, atol=1e-6)


# Orders and limits


def bound(steps):
    return [binding_names(int(flags)) for flags in steps["info"]["binding"]]


@pytest.mark.parametrize("name", ["max_exposure", "max_gross", "max_net"])
def test_a_limit_bounds_the_exposure_and_is_named(name):
    limits = {**WIDE, name: 0.4}
    env, params = make_still(101, 102, 103, limits=limits)
    _, steps = play(env, params, jnp.int32([LONG, SHORT, FLAT]))
    np.testing.assert_allclose(steps["info"]["target"][:, 0], [0.4, -0.4, 0], rtol=1e-6)
    assert bound(steps) == [(name,), (name,), ()]
    after = steps["info"]["move"].weights_after[:2, 0]
    np.testing.assert_allclose(after, [0.4, -0.4], rtol=1e-6)


def test_a_drawdown_ends_trading_for_the_episode():
    env, params = make_still(90, 90, 120, 120, limits={"max_drawdown": 0.08})
    _, steps = play(env, params, jnp.int32([FLAT, LONG, LONG, LONG, LONG]))
    assert bound(steps) == [(), (), *[("max_drawdown",)] * 3]
    np.testing.assert_allclose(np.exp(steps["reward"]), [1, 0.9, 1, 1, 1], rtol=1e-6)


def test_a_daily_loss_ends_trading_for_the_day():
    # Three bars a day: rows 0-2 still, row 3 loses 5 %, rows 4 and 5 of that day go up, 6 as well.
    limits = {"max_daily_loss": 0.04}
    env, params = make_still(95, 97, 99, 101, 103, freq="8h", limits=limits)
    _, steps = play(env, params, jnp.int32([FLAT, LONG, LONG, LONG, LONG, LONG]))
    assert bound(steps) == [(), (), *[("max_daily_loss",)] * 3, ()]
    growth = [1, 0.95, 1, 1, 1, 103 / 101]
    np.testing.assert_allclose(np.exp(steps["reward"]), growth, rtol=1e-6)


def test_the_band_holds_back_small_trades_but_never_a_close():
    levels = (0.0, 0.2, 0.5, 0.79)
    env, params = make_still(110, 110, 110, 110, 110, levels=levels, no_trade_band=0.3)
    _, steps = play(env, params, jnp.int32([2, 3, 1, 0, 1]))
    # 0.5 is bought; at +10 % it is 0.55 / 1.05 = 0.524: 0.79 is 0.266 away and 0.2 more: sold.
    traded = np.asarray(steps["info"]["move"].traded)[:, 0]
    np.testing.assert_allclose(traded, [0.5, 0, 0.2 - 0.55 / 1.05, -0.2, 0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("action", [-1, 3, 2**31 - 1])
def test_an_action_that_is_none_holds(action):
    env, params = make_still(101, 102, 103)
    _, steps = play(env, params, jnp.int32([LONG, action, action]))
    assert bound(steps) == [(), ("not_finite",), ("not_finite",)]
    np.testing.assert_array_equal(steps["info"]["move"].traded[1:], 0)
    assert steps["info"]["move"].weights_after[2, 0] == pytest.approx(1, rel=1e-6)


def test_version_0_plays_as_it_always_did():
    """A change here is a change of behaviour: raise the version."""
    time = np.arange(400)
    closes = 100 * np.exp(0.04 * np.sin(time / 9) + 0.02 * np.sin(1.7 * time))
    opens = np.concatenate([[100], closes[:-1]]) * (1 + 0.003 * np.cos(2.3 * time))
    env, params = jaxtrade.make(
        "Trading-v0",
        market=market_of(opens, closes, freq="h"),
        episode_steps=64,
        first=70,
        limits=RiskLimits(max_daily_loss=0.03),
    )
    actions = jnp.int32(np.floor(3 * (0.5 + 0.4999 * np.sin(0.61 * np.arange(200) ** 1.2))))
    _, steps = play(env, params, actions, jax.random.key(7))
    final = steps["info"]["final_state"]
    assert np.asarray(steps["state"].index)[63::64].tolist() == [282, 181, 198]
    equity = np.exp(np.asarray(final.account.log_equity))[[30, 63, 100, 127, 170, 199]]
    np.testing.assert_allclose(
        equity, [0.89878, 1.12993, 1.01580, 1.06851, 0.95733, 0.96388], rtol=0, atol=1e-4
    )
    seen = [float(jnp.abs(leaf).mean()) for leaf in jax.tree.leaves(steps["obs"])]
    np.testing.assert_allclose(seen, [0.67568, 0.33416], rtol=0, atol=1e-4)
    assert int((steps["info"]["binding"] != 0).sum()) == 85
