"""GymTrading-v0 beside gym-trading-env itself: pip install --no-deps gym-trading-env==0.3.5.

It needs gymnasium besides; what else it declares serves its web page and its downloads.
"""

import importlib.metadata
import warnings

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
SOUND = 20.0
"""Up to this real position values are compared: beyond it they are small differences."""


NAMES = ("observation", "reward", "done", "truncated", "value", "exposure", "position")


@pytest.fixture
def peer():
    """The package's module of environments."""
    with warnings.catch_warnings():  # on import it makes all warnings errors, for the process
        module = pytest.importorskip(
            "gym_trading_env.environments",
            reason="not installed: pip install --no-deps gym-trading-env==0.3.5",
        )
        assert importlib.metadata.version("gym-trading-env") == "0.3.5"
        yield module


def real_frame(folder, seed):
    frame = pd.read_csv(folder / "BTCUSD_1h.csv.gz")
    first = np.random.default_rng(seed).integers(0, len(frame) - BARS)
    return frame.iloc[first : first + BARS].reset_index(drop=True)


def with_features(frame, seed):
    columns = np.random.default_rng(seed).standard_normal((len(frame), 2))
    change = frame["close"].pct_change().fillna(0)
    return frame.assign(feature_change=change, b_feature=columns[:, 0], noise=columns[:, 1])


def play_ours(frame, actions, seed, options):
    """Arrays by `NAMES`; `first_row`, `first_target`, `opening`: where and with what observation
    the episode of step t + 1 begins, if t is a last step; and the range of first rows.
    """
    env, params = jaxtrade.make("GymTrading-v0", market=Market.from_frame(frame), **options)
    start, steps = play(env, params, jnp.asarray(actions, jnp.int32), jax.random.key(seed))
    obs, state = jax.tree.map(
        lambda first, later: np.concatenate([first[None], later]),
        start,
        (steps["obs"], steps["state"]),
    )
    info = steps["info"]
    return {
        "observation": np.asarray(env.gym_observation(info["final_observation"])),
        "reward": steps["reward"],
        "done": steps["terminated"],
        "truncated": steps["truncated"],
        "value": info["portfolio_valuation"],
        "exposure": info["real_position"],
        "position": np.asarray(env.positions)[info["position_index"]],
        "first_row": state.index,
        "first_target": state.target,
        "opening": np.asarray(env.gym_observation(obs)),
        "range": (params.first, params.first + params.num_starts),
    }


def play_theirs(peer, monkeypatch, frame, actions, ours, options):
    """The package's arrays by `NAMES`, each episode begun where ours began, and whether one did."""
    env = peer.TradingEnv(frame.drop(columns="timestamp"), verbose=0, **options)
    begins = np.concatenate([[True], ours["done"][:-1] | ours["truncated"][:-1]])
    steps = []
    for time, action in enumerate(actions):
        if begins[time]:
            row, target = int(ours["first_row"][time]), int(ours["first_target"][time])

            def draw_row(low, high, row=row):
                assert ours["range"] == (low, high)
                return row

            monkeypatch.setattr(np.random, "randint", draw_row)
            monkeypatch.setattr(np.random, "choice", lambda among, target=target: among[target])
            env._obs_array[:, -2:] = 0  # else windows show positions of earlier episodes
            opening, info = env.reset()
            assert (info["idx"], info["position_index"]) == (row, target)
            np.testing.assert_array_equal(ours["opening"][time], opening)
        is_none = action == len(env.positions)
        seen, *outcome, info = env.step(None if is_none else int(action))
        money = (info[name] for name in ("portfolio_valuation", "real_position", "position"))
        steps.append((seen.copy(), *outcome, *money))  # without windows it is a view
    arrays = (np.array(column) for column in zip(*steps, strict=True))
    return dict(zip(NAMES, arrays, strict=True)) | {"begins": begins}


def compare(peer, monkeypatch, frame, seed, *, hold=1, **options):
    """Play both; the largest differences, as long as the package's real position is moderate.

    Exposure is measured over its own size where that is above 1, the value over its own size.
    """
    drawn = np.random.default_rng(seed).integers(0, len(options["positions"]) + 1, STEPS)
    actions = np.repeat(drawn, hold)[:STEPS]
    ours = play_ours(frame, actions, seed, options)
    theirs = play_theirs(peer, monkeypatch, frame, actions, ours, options)

    sound = np.abs(theirs["exposure"]) < SOUND
    firsts = np.flatnonzero(theirs["begins"])
    for episode in np.split(sound, firsts[1:]):
        episode[:] = np.logical_and.accumulate(episode)
    was_sound = np.concatenate([[True], sound[:-1]]) | theirs["begins"]
    np.testing.assert_array_equal(ours["position"], theirs["position"])
    is_same_end = (ours["done"] == theirs["done"]) & (
        ours["truncated"] == (theirs["truncated"] & ~theirs["done"])
    )
    assert is_same_end[was_sound].all()

    size = np.maximum(np.abs(theirs["exposure"]), 1)[sound]
    found = {name: np.abs(ours[name] - theirs[name])[sound] for name in NAMES[:2] + NAMES[4:6]}
    found["value"] /= np.abs(theirs["value"][sound])
    found["exposure"] /= size
    found["observation"] = found["observation"].reshape(len(size), -1).max(axis=1) / size
    largest = {name: float(difference.max()) for name, difference in found.items()}
    return {**largest, "compared": int(sound.sum()), "episodes": len(firsts)}


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


def check(found, *, share):
    assert found["compared"] > share * STEPS, found
    assert found["reward"] < 2e-6, found
    assert max(found[name] for name in ("value", "exposure", "observation")) < 5e-6, found


def some(count, of):
    """Seeds 0 .. of - 1, the first `count` of them in every run."""
    return [pytest.param(s, marks=[] if s < count else [pytest.mark.slow]) for s in range(of)]


@pytest.mark.parametrize("seed", some(3, of=24))
def test_5000_steps_on_random_bars(peer, monkeypatch, seed):
    frame = with_features(random_frame(BARS, freq="h", seed=seed), seed)
    check(compare(peer, monkeypatch, frame, seed, **draw_options(seed)), share=0.6)


@pytest.mark.parametrize("seed", some(1, of=12))
def test_5000_hours_of_bitcoin(peer, monkeypatch, data_folder, seed):
    frame = with_features(real_frame(data_folder, seed), seed)
    check(compare(peer, monkeypatch, frame, seed, **draw_options(100 + seed)), share=0.6)


def test_ruin_over_and_over(peer, monkeypatch):
    frame = with_features(random_frame(BARS, freq="h", seed=1, deviation=0.03), 1)
    found = compare(peer, monkeypatch, frame, 1, hold=20, positions=[-6, 1, 6], trading_fees=1e-3)
    check(found, share=0.6)
    assert found["episodes"] > 20
