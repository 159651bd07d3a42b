"""The decision function for every kind of action, by hand; several assets; memory; masks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import decision, ledger
from jaxtrade.agents import greedy_policy
from jaxtrade.agents.dirichlet import Dirichlet
from jaxtrade.agents.distributions import Categorical, MultiCategorical, TanhNormal
from jaxtrade.assemble import combine
from jaxtrade.decision import Inputs, Policy, choose, decide, explain, observe
from jaxtrade.envs import Exposure, Levels, PricedOrders, Weights, make_trading
from jaxtrade.specs import ActionSpec, FeatureSpec, JaxtradeError, RiskLimits, binding_names
from jaxtrade.synthetic import make_market
from tests.bundles import facts, normaliser

SPEC = FeatureSpec(names=("log_return", "rsi"), window=2)


def saying(actions, head, outputs, **options) -> Policy:
    """A policy that says the same always; its value is 5."""
    outputs = jnp.float32(outputs)

    def assess(obs, hidden):
        return outputs[None] + 0 * obs.account[:, :1], jnp.full(1, 5.0), hidden

    scaling = normaliser(SPEC)
    return Policy(
        features=SPEC, normaliser=scaling, actions=actions, head=head, assess=assess, **options
    )


def told(num_assets=1, **changes) -> Inputs:
    wide = [9.0, 9.0, 9.0, 1.0, 1.0]
    bar = [[0.0, 0.01, -0.01, 0.005, 100.0]] * num_assets
    account = [0.1] * num_assets + [0.0] * (2 * num_assets + 3)
    mask = [1.0] * num_assets
    return Inputs(
        **facts(**{"bar": bar, "account": account, "mask": mask, "limits": wide} | changes)
    )


def decided(policy: Policy, num_assets=1, **changes):
    carry = decision.init_carry(SPEC, num_assets, policy.hidden_size)
    return decide(policy, told(num_assets, **changes), carry)[1]


def soft(x):
    return np.log1p(np.exp(np.float64(x)))


KINDS = {
    "levels": (1, Levels((-1.0, 0.5, 2.0)), Categorical(3), [0.1, 2.0, -1.0]),
    "branches": (2, Levels((-1.0, 0.5, 2.0)), MultiCategorical((3, 3)), [0, 1, 0.5, 3, 0, 0]),
    "exposure": (2, Exposure(-1.0, 3.0), TanhNormal((-1,) * 2, (3,) * 2), [0.5, -1, -2, 0]),
    "weights": (2, Weights(gross=1.5), Dirichlet(3), [1.0, -1.0, 0.0]),
    "long_short": (
        2,
        Weights(long_short=True),
        TanhNormal((-1,) * 2, (1,) * 2),
        [1.0, -2.0, -9.0, -9.0],
    ),
}


@functools.cache
def case(kind):
    num_assets, actions, head, outputs = KINDS[kind]
    policy = saying(actions, head, outputs)
    return policy, decided(policy, num_assets)


def test_levels_by_hand():
    _, got = case("levels")
    assert got.action.dtype == jnp.int32
    assert (int(got.action), float(got.requested[0]), float(got.value)) == (1, 0.5, 5.0)
    chances = np.exp([0.1, 2.0, -1.0]) / np.exp([0.1, 2.0, -1.0]).sum()
    np.testing.assert_allclose(got.probabilities, chances, rtol=1e-6)
    assert float(got.confidence) == pytest.approx(chances[1])
    assert got.spread.shape == (0,)


def test_branches_by_hand():
    _, got = case("branches")
    np.testing.assert_array_equal(got.action, np.int32([1, 0]))
    np.testing.assert_array_equal(got.requested, np.float32([0.5, -1.0]))
    first, second = (np.exp(x) / np.exp(x).sum() for x in ([0, 1, 0.5], [3, 0, 0]))
    np.testing.assert_allclose(got.probabilities, [*first, *second], rtol=1e-6)
    assert float(got.confidence) == pytest.approx(first[1])


def test_exposures_by_hand():
    _, got = case("exposure")
    wanted = -1.0 + 2.0 * (np.tanh([0.5, -1.0]) + 1.0)
    np.testing.assert_allclose(got.requested, wanted, rtol=1e-6)
    np.testing.assert_array_equal(got.action, got.requested)
    mean, log_std = KINDS["exposure"][2].moments(jnp.float32([0.5, -1.0, -2.0, 0.0]))
    mean, std = np.float64(mean), np.exp(np.float64(log_std))
    spread = np.tanh(mean + std) - np.tanh(mean - std)  # half of the range of 4, half of that
    np.testing.assert_allclose(got.spread, spread, rtol=1e-5)
    assert float(got.confidence) == pytest.approx(1 - spread.max() / 2)
    assert got.probabilities.shape == (0,)


def test_weights_by_hand():
    _, got = case("weights")
    shares = soft([1.0, -1.0, 0.0]) / soft([1.0, -1.0, 0.0]).sum()
    np.testing.assert_allclose(got.action, shares, rtol=1e-6)
    np.testing.assert_allclose(got.requested, 1.5 * shares[:2], rtol=1e-6)
    concentration = 1 + soft([1.0, -1.0, 0.0])
    mean = concentration / concentration.sum()
    deviation = np.sqrt(mean * (1 - mean) / (concentration.sum() + 1))
    np.testing.assert_allclose(got.spread, deviation, rtol=1e-5)
    assert float(got.confidence) == pytest.approx(1 - 2 * deviation.max(), rel=1e-5)


def test_long_short_weights_are_scaled_to_their_gross():
    _, got = case("long_short")
    weights = np.tanh([1.0, -2.0])
    np.testing.assert_allclose(got.requested, weights / np.abs(weights).sum(), rtol=1e-6)
    np.testing.assert_allclose(got.action, weights, rtol=1e-6)
    assert 0.98 < float(got.confidence) < 1


@pytest.mark.parametrize(("kind", "tolerance"), [("exposure", 0.02), ("weights", 0.08)])
def test_spread_is_the_central_68_percent_of_what_is_drawn(kind, tolerance):
    _, _, head, outputs = KINDS[kind]
    rows = jnp.tile(jnp.float32(outputs), (20_000, 1))
    drawn = np.asarray(head.sample(rows, jax.random.key(0))[0])
    low, high = np.quantile(drawn, [0.1587, 0.8413], axis=0)
    np.testing.assert_allclose(case(kind)[1].spread, (high - low) / 2, rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_holds(kind, bad):
    num_assets, actions, head, outputs = KINDS[kind]
    got = decided(saying(actions, head, [*outputs[:-1], bad]), num_assets)
    assert np.isnan(got.requested).all()
    np.testing.assert_array_equal(got.target, np.full(num_assets, 0.1, np.float32))
    assert binding_names(int(got.binding)) == ("not_finite",)
    assert case(kind)[1].binding == 0


@pytest.mark.parametrize("kind", KINDS)
def test_choose_is_what_decide_reads(kind):
    policy, got = case(kind)
    num_assets = KINDS[kind][0]
    one = told(num_assets)
    carry, _ = decide(policy, one, decision.init_carry(SPEC, num_assets))
    choice = choose(policy, observe(carry.window, one.account), jnp.zeros(0))
    np.testing.assert_array_equal(choice.requested, got.requested)
    np.testing.assert_array_equal(choice.action, got.action)
    assert choice.hidden.shape == (0,)


# Several assets


@functools.cache
def two_assets():
    """Two synthetic assets: the market, the environment over it, its parameters."""
    both = [make_market(num_bars=300, seed=seed) for seed in (0, 1)]
    named = [
        market.replace(spec=dataclasses.replace(market.spec, symbols=(f"S{number}",)))
        for number, market in enumerate(both)
    ]
    market = combine(named)
    return market, *make_trading(market, window=3, episode_steps=None)


def test_the_window_of_several_assets_is_the_environments():
    market, env, params = two_assets()
    state = env.reset_state(jax.random.key(0), params)
    table, first = params.table, int(params.first)
    carry = decision.init_carry(env.features, 2)
    policy = saying(Levels(), MultiCategorical((3, 3)), np.zeros(6))
    policy = dataclasses.replace(policy, features=env.features, normaliser=params.normaliser)
    advance = jax.jit(functools.partial(decide, policy))
    for t in range(first + 1):
        bar = np.concatenate([market.bars[t], market.volume[t][:, None]], axis=1)
        carry, _ = advance(told(2, bar=bar, clock=market.clock[t]), carry)
    np.testing.assert_allclose(carry.window, table[first - 2 : first + 1], atol=1e-5)
    seen = observe(carry.window, ledger.account_vector(state.account))
    wanted = env.observation(state, params)
    assert seen.market.shape == wanted.market.shape == (3, 2, table.shape[1] // 2)
    np.testing.assert_allclose(seen.market, wanted.market, atol=1e-5)
    np.testing.assert_array_equal(seen.account, wanted.account)


# Memory


def counting(actions, head, outputs) -> Policy:
    """A policy that counts its decisions in a memory, and says ten times as much each time."""

    def assess(obs, hidden):
        return hidden * jnp.float32([outputs]), hidden[:, 0], 10 * hidden + 1

    policy = saying(actions, head, outputs)
    return dataclasses.replace(policy, assess=assess, hidden_size=1)


def test_a_memory_is_carried_on():
    policy = counting(Exposure(), TanhNormal((-1,), (1,)), [0.1, 0.0])
    carry = decision.init_carry(SPEC, 1, 1)
    for count in (0.0, 1.0, 11.0, 111.0):
        np.testing.assert_array_equal(carry.hidden, [count])
        carry, got = decide(policy, told(), carry)
        assert float(got.value) == count
        np.testing.assert_allclose(got.requested, np.tanh([0.1 * count]), rtol=1e-6)


# Explaining


def linear(actions, head, weights) -> Policy:
    """Outputs that are the newest row [A * F] and the account f32[3A + 3] times weights."""

    def assess(obs, hidden):
        newest = obs.market[:, -1].reshape(1, -1)
        return jnp.concatenate([newest, obs.account], axis=1) @ weights, hidden[:, 0], hidden

    policy = saying(actions, head, weights[0])
    return dataclasses.replace(policy, assess=assess, hidden_size=1)


def explained(policy, num_assets):
    rng = np.random.default_rng(2)
    window = jnp.asarray(rng.normal(size=(2, 2 * num_assets)), jnp.float32)
    account = jnp.asarray(rng.normal(0, 0.1, 3 * num_assets + 3), jnp.float32)
    seen = np.asarray(observe(window, account).account)
    inputs = np.concatenate([np.asarray(window)[-1], seen])
    return inputs, np.asarray(explain(policy, window, account, jnp.ones(1)))


def test_what_speaks_for_an_exposure_by_hand():
    rng = np.random.default_rng(3)
    weights = np.float32(np.concatenate([rng.normal(0, 0.3, (13, 2)), np.zeros((13, 2))], axis=1))
    policy = linear(Exposure(-1.0, 3.0), TanhNormal((-1,) * 2, (3,) * 2), weights)
    inputs, parts = explained(policy, 2)
    tanh = np.tanh(inputs @ weights[:, :2])
    exposure = -1.0 + 2.0 * (tanh + 1.0)
    slope = np.sign(exposure) * 2.0 * (1.0 - tanh**2)
    assert set(np.sign(exposure)) == {-1.0, 1.0}
    np.testing.assert_allclose(parts, inputs * (weights[:, :2] @ slope), rtol=1e-4, atol=1e-6)


def test_what_speaks_for_the_levels_of_several_assets_by_hand():
    rng = np.random.default_rng(4)
    weights = np.float32(rng.normal(size=(13, 6)))
    inputs, parts = explained(linear(Levels(), MultiCategorical((3, 3)), weights), 2)
    first, second = np.split(inputs @ weights, 2)
    best = weights[:, first.argmax()] + weights[:, 3 + second.argmax()]
    lead = best - weights[:, :3].mean(axis=1) - weights[:, 3:].mean(axis=1)
    np.testing.assert_allclose(parts, inputs * lead, rtol=1e-4, atol=1e-5)


# Masks

STEPS = Levels((-1.0, 0.0, 0.5, 1.0))


@pytest.mark.parametrize(
    ("limits", "mask", "action", "target"),
    [
        ([9, 9, 9, 1, 1], 1.0, 3, 1.0),
        ([0.7, 9, 9, 1, 1], 1.0, 2, 0.5),
        ([9, 0.4, 9, 1, 1], 1.0, 1, 0.0),
        ([9, 9, 9, 0.05, 1], 1.0, 1, 0.0),  # the drawdown breaker leaves only flat
        ([9, 9, 9, 1, 1], 0.0, 0, 0.1),  # closed: none does what it says, the position stays
    ],
)
def test_a_policy_that_masks_chooses_what_the_review_leaves(limits, mask, action, target):
    policy = saying(STEPS, Categorical(4), [-9.0, 1.0, 2.0, 3.0], masks=True)
    account = [0.1, 0, 0, 0.06, 0, 0]
    got = decided(policy, limits=limits, mask=[mask], account=account)
    assert int(got.action) == action
    np.testing.assert_allclose(got.target, [target], rtol=1e-6)
    assert float(got.probabilities.sum()) == pytest.approx(1.0)
    if mask:
        np.testing.assert_array_equal(got.requested, got.target)
        np.testing.assert_array_equal(got.probabilities[action + 1 :], 0.0)
    plain = decided(dataclasses.replace(policy, masks=False), limits=limits, account=account)
    assert int(plain.action) == 3


def test_masks_are_those_of_the_environment():
    limits = RiskLimits(max_exposure=0.7, max_drawdown=0.1)
    market = make_market(num_bars=300)
    env, params = make_trading(market, actions=STEPS, limits=limits, window=2, episode_steps=None)
    policy = saying(STEPS, Categorical(4), [-9.0, 1.0, 2.0, 3.0], masks=True)
    state = env.reset_state(jax.random.key(0), params)
    falling = ledger.open_account(1, params.rules)
    for account in (state.account, dataclasses.replace(falling, peak_log_equity=jnp.float32(1.0))):
        allowed = env.action_mask(dataclasses.replace(state, account=account), params)
        vector = ledger.account_vector(account)
        obs = observe(jnp.zeros((2, 2)), vector)
        chosen = choose(policy, obs, jnp.zeros(0), allowed=allowed)
        got = decided(policy, account=vector, limits=limits.hard_vector())
        assert int(chosen.action) == int(got.action)
        np.testing.assert_array_equal(chosen.requested, got.requested)
        np.testing.assert_array_equal(np.asarray(got.probabilities) > 0, allowed)


# The kinds in plain numbers


@pytest.mark.parametrize(
    ("kind", "size", "bounds"),
    [
        ("levels", 1, (0, 2)),
        ("branches", 2, (0, 2)),
        ("exposure", 2, (-1, 3)),
        ("weights", 3, (0, 1)),
        ("long_short", 2, (-1, 1)),
    ],
)
def test_specs_say_what_an_action_is(kind, size, bounds):
    num_assets, actions, _, _ = KINDS[kind]
    spec = actions.spec
    assert spec.kind == ("levels" if kind == "branches" else kind)
    assert (spec.size(num_assets), spec.bounds) == (size, bounds)
    assert case(kind)[1].action.size == size
    assert spec.is_discrete == (kind in ("levels", "branches"))


def test_what_no_decision_can_say_is_refused():
    with pytest.raises(JaxtradeError, match="a decision has no prices: no policy can be made of"):
        _ = PricedOrders().spec
    env, params = make_trading(make_market(num_bars=400), actions=PricedOrders())
    with pytest.raises(JaxtradeError, match="a decision has no prices"):
        greedy_policy(None, None, env, params)
    with pytest.raises(JaxtradeError, match="unknown kind of actions 'level': did you mean"):
        ActionSpec(kind="level", numbers=(0.0, 1.0))
