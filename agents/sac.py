"""Soft actor-critic (Haarnoja et al. 2018b), for indices Christodoulou 2019."""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.agents import losses, replay
from jaxtrade.agents.critics import Critic, follow, init_twins, twin_values
from jaxtrade.agents.dirichlet import Dirichlet
from jaxtrade.agents.distributions import Categorical, Head, TanhNormal, head_of
from jaxtrade.agents.networks import Policy, no_memory
from jaxtrade.agents.normalise import RewardScale, init_reward_scale, update_reward_scale
from jaxtrade.agents.optimise import descend, optimiser
from jaxtrade.agents.replay import Replay, Sample
from jaxtrade.agents.rollout import one_observation, see
from jaxtrade.agents.settings import Settings, static
from jaxtrade.agents.types import Actor, Assessment, Batch, Metrics
from jaxtrade.specs import JaxtradeError


@flax.struct.dataclass(kw_only=True)
class Learnt:
    """What a gradient step changes. actor: parameters of the policy and of both critics;
    log_temperature: f32[]; targets: parameters of critics that follow; optimiser: Adam's state, of
    all that has a gradient.
    """

    actor: Actor
    log_temperature: jax.Array
    targets: Any
    optimiser: Any


@flax.struct.dataclass(kw_only=True)
class Learner:
    """learnt; replay; reward_scale."""

    learnt: Learnt
    replay: Replay
    reward_scale: RewardScale

    @property
    def actor(self) -> Actor:
        """See `types.Learner`."""
        return self.learnt.actor


class Terms(NamedTuple):
    """What one batch comes to. values: f32[2, B], of the actions taken, by both critics; following:
    f32[B], soft, of what they led to; policy_value: f32[B], soft, of the policy as it is now,
    differentiable in the policy alone; entropy: f32[B], estimates of the policy's.
    """

    values: jax.Array
    following: jax.Array
    policy_value: jax.Array
    entropy: jax.Array


@flax.struct.dataclass(kw_only=True)
class SAC(Settings):
    """Hyperparameters; see `Settings` for those of every agent.

    num_updates: gradient steps after each rollout of num_envs x rollout_steps; batch_size: rows of
    each; replay_size: steps of all environments that are kept; learning_starts: steps with uniform
    actions before the first update; n_step: rewards before the bootstrap; target_rate: by which the
    target critics follow. Policy, critics and temperature take one step together, from the
    parameters before it.

    The temperature starts at initial_temperature; if learn_temperature, it holds the entropy at its
    target: of indices, target_entropy_share of the uniform's; of numbers target_entropy for each,
    in units in which the box reaches from -1 to 1; of weights as far below the uniform's for each
    that is free. The reward is divided by the running deviation of its discounted sum, if
    normalise_reward.
    """

    learning_rate: Any = 1e-3
    max_grad_norm: Any = 10.0
    target_rate: Any = 0.005
    initial_temperature: Any = 0.01
    target_entropy: Any = -1.0
    target_entropy_share: Any = 0.5
    num_envs: int = static(16)
    rollout_steps: int = static(1)
    num_updates: int = static(16)
    batch_size: int = static(256)
    replay_size: int = static(262_144)
    learning_starts: int = static(1024)
    n_step: int = static(1)
    learn_temperature: bool = static(True)
    normalise_reward: bool = static(True)
    anneal_learning_rate: bool = static(False)
    activation: str = static("relu")

    def validate(self) -> None:
        """See `Settings.validate`; a replay holds whole rollouts."""
        super().validate()
        self.require_no_memory()
        self.require_counts("num_updates", "batch_size", "replay_size", "n_step")
        self.require_fractions("target_rate", "target_entropy_share")
        self.require_positive("learning_starts", "initial_temperature")
        size = self.num_envs * self.rollout_steps
        if self.replay_size % size:
            self.refuse("replay_size", f"a multiple of num_envs x rollout_steps = {size}")
        if not self.initial_temperature > 0:
            self.refuse("initial_temperature", "a number above 0")
        if self.learning_starts > self.replay_size:
            self.refuse("learning_starts", f"no more than replay_size = {self.replay_size}")

    def init(self, key: jax.Array, env: Any, env_params: Any) -> Learner:
        """Fresh parameters for what this environment shows, and an empty replay.

        Raises:
            JaxtradeError: actions of several indices.
        """
        head = head_of(env, env_params)
        if not isinstance(head, Categorical | TanhNormal | Dirichlet):
            raise JaxtradeError(f"sac does not draw from {head}: give one index, a box or weights")
        obs = one_observation(env, env_params)
        policy_key, critic_key = jax.random.split(key)
        params = {
            "policy": self._policy(head).init(policy_key, obs, no_memory(obs)),
            "critics": init_twins(self._critic(head), critic_key, _critic_inputs(head, obs)),
        }
        log_temperature = jnp.log(jnp.float32(self.initial_temperature))
        return Learner(
            learnt=Learnt(
                actor=Actor(params=params, head=head),
                log_temperature=log_temperature,
                targets=jax.tree.map(jnp.copy, params["critics"]),
                optimiser=optimiser(self.max_grad_norm).init((params, log_temperature)),
            ),
            replay=replay.init(
                replay.example_row(env, env_params, head),
                capacity=self.replay_size // self.num_envs,
                num_envs=self.num_envs,
            ),
            reward_scale=init_reward_scale(self.num_envs),
        )

    def assess(self, actor: Actor, obs: Any, hidden: jax.Array) -> Assessment:
        """See `Agent`; the value is the lower critic's, of the mode, or the mean over indices.

        It counts the entropy of what follows, not of this step.
        """
        head = actor.head
        outputs = self._outputs(head, actor.params["policy"], obs)
        if isinstance(head, Categorical):
            values = self._values(head, actor.params["critics"], obs).min(axis=0)
            value = (jax.nn.softmax(outputs) * values).sum(axis=-1)
        else:
            inputs = (obs, head.mode(outputs))
            value = self._values(head, actor.params["critics"], inputs).min(axis=0)[:, 0]
        return Assessment(outputs, value, hidden)

    def act(
        self, learner: Learner, obs: Any, hidden: jax.Array, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Actions drawn from the policy, at first uniformly; nothing besides."""
        head = learner.actor.head
        outputs = self._outputs(head, learner.actor.params["policy"], obs)
        drawn, _ = head.sample(outputs, key)
        explores = learner.replay.size < self.learning_starts
        action = jnp.where(explores, head.uniform(outputs, key), drawn)  # one of them is used
        return action, hidden, ()

    def learn(
        self, learner: Learner, batch: Batch, key: jax.Array, env: Any, env_params: Any
    ) -> tuple[Learner, Metrics]:
        """Keep the rollout, then take gradient steps once there is enough to learn from."""
        kept = replay.add(learner.replay, batch)
        scale = learner.reward_scale
        if self.normalise_reward:
            scale = update_reward_scale(scale, batch, self.gamma)
        rate = self.rate(batch.progress)
        keys = jax.random.split(key, 1 + self.num_updates)
        shape = (self.num_updates, self.batch_size)
        rows = replay.sample(kept, keys[0], shape, n_step=self.n_step, gamma=self.gamma)
        rows = dataclasses.replace(rows, reward=rows.reward / scale.deviation)

        def update(learnt: Learnt, given: tuple[Sample, jax.Array]) -> tuple[Learnt, Metrics]:
            rows, key = given
            seen, final = (see(env, env_params, each) for each in (rows.seen, rows.final))
            return self._step(learnt, dataclasses.replace(rows, seen=seen, final=final), key, rate)

        def improve(learnt: Learnt) -> tuple[Learnt, Metrics]:
            learnt, metrics = jax.lax.scan(update, learnt, (rows, keys[1:]))
            return learnt, jax.tree.map(lambda x: x.mean(), metrics)

        def wait(learnt: Learnt) -> tuple[Learnt, Metrics]:
            _, metrics = jax.eval_shape(improve, learnt)
            return learnt, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

        # Only what the steps change goes through the condition, not the replay.
        enough = kept.size >= self.learning_starts
        learnt, metrics = jax.lax.cond(enough, improve, wait, learner.learnt)
        return Learner(learnt=learnt, replay=kept, reward_scale=scale), {
            **metrics,
            "temperature": jnp.exp(learnt.log_temperature),
            "replay_fill": kept.filled.astype(jnp.float32) / kept.capacity,
        }

    def _step(
        self, learnt: Learnt, rows: Sample, key: jax.Array, rate: jax.Array
    ) -> tuple[Learnt, Metrics]:
        """One gradient step on rows [B], which hold observations."""
        head, targets = learnt.actor.head, learnt.targets
        terms_of = self._discrete if isinstance(head, Categorical) else self._continuous

        def loss_of(varied: tuple[Any, jax.Array]) -> tuple[jax.Array, Metrics]:
            params, log_temperature = varied
            temperature = jnp.exp(jax.lax.stop_gradient(log_temperature))
            terms = terms_of(head, params, targets, temperature, rows, key)
            target = jax.lax.stop_gradient(rows.reward + rows.discount * terms.following)
            critic_loss = 2.0 * losses.squared_error(terms.values, target[None])  # of both, added
            actor_loss = -terms.policy_value.mean()
            loss = critic_loss + actor_loss
            if self.learn_temperature:
                loss += losses.temperature_loss(
                    log_temperature, terms.entropy, self._target_entropy(head)
                )
            return loss, {
                "critic_loss": critic_loss,
                "actor_loss": actor_loss,
                "entropy": terms.entropy.mean(),
                "q_mean": terms.values.mean(),
                "td_error": jnp.abs(terms.values - target[None]).mean(),
            }

        varied = learnt.actor.params, learnt.log_temperature
        grads, metrics = jax.grad(loss_of, has_aux=True)(varied)
        (params, log_temperature), state, grad_norm = descend(
            varied,
            learnt.optimiser,
            grads,
            learning_rate=rate,
            max_grad_norm=self.max_grad_norm,
        )
        learnt = Learnt(
            actor=dataclasses.replace(learnt.actor, params=params),
            log_temperature=log_temperature,
            targets=follow(targets, params["critics"], self.target_rate),
            optimiser=state,
        )
        return learnt, {**metrics, "grad_norm": grad_norm}

    def _continuous(
        self,
        head: Head,
        params: Any,
        targets: Any,
        temperature: jax.Array,
        rows: Sample,
        key: jax.Array,
    ) -> Terms:
        """By one drawn action for each state."""
        outputs = jnp.concatenate(self._both_outputs(head, params, rows))
        action, log_prob = head.sample(outputs, key)
        (now, later), (log_now, log_later) = jnp.split(action, 2), jnp.split(log_prob, 2)
        frozen = jax.lax.stop_gradient(params["critics"])
        following = self._values(head, targets, (rows.final, later))[..., 0]
        policy_values = self._values(head, frozen, (rows.seen, now))[..., 0]
        return Terms(
            values=self._values(head, params["critics"], (rows.seen, rows.action))[..., 0],
            following=losses.soft_value(following, log_later, temperature),
            policy_value=losses.soft_value(policy_values, log_now, temperature),
            entropy=-log_now,
        )

    def _discrete(
        self,
        head: Head,
        params: Any,
        targets: Any,
        temperature: jax.Array,
        rows: Sample,
        key: jax.Array,
    ) -> Terms:
        """By expectation over all actions; nothing is drawn."""
        log_now, log_later = map(jax.nn.log_softmax, self._both_outputs(head, params, rows))
        values = self._values(head, params["critics"], rows.seen)
        following = self._values(head, targets, rows.final)

        def mean(log_prob: jax.Array, x: jax.Array) -> jax.Array:
            return (jnp.exp(log_prob) * x).sum(axis=-1)

        policy_value = losses.soft_value(jax.lax.stop_gradient(values), log_now, temperature)
        later_value = losses.soft_value(following, log_later, temperature)
        taken = rows.action[None, :, None]
        return Terms(
            values=jnp.take_along_axis(values, taken, axis=-1)[..., 0],
            following=mean(log_later, later_value),
            policy_value=mean(log_now, policy_value),
            entropy=-mean(log_now, log_now),
        )

    def _outputs(self, head: Head, params: Any, obs: Any) -> jax.Array:
        """The policy's, f32[B, num_outputs]."""
        return self._policy(head).apply(params, obs, no_memory(obs))[0]

    def _both_outputs(self, head: Head, params: Any, rows: Sample) -> tuple[jax.Array, jax.Array]:
        """The policy's, before a step, and after it without a gradient."""
        policy, frozen = params["policy"], jax.lax.stop_gradient(params["policy"])
        return self._outputs(head, policy, rows.seen), self._outputs(head, frozen, rows.final)

    def _target_entropy(self, head: Any) -> jax.Array:
        if isinstance(head, Categorical):
            return self.target_entropy_share * head.max_entropy
        free = head.size - 1 if isinstance(head, Dirichlet) else len(head.low)
        return head.max_entropy + free * (self.target_entropy - math.log(2.0))

    def _policy(self, head: Head) -> Any:
        return Policy(self.make_torso(), head.num_outputs)

    def _critic(self, head: Head) -> Critic:
        num_values = head.num_outputs if isinstance(head, Categorical) else 1
        return Critic(self.make_torso(), num_values)

    def _values(self, head: Head, params: Any, inputs: Any) -> jax.Array:
        """Of observations, or of pairs of them and actions, by both critics, f32[2, B, ...]."""
        return twin_values(self._critic(head), params, inputs)


def _critic_inputs(head: Head, obs: Any) -> Any:
    """What critics are shown: pairs of observations and actions, or observations alone."""
    if isinstance(head, Categorical):
        return obs
    return obs, head.mode(jnp.zeros((1, head.num_outputs)))
