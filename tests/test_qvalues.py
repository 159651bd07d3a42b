import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.agents import losses, qvalues
from jaxtrade.agents.distributions import Categorical, MultiCategorical, TanhNormal
from jaxtrade.agents.qnetworks import QNetwork
from jaxtrade.agents.torsos import Torso
from jaxtrade.specs import JaxtradeError
from tests import draws

COUNTS = (2, 3)
# Two rows, one quantile: branch 0 has two actions, branch 1 three.
VALUES = jnp.float32([[[1, 4, 0, 5, 2]], [[9, 8, 7, 6, 5]]])


def test_branches_of_heads():
    assert qvalues.branch_counts(Categorical(4)) == (4,)
    assert qvalues.branch_counts(MultiCategorical(COUNTS)) == COUNTS
    with pytest.raises(JaxtradeError, match="action values need actions that are indices"):
        qvalues.branch_counts(TanhNormal((-1.0,), (1.0,)))


def test_the_value_of_a_state_is_the_mean_of_each_branchs_best():
    np.testing.assert_array_equal(
        qvalues.greedy_value(VALUES[:, 0], COUNTS), [(4 + 5) / 2, (9 + 7) / 2]
    )
    np.testing.assert_array_equal(qvalues.greedy_value(VALUES[:, 0], (5,)), [5, 9])


def test_the_values_of_what_was_done_and_their_gradient():
    taken = qvalues.taken(VALUES, jnp.int32([[1, 2], [0, 1]]), COUNTS)
    np.testing.assert_array_equal(taken, [[[4, 2]], [[9, 6]]])
    of_one = qvalues.taken(VALUES, jnp.int32([4, 0]), (5,))
    np.testing.assert_array_equal(of_one, [[[2]], [[9]]])
    slope = jax.grad(lambda x: qvalues.taken(x, jnp.int32([4, 0]), (5,)).sum())(VALUES)
    np.testing.assert_array_equal(slope[:, 0], [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]])


def test_n_step_double_q_targets_by_hand():
    # Two quantiles, two actions. The online network prefers action 1, the target network 0.
    values = jnp.float32([[[3, 1], [5, 2]], [[3, 1], [5, 2]]])
    reward, discount = jnp.float32([10, 20]), jnp.float32([0.5, 0.0])
    best = jnp.int32([1, 1])
    target = qvalues.q_target(reward, discount, values, best, (2,))
    # 10 + 1/2 x (1, 2); an end for good leaves 20.
    np.testing.assert_array_equal(target, [[10.5, 11.0], [20.0, 20.0]])
    # Of branches the mean: 1 + 1/2 x (4 + 2) / 2.
    target = qvalues.q_target(
        jnp.float32([1]), jnp.float32([0.5]), VALUES[:1], jnp.int32([[1, 2]]), COUNTS
    )
    np.testing.assert_array_equal(target, [[2.5]])


def test_exploring_actions_have_their_frequencies():
    head, count = MultiCategorical(COUNTS), 40_000
    outputs = jnp.broadcast_to(VALUES[0, 0], (count, 5))
    action = qvalues.explore(head, outputs, jnp.float32(0.3), jax.random.key(0))
    assert action.shape == (count, 2)
    first = np.bincount(action[:, 0], minlength=2) / count
    second = np.bincount(action[:, 1], minlength=3) / count
    # Four standard errors are 0.01.
    np.testing.assert_allclose(first, [0.15, 0.85], atol=0.01)
    np.testing.assert_allclose(second, [0.1, 0.8, 0.1], atol=0.01)
    # One coin for all branches: the best of both, or any pair; not the best of either alone.
    both = np.mean((action[:, 0] == 1) & (action[:, 1] == 1))
    assert both == pytest.approx(0.7 + 0.3 / 6, abs=0.01)
    for epsilon, share in ((0.0, 1.0), (1.0, 0.25)):
        action = qvalues.explore(
            Categorical(4), outputs[:, :4], jnp.float32(epsilon), jax.random.key(1)
        )
        assert np.mean(action == 3) == pytest.approx(share, abs=0.01)


def test_huber_by_hand():
    error = jnp.float32([0.0, 0.5, -1.0, 3.0, -3.0])
    np.testing.assert_array_equal(losses.huber(error), [0.0, 0.125, 0.5, 2.5, 2.5])
    slope = jax.grad(lambda x: losses.huber(x).sum())(error)
    np.testing.assert_array_equal(slope, [0.0, 0.5, -1.0, 1.0, -1.0])


def test_quantile_huber_by_hand():
    # Quantiles at 1/4 and 3/4; errors target - quantile of 0: 1/2, -3; of 2: -3/2, -5.
    quantiles, target = jnp.float32([[0, 2]]), jnp.float32([[0.5, -3]])
    # 0: (1/4 x 1/8 + 3/4 x 2.5) / 2; 2: (1/4 x 1 + 1/4 x 4.5) / 2
    expected = (0.25 * 0.125 + 0.75 * 2.5) / 2 + (0.25 * 1.0 + 0.25 * 4.5) / 2
    np.testing.assert_allclose(losses.quantile_huber(quantiles, target), [expected], rtol=1e-6)


def test_quantile_regression_finds_the_quantiles():
    samples = 100.0 * draws.uniform(1, 2000)

    def step(quantiles, _):
        slope = jax.grad(lambda q: losses.quantile_huber(q, samples).sum())(quantiles)
        return quantiles - 20.0 * slope, None

    found, _ = jax.lax.scan(step, jnp.zeros((1, 4)), length=1000)
    expected = np.quantile(samples, [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(found[0], expected, atol=1.0)


@pytest.mark.parametrize(("dueling", "num_quantiles"), [(False, 0), (True, 0), (True, 3)])
def test_networks_have_a_value_for_each_action_and_quantile(dueling, num_quantiles):
    network = QNetwork(
        torso=Torso(hidden_sizes=(8,)), counts=COUNTS, dueling=dueling, num_quantiles=num_quantiles
    )
    obs = draws.normal(7, 4)
    params = draws.parameters(network, obs, jnp.zeros((7, 0)))
    values, hidden = network.apply(params, obs, jnp.zeros((7, 0)))
    assert (values.shape, hidden.shape) == ((7, max(num_quantiles, 1), 5), (7, 0))
    if dueling:
        # The mean of a branch is the common value, whatever the advantages are.
        means = [part.mean(axis=2) for part in qvalues.split(values, COUNTS)]
        np.testing.assert_allclose(means[0], means[1], atol=1e-6)
        assert "value" in params["params"]
    else:
        assert set(params["params"]) == {"torso", "advantage"}
