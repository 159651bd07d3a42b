"""Stoix's interface, held to with the real package: its own wrappers run on our environments."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import jaxtrade
from jaxtrade.envs.wrappers import FlattenObservation
from jaxtrade.synthetic import make_market
from tests.plays import KEY, WIDE, make_still

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    stoa = pytest.importorskip("stoa", reason="stoa-env is not installed: see pyproject.toml")
    from stoa.core_wrappers.vmap import VmapWrapper

    from jaxtrade.envs.adapters.stoa import StoaEnv, to_stoa_space

STEPS, N = 5, 3
MID, TERMINATED, TRUNCATED = 1, 2, 3


@pytest.fixture(scope="module")
def trading():
    market = make_market(num_bars=600)
    return jaxtrade.make("Trading-v0", market=market, window=3, episode_steps=STEPS)


def test_a_time_step_is_our_step(trading):
    env, params = trading
    adapted = StoaEnv(env, params)
    state, first = adapted.reset(KEY)
    obs, inner = env.reset(jax.random.split(KEY)[0], params)
    np.testing.assert_array_equal(first.observation["market"], obs.market)
    assert (first.first(), first.reward, first.discount, first.extras) == (True, 0.0, 1.0, {})

    step = jax.jit(adapted.step)
    for number in range(STEPS):
        state, timestep = step(state, jnp.int32(2))
        _, inner, reward, _, truncated, info = env.step(KEY, inner, jnp.int32(2), params)
        final = info["final_observation"]
        np.testing.assert_allclose(timestep.observation["market"], final.market, rtol=1e-5)
        np.testing.assert_allclose(timestep.observation["account"], final.account, rtol=1e-4)
        assert timestep.reward == pytest.approx(float(reward), rel=1e-4)
        assert timestep.step_type == (MID if number < STEPS - 1 else TRUNCATED)
        assert (timestep.truncated(), timestep.discount) == (truncated, 1.0)
    assert jax.tree.structure(first) == jax.tree.structure(timestep)
    types = [
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), each) for each in (first, timestep)
    ]
    assert types[0] == types[1]


def test_ruin_has_no_discount():
    env, params = make_still(10.0, 10.0, levels=(0.0, 2.0), limits=WIDE)
    adapted = StoaEnv(env, params)
    state, _ = adapted.reset(KEY)
    ends = []
    for _ in range(2):
        state, timestep = adapted.step(state, jnp.int32(1))
        ends.append((int(timestep.step_type), float(timestep.discount)))
    assert ends == [(MID, 1.0), (TERMINATED, 0.0)]


def test_parameters_may_be_given_to_a_step(trading):
    env, params = trading
    adapted = StoaEnv(env, params)
    shorter = params.replace(max_steps_in_episode=jnp.int32(1))
    state, _ = adapted.reset(KEY, shorter)
    assert not adapted.step(state, jnp.int32(0))[1].last()
    assert adapted.step(state, jnp.int32(0), shorter)[1].truncated()


def test_everything_lies_in_the_spaces(trading):
    env, params = trading
    for each in (env, FlattenObservation(env)):
        adapted = StoaEnv(each, params)
        seen, actions = adapted.observation_space(), adapted.action_space()
        state, timestep = adapted.reset(KEY)
        assert seen.contains(timestep.observation)
        action = actions.sample(KEY)
        assert actions.contains(action)
        _, timestep = adapted.step(state, action)
        assert seen.contains(timestep.observation)
        assert adapted.reward_space().contains(timestep.reward)
        assert adapted.discount_space().contains(timestep.discount)
    assert not actions.contains(jnp.int32(3))
    with pytest.raises(NotImplementedError, match="observation_space"):
        adapted.state_space()


def test_spaces_keep_their_bounds():
    box = to_stoa_space(spaces.Box(jnp.array([-1.0, 0.0]), 2.0, (2,), jnp.float32))
    assert (box.shape, box.dtype) == ((2,), jnp.float32)
    assert (box.minimum.tolist(), float(box.maximum)) == ([-1.0, 0.0], 2.0)
    both = to_stoa_space(spaces.Tuple((spaces.Discrete(4), spaces.Discrete(2))))
    assert [each.num_values for each in both.spaces] == [4, 2]
    with pytest.raises(NotImplementedError, match="no Stoa form"):
        to_stoa_space(spaces.Space())


def test_stoas_wrappers_reset_count_and_batch(trading):
    env, params = trading
    flat = FlattenObservation(env)
    wrapped = stoa.RecordEpisodeMetrics(StoaEnv(flat, params))
    wrapped = VmapWrapper(stoa.AutoResetWrapper(wrapped, next_obs_in_extras=True), N)
    actions = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2 * STEPS + 2, N)), jnp.int32)

    @jax.jit
    def run(key):
        def step(carry, action):
            state, timestep = wrapped.step(carry[0], action)
            return (state, timestep), (state.unwrapped_state.base_env_state, timestep)

        start = wrapped.reset(key)
        return start[0].unwrapped_state.base_env_state, jax.lax.scan(step, start, actions)[1]

    start, (states, timesteps) = run(KEY)
    expected = (np.arange(1, 2 * STEPS + 3) % STEPS == 0)[:, None].repeat(N, 1)
    np.testing.assert_array_equal(timesteps.truncated(), expected)
    assert not timesteps.terminated().any()

    # What each step came from, by our own environment.
    before = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b[:-1]]), start, states)
    advance = jax.vmap(jax.vmap(functools.partial(flat.advance, params=params)))
    final, reward, *_ = jax.jit(advance)(before, actions)
    observe = jax.jit(jax.vmap(jax.vmap(lambda state: flat.observation(state, params))))
    np.testing.assert_allclose(timesteps.reward, reward, rtol=1e-4, atol=1e-6)
    close(timesteps.extras["next_obs"], observe(final))
    close(timesteps.observation, observe(states))
    np.testing.assert_array_equal(states.time == 0, expected)

    metrics = timesteps.extras["episode_metrics"]
    returns = np.asarray(timesteps.reward)[:STEPS].sum(0)
    np.testing.assert_allclose(metrics["episode_return"][STEPS - 1], returns, rtol=1e-5, atol=1e-7)
    assert set(metrics["episode_length"][expected].tolist()) == {STEPS}
    assert len(np.unique(states.index[STEPS - 1])) > 1  # each environment draws its own start


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
