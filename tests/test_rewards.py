import functools

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtrade import rewards
from jaxtrade.rewards import REWARDS, Facts, make_rewards
from jaxtrade.specs import JaxtradeError
from tests.reference import rewards as reference

FLAGS = ("is_ruined", "is_last")
ALL = make_rewards(dict.fromkeys(REWARDS, 1.0), decay=0.05)


def facts_of(**given):
    """Facts of a quiet step, but for what is given."""
    values = dict.fromkeys((field for field in Facts.__dataclass_fields__), 0.0) | given
    return Facts(
        **{k: jnp.asarray(v, jnp.bool if k in FLAGS else jnp.float32) for k, v in values.items()}
    )


@functools.partial(jax.jit, static_argnums=0)
def scan(names, params, facts):
    """Rewards f32[T] and terms of the steps of an episode."""

    def step(memory, facts):
        memory, reward, terms = rewards.update(names, params, memory, facts)
        return memory, (reward, terms)

    return jax.lax.scan(step, rewards.init(names), facts)[1]


def values_of(name, returns, decay):
    names, params = make_rewards({name: 1.0}, decay=decay)
    returns = np.asarray(returns)
    still = dict.fromkeys(Facts.__dataclass_fields__, np.zeros(len(returns)))
    return np.asarray(scan(names, params, facts_of(**still | {"simple_return": returns}))[0])


def random_facts(seed, num_steps=300):
    """Facts f64[T] of an episode that ends in ruin, of returns with fat tails."""
    generator = np.random.default_rng(seed)
    returns = 0.01 * generator.standard_t(3, num_steps) * (generator.random(num_steps) > 0.2)
    returns = np.clip(returns, -0.5, 0.5)
    returns[-1] = -0.999
    curve = np.cumprod(1 + returns)
    drawdown = 1 - curve / np.maximum.accumulate(np.maximum(curve, 1))
    positive = {
        name: generator.random(num_steps) * (generator.random(num_steps) > 0.5)
        for name in ("cost", "turnover", "gross")
    }
    last = np.arange(num_steps) == num_steps - 1
    return {
        "log_return": np.log1p(returns),
        "simple_return": returns,
        "carry": generator.normal(size=num_steps),
        "drawdown": drawdown,
        "previous_drawdown": np.concatenate([[0], drawdown[:-1]]),
        "is_ruined": last * 1.0,
        "is_last": last * 1.0,
        "log_equity": np.log(curve),
        **positive,
    }


# By hand


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("log_return", {"log_return": -0.02}, -0.02),
        ("simple_return", {"simple_return": 0.03}, 0.03),
        ("drawdown", {"drawdown": 0.2, "previous_drawdown": 0.3}, -0.2),
        ("drawdown_increase", {"drawdown": 0.2, "previous_drawdown": 0.15}, -0.05),
        ("drawdown_increase", {"drawdown": 0.2, "previous_drawdown": 0.3}, 0.0),
        ("turnover", {"turnover": 1.5}, -1.5),
        ("cost", {"cost": 0.001}, -0.001),
        ("carry", {"carry": -0.002}, 0.002),
        ("idle", {"gross": 0.0}, -1.0),
        ("idle", {"gross": 0.1}, 0.0),
        ("terminal_log_equity", {"log_equity": 0.4}, 0.0),
        ("terminal_log_equity", {"log_equity": 0.4, "is_last": True}, 0.4),
        ("terminal_log_equity", {"log_equity": -6.9, "is_ruined": True}, -6.9),
        ("ruin", {"is_ruined": True}, -1.0),
        ("ruin", {"is_last": True}, 0.0),
        ("volatility", {"simple_return": 0.1}, -0.01),
    ],
)
def test_terms_by_hand(name, given, expected):
    names, params = make_rewards({name: 2.0})
    _, reward, terms = rewards.update(names, params, rewards.init(names), facts_of(**given))
    assert reward.dtype == terms[name].dtype == jnp.float32
    assert terms == {name: pytest.approx(expected, abs=1e-7)}
    assert reward == pytest.approx(2 * expected, abs=1e-7)


def test_volatility_by_hand():
    # averages before each return: 0, 0.02, then (plain average of two) 0.03; then a rate of 0.5:
    # 0.03 + 0.5 * (0.05 - 0.03) = 0.04
    values = values_of("volatility", [0.02, 0.04, 0.05, 0.0], decay=0.5)
    np.testing.assert_allclose(values, [-4e-4, -4e-4, -4e-4, -16e-4], rtol=1e-5)


def test_differential_sharpe_by_hand():
    # returns 3 and 1: A = 2, B = 5, V = 1. Then R = 4 at a rate of 0.1 -> 1/3, the third of plain
    # averages: floor 1/3 (2^2 + 2^2) = 8/3 > V. With a rate of 1/3 and V = 8/3:
    # x = m = 2 / sqrt(8/3), D = x + m/2 (1 - x^2) = 1.2247 * (1 + 0.5 * (1 - 1.5)) = 0.91856
    values = values_of("differential_sharpe", [0.03, 0.01, 0.04], decay=0.1)
    # first: x = 1 (the floor is R^2), m = 0. second: floor 1/2 (0.02^2 + 0.03^2) = 6.5e-4,
    # x = -0.02 / 0.025495 = -0.78446, m = 0.03 / 0.025495 = 1.17670
    second = -0.78446 + 0.5 * 1.17670 * (1 - 0.78446**2)
    np.testing.assert_allclose(values, [1.0, second, 0.91856], rtol=1e-4)


def test_differential_sharpe_is_the_published_formula_once_it_is_known():
    # +-0.01 in turn, many times, at a rate of 0.01: A ~ 0, B = 1e-4. The paper's own formula:
    returns = np.resize([0.01, -0.01], 400)
    a = reference.average(returns, 0.01)[-2]
    b = reference.average(returns**2, 0.01)[-2]
    r = returns[-1]
    expected = (b * (r - a) - a * (r * r - b) / 2) / (b - a * a) ** 1.5
    assert values_of("differential_sharpe", returns, 0.01)[-1] == pytest.approx(expected, rel=1e-4)


def test_differential_sortino_by_hand():
    # a loss of 0.02: x = -1, m = 0. Then A = -0.02, DD = 0.02, rate 1/2 and R = 0.01:
    # floor 1/2 (0.01^2 + 0.02^2) = 2.5e-4 < DD^2 = 4e-4: D = (0.01 + 0.01) / 0.02 = 1
    # A = -0.005, DD^2 = 2e-4, rate 1/3 and R = -0.01, floor 1/3 (1e-4 + 0.25e-4) < DD^2:
    # D = (2e-4 * (-0.01 + 0.0025) + 0.0025 * 1e-4) / (2e-4)^1.5 = -1.25e-6 / 2.82843e-6
    values = values_of("differential_sortino", [-0.02, 0.01, -0.01], decay=0.1)
    np.testing.assert_allclose(values, [-1.0, 1.0, -0.441942], rtol=1e-4)


# What the ratios mean


@pytest.mark.parametrize("name", ["sharpe", "sortino"])
def test_their_sum_is_the_change_of_the_moving_ratio(name):
    decay, known = 0.002, 500
    returns = np.random.default_rng(3).normal(0.001, 0.01, 2_000)
    returns[1_200:] -= 0.002  # the ratio turns
    values = values_of(f"differential_{name}", returns, decay)
    ratio = getattr(reference, name)(returns, decay)[1]
    summed = decay * np.cumsum(values[known:], dtype=np.float64)
    change = ratio[known + 1 :] - ratio[known]
    assert np.abs(change).max() > 0.15
    np.testing.assert_allclose(summed, change, atol=0.01)


@pytest.mark.parametrize("name", ["differential_sharpe", "differential_sortino"])
def test_ratios_are_free_of_scale_and_odd_in_sign_where_they_should_be(name):
    returns = np.random.default_rng(5).normal(0.0, 0.01, 200)
    values = values_of(name, returns, 0.02)
    np.testing.assert_allclose(values_of(name, 1e-4 * returns, 0.02), values, rtol=2e-3, atol=2e-4)
    mirrored = values_of(name, -returns, 0.02)
    assert np.allclose(mirrored, -values, rtol=1e-4) == (name == "differential_sharpe")


@pytest.mark.parametrize("name", ["differential_sharpe", "differential_sortino"])
def test_ratios_are_bounded_from_the_first_step(name):
    decay = 0.01
    jumps = [0, 1e-9, 0.5, 0, 0, -0.9, *[0.001] * 500, 5.0, *[0] * 500, -0.999]
    values = values_of(name, jumps, decay)
    assert values[0] == 0
    assert values[1] == pytest.approx(1.0, abs=0.5)
    assert np.abs(values).max() <= decay**-0.5 + 0.5 * decay**-1.5
    steady = values_of(name, np.full(400, 0.001), decay)  # no risk at all, and ever more of it
    assert np.isfinite(steady).all()
    assert steady[-1] > 0


# Against float64, and as code


@pytest.mark.parametrize("decay", [0.01, 0.2, 1.0])
def test_every_term_equals_the_reference(decay):
    facts = random_facts(11)
    expected = reference.terms(facts, decay)
    assert set(expected) == set(REWARDS)
    weights = {name: 0.5 + i for i, name in enumerate(REWARDS)}
    names, params = make_rewards(weights, decay=decay)
    rewarded, terms = scan(names, params, facts_of(**facts))
    for name, values in expected.items():
        scale = 1 + np.abs(values).max()
        np.testing.assert_allclose(terms[name], values, rtol=1e-4, atol=2e-5 * scale, err_msg=name)
    total = sum(weights[name] * np.asarray(terms[name], np.float64) for name in names)
    np.testing.assert_allclose(rewarded, total, rtol=1e-5, atol=1e-5)


def test_the_log_return_alone_costs_nothing():
    names, params = make_rewards({"log_return": 1.5})
    assert names == ("log_return",)
    assert jax.tree.leaves(rewards.init(names)) == []
    facts = facts_of(log_return=-0.25)

    def ours(params, facts):
        return rewards.update(names, params, rewards.init(names), facts)[1]

    def by_hand(params, facts):
        return params.weights[0] * facts.log_return

    texts = [jax.jit(f).lower(params, facts).compile().as_text() for f in (ours, by_hand)]
    bodies = [
        [line.split(", metadata")[0] for line in text.splitlines() if " = " in line]
        for text in texts
    ]
    assert bodies[0] == bodies[1]
    assert ours(params, facts) == -0.375


def test_weights_and_decay_are_traced():
    traced = jax.jit(chex.assert_max_traces(rewards.update, n=1), static_argnums=0)
    for weight, decay in ((1.0, 0.1), (2.0, 0.5)):
        names, params = make_rewards({"volatility": weight, "ruin": 1.0}, decay=decay)
        memory, reward, _ = traced(names, params, rewards.init(names), facts_of(simple_return=0.1))
        assert reward == pytest.approx(-0.01 * weight)
        assert memory["volatility"][0] == pytest.approx(0.1)


def test_without_implicit_promotion_and_batched():
    names, params = ALL
    facts = facts_of(**random_facts(2, num_steps=4))
    memory = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (4,)), rewards.init(names))
    update = functools.partial(rewards.update, names, params)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        after, batched, _ = jax.vmap(update)(memory, facts)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(after))
    for i in range(4):
        alone = update(rewards.init(names), jax.tree.map(lambda leaf, i=i: leaf[i], facts))[1]
        assert batched[i] == pytest.approx(float(alone), rel=1e-5)


@jax.jit
def slopes(params, facts):
    """Gradients of an episode's rewards by parameters and by every fact that is a number."""
    flags = {name: getattr(facts, name) for name in FLAGS}
    numbers = {k: v for k, v in vars(facts).items() if k not in FLAGS}

    def total(params, numbers):
        return scan(ALL[0], params, Facts(**numbers, **flags))[0].sum()

    return jax.grad(total, argnums=(0, 1))(params, numbers)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    hnp.arrays(
        np.float32,
        8,
        elements=st.floats(-0.75, 3, width=32, allow_subnormal=False)
        | st.sampled_from([0.0, -0.0, 1e-30, -1e-30, 1e-20, -1e-12, -0.999]).map(np.float32),
    )
)
def test_rewards_and_gradients_are_finite_at_ruin_too(returns):
    drawdown = np.clip(-returns, 0, 1)
    facts = facts_of(
        log_return=np.log1p(returns),
        simple_return=returns,
        drawdown=drawdown,
        previous_drawdown=np.roll(drawdown, 1),
        log_equity=np.log1p(returns),
        is_ruined=returns < -0.99,
        is_last=np.arange(8) == 7,
        **dict.fromkeys(("cost", "carry", "turnover", "gross"), np.abs(returns)),
    )
    rewarded, terms = scan(*ALL, facts)
    assert np.isfinite(rewarded).all()
    assert all(np.isfinite(values).all() for values in terms.values())
    for leaf in jax.tree.leaves(slopes(ALL[1], facts)):
        assert np.isfinite(leaf).all()


# Made on the host


def test_one_of_your_own(monkeypatch):
    monkeypatch.setitem(REWARDS, "calm", rewards.plain(lambda facts: -jnp.abs(facts.log_return)))
    names, params = make_rewards({"calm": 3.0, "log_return": 1.0})
    _, reward, terms = rewards.update(names, params, {}, facts_of(log_return=-0.5))
    assert (reward, terms["calm"]) == (-2.0, -0.5)


def test_rates_by_name():
    names, params = make_rewards(
        {"volatility": 1.0, "ruin": 2.0, "differential_sharpe": -1.0}, decay={"volatility": 0.5}
    )
    assert names == ("volatility", "ruin", "differential_sharpe")
    np.testing.assert_allclose(params.weights, [1, 2, -1])
    np.testing.assert_allclose(params.decay, [0.5, 0.01, 0.01])
    assert params.weights.dtype == params.decay.dtype == jnp.float32


@pytest.mark.parametrize(
    ("weights", "decay", "message"),
    [
        ({}, 0.1, "no reward term: give weights of log_return"),
        ({"log_retrun": 1.0}, 0.1, "unknown reward term 'log_retrun': did you mean 'log_return'"),
        ({"ruin": float("nan")}, 0.1, "weight of ruin is nan: give a finite number"),
        ({"ruin": float("inf")}, 0.1, "weight of ruin is inf: give a finite number"),
        ({"ruin": 1.0}, 0.0, "decay of ruin is 0.0: give a rate above 0, at most 1"),
        ({"ruin": 1.0}, 1.5, "decay of ruin is 1.5"),
        ({"ruin": 1.0}, {"ruin": float("nan")}, "decay of ruin is nan"),
        ({"ruin": 1.0}, {"run": 0.5}, "unknown reward term with a decay 'run': did you mean"),
    ],
)
def test_what_makes_no_reward(weights, decay, message):
    with pytest.raises(JaxtradeError, match=message):
        make_rewards(weights, decay)
