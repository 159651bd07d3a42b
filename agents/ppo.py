"""Proximal policy optimisation (Schulman et al. 2017), with or without a memory."""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.agents import losses
from jaxtrade.agents.devices import share_rows
from jaxtrade.agents.distributions import Head, head_of
from jaxtrade.agents.masks import require_masks, unmask
from jaxtrade.agents.networks import ActorCritic, dead_units
from jaxtrade.agents.normalise import update_reward_scale
from jaxtrade.agents.optimise import (
    Learner,
    descend_until,
    improve,
    linear,
    on_policy_learner,
    shuffles,
)
from jaxtrade.agents.returns import gae
from jaxtrade.agents.rollout import next_values, one_observation, see
from jaxtrade.agents.settings import Settings, static
from jaxtrade.agents.types import Actor, Assessment, Batch, Metrics
from jaxtrade.decision import mask_outputs


class Noted(NamedTuple):
    """What `act` notes of a step. log_prob, value: f32[N]; hidden: f32[N, H], the memory after it;
    allowed: bool[N, num_outputs], the mask, None without masks.
    """

    log_prob: jax.Array
    value: jax.Array
    hidden: jax.Array
    allowed: jax.Array | None


class Rows(NamedTuple):
    """What is learnt from, leaves [L, S, ...]: L steps of each of S sequences.

    With a memory a sequence is what an environment did in the rollout, without one it is a step.
    kept: of `Batch.seen`; begins: bool, an episode begins with this step; hidden: f32[1, S, H],
    the memory before the first; the others as in `Batch`, `Noted` and `gae`.
    """

    kept: Any
    action: jax.Array
    noted: Noted
    advantage: jax.Array
    target: jax.Array
    begins: jax.Array
    hidden: jax.Array

    @property
    def inputs(self) -> tuple[Any, jax.Array, jax.Array]:
        """What the network takes, where observations are kept."""
        return jax.tree.map(_flat, self.kept), self.hidden[0], self.begins


@flax.struct.dataclass(kw_only=True)
class PPO(Settings):
    """Hyperparameters; see `Settings` for those of every agent.

    The reward is divided by the running deviation of its discounted sum. clip_ratio bounds the
    change of a probability's ratio, and of a value if `clip_values`; `standardise_advantages` in
    each minibatch. The entropy coefficient goes linearly to `final_entropy_share` of itself. After
    a minibatch that finds the policy more than `target_kl` away from the one that acted, there are
    no more of this rollout (inf: never). With a memory, minibatches are of whole environments, and
    the first `burn_in` steps of a rollout only bring the memory up to date. mask_actions: choose
    among what the environment's `action_mask` allows.
    """

    gae_lambda: Any = 0.95
    clip_ratio: Any = 0.2
    entropy_coefficient: Any = 0.01
    final_entropy_share: Any = 1.0
    value_coefficient: Any = 0.5
    target_kl: Any = float("inf")
    num_epochs: int = static(4)
    num_minibatches: int = static(8)
    burn_in: int = static(0)
    clip_values: bool = static(False)
    standardise_advantages: bool = static(True)
    mask_actions: bool = static(False)

    def validate(self) -> None:
        """See `Settings.validate`; minibatches divide a rollout."""
        super().validate()
        self.require_counts("num_epochs", "num_minibatches")
        self.require_fractions("gae_lambda", "clip_ratio")
        self.require_positive("entropy_coefficient", "final_entropy_share", "value_coefficient")
        if not self.target_kl > 0:
            self.refuse("target_kl", "more than 0, and inf to never stop")
        size, what = self.num_envs * self.rollout_steps, "num_envs x rollout_steps"
        if self.hidden_size:
            size, what = self.num_envs, "num_envs (a memory is learnt by whole environments)"
        if size % self.num_minibatches:
            self.refuse("num_minibatches", f"a divisor of {what} = {size}")
        if not 0 <= self.burn_in < (self.rollout_steps if self.hidden_size else 1):
            self.refuse("burn_in", "fewer than rollout_steps with torso 'gru', 0 with every other")

    def init(self, key: jax.Array, env: Any, env_params: Any) -> Learner:
        """Fresh parameters for what this environment shows.

        Raises:
            JaxtradeError: `mask_actions`, and the environment offers no masks.
        """
        head = head_of(env, env_params)
        if self.mask_actions:
            require_masks(env, env_params, head)
        obs = one_observation(env, env_params)
        params = self._network(head).init(key, obs, jnp.zeros((1, self.hidden_size)))
        return on_policy_learner(self, params, head)

    def assess(self, actor: Actor, obs: Any, hidden: jax.Array) -> Assessment:
        """See `Agent`; where `obs` is `Masked`, outputs are those of what is allowed."""
        obs, allowed = unmask(obs)
        outputs, value, hidden = self._network(actor.head).apply(actor.params, obs, hidden)
        return Assessment(mask_outputs(outputs, allowed), value, hidden)

    def act(
        self,
        learner: Learner,
        obs: Any,
        hidden: jax.Array,
        key: jax.Array,
        progress: jax.Array,
    ) -> tuple[jax.Array, jax.Array, Noted]:
        """Actions drawn from the policy, next memories, and what is noted."""
        outputs, value, hidden = self.assess(learner.actor, obs, hidden)
        head = learner.actor.head
        action, _ = head.sample(outputs, key)
        # Of the action as it will be read again, rounded, so that ratios begin at 1.
        log_prob = head.log_prob(outputs, action)
        return action, hidden, Noted(log_prob, value, hidden, unmask(obs)[1])

    def learn(
        self, learner: Learner, batch: Batch, key: jax.Array, env: Any, env_params: Any
    ) -> tuple[Learner, Metrics]:
        """Some epochs of minibatch steps over one rollout."""
        scale = update_reward_scale(learner.reward_scale, batch, self.gamma)
        learner = dataclasses.replace(learner, reward_scale=scale)
        rows = self._rows(learner, batch, env, env_params)
        rates = self._rates(batch.progress)

        def pick(index: jax.Array) -> Rows:
            some = jax.tree.map(lambda x: x[:, index], rows)
            obs = see(env, env_params, jax.tree.map(_flat, some.kept))
            shape = some.begins.shape
            return some._replace(kept=jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), obs))

        def minibatch(learner: Learner, index: jax.Array) -> tuple[Learner, Metrics]:
            return self._descend(learner, pick(share_rows(index)), rates)

        orders = shuffles(key, rows.begins.shape[1], self.num_epochs)
        orders = orders.reshape(self.num_epochs * self.num_minibatches, -1)
        learner, metrics = descend_until(
            minibatch, learner, orders, metric="approx_kl", limit=self.target_kl
        )
        actor, some = learner.actor, pick(orders[-1, :256])
        value, target = rows.noted.value.reshape(-1), rows.target.reshape(-1)
        return learner, {
            **metrics,
            "explained_variance": losses.explained_variance(value, target),
            "dead_units": dead_units(self._network(actor.head), actor.params, *some.inputs),
        }

    def _rows(self, learner: Learner, batch: Batch, env: Any, env_params: Any) -> Rows:
        """A batch with advantages and targets, in sequences."""
        noted: Noted = batch.extras
        done = batch.terminated | batch.truncated

        def value_of(kept: Any, hidden: jax.Array) -> jax.Array:
            return self.assess(learner.actor, see(env, env_params, kept), hidden).value

        last = value_of(batch.last, jnp.where(done[-1, :, None], 0.0, noted.hidden[-1]))
        remembered = dataclasses.replace(batch, final=(batch.final, noted.hidden))
        following = next_values(lambda pair: value_of(*pair), remembered, noted.value, last)
        advantage, target = gae(
            batch.reward / learner.reward_scale.deviation,
            noted.value,
            following,
            batch.terminated,
            batch.truncated,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
        )
        rows = Rows(
            kept=batch.seen,
            action=batch.action,
            noted=noted._replace(hidden=noted.hidden[..., :0]),
            advantage=advantage,
            target=target,
            begins=jnp.concatenate([jnp.zeros_like(done[:1]), done[:-1]]),
            hidden=batch.hidden[None],
        )
        if self.hidden_size:
            return rows
        rows = jax.tree.map(lambda x: _flat(x)[None], rows)
        return rows._replace(hidden=jnp.zeros((*rows.begins.shape, 0)))

    def _rates(self, progress: jax.Array) -> tuple[Any, jax.Array]:
        """The learning rate and the entropy coefficient."""
        entropy = self.entropy_coefficient
        return self.rate(progress), linear(progress, entropy, entropy * self.final_entropy_share)

    def _descend(
        self, learner: Learner, rows: Rows, rates: tuple[Any, Any]
    ) -> tuple[Learner, Metrics]:
        """One gradient step."""
        actor, (rate, entropy_coefficient) = learner.actor, rates
        network = self._network(actor.head)
        if self.burn_in:
            early, rows = (
                jax.tree.map(lambda x, part=part: x[part], rows)
                for part in (slice(self.burn_in), slice(self.burn_in, None))
            )
            rows = rows._replace(hidden=network.apply(actor.params, *early.inputs)[2][None])
        action, noted, advantage, target = jax.tree.map(_flat, rows[1:5])
        if self.standardise_advantages:
            advantage = losses.standardise(advantage)

        def loss_of(params: Any) -> tuple[jax.Array, Metrics]:
            outputs, value, _ = network.apply(params, *rows.inputs)
            outputs = mask_outputs(outputs, noted.allowed)
            policy_loss, divergence, clipped = losses.clipped_surrogate(
                actor.head.log_prob(outputs, action),
                noted.log_prob,
                advantage,
                clip_ratio=self.clip_ratio,
            )
            if self.clip_values:
                value = losses.less_good(value, noted.value, target, clip_ratio=self.clip_ratio)
            value_loss = losses.squared_error(value, target)
            entropy = actor.head.entropy(outputs).mean()
            loss = policy_loss + self.value_coefficient * value_loss - entropy_coefficient * entropy
            return loss, {
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "entropy": entropy,
                "approx_kl": divergence,
                "clip_fraction": clipped,
            }

        grads, metrics = jax.grad(loss_of, has_aux=True)(actor.params)
        learner, grad_norm = improve(
            learner, grads, learning_rate=rate, max_grad_norm=self.max_grad_norm
        )
        return learner, {**metrics, "grad_norm": grad_norm}

    def _network(self, head: Head) -> Any:
        return ActorCritic(torso=self.make_torso(), num_outputs=head.num_outputs)


def _flat(x: jax.Array) -> jax.Array:
    """[L, S, ...] as [L * S, ...]."""
    return x.reshape(math.prod(x.shape[:2]), *x.shape[2:])
