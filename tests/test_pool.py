"""Endless data: a pool of synthetic paths, and training that draws it anew."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrade
from jaxtrade.agents import loop
from jaxtrade.envs import make_perpetual, make_pool, make_trading
from jaxtrade.specs import JaxtradeError

SMALL = {"kind": "garch", "num_paths": 3, "num_bars": 300, "window": 4, "episode_steps": 32}


@pytest.mark.slow
def test_a_pool_is_drawn_anew_in_the_same_shapes():
    env, params, refresh = make_pool(make_trading, **SMALL)
    again, other = refresh(0), refresh(7)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    like, changed = jax.tree.leaves(params), jax.tree.leaves(other)
    assert [leaf.shape for leaf in like] == [leaf.shape for leaf in changed]
    assert not np.array_equal(params.tape.rows, other.tape.rows)
    jax.tree.map(np.testing.assert_array_equal, params.normaliser, other.normaliser)
    assert env.params is not None


def test_paths_of_a_pool_differ_and_no_seed_repeats_another():
    _, params, refresh = make_pool(make_trading, **SMALL)
    _, shifted, _ = make_pool(make_trading, **SMALL, seed=1)
    closes = [np.asarray(p.tape.rows[:, 0, 3]).reshape(3, 300) for p in (params, refresh(1))]
    assert len({row.tobytes() for block in closes for row in block}) == 6
    np.testing.assert_array_equal(shifted.tape.rows, refresh(1).tape.rows)


def test_rules_of_a_preset_stay():
    _, params, refresh = make_pool(
        make_perpetual, **{**SMALL, "num_paths": 2}, costs=None, no_trade_band=0.2
    )
    other = refresh(3)
    assert other.rules.margin is not None
    assert float(other.no_trade_band) == np.float32(0.2) == float(params.no_trade_band)


@pytest.mark.slow
def test_training_compiles_once_and_begins_all_episodes_anew():
    env, params, refresh = make_pool(make_trading, **SMALL)
    asked = []

    def counted(iteration):
        asked.append(iteration)
        return refresh(iteration)

    agent = jaxtrade.agents.make("ppo", num_envs=4, rollout_steps=8, hidden_sizes=(8,))
    loop.train_chunk.clear_cache()
    state, history = jaxtrade.agents.train(
        agent,
        env,
        params,
        jax.random.key(0),
        total_steps=6 * 32,
        chunk_iterations=2,
        refresh=counted,
    )
    assert asked == [2, 4]
    assert len(history) == 3
    assert loop.train_chunk._cache_size() == 1
    np.testing.assert_array_equal(state.env_state.time, 16)  # two rollouts of eight steps
    assert bool(jnp.isfinite(state.env_state.account.log_equity).all())


def test_no_paths_are_refused():
    with pytest.raises(JaxtradeError, match=re.escape("num_paths is 0: give 1 or more")):
        make_pool(make_trading, num_paths=0)
