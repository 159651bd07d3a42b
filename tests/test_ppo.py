import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import agents
from jaxtrade.agents import loop
from jaxtrade.agents.returns import gae
from jaxtrade.agents.rollout import collect, keeps_state
from tests.probes import AGENT, GAMMA, PER_ITERATION, PROBES, StateTable, Table

CELLS = jnp.concatenate([jnp.eye(2), jnp.eye(2)], axis=1)


def assess(actor, obs, agent=AGENT):
    return agent.assess(actor, obs, jnp.zeros((len(obs), 0)))


@pytest.mark.parametrize(
    "env",
    [pytest.param(Table(), marks=pytest.mark.slow), StateTable()],
    ids=["observations", "states"],
)
@pytest.mark.parametrize("name", PROBES)
def test_it_solves_the_probe_environments(name, env):
    probe = PROBES[name]
    assert keeps_state(env, probe.params) == isinstance(env, StateTable)
    state, _ = agents.train(
        AGENT,
        env,
        probe.params,
        jax.random.key(0),
        total_steps=150 * PER_ITERATION,
        chunk_iterations=150,
    )
    logits, value, _ = assess(state.learner.actor, CELLS)
    value = value * state.learner.reward_scale.deviation
    scale = max(abs(number) for number in probe.values)
    np.testing.assert_allclose(value[: len(probe.values)], probe.values, atol=0.02 * scale)
    for cell, best in enumerate(probe.actions):
        if best is not None:
            assert jax.nn.softmax(logits)[cell, best] > 0.95
            assert state.learner.actor.head.mode(logits)[cell] == best


@pytest.mark.slow
def test_it_balances_the_pole():
    env, params = gymnax.make("CartPole-v1")
    agent = agents.make("ppo", num_envs=16, rollout_steps=128, learning_rate=1e-3)
    for seed in range(3):
        _, history = agents.train(
            agent, env, params, jax.random.key(seed), total_steps=200_000, chunk_iterations=10
        )
        returns = [means["episode_return"] for means in history]
        assert returns[0] < 100
        assert returns[-1] > 400


PARAMS = PROBES["a smaller reward sooner"].params
ONE_STEP = AGENT.replace(num_epochs=1, num_minibatches=1)


@jax.jit
def learn(agent, learner, batch):
    return agent.learn(learner, batch, jax.random.key(5), Table(), PARAMS)


@pytest.fixture(scope="module")
def rollout():
    """A fresh state, and the first batch."""
    state = loop.init(AGENT, Table(), PARAMS, jax.random.key(0), total_steps=10 * PER_ITERATION)
    _, batch, _ = jax.jit(lambda state: collect(AGENT, Table(), PARAMS, state, jax.random.key(1)))(
        state
    )
    return state, batch


def change(agent, rollout, progress=0.0):
    """How far one iteration moves each parameter."""
    state, batch = rollout
    learner, _ = learn(agent, state.learner, batch.replace(progress=jnp.float32(progress)))
    moves = jax.tree.map(jnp.subtract, learner.actor.params, state.learner.actor.params)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moves)])


def test_the_learning_rate_falls_to_zero(rollout):
    whole, half = (change(ONE_STEP, rollout, progress) for progress in (0.0, 0.5))
    np.testing.assert_allclose(0.5 * whole, half, rtol=1e-2, atol=2e-7)
    # Adam's first step is the learning rate, wherever the gradient is well above its epsilon.
    assert np.abs(whole).max() == pytest.approx(float(AGENT.learning_rate), rel=1e-2)
    for progress in (1.0, 1.5):
        assert not change(ONE_STEP, rollout, progress).any()


def test_without_annealing_it_stays(rollout):
    agent = ONE_STEP.replace(anneal_learning_rate=False)
    early, late = (change(agent, rollout, progress) for progress in (0.0, 0.9))
    np.testing.assert_array_equal(early, late)
    np.testing.assert_allclose(early, change(ONE_STEP, rollout), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 1e-3),
        ("gamma", 0.5),
        ("gae_lambda", 0.5),
        ("clip_ratio", 0.01),
        ("entropy_coefficient", 0.1),
        ("value_coefficient", 0.1),
        ("max_grad_norm", 0.01),
    ],
)
def test_each_hyperparameter_changes_what_is_learnt(name, value, rollout):
    other = AGENT.replace(**{name: np.float32(value)})
    assert (change(AGENT, rollout) != change(other, rollout)).any()


@pytest.mark.slow
def test_entropy_is_rewarded():
    probe = PROBES["a reward for an action"]
    agent = AGENT.replace(entropy_coefficient=np.float32(10))
    state, _ = agents.train(
        agent,
        Table(),
        probe.params,
        jax.random.key(0),
        total_steps=150 * PER_ITERATION,
        chunk_iterations=150,
    )
    logits = assess(state.learner.actor, CELLS, agent).outputs
    np.testing.assert_allclose(jax.nn.softmax(logits)[0], 0.5, atol=0.1)


def test_rewards_in_another_unit_train_the_same(rollout):
    state, batch = rollout
    one, metrics = learn(AGENT, state.learner, batch)
    # A power of two: the deviation scales exactly.
    two, scaled = learn(AGENT, state.learner, batch.replace(reward=1024.0 * batch.reward))
    jax.tree.map(np.testing.assert_array_equal, one.actor.params, two.actor.params)
    assert scaled["value_loss"] == metrics["value_loss"]
    assert two.reward_scale.deviation == 1024 * one.reward_scale.deviation


def test_an_epoch_uses_each_row_once_against_its_own_return(rollout):
    state, batch = rollout
    still = AGENT.replace(learning_rate=np.float32(0))
    learner, metrics = learn(still, state.learner, batch)
    value = batch.extras.value
    # Nothing is truncated here, so that what a step led to has the value of the next.
    assert not batch.truncated.any()
    following = jnp.append(value[1:], assess(state.learner.actor, batch.last).value[None], axis=0)
    reward = batch.reward / learner.reward_scale.deviation
    ended = batch.terminated, batch.truncated
    advantage, target = gae(
        reward, value, following, *ended, gamma=AGENT.gamma, gae_lambda=AGENT.gae_lambda
    )
    # The policy has not moved: the ratio is 1, and the mean of standardised advantages 0.
    half_square = 0.5 * float(jnp.square(advantage).mean())
    assert metrics["value_loss"] == pytest.approx(half_square, rel=1e-4)
    assert metrics["policy_loss"] == pytest.approx(0.0, abs=1e-5)
    assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["clip_fraction"] == 0
    unexplained = float(advantage.var() / target.var())
    assert metrics["explained_variance"] == pytest.approx(1 - unexplained, abs=1e-4)


def test_rewards_are_scaled_by_all_that_was_seen(rollout):
    state, batch = rollout
    batch = batch.replace(truncated=batch.truncated.at[5].set(True))
    learner, _ = learn(AGENT, state.learner, batch)
    learner, _ = learn(AGENT, learner, batch.replace(reward=batch.reward - 3.0))
    sums, total = [], np.zeros(AGENT.num_envs)
    rewards = np.asarray(batch.reward, np.float64)
    done = np.asarray(batch.terminated | batch.truncated)
    for reward, ended in (*zip(rewards, done, strict=True), *zip(rewards - 3.0, done, strict=True)):
        total = GAMMA * total + reward
        sums.append(total)
        total = np.where(ended, 0.0, total)
    np.testing.assert_allclose(learner.reward_scale.discounted, total, rtol=1e-5)
    assert learner.reward_scale.moments.count == 2 * PER_ITERATION
    assert learner.reward_scale.deviation == pytest.approx(np.std(sums), rel=1e-5)


def test_actions_are_drawn_from_the_policy(rollout):
    learner = rollout[0].learner
    obs = jnp.broadcast_to(CELLS[:1], (8000, 4))
    none, start = jnp.zeros((8000, 0)), jnp.float32(0)
    act = jax.jit(AGENT.act)
    action, _, (log_prob, value, _, _) = act(learner, obs, none, jax.random.key(0), start)
    logits, expected, _ = assess(learner.actor, CELLS[:1])
    probability = np.asarray(jax.nn.softmax(logits[0]))
    np.testing.assert_allclose(np.exp(log_prob), probability[action], rtol=1e-5)
    np.testing.assert_allclose(value, jnp.broadcast_to(expected, value.shape), rtol=1e-5)
    # Four standard errors of 8 000 draws: 4 x 0.5 / 89.
    assert np.mean(action == 1) == pytest.approx(probability[1], abs=0.023)
