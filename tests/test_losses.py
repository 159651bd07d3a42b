import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.agents import losses
from jaxtrade.agents.distributions import Categorical
from jaxtrade.agents.normalise import deviation, init_moments, update_moments
from tests import draws


def surrogate(ratio, advantage):
    """Loss, divergence and share clipped for one row, at a clip ratio of 0.2."""
    return losses.clipped_surrogate(
        jnp.log(jnp.float32([ratio])), jnp.zeros(1), jnp.float32([advantage]), clip_ratio=0.2
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),  # the policy unchanged
        (1.1, 2.0, -2.2, -2.2),  # within the bounds
        (1.5, 2.0, -2.4, 0.0),  # better and gone far: 1.2 x 2, no further
        (0.5, 2.0, -1.0, -1.0),  # gone the wrong way: nothing holds it from coming back
        (0.5, -2.0, 1.6, 0.0),  # worse and gone far: 0.8 x 2, no further
        (1.5, -2.0, 3.0, 3.0),  # gone the wrong way
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, slope):
    assert surrogate(ratio, advantage)[0] == pytest.approx(loss, rel=1e-6)
    # d ratio / d log ratio = ratio, so that the slope is -ratio x advantage where nothing is cut.
    gradient = jax.grad(
        lambda log_prob: losses.clipped_surrogate(
            log_prob, jnp.zeros(1), jnp.float32([advantage]), clip_ratio=0.2
        )[0]
    )(jnp.log(jnp.float32([ratio])))
    np.testing.assert_allclose(gradient, [slope], rtol=1e-6)


def test_clipped_surrogate_is_a_mean_with_its_divergence_and_share():
    ratio = jnp.float32([1.0, 1.1, 1.5, 0.5])
    loss, divergence, clipped = losses.clipped_surrogate(
        jnp.log(ratio) - 1.0, -jnp.ones(4), jnp.float32([2, 2, 2, 2]), clip_ratio=0.2
    )
    assert loss == pytest.approx(-(2.0 + 2.2 + 2.4 + 1.0) / 4, rel=1e-6)
    assert clipped == 0.5
    # (r - 1) - log r: 0, 0.1 - 0.09531, 0.5 - 0.40547, -0.5 + 0.69315
    assert divergence == pytest.approx((0.0 + 0.00469 + 0.09453 + 0.19315) / 4, abs=1e-5)


THREE = Categorical(3)


def test_divergence_estimates_that_of_two_distributions():
    old, new = jnp.float32([0.3, 0.0, -0.5]), jnp.float32([0.0, 0.4, -0.2])
    action = THREE.sample(jnp.broadcast_to(old, (200_000, 3)), jax.random.key(0))[0]
    logs = [THREE.log_prob(jnp.broadcast_to(each, (200_000, 3)), action) for each in (new, old)]
    _, divergence, _ = losses.clipped_surrogate(*logs, jnp.ones(200_000), clip_ratio=0.2)
    p, q = np.exp(jax.nn.log_softmax(old)), np.exp(jax.nn.log_softmax(new))
    assert divergence == pytest.approx(float((p * np.log(p / q)).sum()), rel=0.02)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_ratio_beyond_float32_leaves_the_gradient_finite(advantage):
    def loss_of(log_prob):
        old = jnp.float32([-200.0, 0.0])
        given = jnp.float32([advantage, 1.0])
        return losses.clipped_surrogate(log_prob, old, given, clip_ratio=0.2)[0]

    loss, gradient = jax.value_and_grad(loss_of)(jnp.zeros(2))
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert gradient[1] == -0.5


def test_squared_error_by_hand():
    # (1 + 4) / 2 rows / 2
    value, target = jnp.float32([1, 4]), jnp.float32([2, 2])
    assert losses.squared_error(value, target) == 1.25
    np.testing.assert_array_equal(jax.grad(losses.squared_error)(value, target), [-0.5, 1.0])


def test_standardise_by_hand():
    # Mean 4, variance (9 + 1 + 16) / 3 = 26 / 3.
    expected = np.array([-3.0, -1.0, 4.0]) / np.sqrt(26 / 3)
    np.testing.assert_allclose(losses.standardise(jnp.float32([1, 3, 8])), expected, rtol=1e-6)


@pytest.mark.parametrize("number", [0.0, 0.1, -1 / 3, 1234.567])
def test_standardise_makes_nothing_of_equal_advantages(number):
    rounding = 1e-6 * abs(number)
    assert np.abs(losses.standardise(jnp.full(1000, number))).max() <= rounding


def test_explained_variance_by_hand():
    target = jnp.float32([1, 2, 3, 6])  # mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
    value = jnp.float32([0, 2, 4, 6])  # errors 1, 0, -1, 0: variance 1/2
    assert losses.explained_variance(value, target) == pytest.approx(1 - 0.5 / 3.5, rel=1e-6)
    assert losses.explained_variance(target, target) == 1.0
    assert losses.explained_variance(jnp.full(4, 9.0), target) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("number", [0.0, 0.1, 1 / 3])
def test_equal_targets_leave_no_variance_to_explain(number):
    value = draws.normal(1000)
    assert losses.explained_variance(value, jnp.full(1000, number)) == 0.0


# Probabilities 1/2, 1/4, 1/4.
LOGITS = jnp.log(jnp.float32([2.0, 1.0, 1.0]))


def test_log_prob_and_entropy_by_hand():
    rows = jnp.stack([LOGITS, LOGITS + 7.0, jnp.zeros(3)])
    log_prob = THREE.log_prob(rows, jnp.int32([0, 2, 1]))
    np.testing.assert_allclose(log_prob, np.log([1 / 2, 1 / 4, 1 / 3]), rtol=1e-6)
    # ln(2)/2 + 2 ln(4)/4 = 1.5 ln 2
    expected = [1.5 * np.log(2), 1.5 * np.log(2), np.log(3)]
    np.testing.assert_allclose(THREE.entropy(rows), expected, rtol=1e-6)


def test_entropy_of_a_certain_choice_is_zero_with_a_finite_gradient():
    certain = jnp.float32([[0.0, 1000.0, -1000.0]])
    assert THREE.entropy(certain)[0] == 0.0
    assert np.isfinite(jax.grad(lambda x: THREE.entropy(x).sum())(certain)).all()


def test_samples_have_their_frequencies():
    count = 40_000
    rows = jnp.broadcast_to(LOGITS, (count, 3))
    action = THREE.sample(rows, jax.random.key(0))[0]
    assert action.dtype == jnp.int32
    shares = np.bincount(action, minlength=3) / count
    # Four standard errors, sqrt(1/2 x 1/2 / 40 000) = 0.0025.
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.01)


def test_mode_is_the_first_of_equals():
    rows = jnp.float32([[1, 3, 3], [0, 0, 0], [-5, -6, -4]])
    action = THREE.mode(rows)
    np.testing.assert_array_equal(action, [1, 0, 2])
    assert action.dtype == jnp.int32


def test_moments_are_those_of_all_values_together():
    generator = np.random.default_rng(0)
    batches = [
        generator.normal(3.0, 2.0, (32, 8)),
        generator.normal(-1.0, 0.1, (1, 1)),
        generator.normal(500.0, 40.0, (7,)),
    ]
    moments = init_moments()
    for batch in batches:
        moments = jax.jit(update_moments)(moments, jnp.asarray(batch, jnp.float32))
    together = np.concatenate([batch.ravel() for batch in batches])
    assert moments.count == together.size
    assert moments.mean == pytest.approx(together.mean(), rel=1e-6)
    assert deviation(moments) == pytest.approx(together.std(), rel=1e-6)


def test_deviation_is_one_where_nothing_varies():
    assert deviation(init_moments()) == 1.0
    for number in (0.0, 0.1, 1 / 3, 7.7):
        moments = init_moments()
        for size in (33, 128, 8192):
            moments = update_moments(moments, jnp.full(size, number))
        assert deviation(moments) == 1.0


def test_deviation_of_small_numbers_is_not_taken_for_rounding():
    values = jnp.float32([1e-6, -1e-6, 1e-6, -1e-6])
    assert deviation(update_moments(init_moments(), values)) == pytest.approx(1e-6, rel=1e-5)
    values = 1.0 + jnp.float32([1e-3, -1e-3])
    assert deviation(update_moments(init_moments(), values)) == pytest.approx(1e-3, rel=1e-3)
