"""Heads against SciPy, numerical integration, and what their samples do."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from gymnax.environments import spaces

from jaxtrade.agents.dirichlet import Dirichlet
from jaxtrade.agents.distributions import (
    MAX_LOG_STD,
    MIN_LOG_STD,
    Categorical,
    MultiCategorical,
    TanhNormal,
    head_for,
)
from jaxtrade.spaces import MultiDiscrete, Simplex
from jaxtrade.specs import JaxtradeError
from tests import draws

UNIT = TanhNormal((-1.0,), (1.0,))
BOX = TanhNormal((-1.0, 0.5), (2.0, 0.75))
HEADS = {
    "categorical": Categorical(3),
    "branches": MultiCategorical((2, 4, 3)),
    "equal branches": MultiCategorical((3, 3)),
    "box": BOX,
    "simplex": Dirichlet(4),
}
DISCRETE = ("categorical", "branches", "equal branches")
COUNT = 20_000
each_head = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())


@functools.partial(jax.jit, static_argnums=(0, 1))
def call(head, name, *given):
    """A function of a head, as one program."""
    return getattr(head, name)(*given)


def rows(head, *lead, seed=0, scale=1.0):
    return scale * draws.normal(*lead, head.num_outputs, seed=seed)


def inverse_softplus(x):
    return x + jnp.log(-jnp.expm1(-x))


def normal_outputs(mean, std):
    """What a TanhNormal of this mean and deviation before the tanh reads."""
    log_std = np.log(np.asarray(std, np.float64))
    above = MIN_LOG_STD + np.log(np.expm1(log_std - MIN_LOG_STD))
    bent = MAX_LOG_STD - np.log(np.expm1(MAX_LOG_STD - above))
    return jnp.concatenate([jnp.float32(mean), jnp.float32(bent)], axis=-1)


# --- what all have in common -----------------------------------------------------------------


@each_head
@pytest.mark.parametrize("lead", [(), (7,), (5, 2)])
def test_leading_axes_are_kept(head, lead):
    def all_of(outputs, key):
        first, second = jax.random.split(key)
        action, log_prob = head.sample(outputs, first)
        actions = action, head.mode(outputs), head.uniform(outputs, second)
        return actions, (log_prob, head.log_prob(outputs, action), head.entropy(outputs))

    actions, numbers = jax.eval_shape(all_of, rows(head, *lead), jax.random.key(0))
    assert {(x.shape, x.dtype) for x in numbers} == {(lead, jnp.dtype(jnp.float32))}
    (shape, _), *others = {(x.shape, x.dtype) for x in actions}
    assert not others
    assert shape[: len(lead)] == lead


@each_head
def test_log_prob_and_entropy_of_samples(head):
    outputs = rows(head, seed=3, scale=0.5)
    many = jnp.broadcast_to(outputs, (COUNT, head.num_outputs))
    action, log_prob = call(head, "sample", many, jax.random.key(1))
    error = 4 * float(log_prob.std()) / math.sqrt(COUNT)
    assert call(head, "entropy", many)[0] == pytest.approx(-float(log_prob.mean()), abs=error)
    # An action next to a bound says less of its draw, the nearer the less.
    surely = np.ones(COUNT, bool)
    if isinstance(head, TanhNormal):
        part = (np.asarray(action) - head.low) / np.subtract(head.high, head.low)
        surely = ((part > 5e-4) & (part < 1.0 - 5e-4)).all(axis=1)
    assert surely.mean() > 0.8
    found = call(head, "log_prob", many, action)
    np.testing.assert_allclose(found[surely], log_prob[surely], rtol=2e-3, atol=2e-3)
    varied = rows(head, COUNT, seed=4, scale=3.0)
    assert call(head, "entropy", varied).max() <= head.max_entropy + 1e-5


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(head, outputs):
    """Of the sum of all that has a gradient."""

    def total(outputs):
        action, log_prob = head.sample(outputs, jax.random.key(0))
        again = head.log_prob(outputs, jax.lax.stop_gradient(action))
        found = log_prob.sum() + again.sum() + head.entropy(outputs).sum()
        if action.dtype == jnp.float32:
            found += action.sum() + head.mode(outputs).sum()
        return found

    return jax.value_and_grad(total)(outputs)


@each_head
def test_extreme_outputs_leave_all_finite(head):
    signs = np.where(np.arange(head.num_outputs) % 2 == 0, 1.0, -1.0)
    for size in (1e3, -1e3, 88.0, -104.0):
        for outputs in (np.full(head.num_outputs, size), size * signs):
            value, gradient = value_and_gradient(head, jnp.float32(outputs))
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()


@each_head
@pytest.mark.parametrize(
    "strict",
    [
        functools.partial(jax.numpy_dtype_promotion, "strict"),
        functools.partial(jax.numpy_rank_promotion, "raise"),
    ],
    ids=["types", "ranks"],
)
def test_nothing_is_promoted_in_silence(head, strict):
    def all_of(outputs, key):
        first, second = jax.random.split(key)
        action, log_prob = call(head, "sample", outputs, first)
        return log_prob + call(head, "log_prob", outputs, action) + call(
            head, "entropy", outputs
        ), (
            call(head, "mode", outputs),
            call(head, "uniform", outputs, second),
        )

    with strict(), jax.debug_key_reuse(True):
        jax.eval_shape(all_of, rows(head, 2, 3), jax.random.key(0))
        jax.eval_shape(jax.grad(lambda x: all_of(x, jax.random.key(0))[0].sum()), rows(head, 2, 3))


# --- indices ---------------------------------------------------------------------------------


def test_categorical_by_hand():
    logits = jnp.log(jnp.float32([2.0, 1.0, 1.0]))
    head = Categorical(3)
    np.testing.assert_allclose(
        [call(head, "log_prob", logits + 7.0, jnp.int32(i)) for i in range(3)],
        np.log([0.5, 0.25, 0.25]),
        rtol=1e-6,
    )
    assert call(head, "entropy", logits) == pytest.approx(1.5 * math.log(2), rel=1e-6)
    assert call(head, "mode", jnp.float32([0, 5, 5])) == 1


def test_an_action_ruled_out_is_never_taken_and_breaks_nothing():
    head = Categorical(3)
    logits = jnp.float32([0.0, -jnp.inf, 0.0])
    action, _ = call(head, "sample", jnp.broadcast_to(logits, (5000, 3)), jax.random.key(0))
    assert set(np.unique(action)) == {0, 2}
    entropy, gradient = jax.value_and_grad(functools.partial(call, head, "entropy"))(logits)
    assert entropy == pytest.approx(math.log(2), rel=1e-6)
    assert np.isfinite(gradient).all()


def test_branches_are_independent_categoricals():
    head = HEADS["branches"]
    outputs = rows(head, 7)
    action = jnp.stack([jnp.arange(7) % count for count in head.counts], axis=-1)
    apart = list(zip(head.counts, head.branches(outputs), strict=True))
    assert [logits.shape for _, logits in apart] == [(7, 2), (7, 4), (7, 3)]
    np.testing.assert_allclose(
        call(head, "log_prob", outputs, action),
        sum(call(Categorical(n), "log_prob", x, action[:, i]) for i, (n, x) in enumerate(apart)),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        call(head, "entropy", outputs),
        sum(call(Categorical(n), "entropy", x) for n, x in apart),
        rtol=1e-5,
    )
    for i, (n, x) in enumerate(apart):
        np.testing.assert_array_equal(
            call(head, "mode", outputs)[:, i], call(Categorical(n), "mode", x)
        )
    assert head.max_entropy == pytest.approx(math.log(2 * 4 * 3))


def test_joint_frequencies_of_branches():
    head, count = MultiCategorical((2, 3)), COUNT
    outputs = jnp.log(jnp.float32([1, 3, 1, 2, 5]))
    many = jnp.broadcast_to(outputs, (count, 5))
    expected = np.outer([1 / 4, 3 / 4], [1 / 8, 2 / 8, 5 / 8])
    for action, wanted in (
        (call(head, "sample", many, jax.random.key(0))[0], expected),
        (call(head, "uniform", many, jax.random.key(1)), np.full((2, 3), 1 / 6)),
    ):
        shares = np.bincount(3 * action[:, 0] + action[:, 1], minlength=6) / count
        # Four standard errors, sqrt(1/4 / 20 000) = 0.0035.
        np.testing.assert_allclose(shares.reshape(2, 3), wanted, atol=0.014)


# --- boxes -----------------------------------------------------------------------------------

NORMALS = [(0.0, 0.05), (0.0, 1.0), (0.0, 6.0), (1.5, 0.5), (-2.5, 1.0), (3.0, 2.0)]


def reference_density(x, mean, std, low=-1.0, high=1.0):
    """Of a squashed normal at x, by the change of variables, in float64."""
    unit = 2 * (x - low) / (high - low) - 1
    normal = scipy.stats.norm.pdf(np.arctanh(unit), mean, std)
    return normal / (1 - unit**2) / (0.5 * (high - low))


def test_density_of_a_box_by_hand():
    # At the centre of (-1, 2) and (0.5, 0.75) the tanh's slope is 1: two normals at 0, over the
    # halves of the widths.
    outputs = normal_outputs([0.0, 0.0], [1.0, 2.0])
    expected = -math.log(2 * math.pi) - math.log(2.0) - math.log(1.5) - math.log(0.125)
    assert call(BOX, "log_prob", outputs, jnp.float32([0.5, 0.625])) == pytest.approx(
        expected, rel=1e-5
    )
    assert BOX.max_entropy == pytest.approx(math.log(3.0 * 0.25))
    np.testing.assert_allclose(call(BOX, "mode", outputs), [0.5, 0.625], rtol=1e-6)


@pytest.mark.parametrize(("mean", "std"), NORMALS)
def test_density_of_a_box_is_that_of_the_change_of_variables(mean, std):
    x = np.linspace(-0.75, 1.75, 41)[:, None]
    head = TanhNormal((-1.0,), (2.0,))
    outputs = jnp.broadcast_to(normal_outputs([mean], [std]), (41, 2))
    expected = np.log(reference_density(x[:, 0], mean, std, -1.0, 2.0) + 1e-300)
    found = call(head, "log_prob", outputs, jnp.float32(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("mean", "std"), NORMALS)
def test_density_of_a_box_integrates_to_one(mean, std):
    # Over the action, by the trapezoid rule in the steps that the normal would take.
    raw = np.clip(mean + std * np.linspace(-8, 8, 20_001), -6.0, 6.0)
    x = np.tanh(raw)
    outputs = jnp.broadcast_to(normal_outputs([mean], [std]), (len(x), 2))
    density = np.exp(
        np.asarray(call(UNIT, "log_prob", outputs, jnp.float32(x)[:, None]), np.float64)
    )
    inside = np.diff(scipy.stats.norm.cdf([-6.0, 6.0], mean, std))[0]
    assert scipy.integrate.trapezoid(density, x) == pytest.approx(inside, abs=2e-3)


@pytest.mark.parametrize(("mean", "std"), NORMALS)
def test_entropy_of_a_box_by_integration(mean, std):
    def surprise(raw):
        slope = 2 * (math.log(2) - raw - np.logaddexp(0, -2 * raw))
        return -scipy.stats.norm.pdf(raw, mean, std) * (
            scipy.stats.norm.logpdf(raw, mean, std) - slope
        )

    span = (mean - 9 * std, mean + 9 * std)
    expected, _ = scipy.integrate.quad(surprise, *span, points=[0.0], limit=500)
    tolerance = 0.01 if std <= 2 else 0.05 * abs(expected)
    found = call(UNIT, "entropy", normal_outputs([mean], [std]))
    assert found == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("mean", "std"), NORMALS)
def test_samples_of_a_box_are_a_squashed_normal(mean, std):
    count = COUNT
    outputs = jnp.broadcast_to(normal_outputs([mean], [std]), (count, 2))
    action, log_prob = call(UNIT, "sample", outputs, jax.random.key(3))
    # The deviation of a Kolmogorov statistic is about 0.26 / sqrt(n); below a bound both count.
    x = np.linspace(-0.999, 0.999, 200)
    empirical = np.searchsorted(np.sort(action[:, 0]), x) / count
    distance = np.abs(empirical - scipy.stats.norm.cdf(np.arctanh(x), mean, std)).max()
    assert distance < 2.0 / math.sqrt(count)
    assert np.isfinite(log_prob).all()


def test_the_pathwise_gradient_of_a_box():
    # d/dmean E[tanh(mean + std z)] by integration.
    mean, std = 0.4, 0.8
    outputs = normal_outputs([mean], [std])

    def average(outputs):
        many = jnp.broadcast_to(outputs, (COUNT, 2))
        return call(UNIT, "sample", many, jax.random.key(0))[0].mean()

    expected, _ = scipy.integrate.quad(
        lambda x: (1 - np.tanh(x) ** 2) * scipy.stats.norm.pdf(x, mean, std), -8, 8
    )
    assert jax.grad(average)(outputs)[0] == pytest.approx(expected, rel=0.03)


def test_actions_stay_in_the_box():
    low, high = (0.1, -3.3, 1e-6), (0.7, -0.1, 3e5)
    head = TanhNormal(low, high)
    outputs = jnp.concatenate([rows(head, 500, scale=20.0), rows(head, 2, scale=1e3)])
    for action in (
        call(head, "mode", outputs),
        call(head, "sample", outputs, jax.random.key(0))[0],
        call(head, "uniform", outputs, jax.random.key(1)),
    ):
        assert (action >= np.float32(low)).all()
        assert (action <= np.float32(high)).all()
    saturated = call(head, "mode", jnp.full(6, 1e3))
    np.testing.assert_array_equal(saturated, np.float32(high))


def test_an_action_on_a_bound_counts_as_just_inside():
    outputs = normal_outputs([0.3], [0.5])
    just_inside = call(UNIT, "log_prob", outputs, jnp.float32([1.0 - 1e-6]))
    for beyond in (1.0, 1.5):
        density, gradient = jax.value_and_grad(functools.partial(call, UNIT, "log_prob"))(
            outputs, jnp.float32([beyond])
        )
        assert density == pytest.approx(float(just_inside), rel=0.01)
        assert np.isfinite(gradient).all()


def test_deviations_are_bent_into_their_range_with_a_gradient():
    given = jnp.float32([-1e3, -7.0, -1.0, 0.0, 4.0, 1e3])
    head = TanhNormal((-1.0,) * 6, (1.0,) * 6)
    mean, log_std = call(head, "moments", jnp.concatenate([jnp.zeros(6), given]))
    np.testing.assert_array_equal(mean, np.zeros(6))
    assert (np.diff(log_std) > 0).all()
    assert MIN_LOG_STD <= log_std[0] < -4.8
    assert 1.8 < log_std[-1] <= MAX_LOG_STD + 1e-3
    np.testing.assert_allclose(log_std[2:4], given[2:4], atol=0.15)
    slope = jax.grad(lambda x: call(head, "moments", jnp.concatenate([mean, x]))[1].sum())(given)
    assert (slope[1:5] > 0.05).all()


# --- shares ----------------------------------------------------------------------------------

CONCENTRATIONS = [(1.5, 1.5, 1.5), (1.01, 2.0, 6.0), (30.0, 3.0, 1.2), (900.0, 50.0, 2.0)]


def dirichlet_outputs(concentration):
    return inverse_softplus(jnp.float32(concentration) - 1.0)


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_dirichlet_against_scipy(concentration):
    head, outputs = Dirichlet(3), dirichlet_outputs(concentration)
    reference = scipy.stats.dirichlet(concentration)
    shares = np.random.default_rng(0).dirichlet(concentration, 50)
    shares = np.maximum(shares, 1e-5)
    shares /= shares.sum(axis=1, keepdims=True)
    found = call(head, "log_prob", jnp.broadcast_to(outputs, (50, 3)), jnp.float32(shares))
    np.testing.assert_allclose(found, reference.logpdf(shares.T), rtol=2e-4, atol=2e-3)
    assert call(head, "entropy", outputs) == pytest.approx(reference.entropy(), rel=1e-4, abs=2e-3)
    best = (np.asarray(concentration) - 1) / (np.sum(concentration) - 3)
    np.testing.assert_allclose(call(head, "mode", outputs), best, rtol=1e-4)


def test_dirichlet_density_integrates_to_one():
    outputs = dirichlet_outputs([2.0, 3.5, 1.4])
    side = (np.arange(400) + 0.5) / 400
    first, second = (x.ravel() for x in np.meshgrid(side, side))
    inside = first + second < 1.0
    shares = np.stack([first, second, 1 - first - second], axis=1)[inside]
    many = jnp.broadcast_to(outputs, (len(shares), 3))
    density = np.exp(call(Dirichlet(3), "log_prob", many, jnp.float32(shares)))
    assert density.sum() / 400**2 == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_samples_of_shares_have_their_marginals(concentration):
    count = COUNT
    many = jnp.broadcast_to(dirichlet_outputs(concentration), (count, 3))
    action, _ = call(Dirichlet(3), "sample", many, jax.random.key(5))
    np.testing.assert_allclose(action.sum(axis=-1), 1.0, rtol=1e-5)
    assert (action >= 0).all()
    total = sum(concentration)
    for share, each in zip(np.asarray(action).T, concentration, strict=True):
        marginal = scipy.stats.beta(each, total - each)
        assert scipy.stats.kstest(share, marginal.cdf).statistic < 2.0 / math.sqrt(count)


@jax.jit
def slopes_of_share(concentration):
    """Derivatives f32[2, 3] of the means of the first share and of its logarithm."""

    def averages(concentration):
        many = jnp.broadcast_to(inverse_softplus(concentration - 1.0), (40_000, 3))
        action, _ = Dirichlet(3).sample(many, jax.random.key(0))
        return jnp.stack([action[:, 0].mean(), jnp.log(action[:, 0] + 1e-30).mean()])

    return jax.jacrev(averages)(concentration)


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_the_pathwise_gradient_of_shares(concentration):
    # E[share] = c / sum(c), E[log share] = digamma(c) - digamma(sum(c)): their derivatives.
    found = slopes_of_share(jnp.float32(concentration))
    c, total = np.asarray(concentration), sum(concentration)
    trigamma = functools.partial(scipy.special.polygamma, 1)
    own = np.eye(3)[0]
    expected = np.stack([own / total - c[0] / total**2, own * trigamma(c[0]) - trigamma(total)])
    scale = np.abs(expected).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found / scale, expected / scale, atol=0.04)


def test_the_best_shares_stay_defined_where_concentrations_near_one():
    np.testing.assert_allclose(call(Dirichlet(3), "mode", jnp.full(3, -1e3)), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(
        call(Dirichlet(2), "mode", jnp.float32([-200.0, -200.0 + math.log(3.0)])),
        [0.25, 0.75],
        rtol=1e-4,
    )
    around = call(
        Dirichlet(2), "mode", jnp.stack([jnp.float32([-15.0 + d, -14.0]) for d in (-1e-3, 1e-3)])
    )
    np.testing.assert_allclose(around[0], around[1], rtol=2e-3)


def test_uniform_shares_and_their_entropy():
    head = Dirichlet(3)
    action = call(head, "uniform", jnp.zeros((COUNT, 3)), jax.random.key(0))
    # A share of a uniform triple is beta(1, 2).
    statistic = scipy.stats.kstest(action[:, 0], scipy.stats.beta(1, 2).cdf).statistic
    assert statistic < 2.0 / math.sqrt(COUNT)
    assert head.max_entropy == pytest.approx(scipy.stats.dirichlet([1, 1, 1]).entropy())
    assert call(head, "entropy", jnp.full(3, -50.0)) == pytest.approx(head.max_entropy, abs=1e-5)


# --- spaces ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "head"),
    [
        (spaces.Discrete(4), Categorical(4)),
        (MultiDiscrete((2, 3)), MultiCategorical((2, 3))),
        (Simplex(5), Dirichlet(5)),
        (spaces.Box(-2.0, 2.0, (1,)), TanhNormal((-2.0,), (2.0,))),
        (
            spaces.Box(np.float32([0, -1]), np.float32([1, 3]), (2,)),
            TanhNormal((0.0, -1.0), (1.0, 3.0)),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_space_has_its_head(space, head):
    found = head_for(space)
    assert found == head
    assert hash(found) == hash(head)
    action = call(found, "sample", rows(head), jax.random.key(0))[0]
    assert space.contains(action) or isinstance(space, Simplex)
    assert space.shape == action.shape


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Box(0.0, np.inf, (2,)),
        spaces.Box(np.nan, 1.0, (2,)),
        spaces.Box(1.0, 1.0, (2,)),
        spaces.Box(2.0, 1.0, (2,)),
        spaces.Box(-1.0, 1.0, (2, 2)),
        spaces.Box(-1.0, 1.0, ()),
        spaces.Box(0, 5, (2,), jnp.int32),
        spaces.Dict({"a": spaces.Discrete(2)}),
    ],
    ids=str,
)
def test_a_space_without_a_family_is_refused(space):
    with pytest.raises(JaxtradeError, match=r"^no agent here acts in .*: give indices or a box"):
        head_for(space)
