"""Proximal policy optimisation (Schulman et al. 2017)."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.agents import losses
from jaxtrade.agents.distributions import head_for
from jaxtrade.agents.networks import ActorCritic
from jaxtrade.agents.normalise import RewardScale, init_reward_scale, update_reward_scale
from jaxtrade.agents.optimise import descend, linear, optimiser
from jaxtrade.agents.returns import gae
from jaxtrade.agents.rollout import next_values, one_observation, see
from jaxtrade.agents.settings import Settings, static
from jaxtrade.agents.types import Actor, Assessment, Batch, Metrics


@flax.struct.dataclass(kw_only=True)
class Learner:
    """actor: policy and critic in one network; optimiser: Adam's state; reward_scale."""

    actor: Actor
    optimiser: Any
    reward_scale: RewardScale


@flax.struct.dataclass(kw_only=True)
class PPO(Settings):
    """Hyperparameters; see `Settings` for those of every agent.

    The reward is divided by the running deviation of its discounted sum; advantages are
    standardised in each minibatch. `clip_ratio` bounds the change of a probability's ratio.
    """

    gae_lambda: Any = 0.95
    clip_ratio: Any = 0.2
    entropy_coefficient: Any = 0.01
    value_coefficient: Any = 0.5
    num_epochs: int = static(4)
    num_minibatches: int = static(8)

    def validate(self) -> None:
        """See `Settings.validate`; minibatches divide a rollout."""
        super().validate()
        self.require_counts("num_epochs", "num_minibatches")
        self.require_fractions("gae_lambda", "clip_ratio")
        self.require_positive("entropy_coefficient", "value_coefficient")
        size = self.num_envs * self.rollout_steps
        if size % self.num_minibatches:
            self.refuse("num_minibatches", f"a divisor of num_envs x rollout_steps = {size}")

    def init(self, key: jax.Array, env: Any, env_params: Any) -> Learner:
        """Fresh parameters for what this environment shows."""
        head = head_for(env.action_space(env_params))
        obs = one_observation(env, env_params)
        params = self._network(head.num_outputs).init(key, obs, jnp.zeros((1, self.hidden_size)))
        return Learner(
            actor=Actor(params=params, head=head),
            optimiser=optimiser(self.max_grad_norm).init(params),
            reward_scale=init_reward_scale(self.num_envs),
        )

    def assess(self, actor: Actor, obs: Any, hidden: jax.Array) -> Assessment:
        """See `Agent`."""
        network = self._network(actor.head.num_outputs)
        return Assessment(*network.apply(actor.params, obs, hidden))

    def act(
        self, learner: Learner, obs: Any, hidden: jax.Array, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Actions drawn from the policy, with their log probability and the value, each [N]."""
        outputs, value, hidden = self.assess(learner.actor, obs, hidden)
        action, log_prob = learner.actor.head.sample(outputs, key)
        return action, hidden, (log_prob, value)

    def learn(
        self, learner: Learner, batch: Batch, key: jax.Array, env: Any, env_params: Any
    ) -> tuple[Learner, Metrics]:
        """Some epochs of minibatch steps over one rollout."""
        scale = update_reward_scale(learner.reward_scale, batch, self.gamma)
        learner = dataclasses.replace(learner, reward_scale=scale)
        log_prob, value = batch.extras

        def value_of(kept: Any) -> jax.Array:
            obs = see(env, env_params, kept)
            return self.assess(learner.actor, obs, _no_memory(obs)).value

        following = next_values(value_of, batch, value, value_of(batch.last))
        ended = batch.terminated, batch.truncated
        reward = batch.reward / scale.deviation
        advantage, target = gae(
            reward, value, following, *ended, gamma=self.gamma, gae_lambda=self.gae_lambda
        )
        size = self.num_envs * self.rollout_steps
        rows = (batch.seen, batch.action, log_prob, advantage, target)
        rows = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), rows)
        rate = self.learning_rate
        if self.anneal_learning_rate:
            rate = linear(batch.progress, rate, 0.0)

        def minibatch(learner: Learner, index: jax.Array) -> tuple[Learner, Metrics]:
            kept, *rest = jax.tree.map(lambda x: x[index], rows)
            obs = see(env, env_params, kept)
            return self._descend(learner, (obs, *rest), rate)

        orders = jnp.argsort(jax.random.bits(key, (self.num_epochs, size)))
        learner, metrics = jax.lax.scan(
            minibatch, learner, orders.reshape(self.num_epochs * self.num_minibatches, -1)
        )
        metrics = jax.tree.map(lambda x: x.mean(), metrics)
        explained = losses.explained_variance(value.reshape(-1), target.reshape(-1))
        return learner, {**metrics, "explained_variance": explained}

    def _descend(
        self, learner: Learner, rows: tuple[Any, ...], learning_rate: jax.Array
    ) -> tuple[Learner, Metrics]:
        """One gradient step on rows [B]."""
        obs, action, old_log_prob, advantage, target = rows
        actor = learner.actor

        def loss_of(params: Any) -> tuple[jax.Array, Metrics]:
            outputs, value, _ = self.assess(actor.replace(params=params), obs, _no_memory(obs))  # type: ignore[attr-defined]
            policy_loss, divergence, clipped = losses.clipped_surrogate(
                actor.head.log_prob(outputs, action),
                old_log_prob,
                losses.standardise(advantage),
                clip_ratio=self.clip_ratio,
            )
            value_loss = losses.squared_error(value, target)
            entropy = actor.head.entropy(outputs).mean()
            loss = (
                policy_loss
                + self.value_coefficient * value_loss
                - self.entropy_coefficient * entropy
            )
            return loss, {
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "entropy": entropy,
                "approx_kl": divergence,
                "clip_fraction": clipped,
            }

        grads, metrics = jax.grad(loss_of, has_aux=True)(actor.params)
        params, state, grad_norm = descend(
            actor.params,
            learner.optimiser,
            grads,
            learning_rate=learning_rate,
            max_grad_norm=self.max_grad_norm,
        )
        actor = dataclasses.replace(actor, params=params)
        learner = dataclasses.replace(learner, actor=actor, optimiser=state)
        return learner, {**metrics, "grad_norm": grad_norm}

    def _network(self, num_outputs: int) -> ActorCritic:
        return ActorCritic(torso=self.make_torso(), num_outputs=num_outputs)


def _no_memory(obs: Any) -> jax.Array:
    return jnp.zeros((jax.tree.leaves(obs)[0].shape[0], 0), jnp.float32)
