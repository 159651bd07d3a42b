"""Trading-v0: where its episodes start and how they end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrade
from jaxtrade.envs.episodes import scale
from jaxtrade.ledger import MIN_GROWTH
from jaxtrade.synthetic import make_market
from tests.plays import FLAT, KEY, LONG, WIDE, make_still, play, random_actions


def test_episodes_start_anywhere_they_fit_and_equally_often():
    market = make_market(num_bars=700)
    env, params = jaxtrade.make("Trading-v0", market=market, first=100, last=300, episode_steps=81)
    starts = np.arange(100, 300 - 81 + 1)
    keys = jax.random.split(KEY, 20_000)
    _, states = jax.vmap(env.reset, in_axes=(0, None))(keys, params)

    def next_episode(state, _):
        state = jax.vmap(env.restart, in_axes=(0, None))(state, params)
        return state, state.index

    some = jax.tree.map(lambda leaf: leaf[:100], states)
    _, later = jax.lax.scan(next_episode, some, length=200)
    for drawn in (np.asarray(states.index), np.asarray(later)):
        rows, counts = np.unique(drawn, return_counts=True)
        np.testing.assert_array_equal(rows, starts)
        expected = drawn.size / len(starts)
        chi_square, freedom = ((counts - expected) ** 2 / expected).sum(), len(starts) - 1
        assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)
    in_time = np.corrcoef(later[:-1].ravel(), later[1:].ravel())[0, 1]
    between = np.corrcoef(later[:, :-1].ravel(), later[:, 1:].ravel())[0, 1]
    assert max(abs(in_time), abs(between)) < 0.03


def test_the_key_of_the_reset_decides_all_starts():
    env, params = jaxtrade.make("Trading-v0", market=make_market(num_bars=700), episode_steps=10)
    actions = random_actions(env, 100)
    rows = [
        np.asarray(play(env, params, actions, jax.random.key(seed))[1]["state"].index)
        for seed in (5, 5, 6)
    ]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[0] != rows[2]).mean() > 0.8
    assert len(set(rows[0][9::10])) > 5


def test_the_end_of_the_data_truncates_where_the_clock_does_not():
    env, params = make_still(110, 120, 130)
    params = params.replace(max_steps_in_episode=jnp.int32(1_000_000))
    _, steps = play(env, params, jnp.int32([LONG] * 8))
    np.testing.assert_array_equal(steps["info"]["final_state"].index, [2, 3, 4, 5] * 2)
    np.testing.assert_array_equal(np.flatnonzero(steps["truncated"]), [3, 7])
    assert np.isfinite(steps["reward"]).all()


def test_a_step_past_the_data_is_ruin_not_a_bar_again():
    env, params = make_still(110, 120)
    _, state = env.reset(KEY, params)
    state = state.replace(index=jnp.int32(4))
    _, state, reward, terminated, _ = env.step_env(KEY, state, jnp.int32(FLAT), params)
    assert terminated
    assert reward == pytest.approx(np.log(MIN_GROWTH), abs=1e-4)


def test_ruin_terminates_with_the_terminal_reward_and_the_next_episode_begins():
    # Three times the equity in a market that falls by 40 %.
    env, params = make_still(60, 120, 120, levels=(-3.0, 0.0, 3.0), limits=WIDE)
    _, steps = play(env, params, jnp.int32([FLAT, LONG, FLAT]))
    np.testing.assert_array_equal(steps["terminated"], [False, True, False])
    assert not steps["truncated"].any()
    assert steps["reward"][1] == pytest.approx(np.log(0.001), abs=1e-4)
    np.testing.assert_array_equal(steps["info"]["final_state"].account.is_ruined, [0, 1, 0])
    np.testing.assert_array_equal(steps["state"].index, [2, 1, 2])
    assert not steps["state"].account.is_ruined.any()
    np.testing.assert_array_equal(steps["obs"].account[1], np.zeros(6))
    final = jax.tree.map(lambda leaf: leaf[1], steps["info"]["final_state"])
    assert env.is_terminated(final, params)


def test_ruin_at_the_last_row_is_no_truncation():
    env, params = make_still(60, levels=(-3.0, 0.0, 3.0), limits=WIDE)
    _, steps = play(env, params, jnp.int32([FLAT, LONG]))
    np.testing.assert_array_equal(steps["terminated"], [False, True])
    assert not steps["truncated"].any()


def test_a_draw_is_scaled_exactly():
    generator = np.random.default_rng(0)
    draws = generator.integers(0, 2**32, 10_000, dtype=np.uint64)
    counts = np.exp(generator.uniform(0, np.log(2**31 - 1), 10_000)).astype(np.uint64)
    draws[:3], counts[:3] = [0, 2**32 - 1, 2**32 - 1], [1, 2**31 - 1, 1]
    scaled = scale(jnp.asarray(draws.astype(np.uint32)), jnp.asarray(counts.astype(np.int32)))
    np.testing.assert_array_equal(scaled, (draws * counts) >> np.uint64(32))
