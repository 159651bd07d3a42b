"""Returns, targets, losses and densities beside rlax; skipped where it is absent."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.agents import losses, qvalues, replay
from jaxtrade.agents.distributions import TanhNormal
from jaxtrade.agents.returns import gae
from jaxtrade.agents.types import Batch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    rlax = pytest.importorskip("rlax", reason="rlax is not installed: see pyproject.toml")
    distrax = pytest.importorskip("distrax", reason="distrax, of rlax, is not installed")

# Of what it imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

GAMMA, LAMBDA, STEPS = 0.93, 0.8, 30


@pytest.fixture(scope="module")
def one():
    """Of one environment: reward, value, next_value f32[T], terminated bool[T]."""
    generator = np.random.default_rng(0)
    reward, value = generator.normal(size=(2, STEPS)).astype(np.float32)
    last = np.float32(generator.normal())
    return reward, value, np.append(value[1:], last), generator.random(STEPS) < 0.2


def ours(reward, value, next_value, terminated, gae_lambda):
    columns = (jnp.asarray(x)[:, None] for x in (reward, value, next_value, terminated))
    never = jnp.zeros((STEPS, 1), bool)
    return [x[:, 0] for x in gae(*columns, never, gamma=GAMMA, gae_lambda=gae_lambda)]


def test_generalised_advantages(one):
    reward, value, next_value, terminated = one
    discount = GAMMA * (1.0 - terminated.astype(np.float32))
    expected = rlax.truncated_generalized_advantage_estimation(
        jnp.asarray(reward), jnp.asarray(discount), LAMBDA, jnp.append(value, next_value[-1])
    )
    np.testing.assert_allclose(ours(*one, LAMBDA)[0], expected, rtol=1e-5, atol=1e-5)


def test_advantages_of_the_best_values_lead_to_q_lambda(one):
    reward, _, _, terminated = one
    q = jax.random.normal(jax.random.key(1), (STEPS + 1, 3))
    action = jax.random.randint(jax.random.key(2), (STEPS,), 0, 3)
    discount = jnp.asarray(GAMMA * (1.0 - terminated.astype(np.float32)))
    error = rlax.q_lambda(q[:-1], action, jnp.asarray(reward), discount, q[1:], LAMBDA)
    best = np.asarray(q.max(axis=1))
    target = ours(reward, best[:-1], best[1:], terminated, LAMBDA)[1]
    chosen = jnp.take_along_axis(q[:-1], action[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(target - chosen, error, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_step", [1, 3, 5])
def test_n_step_rewards_of_the_replay(one, n_step):
    reward, _, _, terminated = one
    steps = jnp.arange(STEPS, dtype=jnp.float32)[:, None]
    batch = Batch(
        seen=steps,
        final=steps + 1.0,
        last=jnp.full(1, STEPS, jnp.float32),
        hidden=jnp.zeros((1, 0)),
        action=jnp.zeros((STEPS, 1), jnp.int32),
        extras=(),
        reward=jnp.asarray(reward)[:, None],
        terminated=jnp.asarray(terminated)[:, None],
        truncated=jnp.zeros((STEPS, 1), bool),
        progress=jnp.float32(0),
    )
    example = replay.Rows(
        **{name: getattr(batch, name)[0, 0] for name in replay.Rows.__dataclass_fields__}
    )
    kept = replay.add(replay.init(example, capacity=STEPS, num_envs=1), batch)
    rows = replay.sample(kept, jax.random.key(0), (500,), n_step=n_step, gamma=GAMMA)
    # What a step leads to is worth its number: the bootstrap tells where the window ended.
    discount = GAMMA * (1.0 - terminated.astype(np.float32))
    expected = rlax.n_step_bootstrapped_returns(
        jnp.asarray(reward), jnp.asarray(discount), jnp.arange(1.0, STEPS + 1), n_step
    )
    found = rows.reward + rows.discount * rows.final
    np.testing.assert_allclose(found, expected[rows.index], rtol=1e-5, atol=1e-5)
    assert set(np.asarray(rows.index)) == set(range(STEPS))


def test_double_q_targets():
    online, target = jax.random.normal(jax.random.key(0), (2, 50, 4))
    reward, discount = jax.random.uniform(jax.random.key(1), (2, 50))
    found = qvalues.q_target(reward, discount, target[:, None], online.argmax(axis=1), (4,))
    expected = jax.vmap(rlax.double_q_learning)(
        jnp.zeros((50, 4)), jnp.zeros(50, jnp.int32), reward, discount, target, online
    )
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_quantile_loss():
    quantiles, target = 2.0 * jax.random.normal(jax.random.key(0), (2, 20, 8))
    level = (jnp.arange(8) + 0.5) / 8
    expected = jax.vmap(lambda x, y: rlax.quantile_regression_loss(x, level, y, 1.0))
    found = losses.quantile_huber(quantiles, target)
    np.testing.assert_allclose(found, expected(quantiles, target), rtol=1e-5)


def test_density_and_draws_of_a_squashed_normal():
    head = TanhNormal((-1.0, 0.5), (2.0, 0.75))
    outputs = jax.random.normal(jax.random.key(0), (64, 4))
    mean, log_std = head.moments(outputs)
    scale, shift = jnp.float32([1.5, 0.125]), jnp.float32([0.5, 0.625])
    theirs = distrax.Transformed(
        distrax.MultivariateNormalDiag(mean, jnp.exp(log_std)),
        distrax.Block(distrax.Chain([distrax.ScalarAffine(shift, scale), distrax.Tanh()]), 1),
    )
    action, log_prob = head.sample(outputs, jax.random.key(1))
    near = np.abs(np.asarray(action - shift) / np.asarray(scale)).max(axis=1) < 0.999
    assert near.mean() > 0.8
    expected = theirs.log_prob(action)
    np.testing.assert_allclose(log_prob[near], expected[near], rtol=1e-3, atol=1e-3)
    found = head.log_prob(outputs, action)
    np.testing.assert_allclose(found[near], expected[near], rtol=1e-3, atol=1e-3)
