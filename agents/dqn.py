"""Deep Q-learning (Mnih et al. 2015) with what came after it.

Double (van Hasselt et al. 2016), dueling (Wang et al. 2016), n-step and prioritised (Schaul et al.
2016) learning, quantiles of the return (Dabney et al. 2018), a branch for each of several indices
(Tavakoli et al. 2018): each can be left out.
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxtrade.agents import losses, priorities, qvalues, replay
from jaxtrade.agents.distributions import Head, head_of
from jaxtrade.agents.networks import no_memory
from jaxtrade.agents.normalise import RewardScale, init_reward_scale, update_reward_scale
from jaxtrade.agents.optimise import improve, linear, optimiser
from jaxtrade.agents.qnetworks import QNetwork
from jaxtrade.agents.rollout import one_observation, see
from jaxtrade.agents.settings import Settings, static
from jaxtrade.agents.types import Actor, Assessment, Batch, Metrics

LEAST_PRIORITY = 1e-3
"""Added to an error, so that no step is forgotten."""


@flax.struct.dataclass(kw_only=True)
class Learner:
    """actor: the network; target: parameters that follow its own; optimiser: Adam's state; updates:
    i32[], gradient steps taken; reward_scale; replay.
    """

    actor: Actor
    target: Any
    optimiser: Any
    updates: jax.Array
    reward_scale: RewardScale
    replay: Any


@flax.struct.dataclass(kw_only=True)
class DQN(Settings):
    """Hyperparameters; see `Settings` for those of every agent.

    An iteration takes rollout_steps in num_envs environments, then num_updates gradient steps on
    batch_size rows each, once learning_starts steps are kept of the last replay_size. Actions are
    random with a probability that falls from epsilon_start to epsilon_end over epsilon_fraction of
    the training. The target stands still within an iteration; after it, it has moved by tau towards
    the network for every target_period gradient steps.

    n_step: longest return before it is bootstrapped; double, dueling; num_quantiles: of the return
    of an action, 0 for its mean alone; prioritised: rows are drawn by |error| ** priority_exponent,
    which weights undo to the power of priority_beta at first and wholly at the end;
    normalise_reward: divide it by the running deviation of its discounted sum.
    """

    learning_rate: Any = 1e-3
    anneal_learning_rate: bool = static(False)
    max_grad_norm: Any = 10.0
    num_envs: int = static(16)
    rollout_steps: int = static(4)
    activation: str = static("relu")
    num_updates: int = static(8)
    batch_size: int = static(128)
    replay_size: int = static(131_072)
    learning_starts: int = static(1024)
    epsilon_start: Any = 1.0
    epsilon_end: Any = 0.05
    epsilon_fraction: Any = 0.25
    tau: Any = 1.0
    target_period: int = static(200)
    n_step: int = static(3)
    double: bool = static(True)
    dueling: bool = static(True)
    num_quantiles: int = static(0)
    prioritised: bool = static(False)
    priority_exponent: Any = 0.6
    priority_beta: Any = 0.4
    normalise_reward: bool = static(True)

    def validate(self) -> None:
        """See `Settings.validate`; rollouts divide the replay, which holds what is waited for."""
        super().validate()
        self.require_no_memory()
        self.require_counts("num_updates", "batch_size", "target_period", "n_step")
        self.require_fractions("epsilon_start", "epsilon_end", "tau", "priority_beta")
        self.require_positive("priority_exponent")
        if not 0 < self.epsilon_fraction <= 1:
            self.refuse("epsilon_fraction", "above 0, up to 1")
        if self.num_quantiles < 0:
            self.refuse("num_quantiles", "0 or more")
        size = self.num_envs * self.rollout_steps
        if self.replay_size < size or self.replay_size % size:
            self.refuse("replay_size", f"a multiple of num_envs x rollout_steps = {size}")
        if not 0 <= self.learning_starts <= self.replay_size:
            self.refuse("learning_starts", f"0 to replay_size = {self.replay_size}")

    def init(self, key: jax.Array, env: Any, env_params: Any) -> Learner:
        """Fresh parameters for what this environment shows, and an empty replay."""
        head = head_of(env, env_params)
        obs = one_observation(env, env_params)
        params = self._network(head).init(key, obs, no_memory(obs))
        return Learner(
            actor=Actor(params=params, head=head),
            target=params,
            optimiser=optimiser(self.max_grad_norm).init(params),
            updates=jnp.int32(0),
            reward_scale=init_reward_scale(self.num_envs),
            replay=replay.init(
                replay.example_row(env, env_params, head),
                capacity=self.replay_size // self.num_envs,
                num_envs=self.num_envs,
                prioritised=self.prioritised,
            ),
        )

    def assess(self, actor: Actor, obs: Any, hidden: jax.Array) -> Assessment:
        """See `Agent`; outputs are action values, in the unit of `reward_scale`."""
        network: Any = self._network(actor.head)
        values, hidden = network.apply(actor.params, obs, hidden)
        outputs = values.mean(axis=1)
        value = qvalues.greedy_value(outputs, qvalues.branch_counts(actor.head))
        return Assessment(outputs, value, hidden)

    def act(
        self, learner: Learner, obs: Any, hidden: jax.Array, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any]:
        """The best actions, or any."""
        outputs, _, hidden = self.assess(learner.actor, obs, hidden)
        action = qvalues.explore(learner.actor.head, outputs, self._epsilon(progress), key)
        return action, hidden, ()

    def learn(
        self, learner: Learner, batch: Batch, key: jax.Array, env: Any, env_params: Any
    ) -> tuple[Learner, Metrics]:
        """Remember a rollout, and take some gradient steps on rows of all that is remembered."""
        scale = update_reward_scale(learner.reward_scale, batch, self.gamma)
        kept = replay.add(learner.replay, batch)
        shape = (self.num_updates, self.batch_size)
        drawn = replay.sample(kept, key, shape, n_step=self.n_step, gamma=self.gamma)
        if self.normalise_reward:
            drawn = dataclasses.replace(drawn, reward=drawn.reward / scale.deviation)
        weight = jnp.ones(shape)
        if self.prioritised:
            beta = linear(batch.progress, self.priority_beta, 1.0)
            weight = replay.importance(kept, drawn.probability, beta)
        rate = self.rate(batch.progress)

        def improve(learner: Learner) -> tuple[Learner, Any]:
            obs, next_obs = (_see_all(env, env_params, each) for each in (drawn.seen, drawn.final))
            next_values = jax.vmap(self._values, (None, None, 0))(
                learner.actor.head, learner.target, next_obs
            )
            rows = (obs, drawn.action, drawn.reward, drawn.discount, next_obs, next_values, weight)
            descend_on = functools.partial(self._descend, learning_rate=rate)
            later, found = jax.lax.scan(descend_on, learner, rows)
            return self._move_target(later), found

        def wait(learner: Learner) -> tuple[Learner, Any]:
            nothing = jax.eval_shape(improve, learner)[1]
            return learner, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), nothing)

        # The replay stays outside, so that it is not copied.
        learner = dataclasses.replace(learner, reward_scale=scale, replay=None)
        is_ready = kept.size >= self.learning_starts
        learner, (error, metrics) = jax.lax.cond(is_ready, improve, wait, learner)
        if kept.priorities is not None:
            index = drawn.index.reshape(-1)
            new = (error.reshape(-1) + LEAST_PRIORITY) ** self.priority_exponent
            new = jnp.where(is_ready, new, kept.priorities.flat[index])
            kept = dataclasses.replace(kept, priorities=priorities.put(kept.priorities, index, new))
        return dataclasses.replace(learner, replay=kept), {
            **jax.tree.map(lambda x: x.mean(), metrics),
            "td_error": error.mean(),
            "epsilon": self._epsilon(batch.progress),
            "replay_fill": kept.filled / jnp.float32(kept.capacity),
        }

    def _descend(
        self, learner: Learner, rows: tuple[Any, ...], learning_rate: jax.Array
    ) -> tuple[Learner, tuple[jax.Array, Metrics]]:
        """One gradient step on rows [B]; the sizes of their errors f32[B]."""
        obs, action, reward, discount, next_obs, next_values, weight = rows
        head, params = learner.actor.head, learner.actor.params
        counts = qvalues.branch_counts(head)
        chooser = self._values(head, params, next_obs) if self.double else next_values
        best = head.mode(chooser.mean(axis=1))
        target = qvalues.q_target(reward, discount, next_values, best, counts)

        def loss_of(params: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            chosen = qvalues.taken(self._values(head, params, obs), action, counts)
            error = chosen.mean(axis=1) - target.mean(axis=1)[:, None]
            if self.num_quantiles:
                each = jax.vmap(losses.quantile_huber, (2, None), 1)(chosen, target)
            else:
                each = losses.huber(error)
            loss = (weight * each.mean(axis=1)).mean()
            return loss, (jnp.abs(error).mean(axis=1), chosen.mean())

        (loss, (error, q_mean)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        learner, grad_norm = improve(
            learner, grads, learning_rate=learning_rate, max_grad_norm=self.max_grad_norm
        )
        return learner, (error, {"loss": loss, "q_mean": q_mean, "grad_norm": grad_norm})

    def _move_target(self, learner: Learner) -> Learner:
        """The target after an iteration's gradient steps: as if it had moved after each that was
        due to, but towards where the network is now.
        """
        updates = learner.updates + self.num_updates
        due = updates // self.target_period - learner.updates // self.target_period
        way = 1.0 - (1.0 - self.tau) ** due.astype(jnp.float32)
        target = optax.incremental_update(learner.actor.params, learner.target, way)
        return dataclasses.replace(learner, target=target, updates=updates)

    def _values(self, head: Head, params: Any, obs: Any) -> jax.Array:
        """Of all actions, f32[B, K, num_outputs]."""
        return self._network(head).apply(params, obs, no_memory(obs))[0]

    def _epsilon(self, progress: jax.Array) -> jax.Array:
        return linear(progress, self.epsilon_start, self.epsilon_end, over=self.epsilon_fraction)

    def _network(self, head: Head) -> QNetwork:
        return QNetwork(
            torso=self.make_torso(),
            counts=qvalues.branch_counts(head),
            dueling=self.dueling,
            num_quantiles=self.num_quantiles,
        )


def _see_all(env: Any, env_params: Any, kept: Any) -> Any:
    """The observations [K, B, ...] of what a replay kept [K, B, ...]."""
    return jax.vmap(lambda each: see(env, env_params, each))(kept)
