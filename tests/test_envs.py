"""Environments: the gymnax interface, what they are made from, and the program they become."""

import dataclasses
import re

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers import LogWrapper

import jaxtrade
from jaxtrade import features
from jaxtrade.costs import make_costs
from jaxtrade.envs import Levels, Trading
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec, JaxtradeError, RiskLimits
from jaxtrade.synthetic import make_market
from tests.kit import check_environment
from tests.plays import KEY, WIDE, play, random_actions, rollout

CONFIGURATIONS = {
    "defaults, a tight limit": {"limits": RiskLimits(max_drawdown=0.01)},
    "ruinous, one row of one column": {
        "levels": (-90.0, 0.0, 1.0, 90.0),
        "limits": RiskLimits(**dict.fromkeys(WIDE, 99.0)),
        "features": FeatureSpec(names=("log_return",), window=1),
    },
}


@pytest.fixture(scope="module")
def market() -> Market:
    return make_market(num_bars=700)


# The interface


QUICK, *OTHERS = reversed(CONFIGURATIONS)


@pytest.mark.parametrize(
    "name", [QUICK, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)]
)
def test_trading_keeps_to_the_interface(market, name):
    env, params = jaxtrade.make("Trading-v0", market=market, **CONFIGURATIONS[name])
    check_environment(env, params, KEY, ignores_key=True)


def test_gymnax_makes_it_with_defaults():
    env, params = gymnax.make("Trading-v0")
    assert env == Trading()
    assert env.name == "Trading-v0"
    obs, state = env.reset(KEY)
    jax.tree.map(np.testing.assert_array_equal, (obs, state), env.reset(KEY, params))
    given = env.step(KEY, state, jnp.int32(2), params)
    jax.tree.map(np.testing.assert_array_equal, env.step(KEY, state, jnp.int32(2)), given)
    assert obs.market.shape == (32, len(features.columns(env.features)))


def test_defaults_may_first_be_asked_for_inside_a_jitted_function():
    env = Trading(actions=Levels((0.0, 0.25, 0.75)))
    _, state = jax.jit(env.reset)(KEY)
    obs, *_ = jax.jit(lambda state: env.step(KEY, state, jnp.int32(1)))(state)
    assert np.isfinite(obs.market).all()
    assert isinstance(np.asarray(env.default_params.table), np.ndarray)


def test_a_gymnax_wrapper_runs_on_it(market):
    env, params = jaxtrade.make("Trading-v0", market=market, episode_steps=5)
    wrapped = LogWrapper(env)
    _, state = wrapped.reset(KEY, params)
    total = 0.0
    for _ in range(5):
        _, state, reward, _, truncated, info = wrapped.step(KEY, state, jnp.int32(2), params)
        total += float(reward)
    assert truncated
    assert info["returned_episode_lengths"] == 5
    assert info["returned_episode_returns"] == pytest.approx(total, rel=1e-5)


def test_equal_choices_are_one_environment():
    assert Trading(actions=Levels([-1, 0, 1])) == Trading()
    assert hash(Trading(actions=Levels(np.array([-1.0, 0.0, 1.0])))) == hash(Trading())
    assert Trading(actions=Levels((0.0, 1.0))) != Trading()


def test_our_functions_promote_no_dtype_and_no_rank(market):
    env, params = jaxtrade.make("Trading-v0", market=market)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        obs, state = jax.eval_shape(env.reset, KEY, params)
        step = jax.eval_shape(env.step, KEY, state, jnp.int32(0), params)
    assert step[0] == obs


# Making it


def test_options_reach_the_environment(market):
    env, params = jaxtrade.make(
        "Trading-v0",
        market=market,
        window=4,
        clip=2.0,
        levels=(0, 0.5),
        features={"rsi": False},
        episode_steps=17,
        costs=make_costs(commission_rate=0.01),
        limits=RiskLimits(max_drawdown=0.5),
        no_trade_band=0.2,
        first=70,
        last=500,
    )
    assert env.levels == (0.0, 0.5)
    assert "rsi" not in env.features.names
    columns = features.columns(env.features)
    assert env.observation_space(params).spaces["market"].shape == (4, len(columns))
    assert np.abs(params.table).max() == 2.0
    got = (params.max_steps_in_episode, params.first, params.last, params.limits[3])
    assert got == (17, 70, 500, 0.5)
    assert params.rules.costs.commission_rate == np.float32(0.01)
    assert params.no_trade_band == np.float32(0.2)
    defaults = jaxtrade.make("Trading-v0", market=market)[1]
    assert defaults.first == features.lookback(Trading().features)
    assert (defaults.last, defaults.max_steps_in_episode) == (699, 256)


def test_the_normaliser_sees_only_the_rows_of_the_span(market):
    options = {"market": market, "window": 4, "first": 100, "last": 400}
    env, params = jaxtrade.make("Trading-v0", **options)
    raw = np.asarray(features.raw_table(env.features, market))[100:401, 0].astype(float)
    fitted, varies = params.normaliser, raw.std(0) > 0
    np.testing.assert_allclose(fitted.mean, raw.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(1 / fitted.inverse_scale[varies], raw.std(0)[varies], rtol=1e-4)
    again = env.params(market, first=500, normaliser=params.normaliser, episode_steps=None)
    np.testing.assert_array_equal(again.table, params.table)
    assert again.max_steps_in_episode == 199


BAD_CHOICES = {
    "levels are (1.0,): give at least two different target exposures": {"levels": (1,)},
    "levels are (1.0, 1.0): give at least two different": {"levels": (1, 1)},
    "levels are (0.0, nan): give at least two different": {"levels": (0, np.nan)},
    "unknown feature 'rsl'": {"features": {"rsl": True}},
    "every feature is switched off": {"features": dict.fromkeys(Trading().features.names, False)},
    "an episode of 0 steps: give 1 or more": {"episode_steps": 0},
    "no_trade_band is -0.1: give 0 to below 1": {"no_trade_band": -0.1},
    "no_trade_band is nan: give 0 to below 1": {"no_trade_band": np.nan},
    "no_trade_band is 1: give 0 to below 1": {"no_trade_band": 1},
    "rows 30 to 699: give 31 <= first < last < 700": {"first": 30},
    "rows 300 to 300: give 31 <= first < last < 700": {"first": 300, "last": 300},
    "rows 100 to 700: give 31 <= first < last < 700": {"first": 100, "last": 700},
    "episodes of 500 steps do not fit into rows 100 to 400": {
        "first": 100,
        "last": 400,
        "episode_steps": 500,
    },
    "synthetic (seed 0): has 700 rows, fewer than the 801 needed for episodes of 700 steps": {
        "first": 100,
        "episode_steps": 700,
    },
    "synthetic (seed 0): has 700 rows, fewer than the": {"window": 800},
    "the normaliser has 3 columns, the features have": {
        "normaliser": features.Normaliser(mean=jnp.zeros(3), inverse_scale=jnp.ones(3))
    },
}


@pytest.mark.parametrize("message", BAD_CHOICES)
def test_a_bad_choice_is_an_error_of_one_line(market, message):
    with pytest.raises(JaxtradeError, match=re.escape(message)) as caught:
        jaxtrade.make("Trading-v0", market=market, **BAD_CHOICES[message])
    assert "\n" not in str(caught.value)


def test_another_number_of_assets_is_refused(market):
    both = market.replace(
        bars=np.repeat(market.bars, 2, axis=1),
        volume=np.repeat(market.volume, 2, axis=1),
        spec=dataclasses.replace(market.spec, symbols=("A", "B"), base_price=(1.0, 2.0)),
    )
    with pytest.raises(JaxtradeError, match=r"^Trading-v0 trades 1 asset, .* has 2$"):
        Trading().params(both)
    env, _ = jaxtrade.make("Trading-v0", market=both)
    assert env.num_assets == 2


def test_an_unknown_environment_is_named_with_the_nearest(market):
    with pytest.raises(JaxtradeError, match="unknown environment 'Trading-v1': did you mean"):
        jaxtrade.make("Trading-v1", market=market)


# The program


def test_the_program_does_not_grow_with_the_data(market):
    env, params = jaxtrade.make("Trading-v0", market=market)
    _, state = env.reset(KEY, params)
    data = {"table": params.table, "tape": params.tape}
    more = jax.tree.map(lambda leaf: jnp.tile(leaf, (100,) + (1,) * (leaf.ndim - 1)), data)
    programs = [
        jax.jit(env.step).lower(KEY, state, jnp.int32(1), each).as_text()
        for each in (params, params.replace(**more))
    ]
    assert programs[0] != programs[1]
    assert len({re.sub(r"\d+", "0", program) for program in programs}) == 1
    constants = re.findall(r"dense<[^>]*>", programs[0])
    assert max(map(len, constants)) < 300


def test_the_state_is_small_and_holds_no_data(market):
    env, params = jaxtrade.make("Trading-v0", market=market)
    _, state = env.reset(KEY, params)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state)) <= 64


def test_a_batched_step_is_one_pass_of_simple_loops(market):
    # XLA on CPUs writes each leaf of the state in a loop of its own, and computes there again what
    # is cheap: if everything hangs on a condition computed late, thousands of operations. A small
    # reduction becomes a loop or a library call for each environment.
    env, params = jaxtrade.make("Trading-v0", market=market)
    _, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(KEY, 256), params)

    def step(state, action, params):
        _, state, reward, *_ = env.step(KEY, state, action, params)
        return state, reward

    batched = jax.vmap(step, in_axes=(0, 0, None))
    program = jax.jit(batched).lower(state, jnp.zeros(256, jnp.int32), params).compile().as_text()
    arithmetic = "add|and|compare|divide|multiply|or|select|subtract"
    assert 100 < len(re.findall(rf" (?:{arithmetic})\(", program)) < 600
    for slow in (r" while\(", r" custom-call\(", r" sort\(", "ynn_fusion", r" f32\S* reduce\("):
        assert not re.search(slow, program), slow


def test_a_step_draws_nothing_at_random(market):
    env, params = jaxtrade.make("Trading-v0", market=market)
    _, state = env.reset(KEY, params)
    jaxpr = str(jax.make_jaxpr(env.step)(KEY, state, jnp.int32(0), params))
    assert "random" not in jaxpr
    assert "threefry" not in jaxpr


def test_a_population_of_fees_in_one_program(market):
    env, params = jaxtrade.make("Trading-v0", market=market)
    fees = [0.0, 1e-4, 1e-3, 1e-2]
    costs = jax.tree.map(lambda *x: jnp.stack(x), *(make_costs(commission_rate=f) for f in fees))

    def with_costs(params, costs):
        return params.replace(rules=params.rules.replace(costs=costs))

    axes = with_costs(jax.tree.map(lambda _: None, params), 0)
    actions = random_actions(env, 150)
    many = jax.vmap(lambda p: rollout(env, p, actions), in_axes=(axes,))
    _, steps = many(with_costs(params, costs))
    totals = np.asarray(steps["reward"]).sum(axis=1)
    assert (np.diff(totals) < -1e-3).all()
    for number, fee in enumerate(fees):
        alone = with_costs(params, make_costs(commission_rate=fee))
        np.testing.assert_allclose(
            steps["reward"][number], play(env, alone, actions)[1]["reward"], rtol=1e-4, atol=1e-6
        )
