"""Parallelised Q-learning (Gallici et al. 2024): neither a replay nor a target network.

Many environments side by side decorrelate the rows, and layer norm keeps the values from running
away.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.agents import losses, qvalues
from jaxtrade.agents.distributions import Head, head_of
from jaxtrade.agents.networks import no_memory
from jaxtrade.agents.normalise import update_reward_scale
from jaxtrade.agents.optimise import Learner, improve, linear, on_policy_learner, shuffles
from jaxtrade.agents.qnetworks import QNetwork
from jaxtrade.agents.returns import gae
from jaxtrade.agents.rollout import next_values, one_observation, see
from jaxtrade.agents.settings import Settings, static
from jaxtrade.agents.types import Actor, Assessment, Batch, Metrics


@flax.struct.dataclass(kw_only=True)
class PQN(Settings):
    """Hyperparameters; see `Settings` for those of every agent.

    Actions are random with a probability that falls from epsilon_start to epsilon_end over
    epsilon_fraction of the training. trace_lambda: 0 bootstraps a return after one step, 1 only at
    the end of a rollout; num_epochs of num_minibatches gradient steps on each rollout; dueling: see
    `QNetwork`; normalise_reward: divide it by the running deviation of its discounted sum.
    """

    learning_rate: Any = 1e-3
    max_grad_norm: Any = 10.0
    num_envs: int = static(64)
    activation: str = static("relu")
    layer_norm: bool = static(True)
    num_epochs: int = static(4)
    num_minibatches: int = static(16)
    trace_lambda: Any = 0.65
    epsilon_start: Any = 1.0
    epsilon_end: Any = 0.05
    epsilon_fraction: Any = 0.25
    dueling: bool = static(False)
    normalise_reward: bool = static(True)

    def validate(self) -> None:
        """See `Settings.validate`; minibatches divide a rollout."""
        super().validate()
        self.require_no_memory()
        self.require_counts("num_epochs", "num_minibatches")
        self.require_fractions("trace_lambda", "epsilon_start", "epsilon_end")
        if not 0 < self.epsilon_fraction <= 1:
            self.refuse("epsilon_fraction", "above 0, up to 1")
        size = self.num_envs * self.rollout_steps
        if size % self.num_minibatches:
            self.refuse("num_minibatches", f"a divisor of num_envs x rollout_steps = {size}")

    def init(self, key: jax.Array, env: Any, env_params: Any) -> Learner:
        """Fresh parameters for what this environment shows."""
        head = head_of(env, env_params)
        obs = one_observation(env, env_params)
        params = self._network(head).init(key, obs, no_memory(obs))
        return on_policy_learner(self, params, head)

    def assess(self, actor: Actor, obs: Any, hidden: jax.Array) -> Assessment:
        """See `Agent`; outputs are action values, in the unit of `reward_scale`."""
        network: Any = self._network(actor.head)
        values, hidden = network.apply(actor.params, obs, hidden)
        value = qvalues.greedy_value(values[:, 0], qvalues.branch_counts(actor.head))
        return Assessment(values[:, 0], value, hidden)

    def act(
        self,
        learner: Learner,
        obs: Any,
        hidden: jax.Array,
        key: jax.Array,
        progress: jax.Array,
    ) -> tuple[jax.Array, jax.Array, Any]:
        """The best actions, or any; and what the best is worth, f32[N]."""
        outputs, value, hidden = self.assess(learner.actor, obs, hidden)
        action = qvalues.explore(learner.actor.head, outputs, self._epsilon(progress), key)
        return action, hidden, value

    def learn(
        self, learner: Learner, batch: Batch, key: jax.Array, env: Any, env_params: Any
    ) -> tuple[Learner, Metrics]:
        """Some epochs of minibatch steps over one rollout."""
        scale = update_reward_scale(learner.reward_scale, batch, self.gamma)
        learner = dataclasses.replace(learner, reward_scale=scale)
        reward = batch.reward / scale.deviation if self.normalise_reward else batch.reward

        def value_of(kept: Any) -> jax.Array:
            obs = see(env, env_params, kept)
            return self.assess(learner.actor, obs, no_memory(obs)).value

        following = next_values(value_of, batch, batch.extras, value_of(batch.last))
        # Q(lambda) is TD(lambda) where the value of a state is that of its best action.
        _, target = gae(
            reward,
            batch.extras,
            following,
            batch.terminated,
            batch.truncated,
            gamma=self.gamma,
            gae_lambda=self.trace_lambda,
        )
        size = self.num_envs * self.rollout_steps
        rows = (batch.seen, batch.action, target)
        rows = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), rows)
        rate = self.rate(batch.progress)

        def minibatch(learner: Learner, index: jax.Array) -> tuple[Learner, Metrics]:
            kept, action, target = jax.tree.map(lambda x: x[index], rows)
            return self._descend(learner, see(env, env_params, kept), action, target, rate)

        orders = shuffles(key, size, self.num_epochs)
        learner, metrics = jax.lax.scan(
            minibatch, learner, orders.reshape(self.num_epochs * self.num_minibatches, -1)
        )
        metrics = jax.tree.map(lambda x: x.mean(), metrics)
        return learner, {**metrics, "epsilon": self._epsilon(batch.progress)}

    def _descend(
        self,
        learner: Learner,
        obs: Any,
        action: jax.Array,
        target: jax.Array,
        learning_rate: jax.Array,
    ) -> tuple[Learner, Metrics]:
        """One gradient step on rows [B]."""
        actor = learner.actor
        network, counts = self._network(actor.head), qvalues.branch_counts(actor.head)

        def loss_of(params: Any) -> tuple[jax.Array, Metrics]:
            values, _ = network.apply(params, obs, no_memory(obs))
            chosen = qvalues.taken(values, action, counts)[:, 0]
            error = chosen - target[:, None]
            found = {"td_error": jnp.abs(error).mean(), "q_mean": chosen.mean()}
            return losses.huber(error).mean(), found

        (loss, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(actor.params)
        learner, grad_norm = improve(
            learner, grads, learning_rate=learning_rate, max_grad_norm=self.max_grad_norm
        )
        return learner, {**metrics, "loss": loss, "grad_norm": grad_norm}

    def _epsilon(self, progress: jax.Array) -> jax.Array:
        return linear(progress, self.epsilon_start, self.epsilon_end, over=self.epsilon_fraction)

    def _network(self, head: Head) -> QNetwork:
        counts = qvalues.branch_counts(head)
        return QNetwork(torso=self.make_torso(), counts=counts, dueling=self.dueling)
