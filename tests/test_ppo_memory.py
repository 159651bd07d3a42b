"""PPO with a memory: what is recalled, what is forgotten, and that sequences are their steps."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces

from jaxtrade import agents
from jaxtrade.agents import loop
from jaxtrade.agents.rollout import collect
from jaxtrade.specs import JaxtradeError

LENGTH = 4


@flax.struct.dataclass(kw_only=True)
class State(environment.EnvState):
    """cue: i32[], 0 or 1; time: i32[]."""

    cue: jax.Array


@dataclasses.dataclass(frozen=True)
class Recall(environment.Environment):
    """A cue is shown at first, and at the last of 4 steps an action must be the cue: 1, else 0.

    Observation: f32[2], -1 or 1 at the first step, then 0; 1 at the last.
    """

    num_actions = 2

    def step_env(self, key, state, action, params):
        following = state.replace(time=state.time + 1)
        is_last = following.time == LENGTH
        reward = (is_last & (action == state.cue)).astype(jnp.float32)
        return see(following), following, reward, is_last, {}

    def reset_env(self, key, params):
        state = State(cue=jax.random.randint(key, (), 0, 2), time=jnp.int32(0))
        return see(state), state

    def action_space(self, params=None):
        return spaces.Discrete(2)


def see(state):
    cue = jnp.where(state.time == 0, 2.0 * state.cue - 1.0, 0.0)
    return jnp.stack([cue, (state.time == LENGTH - 1).astype(jnp.float32)])


ENV, PARAMS = Recall(), environment.EnvParams(max_steps_in_episode=100)
# 15 steps are no whole number of episodes: a memory must outlive the rollout.
AGENT = agents.make(
    "ppo",
    torso="gru",
    hidden_size=8,
    hidden_sizes=(8,),
    num_envs=16,
    rollout_steps=15,
    num_minibatches=2,
    learning_rate=2e-2,
    gamma=0.9,
    entropy_coefficient=0.0,
)
STILL = AGENT.replace(learning_rate=np.float32(0), num_epochs=1, gae_lambda=np.float32(0))


@jax.jit
def recalled(agent, actor):
    """The share of the two cues that the greedy policy recalls."""

    def play(cue):
        state, hidden = State(cue=cue, time=jnp.int32(0)), jnp.zeros((1, agent.hidden_size))
        for _ in range(LENGTH):
            outputs, _, hidden = agent.assess(actor, see(state)[None], hidden)
            action = actor.head.mode(outputs)[0]
            _, state, reward, *_ = ENV.step_env(jax.random.key(0), state, action, PARAMS)
        return reward

    return jax.vmap(play)(jnp.arange(2)).mean()


@pytest.mark.slow
def test_what_was_shown_once_is_recalled():
    state, _ = agents.train(
        AGENT, ENV, PARAMS, jax.random.key(0), total_steps=80 * 240, chunk_iterations=80
    )
    assert recalled(AGENT, state.learner.actor) == 1


def test_without_a_memory_one_cue_of_the_two_is():
    agent = AGENT.replace(torso="mlp", hidden_size=0)
    keys = jax.random.split(jax.random.key(0), 8)
    actors = jax.vmap(lambda key: agent.init(key, ENV, PARAMS).actor)(keys)
    shares = jax.vmap(lambda actor: recalled(agent, actor))(actors)
    np.testing.assert_array_equal(shares, np.full(8, 0.5))


@jax.jit
def learn(agent, learner, batch):
    return agent.learn(learner, batch, jax.random.key(5), ENV, PARAMS)


@pytest.fixture(scope="module")
def rollout():
    """A fresh learner, and a second batch: its memories come from the first; each environment
    ends episodes at other steps, and one is cut off.
    """
    state = loop.init(AGENT, ENV, PARAMS, jax.random.key(0), total_steps=10 * 240)
    state = state.replace(env_state=state.env_state.replace(time=jnp.arange(16) % LENGTH))
    head = state.learner.actor.params["params"]["actor"]
    head["kernel_0"] = 100.0 * head["kernel_0"]  # so that what is remembered matters
    play = jax.jit(lambda state, key: collect(AGENT, ENV, PARAMS, state, key)[:2])
    state, _ = play(state, jax.random.key(1))
    _, batch = play(state, jax.random.key(2))
    assert (jnp.abs(batch.hidden).max(axis=1) > 0).sum() > 8
    return state.learner, batch


def test_a_sequence_finds_what_was_noted_step_by_step(rollout):
    learner, batch = rollout
    after, metrics = learn(STILL, learner, batch)
    assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["policy_loss"] == pytest.approx(0.0, abs=1e-5)
    error = rows_of(after, batch).advantage  # of lambda 0: target - value
    half_square = 0.5 * float(jnp.square(error).mean())
    assert metrics["value_loss"] == pytest.approx(half_square, rel=1e-4)

    # Ends where there were none, and another memory at the start, are noticed.
    moved = dataclasses.replace(batch, terminated=jnp.roll(batch.terminated, 1, axis=0))
    assert learn(STILL, learner, moved)[1]["approx_kl"] > 1e-4
    other = dataclasses.replace(batch, hidden=batch.hidden + 0.5)
    assert learn(STILL, learner, other)[1]["approx_kl"] > 1e-4


@jax.jit
def rows_of(learner, batch):
    return STILL._rows(learner, batch, ENV, PARAMS)


def test_what_a_step_led_to_is_judged_with_the_memory_after_it(rollout):
    learner, batch = rollout
    step = int(jnp.argmin(batch.terminated[:-1, 3]))
    batch = dataclasses.replace(batch, truncated=batch.truncated.at[step, 3].set(True))
    rows = rows_of(learner, batch)

    def value(obs, hidden):
        return STILL.assess(learner.actor, obs[None], hidden[None]).value[0]

    scale = learner.reward_scale.deviation
    cut = value(batch.final[step, 3], batch.extras.hidden[step, 3])
    expected = batch.reward[step, 3] / scale + 0.9 * cut
    assert rows.target[step, 3] == pytest.approx(float(expected), abs=1e-5)
    alive = ~(batch.terminated[-1] | batch.truncated[-1])
    number = int(jnp.argmax(alive))
    last = value(batch.last[number], batch.extras.hidden[-1, number])
    expected = batch.reward[-1, number] / scale + 0.9 * last
    assert rows.target[-1, number] == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.slow
def test_the_first_steps_only_bring_the_memory_up_to_date(rollout):
    learner, batch = rollout
    agent = STILL.replace(burn_in=5)
    after, metrics = learn(agent, learner, batch)
    assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    error = rows_of(after, batch).advantage[5:]
    half_square = 0.5 * float(jnp.square(error).mean())
    assert metrics["value_loss"] == pytest.approx(half_square, rel=1e-4)
    # All episodes of 4 steps have ended within 5: what was remembered before them is forgotten.
    other = dataclasses.replace(batch, hidden=batch.hidden + 0.5)
    assert learn(agent, learner, other)[1]["approx_kl"] == metrics["approx_kl"]
    # What is done in them moves nothing, after them it does.
    eager = agent.replace(learning_rate=np.float32(1e-3))
    params = [
        learn(eager, learner, dataclasses.replace(batch, action=action))[0].actor.params
        for action in (
            batch.action,
            batch.action.at[:5].set(1 - batch.action[:5]),
            batch.action.at[5:].set(1 - batch.action[5:]),
        )
    ]
    same, early, late = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(p)]) for p in params)
    np.testing.assert_array_equal(same, early)
    assert np.abs(same - late).max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"torso": "gru"}, "hidden_size is 0: give 1 or more with torso 'gru'"),
        ({"hidden_size": 8}, "hidden_size is 8: give 1 or more with torso 'gru', 0 with"),
        ({"hidden_size": -1}, "hidden_size is -1: give"),
        ({"burn_in": 1}, "burn_in is 1: give fewer than rollout_steps with torso 'gru', 0 with"),
        ({"torso": "gru", "hidden_size": 4, "burn_in": 32}, "burn_in is 32: give fewer than"),
        (
            {"torso": "gru", "hidden_size": 4, "num_envs": 4},
            "num_minibatches is 8: give a divisor of num_envs .* = 4",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(JaxtradeError, match=words):
        agents.make("ppo", **settings)
