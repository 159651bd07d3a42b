"""Proximal policy optimisation (Schulman et al. 2017) for discrete actions."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxtrade.agents import distributions, losses
from jaxtrade.agents.networks import ActorCritic
from jaxtrade.agents.normalise import Moments, deviation, init_moments, update_moments
from jaxtrade.agents.returns import discounted, gae
from jaxtrade.agents.rollout import next_values, see
from jaxtrade.agents.types import Batch, Metrics
from jaxtrade.specs import JaxtradeError


@flax.struct.dataclass(kw_only=True)
class Learner:
    """params, optimiser: the network's and Adam's; reward_moments: of the discounted sums of past
    rewards, discounted_reward: f32[N], those sums now.
    """

    params: Any
    optimiser: Any
    reward_moments: Moments
    discounted_reward: jax.Array
    num_actions: int = flax.struct.field(pytree_node=False)


@flax.struct.dataclass(kw_only=True)
class PPO:
    """Hyperparameters. Floats are traced: a sweep over them does not recompile.

    The reward is divided by the running deviation of its discounted sum (Engstrom et al. 2020);
    advantages are standardised in each minibatch. `clip_ratio` bounds the change of a
    probability's ratio; the learning rate falls linearly to 0 if `anneal_learning_rate`.
    """

    learning_rate: Any = 3e-4
    gamma: Any = 0.99
    gae_lambda: Any = 0.95
    clip_ratio: Any = 0.2
    entropy_coefficient: Any = 0.01
    value_coefficient: Any = 0.5
    max_grad_norm: Any = 0.5
    num_envs: int = flax.struct.field(pytree_node=False, default=256)
    rollout_steps: int = flax.struct.field(pytree_node=False, default=32)
    num_epochs: int = flax.struct.field(pytree_node=False, default=4)
    num_minibatches: int = flax.struct.field(pytree_node=False, default=8)
    anneal_learning_rate: bool = flax.struct.field(pytree_node=False, default=True)
    hidden_sizes: tuple[int, ...] = flax.struct.field(pytree_node=False, default=(64, 64))

    def validate(self) -> None:
        """Check the values on the host.

        Raises:
            JaxtradeError: a number out of range, or a rollout that minibatches do not divide.
        """
        counts = ("num_envs", "rollout_steps", "num_epochs", "num_minibatches")
        for name in counts:
            if getattr(self, name) < 1:
                raise JaxtradeError(
                    f"agent setting {name} is {getattr(self, name)}: give 1 or more"
                )
        for name in ("gamma", "gae_lambda", "clip_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise JaxtradeError(f"agent setting {name} is {getattr(self, name)}: give 0 to 1")
        for name in ("learning_rate", "entropy_coefficient", "value_coefficient", "max_grad_norm"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise JaxtradeError(
                    f"agent setting {name} is {getattr(self, name)}: give 0 or more, and not inf"
                )
        if self.num_envs * self.rollout_steps % self.num_minibatches:
            raise JaxtradeError(
                f"agent setting num_minibatches is {self.num_minibatches}: give a divisor of "
                f"num_envs x rollout_steps = {self.num_envs * self.rollout_steps}"
            )
        if not all(type(size) is int and size > 0 for size in self.hidden_sizes):
            raise JaxtradeError(
                f"agent setting hidden_sizes is {self.hidden_sizes}: give whole numbers above 0"
            )

    def init(self, key: jax.Array, env: Any, env_params: Any) -> Learner:
        """Fresh parameters for what this environment shows."""
        obs, _ = jax.eval_shape(env.reset, key, env_params)
        one = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), obs)
        params = self._network(env.num_actions).init(key, one)
        return Learner(
            params=params,
            optimiser=self._optimiser().init(params),
            reward_moments=init_moments(),
            discounted_reward=jnp.zeros(self.num_envs, jnp.float32),
            num_actions=env.num_actions,
        )

    def assess(self, learner: Learner, obs: Any) -> tuple[jax.Array, jax.Array]:
        """Logits f32[B, num_actions] and values f32[B] of observations [B, ...]."""
        outputs: Any = self._network(learner.num_actions).apply(learner.params, obs)
        return outputs

    def act(self, learner: Learner, obs: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        """Actions drawn from the policy, with their log probability and the value, each [B]."""
        logits, value = self.assess(learner, obs)
        action = distributions.sample(logits, key)
        return action, (distributions.log_prob(logits, action), value)

    def learn(
        self, learner: Learner, batch: Batch, key: jax.Array, env: Any, env_params: Any
    ) -> tuple[Learner, Metrics]:
        """Some epochs of minibatch steps over one rollout."""
        learner, reward = self._scale_reward(learner, batch)
        log_prob, value = batch.extras

        def value_of(kept: Any) -> jax.Array:
            return self.assess(learner, see(env, env_params, kept))[1]

        following = next_values(value_of, batch, value, value_of(batch.last))
        ended = batch.terminated, batch.truncated
        advantage, target = gae(
            reward, value, following, *ended, gamma=self.gamma, gae_lambda=self.gae_lambda
        )
        size = self.num_envs * self.rollout_steps
        rows = (batch.seen, batch.action, log_prob, advantage, target)
        rows = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), rows)
        left = jnp.maximum(1.0 - batch.progress, 0.0) if self.anneal_learning_rate else 1.0

        def minibatch(learner: Learner, index: jax.Array) -> tuple[Learner, Metrics]:
            kept, *rest = jax.tree.map(lambda x: x[index], rows)
            obs = see(env, env_params, kept)
            return self._descend(learner, (obs, *rest), self.learning_rate * left)

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

        def loss_of(params: Any) -> tuple[jax.Array, Metrics]:
            logits, value = self.assess(learner.replace(params=params), obs)  # type: ignore[attr-defined]
            policy_loss, divergence, clipped = losses.clipped_surrogate(
                distributions.log_prob(logits, action),
                old_log_prob,
                losses.standardise(advantage),
                clip_ratio=self.clip_ratio,
            )
            value_loss = losses.squared_error(value, target)
            entropy = distributions.entropy(logits).mean()
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

        grads, metrics = jax.grad(loss_of, has_aux=True)(learner.params)
        updates, optimiser = self._optimiser().update(grads, learner.optimiser, learner.params)
        updates = jax.tree.map(lambda update: -learning_rate * update, updates)
        learner = learner.replace(  # type: ignore[attr-defined]
            params=optax.apply_updates(learner.params, updates), optimiser=optimiser
        )
        return learner, {**metrics, "grad_norm": optax.tree.norm(grads)}

    def _scale_reward(self, learner: Learner, batch: Batch) -> tuple[Learner, jax.Array]:
        """The rewards over the deviation of their discounted sum, which learns of them first."""
        done = batch.terminated | batch.truncated
        carry, sums = discounted(learner.discounted_reward, batch.reward, done, gamma=self.gamma)
        moments = update_moments(learner.reward_moments, sums)
        learner = learner.replace(discounted_reward=carry, reward_moments=moments)  # type: ignore[attr-defined]
        return learner, batch.reward / deviation(moments)

    def _network(self, num_actions: int) -> ActorCritic:
        return ActorCritic(num_actions=num_actions, hidden_sizes=self.hidden_sizes)

    def _optimiser(self) -> optax.GradientTransformation:
        """Adam on clipped gradients, all in one vector: a few operations instead of as many a leaf.

        The learning rate, being traced, is applied by the caller.
        """
        return optax.flatten(
            optax.chain(
                optax.clip_by_global_norm(self.max_grad_norm), optax.scale_by_adam(eps=1e-5)
            )
        )
