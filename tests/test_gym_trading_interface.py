"""GymTrading-v0: the gymnax interface, how it is made, and what it refuses."""

import dataclasses
import re

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.envs import GymTrading
from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError
from tests.gym_plays import make_random, random_market
from tests.kit import check_environment
from tests.markets import random_frame
from tests.plays import KEY, play, random_actions, rollout

ONE_ROW = {"positions": (0, 1), "trading_fees": 1e-3}
RUINOUS = {
    "positions": (-60, 1, 60),
    "windows": 4,
    "borrow_interest_rate": 1e-3,
    "max_episode_duration": 50,
}


@pytest.mark.parametrize("options", [pytest.param(ONE_ROW, marks=pytest.mark.slow), RUINOUS])
def test_it_keeps_to_the_interface(options):
    env, params = make_random(**options)
    check_environment(env, params, KEY, ignores_key=True)


def test_gymnax_makes_it_with_defaults():
    env, params = gymnax.make("GymTrading-v0")
    assert env == GymTrading() == GymTrading(positions=[0, 1])
    obs, state = env.reset(KEY)
    jax.tree.map(np.testing.assert_array_equal, (obs, state), env.reset(KEY, params))
    assert obs.market.shape == (1, 4)
    np.testing.assert_array_equal(params.features[:, 3], params.returns)


def test_our_functions_promote_no_dtype_and_no_rank_and_draw_nothing():
    env, params = make_random(windows=3)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        _, state = jax.eval_shape(env.reset, KEY, params)
        jaxpr = str(jax.make_jaxpr(env.step)(KEY, state, jnp.int32(0), params))
    assert "random" not in jaxpr
    assert "threefry" not in jaxpr


def test_a_batched_step_is_one_pass_of_simple_loops():
    env, params = make_random(windows=3, max_episode_duration=50)
    _, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(KEY, 256), params)

    def step(state, action, params):
        _, state, reward, *_ = env.step(KEY, state, action, params)
        return state, reward

    batched = jax.vmap(step, in_axes=(0, 0, None))
    program = jax.jit(batched).lower(state, jnp.zeros(256, jnp.int32), params).compile().as_text()
    arithmetic = "add|and|compare|divide|multiply|or|select|subtract"
    assert 100 < len(re.findall(rf" (?:{arithmetic})\(", program)) < 900
    for slow in (r" while\(", r" custom-call\(", r" sort\(", r" conditional\("):
        assert not re.search(slow, program), slow


@pytest.mark.slow
def test_a_population_of_fees_and_rates_in_one_program():
    env, params = make_random(positions=(-1, 0, 2))
    actions = random_actions(env, 48)
    rates = {"trading_fees": jnp.float32([0, 1e-2]), "borrow_interest_rate": jnp.float32([1e-2, 0])}
    names = {field.name for field in dataclasses.fields(params)}
    axes = params.replace(**(dict.fromkeys(names) | dict.fromkeys(rates, 0)))
    many = jax.vmap(lambda p: rollout(env, p, actions), in_axes=(axes,))(params.replace(**rates))
    for number in range(2):
        alone = params.replace(**{name: leaf[number] for name, leaf in rates.items()})
        reward = play(env, alone, actions)[1]["reward"]
        np.testing.assert_allclose(many[1]["reward"][number], reward, rtol=1e-5, atol=1e-7)


BAD_CHOICES = {
    "positions are (): give different numbers": {"positions": ()},
    "positions are (1.0, 1.0): give different numbers": {"positions": (1, 1)},
    "positions are (0.0, nan): give different numbers": {"positions": (0, np.nan)},
    "positions are (0.0, inf): give different numbers": {"positions": (0, np.inf)},
    "trading_fees is -0.1: give 0 to below 1": {"trading_fees": -0.1},
    "trading_fees is 1: give 0 to below 1": {"trading_fees": 1},
    "trading_fees is nan: give 0 to below 1": {"trading_fees": np.nan},
    "borrow_interest_rate is -1e-05: give 0 to below 1": {"borrow_interest_rate": -1e-5},
    "portfolio_initial_value is 0: give more than 0": {"portfolio_initial_value": 0},
    "position 100.0 cannot be paid for at a fee of 0.01: give positions between -99 and 100": {
        "positions": (0, 100),
        "trading_fees": 0.01,
    },
    "position -99.0 cannot be paid for at a fee of 0.01": {
        "positions": (-99, 0),
        "trading_fees": 0.01,
    },
    "initial_position is 0.5: give one of (0.0, 1.0, 'random')": {"initial_position": 0.5},
    "initial_position is 'first': give one of": {"initial_position": "first"},
    "windows is 0: give an integer of 1 or more, or None": {"windows": 0},
    "windows is 2.5: give an integer": {"windows": 2.5},
    "has 40 rows, fewer than the 41 needed for a window of 40 and a step": {"windows": 40},
    "max_episode_duration is 1: give an integer of 2 or more, or": {"max_episode_duration": 1},
    "max_episode_duration is 'min': give an integer": {"max_episode_duration": "min"},
    "max_episode_duration is True: give an integer": {"max_episode_duration": True},
    "40 rows, fewer than the 41 needed for max_episode_duration 40 with a window of 1": {
        "max_episode_duration": 40
    },
    "40 rows, fewer than the 41 needed for max_episode_duration 30 with a window of 6": {
        "max_episode_duration": 30,
        "windows": 6,
    },
}


@pytest.mark.parametrize("message", BAD_CHOICES)
def test_a_bad_choice_is_an_error_of_one_line(message):
    with pytest.raises(JaxtradeError, match=re.escape(message)) as caught:
        make_random(random_market(40), **BAD_CHOICES[message])
    assert "\n" not in str(caught.value)


def test_a_market_it_cannot_trade_is_refused():
    market = random_market(40)
    both = market.replace(bars=np.repeat(market.bars, 2, axis=1))
    with pytest.raises(JaxtradeError, match=r"^GymTrading-v0 trades one asset, the market has 2$"):
        make_random(both)
    other = market.replace(spec=dataclasses.replace(market.spec, context=("vix", "rate")))
    with pytest.raises(
        JaxtradeError, match=r"no column with 'feature' in its name; .*: vix, rate$"
    ):
        make_random(other)
    with pytest.raises(JaxtradeError, match=r"no column 'feature_open'; .*: feature_a, feature_b$"):
        GymTrading().params(market)


def test_columns_with_feature_in_their_name_are_the_features_in_order():
    frame = random_frame(40).assign(Feature_B=1.0, other=2.0, my_feature=3.0)
    env, params = make_random(Market.from_frame(frame))
    assert env.features == ("feature_b", "my_feature")
    np.testing.assert_array_equal(params.features, [[1, 3]] * 40)
