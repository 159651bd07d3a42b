"""GymTrading-v0: the money of gym-trading-env, its episodes and what it shows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gym_plays import (
    DOUBLE,
    DOUBLE_SHORT,
    FLAT,
    HALF,
    LONG,
    SHORT,
    make,
    make_random,
    one_step,
    random_market,
    with_features,
)
from tests.plays import KEY, market_of, play, random_actions
from tests.reference.gym_trading import simulate

# By hand


def test_two_trades_with_a_fee_by_hand():
    # 1000 at price 100, fee 1 %. Long: 10 units bought, 9.9 received. At 110: 1089.
    # Short: 19.8 units from the target; sold 19.8 / 1.01 = 19.6039604 at 110, 1 % withheld:
    #     cash 2134.871287, units -9.7039604, value 1067.435644. At 99: 1174.179208.
    # Flat: 9.7039604 / 0.99 = 9.8019802 units bought at 99, 970.396040: 1164.475248.
    env, params = make([100, 110, 99, 150], trading_fees=0.01)
    _, steps = play(env, params, jnp.int32([LONG, SHORT, FLAT]))
    value = np.array([1000, 1089, 1174.179208, 1164.475248])
    np.testing.assert_allclose(steps["info"]["portfolio_valuation"], value[1:], rtol=3e-7)
    np.testing.assert_allclose(steps["reward"], np.log(value[1:] / value[:-1]), atol=3e-8)
    exposure = [1, -9.7039604 * 99 / 1174.179208, 0]
    np.testing.assert_allclose(steps["info"]["real_position"], exposure, rtol=1e-6)
    np.testing.assert_array_equal(steps["info"]["position"], [1, -1, 0])
    np.testing.assert_array_equal(steps["info"]["position_index"], [LONG, SHORT, FLAT])
    fees = np.array([10, 21.5643564, 9.7039604])
    np.testing.assert_allclose(steps["info"]["trading_cost"], fees / value[:-1], rtol=1e-6)
    np.testing.assert_array_equal(steps["info"]["final_state"].index, [1, 2, 3])


STILL = {
    "short, then long: one step of interest, refunded": (
        [SHORT, SHORT, SHORT, LONG, LONG],
        [999, 999, 999, 1000, 1000],
    ),
    "short, then flat: one step of interest, paid": ([SHORT, SHORT, FLAT], [999, 999, 999]),
    "short, half closed: half of it paid": (
        [DOUBLE_SHORT, DOUBLE_SHORT, SHORT, SHORT],
        [998, 998, 998, 998],
    ),
    "double, then flat: refunded": ([DOUBLE, DOUBLE, FLAT], [999, 999, 1000]),
    "double, then long: paid": ([DOUBLE, DOUBLE, LONG, LONG], [999, 999, 999, 999]),
}


@pytest.mark.parametrize("case", STILL)
def test_interest_in_a_market_that_stands_still(case):
    actions, values = STILL[case]
    env, params = make([100], borrow_interest_rate=0.001)
    _, steps = play(env, params, jnp.int32(actions))
    np.testing.assert_allclose(steps["info"]["portfolio_valuation"], values, rtol=3e-7)


@pytest.mark.parametrize(("initial", "value"), [(-1, 999), (2, 999), (1, 1000)])
def test_the_first_position_costs_no_fee_but_interest_at_once(initial, value):
    env, params = make(
        [100], initial_position=initial, trading_fees=0.01, borrow_interest_rate=0.001
    )
    (_, state), steps = play(env, params, jnp.int32([-1, -1]))
    np.testing.assert_array_equal(state.history, [[initial, initial]])
    np.testing.assert_allclose(steps["info"]["portfolio_valuation"], [value] * 2, rtol=3e-7)
    np.testing.assert_array_equal(steps["info"]["trading_cost"], [0, 0])


@pytest.mark.parametrize("action", [-1, 6, 2**31 - 1])
def test_an_action_that_is_none_and_the_same_target_again_let_the_position_drift(action):
    env, params = make([100, 110, 120, 130], trading_fees=0.01)
    _, steps = play(env, params, jnp.int32([HALF, action, HALF]))
    np.testing.assert_array_equal(steps["info"]["position_index"], [HALF] * 3)
    np.testing.assert_array_equal(steps["info"]["trading_cost"] > 0, [True, False, False])
    units, cash = 0.5 / 100, 0.5
    prices = np.array([110, 120, 130])
    exposure = units * prices / (units * prices + cash)
    np.testing.assert_allclose(steps["info"]["real_position"], exposure, rtol=3e-7)
    np.testing.assert_array_equal(steps["info"]["position"], [0.5] * 3)


def test_ruin_is_a_last_step_without_reward_and_the_next_episode_begins():
    # Short 10 units, 2000 of cash. At 250 the value is -500, the asset -2500: 5 times that.
    env, params = make([100, 90, 250, 100])
    _, steps = play(env, params, jnp.int32([SHORT, SHORT, SHORT]))
    np.testing.assert_array_equal(steps["terminated"], [False, True, False])
    assert not steps["truncated"].any()
    np.testing.assert_allclose(steps["info"]["portfolio_valuation"], [1100, -500, 1100], rtol=1e-6)
    np.testing.assert_allclose(steps["reward"], np.log([1.1, 1, 1.1]), rtol=1e-6)
    np.testing.assert_allclose(steps["info"]["final_observation"].account[1], [-1, 5], rtol=1e-6)
    np.testing.assert_array_equal(steps["obs"].account[1], [0, 0])
    np.testing.assert_array_equal(steps["state"].index, [1, 0, 1])
    final = jax.tree.map(lambda leaf: leaf[1], steps["info"]["final_state"])
    assert env.is_terminated(final, params)


def test_nothing_left_at_all_and_steps_after_ruin_are_finite():
    env, params = make([100, 50, 60, 20])
    _, state = env.reset(KEY, params)
    for action in (DOUBLE, SHORT, LONG, FLAT, SHORT, DOUBLE) * 2:  # past the end of the data, too
        obs, state, reward, terminated, info = one_step(env, state, jnp.int32(action), params)
        assert terminated
        assert reward == 0
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((obs, state, info)))


def test_ruin_at_the_last_row_is_no_truncation_and_a_step_past_it_is_ruin():
    env, params = make([100] * 8 + [201])
    (_, state), steps = play(env, params, jnp.int32([SHORT] * 8))
    np.testing.assert_array_equal(np.flatnonzero(steps["terminated"]), [7])
    assert not steps["truncated"].any()
    last = jax.tree.map(jnp.asarray, state.replace(index=np.int32(8)))
    _, _, reward, terminated, _ = one_step(env, last, jnp.int32(FLAT), params)
    assert terminated
    assert reward == 0


# Against books in float64

TARGETS = (0, -8, -3, -2, -1, 0.3, 0.5, 1, 1.5, 2, 3, 9)
WALKS = {
    "long or flat, traded often": ((0, 1), 1e-3, 0.0, 1, 0.01),
    "short, leveraged, with interest": ((-2, -1, 0, 0.3, 1, 2, 3), 1e-4, 1e-3, 4, 0.01),
    "ruinous": ((-8, -3, 0.5, 1, 3, 9), 1e-2, 1e-2, 3, 0.03),
    "held for long": ((-1, 0.5, 1.5), 1e-3, 1e-5, 400, 0.002),
}


@pytest.mark.parametrize("case", WALKS)
def test_random_actions_equal_the_books(case):
    positions, fee, rate, hold, deviation = WALKS[case]
    market, steps = random_market(5_001, deviation=deviation), 5_000
    env, params = make_random(
        market,
        positions=TARGETS,
        initial_position=0,
        trading_fees=fee,
        borrow_interest_rate=rate,
        portfolio_initial_value=250,
    )
    choices = [*map(TARGETS.index, positions), len(TARGETS)]
    actions = np.repeat(np.random.default_rng(1).choice(choices, steps), hold)[:steps]
    _, played = play(env, params, jnp.asarray(actions, jnp.int32))
    targets, closes = np.array([*TARGETS, np.nan])[actions], market.close_prices()[:, 0]
    done = played["terminated"] | played["truncated"]
    begins = np.concatenate([[0], np.flatnonzero(done[:-1]) + 1])
    assert (len(begins) > 5) == (case == "ruinous")
    compared = 0
    for begin in begins:
        left = steps - begin
        books = simulate(
            targets[begin:],
            closes[: left + 1],
            first=0,
            fee=fee,
            rate=rate,
            deposit=250,
        )
        sound = np.abs(books.exposure) < 50  # beyond that the value is a small difference
        length = len(sound) if sound.all() else int(sound.argmin())
        part = slice(begin, begin + length)
        info = jax.tree.map(lambda leaf, part=part: leaf[part], played["info"])
        value, exposure, reward = (leaf[:length] for leaf in dataclasses.astuple(books))
        np.testing.assert_allclose(played["reward"][part], reward, rtol=0, atol=2e-6)
        np.testing.assert_allclose(info["portfolio_valuation"], value, rtol=2e-6)
        np.testing.assert_allclose(info["real_position"], exposure, rtol=2e-6, atol=1e-7)
        if sound[:-1].all():
            ruined = played["terminated"][begin : begin + len(sound)]
            np.testing.assert_array_equal(ruined, books.value <= 0)
        compared += length
    assert compared > 0.7 * steps


def test_version_0_plays_as_it_always_did():
    """A change here is a change of behaviour: raise the version."""
    time = np.arange(400)
    closes = 100 * np.exp(0.04 * np.sin(time / 9) + 0.02 * np.sin(1.7 * time))
    env, params = make_random(
        with_features(market_of(closes, closes, freq="h")),
        positions=(-2, -1, 0, 0.5, 2),
        trading_fees=1e-3,
        borrow_interest_rate=1e-4,
        windows=2,
        max_episode_duration=65,
    )
    actions = jnp.int32(np.floor(6 * (0.5 + 0.4999 * np.sin(0.61 * np.arange(200) ** 1.2))))
    _, steps = play(env, params, actions, jax.random.key(7))
    final = steps["info"]["final_state"]
    rows, targets = (
        leaf[63::64].tolist() for leaf in (steps["state"].index, steps["state"].target)
    )
    assert (rows, targets) == ([266, 141, 161], [1, 1, 1])
    golden = [886.32062, 842.44501, 1634.63965, 1386.05212, 714.61597, 952.53320]
    value = steps["info"]["portfolio_valuation"][[30, 63, 100, 127, 170, 199]]
    np.testing.assert_allclose(value, golden, rtol=1e-5)
    np.testing.assert_allclose(
        final.account.real_position[[63, 199]], [0.502775, -1.880974], rtol=1e-5
    )
    seen = [float(jnp.abs(leaf).mean()) for leaf in jax.tree.leaves(steps["obs"])]
    np.testing.assert_allclose(seen, [0.760402, 1.291638], rtol=1e-5)


# Episodes and observations


SMALL = {"positions": (-1, 0, 1), "windows": 3}


def test_max_is_one_episode_from_the_first_full_window_to_the_last_row():
    env, params = make_random(random_market(40), **SMALL)
    (_, state), steps = play(env, params, random_actions(env, 40))
    assert state.index == 2
    np.testing.assert_array_equal(np.flatnonzero(steps["truncated"]), [36])
    assert steps["info"]["final_state"].index.max() == 39


def test_a_duration_of_m_is_m_less_one_steps_from_where_they_fit():
    env, params = make_random(random_market(40), max_episode_duration=np.int64(12), **SMALL)
    keys = jax.random.split(KEY, 3_000)
    _, states = jax.vmap(env.reset, in_axes=(0, None))(keys, params)

    def next_episode(state, _):
        state = jax.vmap(env.restart, in_axes=(0, None))(state, params)
        return state, (state.index, state.target)

    some = jax.tree.map(lambda leaf: leaf[:50], states)
    _, later = jax.lax.scan(next_episode, some, length=60)
    for index, target in ((states.index, states.target), later):
        pairs = np.asarray(index).ravel() * 3 + np.asarray(target).ravel()
        rows, counts = np.unique(pairs, return_counts=True)
        np.testing.assert_array_equal(rows, np.arange(2 * 3, (40 - 12 - 2) * 3))
        expected = pairs.size / len(rows)
        chi_square, freedom = ((counts - expected) ** 2 / expected).sum(), len(rows) - 1
        assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)
    _, steps = play(env, params, random_actions(env, 40))
    np.testing.assert_array_equal(np.flatnonzero(steps["truncated"]), [10, 21, 32])


def test_an_observation_is_the_rows_up_to_its_bar_and_the_positions_there():
    market = random_market(40)
    env, params = make_random(market, max_episode_duration=9, **SMALL)
    (obs, state), steps = play(env, params, random_actions(env, 40))
    seen = jax.tree.map(
        lambda first, later: np.concatenate([first[None], later[:8]]),
        obs,
        steps["info"]["final_observation"],
    )
    first = env.positions[int(state.target)]
    position = np.concatenate([[0, 0, first], steps["info"]["position"][:8]])
    real = np.concatenate([[0, 0, first], steps["info"]["real_position"][:8]])
    static = market.context[int(state.index) - 2 :]
    for time in range(9):
        rows = slice(time, time + 3)
        expected = np.column_stack([static[rows], position[rows], real[rows]])
        alone = jax.tree.map(lambda leaf, time=time: jnp.asarray(leaf[time]), seen)
        np.testing.assert_array_equal(env.gym_observation(alone), expected.astype(np.float32))
    assert env.gym_observation(seen).shape == (9, 3, 4)


def test_without_windows_an_observation_is_one_row():
    env, params = make([100])
    (obs, _), _ = play(env, params, jnp.int32([LONG]))
    assert (obs.market.shape, obs.account.shape) == ((1, 2), (2,))
    row = [*np.asarray(params.features[0]), 0, 0]
    np.testing.assert_array_equal(env.gym_observation(obs), row)


def test_the_future_changes_nothing_before_it():
    market, change = random_market(40), 25
    after = (np.arange(40) > change)[:, None]
    other = market.replace(
        bars=np.where(after[..., None], market.bars + np.float32(0.01), market.bars),
        context=np.where(after, market.context + 1, market.context),
    )
    options = {**SMALL, "trading_fees": 0.01}
    (env, params), (_, other_params) = (make_random(each, **options) for each in (market, other))
    actions = random_actions(env, 40)[:37]
    (_, steps), (_, others) = (play(env, each, actions) for each in (params, other_params))
    known = steps["info"]["final_state"].index <= change
    assert known.sum() == change - 2
    for part, same in ((known, True), (~known, False)):
        both = [jax.tree.map(lambda leaf, part=part: leaf[part], each) for each in (steps, others)]
        for name in ("obs", "reward"):
            equal = jax.tree.map(np.array_equal, both[0][name], both[1][name])
            assert all(jax.tree.leaves(equal)) == same, name
