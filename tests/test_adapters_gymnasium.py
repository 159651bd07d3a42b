"""Our environments under gymnasium: the same numbers, one at a time and many at once."""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from gymnax.environments import spaces

from jaxtrade.costs import make_costs
from jaxtrade.envs import Trading
from jaxtrade.envs.adapters import gymnasium as adapter
from jaxtrade.envs.adapters.gymnasium import GymnasiumEnv, GymnasiumVectorEnv
from jaxtrade.envs.wrappers import FlattenObservation
from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic import make_market
from tests.plays import FREE, WIDE, make_still, play, random_actions
from tests.wild import STEPS, short_and_wild

LONG = 2


@pytest.fixture(scope="module")
def market():
    return make_market(num_bars=400)


@pytest.fixture(scope="module")
def trading():
    return short_and_wild()


def ruinous():
    """Three steps; in the second, twice long is ruin."""
    return make_still(10.0, 10.0, levels=(0.0, 2.0), limits=WIDE)


# One


def played(gym_env, actions, **reset):
    """Every reset and step of these actions, episode after episode: lists of what they gave."""
    obs, info = gym_env.reset(**reset)
    assert info == {}
    seen, results = [obs], []
    for action in actions:
        obs, *result = gym_env.step(int(action))
        results.append((obs, *result))
        seen.append(gym_env.reset()[0] if result[1] or result[2] else obs)
    return seen, results


@pytest.mark.parametrize("flatten", [False, True])
def test_gymnasium_gives_the_numbers_of_the_environment(trading, flatten):
    env, params = trading
    actions = np.asarray(random_actions(env, 40))
    seen, results = played(GymnasiumEnv(env, params, flatten=flatten), actions, seed=5)

    draw = np.random.default_rng(5).integers(2**32, dtype=np.uint32)
    direct = FlattenObservation(env) if flatten else env
    (first, _), steps = play(direct, params, actions, jax.random.key(draw))
    assert steps["terminated"].any()
    assert steps["truncated"].any()
    for number, (obs, reward, terminated, truncated, info) in enumerate(results):
        expected = jax.tree.map(lambda leaf, row=number: leaf[row], steps)
        same(obs, expected["info"]["final_observation"])
        same(seen[number + 1], expected["obs"])
        flags = (expected["terminated"], expected["truncated"])
        assert (reward, terminated, truncated) == (expected["reward"], *flags)
        assert info["binding"] == expected["info"]["binding"]
        assert info["target"] == expected["info"]["target"]
        assert info["move"]["cost"] == expected["info"]["move"].cost
    same(seen[0], first)


def same(obs, expected):
    """A vector, or a dictionary against our structure."""
    if not isinstance(obs, dict):
        np.testing.assert_array_equal(obs, expected)
        return
    assert obs.keys() == {"market", "account"}
    np.testing.assert_array_equal(obs["market"], expected.market)
    np.testing.assert_array_equal(obs["account"], expected.account)


@pytest.mark.parametrize("flatten", [False, True])
def test_gymnasium_checks_it_without_a_warning(market, flatten):
    env = gymnasium.make("jaxtrade/Trading-v0", market=market, window=3, flatten=flatten)
    check_env(env.unwrapped)
    obs, _ = env.reset(seed=0)
    obs, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(obs)


def test_gymnasium_values_are_plain_and_may_be_written_to(trading):
    env = GymnasiumEnv(*trading)
    assert isinstance(env.observation_space, gymnasium.spaces.Dict)
    for obs in (env.reset(seed=0)[0], env.step(np.int64(1))[0]):
        assert {leaf.dtype for leaf in obs.values()} == {np.dtype("float32")}
        obs["market"][:] = 0.0
    _, reward, terminated, truncated, info = env.step(LONG)
    assert [type(each) for each in (reward, terminated, truncated)] == [float, bool, bool]
    assert type(info["binding"]) is int
    assert type(info["move"]["cost"]) is float
    assert type(info["target"]) is np.ndarray
    assert {"binding", "move", "target", "terms", "invalid_actions"} <= info.keys()


def test_a_seed_decides_all_episodes(trading):
    env, params = trading
    actions = np.asarray(random_actions(env, 20))
    by_reset = played(GymnasiumEnv(env, params, flatten=True), actions, seed=3)
    by_constructor = played(GymnasiumEnv(env, params, flatten=True, seed=3), actions)
    jax.tree.map(np.testing.assert_array_equal, by_reset, by_constructor)
    one = GymnasiumEnv(env, params, flatten=True)
    starts = [one.reset(seed=seed)[0] for seed in (3, 4, 3)] + [one.reset()[0]]
    np.testing.assert_array_equal(starts[0], starts[2])
    assert not np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[3])
    unseeded = [GymnasiumEnv(env, params, flatten=True).reset()[0] for _ in range(5)]
    assert len({obs.tobytes() for obs in unseeded}) > 1


def test_ruin_terminates_and_the_clock_truncates():
    env = GymnasiumEnv(*ruinous())
    env.reset(seed=0)
    assert env.step(1)[2:4] == (False, False)
    _, reward, terminated, truncated, _ = env.step(1)
    assert (terminated, truncated) == (True, False)
    assert reward == pytest.approx(np.log(0.001), rel=1e-5)
    env.reset()
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_a_step_outside_an_episode_is_refused():
    env = GymnasiumEnv(*ruinous())
    with pytest.raises(JaxtradeError, match=r"^step: no episode is running, call reset first$"):
        env.step(0)
    env.reset()
    assert [env.step(1)[2] for _ in range(2)] == [False, True]
    with pytest.raises(JaxtradeError, match=r"call reset first"):
        env.step(0)


@pytest.mark.parametrize("action", [3, -1, 1.0, [1], None, np.nan])
def test_no_such_action(trading, action):
    env = GymnasiumEnv(*trading)
    env.reset()
    with pytest.raises(JaxtradeError, match=r"^action .* is not in Discrete\(3\)$"):
        env.step(action)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyExposure(Trading):
    """Trading, but for the action: an exposure f32[1]."""

    def action_space(self, params=None):
        return spaces.Box(-2.0, 2.0, (1,), jnp.float32)

    def advance(self, state, action, params):
        return self.advance_to(state, action, params)


def test_continuous_actions_of_either_precision():
    env, params = ruinous()
    env = AnyExposure(features=env.features)
    one, many = GymnasiumEnv(env, params), GymnasiumVectorEnv(env, params, 2)
    one.reset()
    many.reset()
    for action in ([0.5], np.array([-1.5]), np.array([0.25], np.float32)):
        *_, info = one.step(action)
        *_, infos = many.step([action, action])
        assert info["target"] == action
        kept = infos.get("final_info", infos)  # the third step is the last
        np.testing.assert_array_equal(kept["target"], [action, action])
    one.reset()
    for action in ([2.5], [np.nan], [0.0, 0.0], 0.0):
        with pytest.raises(JaxtradeError, match=r"^action .* is not in Box"):
            one.step(action)


def test_parameters_may_be_changed_without_another_program():
    env, params = ruinous()
    one = GymnasiumEnv(env, params, seed=0)
    step = adapter._compiled(env).step
    rewards = []
    for fee in (0.0, 0.01):
        costs = make_costs(**FREE | {"commission_rate": fee})
        one.params = params.replace(rules=params.rules.replace(costs=costs))
        one.reset(seed=0)
        rewards.append(one.step(1)[1])
    assert rewards == pytest.approx([0.0, np.log(0.98)], rel=1e-5)
    assert GymnasiumEnv(env, params)._programs.step is step
    assert step._cache_size() == 1


# Many


@pytest.mark.parametrize("flatten", [False, True])
def test_many_environments_are_what_gymnasium_makes_of_single_ones(trading, flatten):
    env, params = trading
    many = GymnasiumVectorEnv(env, params, 6, flatten=flatten)
    makers = [lambda: GymnasiumEnv(env, params, flatten=flatten)] * 6
    sync = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    assert many.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    for name in ("observation_space", "action_space"):
        assert getattr(many, name) == getattr(sync, name)
        assert getattr(many, f"single_{name}") == getattr(sync, f"single_{name}")
    jax.tree.map(alike, many.reset(seed=11), sync.reset(seed=11))

    drawn = np.random.default_rng(0).integers(0, 3, (24, 6))
    kinds = set()
    for actions in drawn:
        *ours, infos = many.step(actions)
        *theirs, expected = sync.step(actions)
        jax.tree.map(alike, ours, theirs)
        same_infos(infos, expected)
        done = theirs[2] | theirs[3]
        kinds.add("none" if not done.any() else "all" if done.all() else "some")
        kinds |= {"ruin"} if theirs[2].any() else set()
    assert kinds >= {"none", "some", "ruin"}


def alike(ours, theirs):
    """The same dtype, and the same numbers up to the rounding of another program."""
    assert ours.dtype == theirs.dtype
    close(ours, theirs)


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def same_infos(ours, theirs):
    """The same keys and masks, and the same values where the mask is set."""
    assert ours.keys() == theirs.keys()
    for name in theirs:
        if name.startswith("_"):
            np.testing.assert_array_equal(ours[name], theirs[name])
        elif isinstance(theirs[name], dict):
            same_infos(ours[name], theirs[name])
        else:
            mask = theirs[f"_{name}"]
            jax.tree.map(close, list(ours[name][mask]), list(theirs[name][mask]))
    if "final_obs" in theirs:
        assert set(ours["final_obs"][~theirs["_final_obs"]]) <= {None}


def test_many_environments_that_all_end_at_once(trading):
    env, params = trading
    many = GymnasiumVectorEnv(env, params, 2, flatten=True, seed=0)
    many.reset()
    for _ in range(STEPS):
        _, _, terminated, truncated, infos = many.step(np.ones(2, int))
    assert (terminated.any(), truncated.all()) == (False, True)
    assert infos.keys() == {"final_info", "_final_info", "final_obs", "_final_obs"}
    assert infos["final_info"]["binding"].tolist() == [0, 0]


def test_many_seeds(trading):
    env, params = trading
    many = GymnasiumVectorEnv(env, params, 3, flatten=True)
    first, _ = many.reset(seed=7)
    listed, _ = many.reset(seed=[9, 8, 7])
    np.testing.assert_array_equal(first, listed[::-1])
    following, _ = many.reset()
    assert not np.array_equal(following, listed)
    unseeded, _ = GymnasiumVectorEnv(env, params, 3, flatten=True).reset()
    assert len(np.unique(unseeded, axis=0)) > 1
    with pytest.raises(JaxtradeError, match=r"^2 seeds: give one for each of 3$"):
        many.reset(seed=[1, 2])


def test_many_environments_refuse_what_is_wrong(trading):
    env, params = trading
    with pytest.raises(JaxtradeError, match=r"^num_envs is 0: give 1 or more$"):
        GymnasiumVectorEnv(env, params, 0)
    many = GymnasiumVectorEnv(env, params, 2)
    with pytest.raises(JaxtradeError, match=r"call reset first"):
        many.step(np.zeros(2, int))
    with pytest.raises(JaxtradeError, match=r"^reset_mask: episodes begin by themselves here"):
        many.reset(options={"reset_mask": np.array([True, False])})
    many.reset(options={})
    for actions in ([0, 3], [0], [0.0, 1.0], 0):
        with pytest.raises(JaxtradeError, match=r"is not in MultiDiscrete"):
            many.step(actions)


def test_a_gymnasium_wrapper_counts_the_returns_of_many(market):
    vector = gymnasium.make_vec(
        "jaxtrade/Trading-v0", num_envs=3, market=market, window=2, episode_steps=5, flatten=True
    )
    assert isinstance(vector, GymnasiumVectorEnv)
    counted = RecordEpisodeStatistics(vector)
    counted.reset(seed=0)
    total = np.zeros(3)
    for _ in range(5):
        _, rewards, _, truncated, infos = counted.step(np.full(3, LONG))
        total += rewards
    assert truncated.all()
    np.testing.assert_allclose(infos["episode"]["r"], total, rtol=1e-6)
    assert infos["episode"]["l"].tolist() == [5, 5, 5]
