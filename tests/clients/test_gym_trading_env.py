"""GymTrading-v0 beside gym-trading-env itself: pip install --no-deps gym-trading-env==0.3.5.

It needs gymnasium besides; what else it declares serves its web page and its downloads.
"""

import dataclasses
import importlib.metadata
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxtrade
from jaxtrade.market import Market
from tests.markets import random_frame
from tests.plays import play

STEPS, BARS = 5_000, 5_400
SOUND = 50.0
"""Up to this real position values are compared: beyond it they are small differences."""


@pytest.fixture
def peer(monkeypatch):
    """The package's module of environments."""
    with warnings.catch_warnings():  # on import it makes all warnings errors, for the process
        module = pytest.importorskip(
            "gym_trading_env.environments",
            reason="not installed: pip install --no-deps gym-trading-env==0.3.5",
        )
        assert importlib.metadata.version("gym-trading-env") == "0.3.5"
        yield module


@dataclasses.dataclass
class Differences:
    """The largest between the package and ours: value and exposure over the package's own size."""

    reward: float = 0.0
    value: float = 0.0
    exposure: float = 0.0
    observation: float = 0.0
    compared: int = 0
    episodes: int = 0

    def add(self, **parts: Any) -> None:
        for name, part in parts.items():
            setattr(self, name, max(getattr(self, name), float(np.max(part))))


def real_frame(folder, seed):
    frame = pd.read_csv(folder / "BTCUSD_1h.csv.gz")
    first = np.random.default_rng(seed).integers(0, len(frame) - BARS)
    return frame.iloc[first : first + BARS].reset_index(drop=True)


def with_features(frame, seed):
    columns = np.random.default_rng(seed).standard_normal((len(frame), 2))
    change = frame["close"].pct_change().fillna(0)
    return frame.assign(feature_change=change, b_feature=columns[:, 0], noise=columns[:, 1])


def compare(peer, monkeypatch, frame, seed, *, hold=1, **options):
    """Play both over the same actions, the package on the frame, ours on its market."""
    env, params = jaxtrade.make("GymTrading-v0", market=Market.from_frame(frame), **options)
    none = env.num_actions
    drawn = np.random.default_rng(seed).integers(0, none + 1, STEPS)
    actions = np.repeat(drawn, hold)[:STEPS]
    (_, first), ours = play(env, params, jnp.asarray(actions, jnp.int32), jax.random.key(seed))
    starts = jax.tree.map(
        lambda start, later: np.concatenate([[start], later]),
        (first.index, first.target),
        (ours["state"].index, ours["state"].target),
    )
    observations = np.asarray(env.gym_observation(ours["info"]["final_observation"]))
    theirs = peer.TradingEnv(frame.drop(columns="timestamp"), verbose=0, **options)
    found = Differences()

    def begin(time):
        """Have the package draw the start that ours has drawn, from the same range."""
        row, target = (int(leaf[time]) for leaf in starts)

        def draw_row(low, high):
            assert (params.first, params.first + params.num_starts) == (low, high)
            return row

        monkeypatch.setattr(np.random, "randint", draw_row)
        monkeypatch.setattr(np.random, "choice", lambda positions: positions[target])
        theirs._obs_array[:, -2:] = 0  # else windows show positions of earlier episodes
        _, info = theirs.reset()
        assert (info["idx"], info["position_index"]) == (row, target)
        found.episodes += 1
        return True

    is_sound = begin(0)
    for time, action in enumerate(actions):
        seen, reward, done, truncated, info = theirs.step(None if action == none else int(action))
        mine = {name: leaf[time] for name, leaf in ours["info"].items() if name[0] in "prt"}
        ended = (mine["terminated"], mine["truncated"])
        exposure, value = info["real_position"], info["portfolio_valuation"]
        assert theirs.positions[mine["position_index"]] == info["position"]
        if is_sound:
            assert ended == (done, truncated and not done)
        is_sound &= abs(exposure) < SOUND or done
        if is_sound:
            scale = max(abs(exposure), 1.0)
            found.add(reward=abs(ours["reward"][time] - reward))
            found.add(value=abs(mine["portfolio_valuation"] - value) / (1000 if done else value))
            found.add(exposure=abs(mine["real_position"] - exposure) / scale)
            found.add(observation=abs(observations[time] - seen) / scale)
            found.compared += 1
        if any(ended):
            is_sound = begin(time + 1)
    return found


def draw_options(seed):
    """A configuration at random, all kinds of each option among any few seeds."""
    generator = np.random.default_rng(seed)
    positions = [(0, 1), (-1, 0, 1), (-2, -1, 0, 0.5, 1, 2, 3), (-1, 0, 0.3, 1, 1.7)][seed % 4]
    duration = int(generator.integers(2, 3_000)) if seed % 3 else "max"
    return {
        "positions": list(positions),
        "trading_fees": float(generator.choice([0, 1e-5, 1e-4, 1e-3, 1e-2])),
        "borrow_interest_rate": float(generator.choice([0, 1e-5, 1e-4, 1e-3])),
        "portfolio_initial_value": float(generator.choice([1, 1000, 1e6])),
        "initial_position": "random" if seed % 5 else positions[-1],
        "windows": [None, 1, 2, 24][int(generator.integers(4))],
        "max_episode_duration": duration,
        "hold": int(generator.choice([1, 3, 20, 400])),
    }


def check(found):
    print(found)
    assert found.compared > 0.9 * STEPS
    assert found.reward < 2e-6
    assert found.value < 2e-6
    assert found.exposure < 2e-6
    assert found.observation < 2e-6


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(s, marks=pytest.mark.slow) for s in range(4, 24))]
)
def test_5000_steps_on_random_bars(peer, monkeypatch, seed):
    frame = with_features(random_frame(BARS, freq="h", seed=seed), seed)
    check(compare(peer, monkeypatch, frame, seed, **draw_options(seed)))


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 12))]
)
def test_5000_hours_of_bitcoin(peer, monkeypatch, data_folder, seed):
    frame = with_features(real_frame(data_folder, seed), seed)
    check(compare(peer, monkeypatch, frame, seed, **draw_options(100 + seed)))


def test_ruin_over_and_over(peer, monkeypatch):
    frame = with_features(random_frame(BARS, freq="h", seed=1, deviation=0.03), 1)
    found = compare(peer, monkeypatch, frame, 1, hold=20, positions=[-6, 1, 6], trading_fees=1e-3)
    print(found)
    assert found.episodes > 20
    assert found.compared > 0.8 * STEPS
    assert max(found.reward, found.value, found.exposure) < 2e-6
