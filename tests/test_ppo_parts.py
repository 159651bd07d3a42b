"""Shuffles, the bound on the divergence, clipped values, schedules, masks: by small examples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import agents
from jaxtrade.agents import loop, losses
from jaxtrade.agents.distributions import Categorical, MultiCategorical
from jaxtrade.agents.evaluate import evaluate
from jaxtrade.agents.optimise import descend_until, shuffles
from jaxtrade.agents.rollout import collect
from jaxtrade.decision import mask_outputs
from jaxtrade.envs import Trading
from jaxtrade.specs import JaxtradeError
from tests.probes import AGENT, PROBES, StateTable, Table

PARAMS = PROBES["a reward for the action that fits"].params


@pytest.mark.parametrize("size", [1, 2, 5, 100, 128])
def test_an_order_holds_each_number_once(size):
    orders = jax.jit(shuffles, static_argnums=(1, 2))(jax.random.key(0), size, 3)
    assert orders.dtype == jnp.int32
    np.testing.assert_array_equal(jnp.sort(orders, axis=1), np.tile(np.arange(size), (3, 1)))
    assert size < 100 or (orders[0] != orders[1]).any()


def test_any_number_may_come_anywhere():
    orders = np.asarray(shuffles(jax.random.key(0), 8, 20_000))
    for number in range(8):
        shares = np.bincount(np.argmax(orders == number, axis=1), minlength=8) / 20_000
        np.testing.assert_allclose(shares, 1 / 8, atol=0.01)  # over four standard errors


def step(learner, rows):
    """Adds up the rows, and says what it had before."""
    return learner + rows.sum(), {"before": learner, "rows": rows.sum()}


@pytest.mark.parametrize(
    ("limit", "learner", "count"),
    [(np.inf, 21.0, 3), (2.0, 10.0, 2), (3.0, 21.0, 3), (-1.0, 3.0, 1)],
)
def test_after_a_measure_above_the_limit_there_is_no_step(limit, learner, count):
    orders = jnp.asarray([[1, 2], [3, 4], [5, 6]])
    done, metrics = descend_until(step, jnp.float32(0), orders, metric="before", limit=limit)
    assert done == learner
    assert metrics["minibatches"] == count
    assert metrics["rows"] == learner / count
    assert metrics["before"] == pytest.approx(sum([0.0, 3.0, 10.0][:count]) / count)


def test_each_of_a_population_stops_for_itself():
    orders = jnp.asarray([[1, 2], [3, 4], [5, 6]])

    def run(limit):
        return descend_until(step, jnp.float32(0), orders, metric="before", limit=limit)

    done, metrics = jax.vmap(run)(jnp.asarray([-1.0, jnp.inf, 2.0]))
    np.testing.assert_array_equal(done, [3.0, 21.0, 10.0])
    np.testing.assert_array_equal(metrics["minibatches"], [1, 3, 2])
    np.testing.assert_allclose(metrics["before"], [0.0, 13 / 3, 1.5], rtol=1e-6)


@pytest.fixture(scope="module")
def rollout():
    state = loop.init(AGENT, Table(), PARAMS, jax.random.key(0), total_steps=2560)
    play = jax.jit(lambda state: collect(AGENT, Table(), PARAMS, state, jax.random.key(1)))
    return state.learner, play(state)[1]


@jax.jit
def learn(agent, learner, batch):
    return agent.learn(learner, batch, jax.random.key(5), Table(), PARAMS)


def steps_done(learner):
    """How often Adam was asked."""
    return [int(x) for x in jax.tree.leaves(learner.optimiser) if x.dtype == jnp.int32]


def test_a_rollout_is_left_once_the_policy_has_moved_too_far(rollout):
    # The first minibatch finds the policy that acted, the second one step away from it.
    near = AGENT.replace(target_kl=np.float32(1e-7))
    learner, metrics = learn(near, *rollout)
    assert metrics["minibatches"] == 2
    assert steps_done(learner) == [2]
    whole, metrics = learn(AGENT, *rollout)
    assert metrics["minibatches"] == 16
    assert steps_done(whole) == [16]


def test_a_value_that_has_moved_past_the_bound_is_not_pulled_on():
    old, target = jnp.zeros(4), jnp.asarray([1.0, 1.0, 1.0, -1.0])
    value = jnp.asarray([0.1, 0.5, -0.5, 0.5])

    def loss(value):
        kept = losses.less_good(value, old, target, clip_ratio=0.2)
        return losses.squared_error(kept, target)

    # 0.1 is within 0.2 of the old one; 0.5 counts as 0.2; the others are farther off than that.
    assert loss(value) == pytest.approx(0.5 * np.mean([0.9**2, 0.8**2, 1.5**2, 1.5**2]))
    np.testing.assert_allclose(jax.grad(loss)(value), [-0.9 / 4, 0.0, -1.5 / 4, 1.5 / 4], atol=1e-6)


def test_switches_are_heard(rollout):
    near = AGENT.replace(clip_ratio=np.float32(1e-3))
    other = near.replace(clip_values=True, standardise_advantages=False)
    one, two = (learn(agent, *rollout)[1] for agent in (near, other))
    assert two["value_loss"] > one["value_loss"]
    assert abs(two["policy_loss"] - one["policy_loss"]) > 1e-3


def test_the_entropy_coefficient_falls_to_its_share(rollout):
    learner, batch = rollout
    agent = AGENT.replace(entropy_coefficient=np.float32(1.0), final_entropy_share=np.float32(0.5))

    def moved(agent, progress):
        late = dataclasses.replace(batch, progress=jnp.float32(progress))
        return jax.tree.leaves(learn(agent, learner, late)[0].actor.params)

    for progress, coefficient in ((0.0, 1.0), (0.5, 0.75), (0.8, 0.6)):
        fixed = agent.replace(
            entropy_coefficient=np.float32(coefficient), final_entropy_share=np.float32(1.0)
        )
        for one, other in zip(moved(agent, progress), moved(fixed, progress), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_units_that_do_nothing_are_reported(rollout):
    learner, batch = rollout
    assert learn(AGENT, learner, batch)[1]["dead_units"] == 0
    params = jax.tree.map(lambda leaf: leaf, learner.actor.params)
    layer = params["params"]["torso"]["torso_0"]
    layer["bias"] = layer["bias"].at[:4].set(50.0)
    stuck = dataclasses.replace(learner, actor=learner.actor.replace(params=params))
    assert learn(AGENT, stuck, batch)[1]["dead_units"] == 4 / 16


@dataclasses.dataclass(frozen=True)
class Guarded(StateTable):
    """Of which the second action is forbidden in cell 0, where it would pay."""

    def action_mask(self, state, params):
        return jnp.stack([state.cell >= 0, state.cell != 0])


def test_masked_logits_are_a_distribution_over_what_is_allowed():
    logits = jnp.log(jnp.asarray([[1.0, 2.0, 3.0]]))
    allowed = jnp.asarray([[True, True, False]])
    head = Categorical(3)

    def read(logits):
        masked = mask_outputs(logits, allowed)
        return head.log_prob(masked, jnp.asarray([1]))[0], head.entropy(masked)[0]

    chance, entropy = read(logits)
    assert jnp.exp(chance) == pytest.approx(2 / 3)
    assert entropy == pytest.approx(-(np.log(1 / 3) / 3 + 2 * np.log(2 / 3) / 3))
    for number in (0, 1):
        slope = jax.grad(lambda logits, number=number: read(logits)[number])(logits)
        assert jnp.isfinite(slope).all()
        assert slope[0, 2] == 0
    masked = mask_outputs(jnp.broadcast_to(logits, (1000, 3)), allowed)
    drawn, _ = head.sample(masked, jax.random.key(0))
    assert set(np.unique(drawn)) == {0, 1}
    assert head.mode(masked)[0] == 1
    assert mask_outputs(logits, None) is logits


def test_branches_are_masked_apart():
    allowed = jnp.asarray([[False, True, True, False, True]])
    masked = mask_outputs(jnp.zeros((1, 5)), allowed)
    head = MultiCategorical((2, 3))
    assert head.log_prob(masked, jnp.asarray([[1, 2]]))[0] == pytest.approx(np.log(0.5))
    assert head.entropy(masked)[0] == pytest.approx(np.log(2))


@pytest.mark.slow
def test_what_is_forbidden_is_never_done():
    agent, env = AGENT.replace(mask_actions=True, learning_rate=np.float32(0)), Guarded()
    state = loop.init(agent, env, PARAMS, jax.random.key(0), total_steps=2560)
    head = state.learner.actor.params["params"]["actor"]
    head["bias"] = jnp.asarray([0.0, 1.0])  # the second is preferred

    @jax.jit
    def run(state):
        _, batch, _ = collect(agent, env, PARAMS, state, jax.random.key(1))
        return batch, agent.learn(state.learner, batch, jax.random.key(2), env, PARAMS)[1]

    batch, metrics = run(state)
    in_first = batch.seen.cell == 0
    assert 0 < in_first.mean() < 1
    assert (batch.action[in_first] == 0).all()
    np.testing.assert_array_equal(batch.extras.log_prob[in_first], 0.0)
    assert set(np.unique(batch.action[~in_first])) == {0, 1}
    # What is learnt from was masked too: it finds the same probabilities.
    assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    chance = 1 / (1 + np.exp(-1.0))
    entropy = -(chance * np.log(chance) + (1 - chance) * np.log(1 - chance))
    expected = entropy * float((~in_first).mean())
    assert metrics["entropy"] == pytest.approx(expected, abs=0.02)

    # So is what is evaluated: by PARAMS the first pays in cell 0, the second in cell 1.
    actor = state.learner.actor
    found = evaluate(agent, actor, env, PARAMS, jax.random.key(2), num_envs=64, num_steps=1)
    assert found["episode_return"] == 1


@pytest.mark.parametrize("env", [Table(), StateTable()])
def test_an_environment_without_masks_is_refused(env):
    agent = AGENT.replace(mask_actions=True)
    with pytest.raises(
        JaxtradeError, match=r"^mask_actions: \w*Table\S* offers no mask of its actions(\n|$)"
    ):
        loop.init(agent, env, PARAMS, jax.random.key(0), total_steps=256)


@pytest.mark.slow
def test_the_market_offers_masks():
    env, params = Trading(), Trading().default_params
    agent = agents.make("ppo", mask_actions=True, num_envs=2, hidden_sizes=(4,))
    agent = agent.replace(rollout_steps=2)
    shape = jax.eval_shape(lambda key: agent.init(key, env, params), jax.random.key(0))
    assert shape.actor.head == Categorical(3)
