import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import agents
from jaxtrade.agents import PPO
from jaxtrade.agents.distributions import Categorical
from jaxtrade.decision import Observation
from jaxtrade.envs import Levels, Trading, make_trading
from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic import make_market


def refusal(name, **hyperparameters):
    """The one line that `make` answers with."""
    with pytest.raises(JaxtradeError) as error:
        agents.make(name, **hyperparameters)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_an_unknown_agent_is_told_the_nearest():
    known = ", ".join(sorted(agents.AGENTS))
    assert refusal("pp0") == f"unknown agent 'pp0': did you mean 'ppo'? ({known})"
    assert refusal("zzz") == f"unknown agent 'zzz': there are ({known})"


def test_an_unknown_setting_is_told_the_nearest():
    message = refusal("ppo", learning_rat=1e-3)
    assert message.startswith(
        "unknown setting of ppo 'learning_rat': did you mean 'learning_rate'?"
    )
    assert "gae_lambda" in message


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("learning_rate", "3e-4", "float"),
        ("learning_rate", None, "float"),
        ("gamma", True, "float"),
        ("gamma", [0.9], "float"),
        ("num_envs", 8.0, "int"),
        ("num_envs", "8", "int"),
        ("num_envs", True, "int"),
        ("anneal_learning_rate", 1, "bool"),
        ("anneal_learning_rate", "yes", "bool"),
        ("hidden_sizes", 64, "tuple"),
        ("hidden_sizes", "64", "tuple"),
    ],
)
def test_a_value_of_another_kind_is_refused(name, value, kind):
    expected = f"agent setting {name} is {value!r}: give a value of type {kind}"
    assert refusal("ppo", **{name: value}) == expected


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("num_envs", (0, -1)),
        ("rollout_steps", (0,)),
        ("num_epochs", (0,)),
        ("num_minibatches", (0, 5, 10_000)),
        ("gamma", (-0.1, 1.1, float("nan"))),
        ("gae_lambda", (-0.1, 2)),
        ("clip_ratio", (-0.1, 1.5)),
        ("learning_rate", (-1e-3, float("inf"), float("nan"))),
        ("entropy_coefficient", (-1,)),
        ("value_coefficient", (-1,)),
        ("max_grad_norm", (-1, float("inf"))),
        ("target_kl", (0, -1, float("nan"))),
        ("final_entropy_share", (-0.1, float("inf"))),
        ("burn_in", (-1, 1)),
        ("hidden_sizes", ((0,), (8, -1), (8.0,), ("8",), (True,))),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_would_be_right(name, values):
    for value in values:
        message = refusal("ppo", **{name: value})
        assert re.match(rf"agent setting {name} is .*: give ", message), message


def test_minibatches_must_divide_a_rollout():
    message = refusal("ppo", num_envs=6, rollout_steps=4, num_minibatches=5)
    assert message == (
        "agent setting num_minibatches is 5: give a divisor of num_envs x rollout_steps = 24"
    )
    agents.make("ppo", num_envs=6, rollout_steps=4, num_minibatches=24)


@pytest.mark.parametrize("value", [1, np.int64(1), 1.0, np.float64(1.0), np.float32(1.0)])
def test_numbers_are_given_as_one_finds_them(value):
    agent = agents.make("ppo", gamma=value, hidden_sizes=[32, 16])
    assert isinstance(agent.gamma, np.float32)
    assert agent.gamma == 1.0
    assert agent.hidden_sizes == (32, 16)


def test_the_ends_of_the_ranges_are_allowed():
    agents.make("ppo", gamma=0, gae_lambda=1, clip_ratio=0, learning_rate=0, hidden_sizes=[])


def test_defaults_are_those_of_the_record():
    agent = agents.make("ppo")
    assert isinstance(agent, PPO)
    assert agent.num_envs == PPO().num_envs
    assert agent.learning_rate == np.float32(PPO().learning_rate)


def test_what_varies_is_a_leaf_and_what_shapes_is_not():
    agent = agents.make("ppo")
    leaves = jax.tree.leaves(agent)
    assert len(leaves) == 9
    assert all(leaf.dtype == np.float32 for leaf in leaves)
    structures = {
        jax.tree.structure(agents.make("ppo", **one))
        for one in ({"gamma": 0.5}, {"num_envs": 8}, {"hidden_sizes": (8,)}, {})
    }
    assert len(structures) == 3


def test_the_greedy_policy_is_the_actor_in_the_setting_it_was_trained_in():
    env, params = Trading(actions=Levels((-0.5, 0.0, 0.25, 1.0))), Trading().default_params
    agent = agents.make("ppo", hidden_sizes=(8,))
    learner = jax.jit(lambda key: agent.init(key, env, params))(jax.random.key(0))
    policy = agents.greedy_policy(agent, learner.actor, env, params)
    assert (policy.actions, policy.features) == (env.actions, env.features)
    assert (policy.head, policy.hidden_size) == (Categorical(4), 0)
    assert policy.normaliser is params.normaliser
    obs = jax.tree.map(lambda leaf: leaf[None], env.reset(jax.random.key(1), params)[0])
    assert isinstance(obs, Observation)
    logits, value, hidden = policy.assess(obs, jnp.zeros((1, 0)))
    assert (logits.shape, value.shape, hidden.shape) == ((1, 4), (1,), (1, 0))
    expected = agent.assess(learner.actor, obs, jnp.zeros((1, 0))).outputs
    np.testing.assert_array_equal(logits, expected)
    assert jnp.isfinite(value).all()


def test_an_account_that_no_decision_is_told_of_makes_no_policy():
    env, params = make_trading(make_market(num_bars=400), history=2)
    with pytest.raises(JaxtradeError, match=r"the agent sees 10 numbers .* a decision is told 6"):
        agents.greedy_policy(None, None, env, params)
