import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxtrade
from jaxtrade import agents
from jaxtrade.agents.evaluate import evaluate
from jaxtrade.assemble import combine
from jaxtrade.costs import make_costs
from jaxtrade.decision import Observation
from jaxtrade.envs import Exposure, Levels, PricedOrders, Weights
from jaxtrade.envs.wrappers import FlattenObservation
from jaxtrade.specs import FeatureSpec, JaxtradeError
from tests import draws
from tests.bundles import metadata_of
from tests.markets import random_frame

FRAME = random_frame(80, seed=5)
FREE = make_costs(commission_rate=0.0, half_spread=0.0, slippage=0.0)
WINDOW = 6
FIRST = 10
SETTINGS = {
    "buy_and_hold": {},
    "flat": {},
    "random": {},
    "momentum": {"lookback_bars": 4},
    "sma_cross": {"fast_bars": 2, "slow_bars": 5},
    "volatility_target": {"lookback_bars": 4, "target": 0.1},
}


def make_env(actions=None, *, num_assets=1, features=("rsi", "log_return")):
    frames = [FRAME, random_frame(80, seed=6)][:num_assets]
    markets = [jaxtrade.Market.from_frame(frame, symbol=f"S{i}") for i, frame in enumerate(frames)]
    return jaxtrade.make(
        "Trading-v0",
        market=markets[0] if num_assets == 1 else combine(markets),
        features=FeatureSpec(names=features, window=WINDOW, clip=50.0),
        actions=actions or Exposure(-1.0, 1.0),
        costs=FREE,
        first=FIRST,
        episode_steps=None,
        no_trade_band=0.0,
    )


def observations(env, params):
    """What an agent sees at each row from FIRST to the last."""
    start = env.reset_state(jax.random.key(0), params)
    rows = jnp.arange(FIRST, int(params.last) + 1)
    return jax.vmap(lambda row: env.observation(start.replace(index=row), params))(rows)


def made(name, env, params, *, seed=0, **settings):
    agent = agents.make(name, **{**SETTINGS[name], **settings})
    return agent, agent.init(jax.random.key(seed), env, params)


def modes(name, env, params, obs, **settings):
    agent, learner = made(name, env, params, **settings)
    count = obs.account.shape[0]
    outputs, value, hidden = agent.assess(learner.actor, obs, jnp.zeros((count, 0)))
    assert outputs.shape == (count, learner.actor.head.num_outputs)
    assert (value.shape, hidden.shape) == ((count,), (count, 0))
    return learner.actor.head.mode(outputs)


@pytest.fixture(scope="module")
def seen():
    env, params = make_env()
    return env, params, observations(env, params)


def oracle(rule):
    """A rule's positions at each row from FIRST, from the prices themselves."""
    return rule(FRAME["close"]).to_numpy()[FIRST:]


def test_a_cross_of_means_is_that_of_the_prices(seen):
    found = modes("sma_cross", *seen)
    expected = oracle(lambda close: np.sign(close.rolling(2).mean() - close.rolling(5).mean()))
    np.testing.assert_array_equal(found[:, 0], expected)
    assert set(expected) == {-1.0, 1.0}
    half = modes("sma_cross", *seen, position=-0.5)
    np.testing.assert_allclose(half[:, 0], -0.5 * expected, atol=1e-6)


def test_momentum_is_the_sign_of_the_change(seen):
    found = modes("momentum", *seen)
    np.testing.assert_array_equal(found[:, 0], oracle(lambda close: np.sign(close.diff(4))))


def test_volatility_is_targeted(seen):
    def rule(close):
        mean_square = (np.log(close).diff() ** 2).rolling(4).mean()
        return (0.1 / np.sqrt(mean_square * params.bars_per_year.item())).clip(upper=0.9)

    _, params, _ = seen
    found = modes("volatility_target", *seen, max_position=0.9)
    expected = oracle(rule)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)
    assert expected.min() < 0.7 < 0.9 == expected.max()


def test_holding_is_one_and_flat_is_none(seen):
    np.testing.assert_array_equal(modes("buy_and_hold", *seen), 1.0)
    np.testing.assert_allclose(modes("buy_and_hold", *seen, position=0.3), 0.3, atol=1e-6)
    np.testing.assert_array_equal(modes("flat", *seen), 0.0)


def test_prices_that_stand_still_ask_for_nothing(seen):
    env, params, obs = seen
    weights = made("momentum", env, params)[1].actor.params
    still = -weights["mean"] / weights["weights"].sum()  # the column's value of a zero return
    obs = obs.replace(market=jnp.full_like(obs.market, still))
    for name in ("momentum", "sma_cross"):
        np.testing.assert_allclose(modes(name, env, params, obs), 0.0, atol=0.0)
    np.testing.assert_array_equal(modes("volatility_target", env, params, obs), 1.0)


@pytest.mark.parametrize(
    ("actions", "num_assets", "long", "short"),
    [
        (Levels((-1.0, 0.0, 0.4, 0.8)), 1, [0.8], [-1.0]),
        (Levels((0.0, 0.6)), 1, [0.6], [0.0]),
        (Levels((-1.0, 0.0, 0.4, 0.8)), 2, [0.8, 0.8], [-1.0, -1.0]),
        (Exposure(-0.5, 2.0), 1, [1.0], [-0.5]),
        (Exposure(-0.5, 2.0), 2, [0.5, 0.5], [-0.5, -0.5]),
        (Weights(), 2, [0.5, 0.5], [0.0, 0.0]),
        (Weights(gross=0.6), 2, [0.3, 0.3], [0.0, 0.0]),
        (Weights(long_short=True, gross=2.0), 2, [1.0, 1.0], [-1.0, -1.0]),
    ],
    ids=str,
)
def test_a_wish_becomes_the_nearest_action(actions, num_assets, long, short):
    env, params = make_env(actions, num_assets=num_assets)
    obs = jax.tree.map(lambda leaf: leaf[None], env.reset(jax.random.key(0), params)[0])
    for position, expected in ((1.0, long), (-1.0, short), (0.0, [0.0] * num_assets)):
        (action,) = modes("buy_and_hold", env, params, obs, position=position)
        request = env.actions.read(action, jnp.zeros(num_assets))
        np.testing.assert_allclose(request.exposure, expected, atol=1e-6)
        assert (request.invalid, request.clipped) == (0, 0)


def test_of_several_assets_each_is_judged_by_its_own_returns():
    env, params = make_env(Levels((-1.0, 0.0, 1.0)), num_assets=2)
    found = modes("momentum", env, params, observations(env, params))
    for asset, frame in enumerate((FRAME, random_frame(80, seed=6))):
        expected = np.sign(frame["close"].diff(4).to_numpy()[FIRST:])
        np.testing.assert_array_equal(np.float32([-1, 0, 1])[found[:, asset]], expected)


# Random


@pytest.mark.parametrize(
    ("actions", "num_assets", "uniform"),
    [
        (Levels((-1.0, 0.0, 1.0)), 1, lambda action: action / 2),
        pytest.param(Levels((0.0, 1.0)), 2, lambda action: action, marks=pytest.mark.slow),
        pytest.param(
            Exposure(-1.0, 3.0), 1, lambda action: (action + 1) / 4, marks=pytest.mark.slow
        ),
        pytest.param(  # the law of a uniform share of three
            Weights(), 2, lambda action: 1 - (1 - action) ** 2, marks=pytest.mark.slow
        ),
    ],
    ids=["levels", "two assets", "exposure", "weights"],
)
def test_random_actions_are_uniform_by_key_and_by_observation(actions, num_assets, uniform):
    env, params = make_env(actions, num_assets=num_assets)
    agent, learner = made("random", env, params)
    one = observations(env, params)
    several = draws.normal(3000, *one.market.shape[1:])
    account = jnp.broadcast_to(one.account[:1], (3000, one.account.shape[1]))
    obs = Observation(market=several, account=account)
    none = jnp.zeros((3000, 0))
    drawn, _, _ = agent.act(learner, obs, none, jax.random.key(1), jnp.float32(0))
    hashed = modes("random", env, params, obs)
    size = len(env.levels) if isinstance(actions, Levels) else 0
    for action in (drawn, hashed):
        share = np.asarray(uniform(action), np.float64).reshape(3000, -1)
        # Moments of a uniform number, or of so many equally likely; five standard errors.
        deviation = np.sqrt((size + 1) / (size - 1) / 12) if size else np.sqrt(1 / 12)
        np.testing.assert_allclose(share.mean(axis=0), 0.5, atol=5 * deviation / np.sqrt(3000))
        np.testing.assert_allclose(share.std(axis=0), deviation, atol=0.03)
        lag = np.corrcoef(share[1:, 0], share[:-1, 0])[0, 1]
        assert abs(lag) < 5 / np.sqrt(3000)
    np.testing.assert_array_equal(hashed, modes("random", env, params, obs))
    assert (np.asarray(hashed) != modes("random", env, params, obs, seed=1)).mean() > 0.3


def test_random_moves_along_a_real_path(seen):
    env, params, obs = seen
    found = np.asarray(modes("random", env, params, obs))[:, 0]
    assert len(np.unique(found)) > 0.9 * len(found)


# As agents


def some(*quick):
    """All of them, those not in `quick` as slow tests."""
    marks = {name: () if name in quick else pytest.mark.slow for name in SETTINGS}
    return pytest.mark.parametrize("name", [pytest.param(n, marks=m) for n, m in marks.items()])


@some("sma_cross")
def test_they_go_through_the_loop_and_learn_nothing(name):
    env, params = make_env(Levels((-1.0, 0.0, 1.0)))
    settings = {**SETTINGS[name], "num_envs": 2, "rollout_steps": 4}
    agent = agents.make(name, **settings)
    key = jax.random.key(0)
    state, (means,) = agents.train(agent, env, params, key, total_steps=16)
    assert int(state.iteration) == 2
    assert np.isfinite(means["reward"])
    fresh = agents.loop.init(agent, env, params, key, total_steps=16)
    jax.tree.map(np.testing.assert_array_equal, state.learner, fresh.learner)


def test_what_holding_earns_is_what_the_market_did():
    env, params = make_env()
    agent, learner = made("buy_and_hold", env, params)
    steps = int(params.last) - FIRST
    found = evaluate(
        agent, learner.actor, env, params, jax.random.key(0), num_envs=1, num_steps=steps
    )
    assert found["episodes"] == 1
    # Bought at the first open after the first decision, at no cost.
    bought, last = FRAME["open"][FIRST + 1], FRAME["close"].iloc[-1]
    assert found["episode_return"] == pytest.approx(np.log(last / bought), rel=1e-3)


def test_positions_may_be_mapped_over(seen):
    env, params, obs = seen

    @jax.jit
    @jax.vmap
    def first(position):
        agent = agents.make("momentum", lookback_bars=4).replace(position=position)
        learner = agent.init(jax.random.key(0), env, params)
        outputs = agent.assess(learner.actor, obs, jnp.zeros((len(obs.account), 0))).outputs
        return learner.actor.head.mode(outputs)[0, 0]

    alone = modes("momentum", *seen)[0, 0]
    np.testing.assert_allclose(
        first(jnp.float32([0.2, 0.7])), alone * np.float32([0.2, 0.7]), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("actions", "num_assets"),
    [(Levels((-1.0, 0.0, 1.0)), 1), (Exposure(-1.0, 2.0), 1), (Weights(), 2)],
    ids=str,
)
@some()
def test_they_export_like_any_policy(name, actions, num_assets):
    from jaxtrade.live.export import bundle  # checks the graph against the policy

    env, params = make_env(actions, num_assets=num_assets)
    agent, learner = made(name, env, params)
    policy = agents.greedy_policy(agent, learner.actor, env, params)
    symbols = tuple(f"S{i}" for i in range(num_assets))
    assert len(bundle(policy, metadata_of(policy, symbols=symbols))) > 1000


# Refused


def refusal(name, env, params, **settings):
    with pytest.raises(JaxtradeError) as error:
        made(name, env, params, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_an_environment_does_not_show_is_refused():
    env, params = make_env(features=("rsi",))
    assert refusal("sma_cross", env, params) == (
        "SMACross needs the feature log_return, there are rsi"
    )
    made("buy_and_hold", env, params)
    env, params = make_env()
    assert refusal("momentum", env, params, lookback_bars=7) == (
        "Momentum looks at 7 bars, the window has 6: give fewer, or a larger env.window"
    )
    for other, its in (gymnax.make("CartPole-v1"), (FlattenObservation(env), params)):
        message = refusal("flat", other, its)
        assert message.startswith("Flat is for markets of known features"), message
    env, params = make_env(PricedOrders())
    assert "has no levels" in refusal("flat", env, params)


@pytest.mark.parametrize(
    ("name", "settings", "right"),
    [
        ("sma_cross", {"fast_bars": 5}, "give less than slow_bars = 5"),
        ("sma_cross", {"fast_bars": 0}, "give 1 or more"),
        ("momentum", {"lookback_bars": -1}, "give 1 or more"),
        ("momentum", {"position": float("nan")}, "give a finite number"),
        ("volatility_target", {"target": -0.1}, "give 0 or more"),
        ("flat", {"num_envs": 0}, "give 1 or more"),
    ],
)
def test_a_value_out_of_range_is_refused(name, settings, right):
    with pytest.raises(JaxtradeError, match=rf"^agent setting \w+ is .*: {right}$"):
        agents.make(name, **{**SETTINGS[name], **settings})


def test_a_fall_makes_a_rule_short_and_a_rise_long_by_hand():
    # Closes 100 110 121 | 100 90 81 in a window of three: fast mean of 2 against slow mean of 3.
    closes = np.array([100, 110, 121, 100, 90, 81], float)
    returns = pd.Series(np.log(closes)).diff().to_numpy()
    agent = agents.make("sma_cross", fast_bars=2, slow_bars=3)
    params = {"weights": jnp.float32([2.0, 0.0]), "mean": jnp.float32(0.01)}
    rows = np.stack([(returns[1:] - 0.01) / 2.0, np.full(5, 99.0)], axis=1)
    windows = jnp.float32([rows[0:3], rows[2:5]])
    obs = Observation(market=windows, account=jnp.zeros((2, 6)))
    # 110 121 100: 110.5 > 110.33; 100 90 81: 85.5 < 90.33.
    np.testing.assert_array_equal(agent.wish(params, obs), [[1.0], [-1.0]])
