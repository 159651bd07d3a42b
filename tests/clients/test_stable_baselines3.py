"""Stable-Baselines3 checks our environments and trains on one and on many: the real client."""

import warnings

import numpy as np
import pytest

import jaxtrade
from jaxtrade.envs.adapters.gymnasium import GymnasiumEnv, GymnasiumVectorEnv
from jaxtrade.synthetic import make_market
from tests.clients.swings import BEST, STEPS, swinging
from tests.plays import WIDE, make_still

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sb3 = pytest.importorskip(
        "stable_baselines3", reason="stable-baselines3 is not installed: see pyproject.toml"
    )
    import torch
    from stable_baselines3.common.env_checker import check_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

    from jaxtrade.envs.adapters.stable_baselines3 import StableBaselines3VecEnv

torch.set_num_threads(1)  # quicker for networks this small
SETTINGS = {
    "device": "cpu",
    "seed": 0,
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 4,
    "gamma": 0.9,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def trading():
    return swinging()


@pytest.fixture(scope="module")
def ruinous():
    """Three steps; in the second, twice long is ruin."""
    return make_still(10.0, 10.0, levels=(0.0, 2.0), limits=WIDE)


def test_its_checker_has_nothing_to_say():
    env, params = jaxtrade.make("Trading-v0", market=make_market(num_bars=600))
    check_env(GymnasiumEnv(env, params, flatten=True))


def test_its_checker_advises_to_flatten_a_window():
    env, params = jaxtrade.make("Trading-v0", market=make_market(num_bars=600))
    with pytest.warns(UserWarning, match="observation market has an unconventional shape") as seen:
        check_env(GymnasiumEnv(env, params))
    assert len(seen) == 1


def test_many_are_what_it_makes_of_single_ones(ruinous):
    env, params = ruinous
    many = StableBaselines3VecEnv(env, params, 3)
    single = DummyVecEnv([lambda: GymnasiumEnv(env, params, flatten=True)] * 3)
    for each in (many, single):
        each.seed(5)
    np.testing.assert_allclose(many.reset(), single.reset(), rtol=1e-5)
    assert many.observation_space == single.observation_space
    assert many.action_space == single.action_space
    ends = []
    for actions in np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]]):
        obs, rewards, done, infos = many.step(actions)
        others = single.step(actions)
        for ours, theirs in zip((obs, rewards, done), others[:3], strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        for row, (ours, theirs) in enumerate(zip(infos, others[3], strict=True)):
            assert ours.get("TimeLimit.truncated", False) == theirs["TimeLimit.truncated"]
            assert ours.keys() == (
                {"terminal_observation", "TimeLimit.truncated"} if done[row] else set()
            )
            if done[row]:
                ends.append((row, ours["TimeLimit.truncated"]))
                final = theirs["terminal_observation"]
                np.testing.assert_allclose(ours["terminal_observation"], final, rtol=1e-5)
    assert ends == [(0, False), (1, True), (2, True), (0, False)]


def test_a_seed_holds_for_one_reset(trading):
    many = StableBaselines3VecEnv(*trading, 4, seed=1)
    by_constructor = many.reset()
    following = many.reset()
    assert many.seed(1) == [1, 2, 3, 4]
    np.testing.assert_array_equal(many.reset(), by_constructor)
    np.testing.assert_array_equal(many.reset(), following)
    vector = GymnasiumVectorEnv(*trading, 4, flatten=True)
    np.testing.assert_array_equal(vector.reset(seed=1)[0], by_constructor)
    assert not np.array_equal(by_constructor, following)


def test_there_are_no_objects_to_reach_into(trading):
    many = StableBaselines3VecEnv(*trading, 2)
    assert many.get_attr("render_mode") == [None, None]
    assert many.get_attr("num_envs", indices=0) == [2]
    assert many.env_is_wrapped(Monitor) == [False, False]
    with pytest.raises(NotImplementedError, match="one program runs all environments"):
        many.set_attr("params", None)
    with pytest.raises(NotImplementedError, match="one program runs all environments"):
        many.env_method("render")
    many.close()


@pytest.mark.parametrize("flatten", [False, True])
def test_ppo_learns_on_many_at_once(trading, flatten):
    envs = VecMonitor(StableBaselines3VecEnv(*trading, 32, flatten=flatten))
    policy = "MlpPolicy" if flatten else "MultiInputPolicy"
    model = sb3.PPO(policy, envs, **SETTINGS).learn(10 * 1024)
    returns = [each["r"] for each in model.ep_info_buffer]
    assert len(returns) == 100
    assert np.mean(returns) > 0.4 * BEST  # while it still explores
    single = Monitor(GymnasiumEnv(*trading, flatten=flatten, seed=0))
    mean, _ = evaluate_policy(model, single, n_eval_episodes=20)
    assert mean > 0.6 * BEST


def test_ppo_trains_on_a_single_one(trading):
    env = GymnasiumEnv(*trading, flatten=True)
    model = sb3.PPO("MlpPolicy", env, device="cpu", n_steps=64, batch_size=32, seed=0).learn(128)
    assert model.num_timesteps == 128
    assert len(model.ep_info_buffer) == 128 // STEPS
    lengths = {each["l"] for each in model.ep_info_buffer}
    assert lengths == {STEPS}
