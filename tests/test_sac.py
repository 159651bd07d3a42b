import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import agents
from jaxtrade.agents import loop
from jaxtrade.agents.critics import follow
from jaxtrade.agents.dirichlet import Dirichlet
from jaxtrade.agents.distributions import Categorical, TanhNormal
from jaxtrade.agents.replay import Sample
from jaxtrade.spaces import MultiDiscrete
from jaxtrade.specs import JaxtradeError
from tests import probes, probes_continuous
from tests.probes import GAMMA, StateTable, Table, trained
from tests.probes_continuous import Numbers

CELLS = jnp.concatenate([jnp.eye(2), jnp.eye(2)], axis=1)
# A temperature that starts near nothing and falls: values are those of rewards alone.
GREEDY = {"initial_temperature": 1e-4, "target_entropy": -9.0, "target_entropy_share": 0.0}
SMALL = {
    "num_envs": 8,
    "rollout_steps": 4,
    "num_updates": 32,
    "batch_size": 64,
    "replay_size": 4096,
    "learning_starts": 256,
    "learning_rate": 3e-3,
    "target_rate": 0.05,
    "gamma": GAMMA,
    "hidden_sizes": (32,),
}
AGENT = jax.device_put(agents.make("sac", **SMALL, **GREEDY))
PER_ITERATION = 32
ITERATIONS = 60


@jax.jit
def assess(agent, actor, obs):
    return agent.assess(actor, obs, jnp.zeros((len(obs), 0)))


def values(learner, agent=AGENT):
    """Of both cells, in units of the reward."""
    return assess(agent, learner.actor, CELLS).value * learner.reward_scale.deviation


@pytest.mark.parametrize("name", probes.PROBES)
def test_it_solves_the_probe_environments(name):
    probe = probes.PROBES[name]
    learner = trained(AGENT, Table(), probe.params, ITERATIONS)
    scale = max(abs(number) for number in probe.values)
    found = values(learner)[: len(probe.values)]
    np.testing.assert_allclose(found, probe.values, atol=0.1 * min(scale, 1.0))
    logits = assess(AGENT, learner.actor, CELLS).outputs
    for cell, best in enumerate(probe.actions):
        if best is not None:
            assert jax.nn.softmax(logits)[cell, best] > 0.95


@pytest.mark.slow
def test_it_learns_from_states_as_from_observations():
    probe = probes.PROBES["a smaller reward sooner"]
    learner = trained(AGENT, StateTable(), probe.params, ITERATIONS)
    assert learner.replay.rows.seen.cell.shape == (512, 8)
    np.testing.assert_allclose(values(learner), probe.values, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", probes_continuous.PROBES)
def test_it_solves_the_probes_of_numbers(name):
    probe = probes_continuous.PROBES[name]
    learner = trained(AGENT, Numbers(), probe.params, ITERATIONS)
    found = values(learner)[: len(probe.values)]
    np.testing.assert_allclose(found, probe.values, atol=0.1)
    mode = learner.actor.head.mode(assess(AGENT, learner.actor, CELLS).outputs)
    for cell, best in enumerate(probe.best):
        if best is not None:
            np.testing.assert_allclose(mode[cell], best, atol=0.1)


@pytest.mark.slow
def test_it_finds_the_best_weights():
    probe = probes_continuous.PROBES["a reward for an action"]
    params = probe.params.replace(best=jnp.float32([[0.7, 0.3], [0.0, 0.0]]))
    learner = trained(AGENT, Numbers(shares=True), params, ITERATIONS)
    assert values(learner)[0] == pytest.approx(1.0, abs=0.1)
    mode = learner.actor.head.mode(assess(AGENT, learner.actor, CELLS).outputs)
    np.testing.assert_allclose(mode[0], [0.7, 0.3], atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["discrete", "continuous"])
def test_the_temperature_holds_the_entropy_at_its_target(name):
    agent = AGENT.replace(
        initial_temperature=jnp.float32(0.1),
        target_entropy=jnp.float32(-1.5),
        target_entropy_share=jnp.float32(0.4),
        learning_rate=jnp.float32(1e-2),
    )
    if name == "discrete":
        env, probe = Table(), probes.PROBES["a reward for an action"]
        wanted = 0.4 * math.log(2)
    else:
        env, probe = Numbers(), probes_continuous.PROBES["a reward for an action"]
        wanted = -1.5 * 2
    learner = trained(agent, env, probe.params, 2 * ITERATIONS)
    outputs = assess(agent, learner.actor, CELLS).outputs
    entropy = learner.actor.head.entropy(outputs)[0]
    assert entropy == pytest.approx(wanted, abs=0.3 if name == "continuous" else 0.1)
    assert float(jnp.exp(learner.learnt.log_temperature)) > 1e-3


# --- one batch by hand -----------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def fresh(env, params):
    return AGENT.init(jax.random.key(0), env, params)


def sample_of(action):
    """Two rows: in cell 0, to cell 1; in cell 1, to cell 0."""
    return Sample(
        seen=CELLS,
        action=action,
        reward=jnp.float32([1.0, 2.0]),
        discount=jnp.float32([0.9, 0.0]),
        final=CELLS[::-1],
        index=jnp.zeros(2, jnp.int32),
        probability=jnp.ones(2),
    )


def test_terms_of_indices_by_hand():
    learner = fresh(Table(), probes.PROBES["a constant reward"].params)
    head, params = Categorical(2), learner.actor.params
    assert learner.actor.head == head
    targets = jax.tree.map(lambda x: x + 0.1, learner.learnt.targets)
    temperature = 0.3
    rows = sample_of(jnp.int32([1, 0]))
    terms = jax.jit(AGENT._discrete, static_argnums=0)(
        head, params, targets, jnp.float32(temperature), rows, None
    )
    logits = np.asarray(AGENT._outputs(head, params["policy"], CELLS), np.float64)
    values_of = jax.jit(lambda params, obs: AGENT._values(head, params, obs))
    values = np.asarray(values_of(params["critics"], CELLS), np.float64)
    later = np.asarray(values_of(targets, CELLS[::-1]), np.float64).min(axis=0)
    assert values.shape == (2, 2, 2)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(terms.values, [[v[0, 1], v[1, 0]] for v in values], rtol=1e-5)
    np.testing.assert_allclose(
        terms.following, (p[::-1] * (later - temperature * np.log(p[::-1]))).sum(1), rtol=1e-5
    )
    least = values.min(axis=0)
    np.testing.assert_allclose(
        terms.policy_value, (p * (least - temperature * np.log(p))).sum(1), rtol=1e-5
    )
    np.testing.assert_allclose(terms.entropy, -(p * np.log(p)).sum(1), rtol=1e-5)
    np.testing.assert_allclose(
        assess(AGENT, learner.actor, CELLS).value, (p * least).sum(1), rtol=1e-5
    )


@pytest.mark.parametrize(
    "shares", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["box", "weights"]
)
def test_terms_of_numbers_by_hand(shares):
    env = Numbers(shares=shares)
    params = probes_continuous.PROBES["a constant reward"].params
    learner = fresh(env, params)
    head, params = learner.actor.head, learner.actor.params
    targets = jax.tree.map(lambda x: x + 0.1, learner.learnt.targets)
    action = jnp.float32([[0.3, 0.7], [0.9, 0.1]])
    rows, key = sample_of(action), jax.random.key(1)
    terms_of = jax.jit(AGENT._continuous, static_argnums=0)
    terms = terms_of(head, params, targets, jnp.float32(0.3), rows, key)
    both = jnp.concatenate([CELLS, CELLS[::-1]])
    outputs = AGENT._outputs(head, params["policy"], both)
    drawn, log_prob = head.sample(outputs, key)

    values_of = jax.jit(lambda params, pair: AGENT._values(head, params, pair))

    def values(params, obs, action):
        return np.asarray(values_of(params, (obs, action))[..., 0])

    critics = params["critics"]
    np.testing.assert_allclose(terms.values, values(critics, CELLS, action), rtol=1e-5)
    now, later = values(critics, CELLS, drawn[:2]), values(targets, CELLS[::-1], drawn[2:])
    assert (now[0] != now[1]).all()
    np.testing.assert_allclose(
        terms.policy_value, now.min(axis=0) - 0.3 * np.asarray(log_prob[:2]), rtol=1e-4
    )
    np.testing.assert_allclose(
        terms.following, later.min(axis=0) - 0.3 * np.asarray(log_prob[2:]), rtol=1e-4
    )
    np.testing.assert_allclose(terms.entropy, -log_prob[:2], rtol=1e-5)
    # The policy's objective moves the policy alone.
    moved = jax.grad(
        lambda params: terms_of(
            head, params, targets, jnp.float32(0.3), rows, key
        ).policy_value.sum()
    )(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(moved["critics"]))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(moved["policy"]))


@pytest.mark.parametrize(
    ("head", "target"),
    [
        (Categorical(4), 0.5 * math.log(4)),
        (TanhNormal((-1.0, -1.0), (1.0, 1.0)), -2.0),  # -1 for each number
        (TanhNormal((-2.0,), (2.0,)), -1.0 + math.log(2.0)),  # the same, twice as wide
        (Dirichlet(2), -1.0 - math.log(2.0)),  # one free share from 0 to 1: half as wide
    ],
)
def test_target_entropy(head, target):
    agent = AGENT.replace(target_entropy=-1.0, target_entropy_share=0.5)
    assert agent._target_entropy(head) == pytest.approx(target)


def test_targets_follow():
    moved = follow({"w": jnp.float32([1.0])}, {"w": jnp.float32([3.0])}, 0.25)
    np.testing.assert_allclose(moved["w"], [1.5])


# --- the loop --------------------------------------------------------------------------------

PARAMS = probes_continuous.PROBES["a reward for the action that fits"].params


def start(seed=0, iterations=20):
    return loop.init(
        AGENT, Numbers(), PARAMS, jax.random.key(seed), total_steps=iterations * PER_ITERATION
    )


def run(state, size):
    history = []
    for latest, means in loop.chunks(AGENT, Numbers(), PARAMS, state, chunk_iterations=size):
        state = latest
        history.append(means)
    return state, history


def numbers(tree):
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(tree)
    ]


def test_n_and_n_iterations_are_2n_bit_for_bit():
    whole, (metrics,) = run(start(), 20)
    cut, history = run(start(), 10)
    assert len(history) == 2
    for left, right in zip(numbers(whole), numbers(cut), strict=True):
        np.testing.assert_array_equal(left, right)
    assert all(math.isfinite(value) for name, value in metrics.items())
    assert metrics["replay_fill"] == pytest.approx(PER_ITERATION * 10.5 / 4096, rel=1e-5)
    assert metrics["temperature"] > 0


def test_actions_are_uniform_and_nothing_is_learnt_before_it_starts():
    state = start()
    before = numbers((state.learner.actor.params, state.learner.learnt.targets))
    state, (metrics,) = run(state.replace(num_iterations=jnp.int32(7)), 7)
    for left, right in zip(
        before, numbers((state.learner.actor.params, state.learner.learnt.targets)), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    assert metrics["critic_loss"] == metrics["grad_norm"] == 0.0
    action = np.ravel(state.learner.replay.rows.action[: 7 * 4])
    # 448 numbers, uniform from -1 to 1: four standard errors of the mean and the mean square.
    assert abs(action.mean()) < 4 * math.sqrt(1 / 3 / 448)
    assert (action**2).mean() == pytest.approx(1 / 3, abs=4 * math.sqrt(4 / 45 / 448))
    state, (metrics,) = run(state.replace(num_iterations=jnp.int32(8)), 7)
    assert metrics["critic_loss"] > 0


@pytest.mark.slow
def test_a_population_trains_as_its_members_alone():
    rates = jnp.float32([1e-3, 3e-3])

    @jax.jit
    @jax.vmap
    def together(key, rate):
        agent = AGENT.replace(learning_rate=rate)
        state = loop.init_state(agent, Numbers(), PARAMS, key, jnp.int32(10))
        return loop.train_chunk(agent, Numbers(), PARAMS, state, jnp.int32(10))[0]

    keys = jnp.stack([jax.random.key(3)] * 2)
    learners = together(keys, rates).learner
    for row, rate in enumerate(rates):
        state = loop.init_state(AGENT, Numbers(), PARAMS, keys[row], jnp.int32(10))
        agent = AGENT.replace(learning_rate=rate)
        alone, _ = loop.train_chunk(agent, Numbers(), PARAMS, state, jnp.int32(10))
        for left, right in zip(
            numbers(learners.actor.params), numbers(alone.learner.actor.params), strict=True
        ):
            np.testing.assert_allclose(left[row], right, rtol=1e-3, atol=1e-4)
    policies = learners.actor.params["policy"]
    assert all((leaf[0] != leaf[1]).any() for leaf in jax.tree.leaves(policies) if leaf.ndim > 2)


def test_what_is_wrong_is_refused():
    with pytest.raises(JaxtradeError, match="replay_size is 100: give a multiple of"):
        agents.make("sac", num_envs=8, rollout_steps=4, replay_size=100)
    with pytest.raises(JaxtradeError, match="learning_starts is 512: give no more than"):
        agents.make("sac", replay_size=256, learning_starts=512)
    with pytest.raises(JaxtradeError, match="initial_temperature is 0"):
        agents.make("sac", initial_temperature=0.0)
    with pytest.raises(JaxtradeError, match="torso is gru: give one without a memory"):
        agents.make("sac", torso="gru", hidden_size=8)

    class Branches(Table):
        def action_space(self, params=None):
            return MultiDiscrete((2, 2))

    with pytest.raises(JaxtradeError, match="sac does not draw from MultiCategorical"):
        AGENT.init(jax.random.key(0), Branches(), probes.PROBES["a constant reward"].params)
