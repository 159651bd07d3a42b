"""Several markets of unequal length in one environment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrade
from jaxtrade.features import normalise, raw_table
from jaxtrade.impact import make_impact
from jaxtrade.rules import make_rules
from jaxtrade.specs import FeatureSpec, JaxtradeError
from tests.markets import random_frame

WINDOW = 3
FEATURES = FeatureSpec(names=("log_return", "ema_10"), window=WINDOW)
LENGTHS = (60, 200, 90)
STEPS = 12


@functools.cache
def markets():
    return [
        jaxtrade.Market.from_frame(random_frame(length, seed=seed), symbol=f"M{seed}")
        for seed, length in enumerate(LENGTHS)
    ]


def make(given=None, **options):
    return jaxtrade.make(
        "Trading-v0",
        market=markets() if given is None else given,
        **{"features": FEATURES, "episode_steps": STEPS, **options},
    )


@functools.partial(jax.jit, static_argnums=(0, 2))
def play(env, params, episodes):
    """The states before the steps of many environments, and whether each ended an episode."""

    def step(state, _):
        _, after, _, terminated, truncated, info = env.step(None, state, jnp.int32(1), params)
        return after, (state, terminated | truncated, info["final_state"].index)

    keys = jax.random.split(jax.random.key(0), episodes)
    _, states = jax.vmap(env.reset, in_axes=(0, None))(keys, params)
    return jax.vmap(lambda state: jax.lax.scan(step, state, length=3 * STEPS)[1])(states)


def place(rows):
    """Which market rows are of."""
    return np.searchsorted(np.cumsum(LENGTHS), np.asarray(rows), side="right")


def test_every_episode_stays_inside_its_market_and_all_are_drawn():
    env, params = make()
    states, done, final = jax.tree.map(np.asarray, play(env, params, 300))
    np.testing.assert_array_equal(place(states.index), place(final))
    np.testing.assert_array_equal(place(states.index), place(states.end))
    np.testing.assert_array_equal(done, states.time == STEPS - 1)
    begins = states.index[states.time == 0]
    offsets = np.cumsum((0, *LENGTHS))
    first = begins - offsets[place(begins)]
    assert first.min() >= WINDOW - 1
    assert (first + STEPS < np.asarray(LENGTHS)[place(begins)]).all()
    share = np.bincount(place(begins)) / len(begins)
    spare = np.asarray(LENGTHS) - STEPS - jaxtrade.features.lookback(FEATURES)
    np.testing.assert_allclose(share, spare / spare.sum(), atol=0.05)


def test_whole_markets_are_episodes_of_their_own_length():
    env, params = make(episode_steps=None)
    starts, ends = np.asarray(params.starts), np.asarray(params.ends)
    first = jaxtrade.features.lookback(FEATURES)
    np.testing.assert_array_equal(ends + 1, np.cumsum(LENGTHS))
    np.testing.assert_array_equal(starts, np.cumsum((0, *LENGTHS))[:-1] + first)
    assert int(params.max_steps_in_episode) == LENGTHS[1] - 1 - first
    assert env.num_assets == 1


def test_weights_say_how_often_a_market_is_drawn():
    env, params = make(market_weights=(2, 1, 1))
    states, _, _ = play(env, params, 500)
    share = np.bincount(place(states.index[:, 0])) / 500
    np.testing.assert_allclose(share, [0.5, 0.25, 0.25], atol=0.07)


def test_rows_are_what_each_market_alone_has():
    rules = make_rules(impact=make_impact("square_root"), participation=0.5, lot_size=None)
    env, params = make(rules=rules)
    offsets = np.cumsum((0, *LENGTHS))
    for number, market in enumerate(markets()):
        rows = slice(offsets[number], offsets[number + 1])
        table = normalise(params.normaliser, raw_table(env.features, market), env.features.clip)
        np.testing.assert_allclose(params.table[rows], table[:, 0], atol=1e-6)
        _, alone = make(market, rules=rules, normaliser=params.normaliser)
        np.testing.assert_array_equal(params.tape.rows[rows], alone.tape.rows)
        assert params.tape.names == alone.tape.names


def test_tags_choose_where_episodes_begin_and_are_shown():
    tags = [np.arange(length) % 3 for length in LENGTHS]
    env, params = make(tags=tags, only_tags=(2,))
    states, _, _ = play(env, params, 200)
    begins = np.asarray(states.index)[np.asarray(states.time) == 0]
    drawn = np.concatenate(tags)[begins]
    assert set(drawn.tolist()) == {2}
    assert set(place(begins).tolist()) == {0, 1, 2}
    _, state = env.reset(jax.random.key(1), params)
    info = env.step(None, state, jnp.int32(0), params)[5]
    assert int(info["regime"]) == 2


def test_one_market_with_tags():
    tags = np.repeat([5, 6], 100)
    env, params = make(markets()[1], tags=[tags], only_tags=[6])
    states, _, _ = play(env, params, 100)
    assert (np.asarray(states.index)[:, 0] >= 100).all()


BAD = {
    "none": ({"given": []}, "Trading-v0 needs a market, the list is empty"),
    "rows": ({"first": 10}, "first and last are rows of one market: cut several with Market.rows"),
    "tags": ({"only_tags": (1,)}, "only_tags chooses among tags: give these too"),
    "short tags": ({"tags": [np.zeros(3, int)] * 3}, r"tags have \[3, 3, 3\] rows, the markets"),
    "no such tag": (
        {"tags": [np.zeros(n, int) for n in LENGTHS], "only_tags": (4,)},
        r"no row may begin an episode: none has a tag of \(4,\)",
    ),
    "too long": ({"episode_steps": 80}, "60 bars|episodes of 80 steps"),
    "weights": ({"market_weights": (1.0, 1.0)}, r"market_weights are \(1.0, 1.0\) for 3 markets"),
    "negative": ({"market_weights": (1.0, -1.0, 1.0)}, "give each 0 or more, not all 0"),
    "no weight": ({"market_weights": (0.0, 0.0, 0.0)}, "give each 0 or more, not all 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    options, message = BAD[case]
    with pytest.raises(JaxtradeError, match=message) as error:
        make(**options)
    assert "\n" not in str(error.value)


def test_markets_of_other_bars_are_refused():
    hourly = jaxtrade.Market.from_frame(random_frame(60, freq="h"), symbol="H")
    with pytest.raises(JaxtradeError, match="has bars of 3600 s, frame of 86400 s: resample one"):
        make([markets()[0], hourly])
