"""FlattenObservation: one vector instead of two leaves, and nothing else changed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrade
from jaxtrade.agents.rollout import keeps_state
from jaxtrade.decision import Observation
from jaxtrade.envs import Levels, Trading
from jaxtrade.envs.wrappers import FlattenObservation
from jaxtrade.synthetic import make_market
from tests.kit import check_environment
from tests.plays import KEY, LONG, make, market_of, play, random_actions


@pytest.fixture(scope="module")
def trading():
    return jaxtrade.make("Trading-v0", market=make_market(num_bars=600), window=3, episode_steps=7)


def test_a_vector_by_hand():
    # Two log returns, the newest last, then exposure 1 after a free trade at the open of a bar that
    # closes where it opens.
    env, params = make(market_of([100, 100, 110, 121, 121], [100, 110, 121, 121, 121]))
    flat = FlattenObservation(env)
    _, state = flat.reset(KEY, params)
    obs, *_ = flat.step(KEY, state, jnp.int32(LONG), params)
    np.testing.assert_allclose(obs[:2], np.log([1.1, 1.1]), rtol=1e-6)
    assert obs.shape == (8,)
    assert obs[2] == pytest.approx(1.0)


def test_only_the_observation_changes(trading):
    env, params = trading
    actions = random_actions(env, 24)
    (obs, state), steps = play(env, params, actions)
    (vector, same_state), flat_steps = play(FlattenObservation(env), params, actions)
    np.testing.assert_array_equal(vector, joined(obs))
    np.testing.assert_array_equal(flat_steps.pop("obs"), joined(steps.pop("obs")))
    final = steps["info"].pop("final_observation")
    np.testing.assert_array_equal(flat_steps["info"].pop("final_observation"), joined(final))
    assert steps["truncated"].sum() == 3
    jax.tree.map(np.testing.assert_array_equal, (same_state, flat_steps), (state, steps))


def joined(obs):
    """The vector, made by NumPy."""
    batch = obs.account.shape[:-1]
    return np.concatenate([obs.market.reshape(*batch, -1), obs.account], axis=-1)


@pytest.mark.slow
def test_it_keeps_to_the_interface(trading):
    env, params = trading
    check_environment(FlattenObservation(env), params, KEY, ignores_key=True, steps=32)


def test_its_space_bounds_each_number_where_it_stands(trading):
    env, params = trading
    parts, space = env.observation_space(params).spaces, FlattenObservation(env).observation_space()
    size = parts["market"].shape[0] * parts["market"].shape[1]
    assert space.shape == (size + 6,)
    np.testing.assert_array_equal(space.low[:size], -5.0)
    np.testing.assert_array_equal(space.high[:size], 5.0)
    np.testing.assert_array_equal(space.low[size:], parts["account"].low)
    np.testing.assert_array_equal(space.high[size:], parts["account"].high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeveralAssets(Trading):
    """Shows two rows of three assets with two features, which count."""

    def observation(self, state, params):
        return Observation(market=jnp.arange(12.0).reshape(2, 3, 2), account=-jnp.arange(9.0))


def test_several_assets_are_flattened_row_by_row(trading):
    _, params = trading
    obs, _ = FlattenObservation(SeveralAssets()).reset(KEY, params)
    np.testing.assert_array_equal(obs, [*range(12), *range(0, -9, -1)])


def test_learners_may_keep_its_states_and_observe_later(trading):
    env, params = trading
    flat = FlattenObservation(env)
    assert keeps_state(flat, params)
    _, steps = play(flat, params, random_actions(env, 8))
    seen = jax.vmap(flat.observation, in_axes=(0, None))(steps["state"], params)
    np.testing.assert_array_equal(seen, steps["obs"])


def test_it_is_named_sized_and_compared_like_what_it_wraps(trading):
    env, params = trading
    flat = FlattenObservation(env)
    assert (flat.name, flat.num_actions) == ("Trading-v0", 3)
    assert flat.action_space(params).n == 3
    assert flat == FlattenObservation(dataclasses.replace(env))
    assert flat != FlattenObservation(Trading(actions=Levels((0.0, 1.0))))
    obs, _ = FlattenObservation(Trading()).reset(KEY)  # on the default parameters
    assert obs.shape == FlattenObservation(Trading()).observation_space().shape
    state = flat.reset(KEY, params)[1]
    assert not flat.is_terminated(state, params)
