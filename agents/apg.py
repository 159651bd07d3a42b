"""Analytic policy gradient: the reward of the next steps, differentiated through the environment.

Freeman et al. 2021, "Brax", section 4 (APG); Xu et al. 2022, "Accelerated policy learning with
parallel differentiable simulation" (SHAC): windows short enough that gradients do not explode.
SHAC's critic, the value of where a window ends, is left out: on a market with regimes of 50 bars,
windows of 16 and of 32 bars without one earn what PPO does.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.agents.distributions import head_of
from jaxtrade.agents.networks import Policy
from jaxtrade.agents.normalise import update_reward_scale
from jaxtrade.agents.optimise import Learner, improve, on_policy_learner
from jaxtrade.agents.rollout import one_observation
from jaxtrade.agents.settings import Settings, static
from jaxtrade.agents.types import Actor, Assessment, Batch, Metrics
from jaxtrade.specs import JaxtradeError


@flax.struct.dataclass(kw_only=True)
class APG(Settings):
    """Hyperparameters; see `Settings` for those of every agent.

    A rollout is the window: from where it started, the policy plays `rollout_steps` steps again,
    its actions reparameterised, and ascends the slope of the discounted sum of rewards, divided by
    the running deviation of that sum. Each of `num_updates` steps draws noise of its own.
    """

    learning_rate: Any = 1e-2
    entropy_coefficient: Any = 1e-3
    num_updates: int = static(1)

    def validate(self) -> None:
        """See `Settings.validate`."""
        super().validate()
        self.require_counts("num_updates")
        self.require_positive("entropy_coefficient")

    def init(self, key: jax.Array, env: Any, env_params: Any) -> Learner:
        """Fresh parameters for what this environment shows.

        Raises:
            JaxtradeError: the environment's steps have no gradients.
        """
        if not env.supports_transition_gradients:
            raise JaxtradeError(
                f"apg needs an environment with gradients, {env.name} has none here: give a market "
                "with exposures or weights for actions"
            )
        head = head_of(env, env_params)
        obs = one_observation(env, env_params)
        network = self._network(head.num_outputs)
        params = network.init(key, obs, jnp.zeros((1, self.hidden_size)))
        return on_policy_learner(self, params, head)

    def assess(self, actor: Actor, obs: Any, hidden: jax.Array) -> Assessment:
        """See `Agent`; the value is not known, 0."""
        found: Any = self._network(actor.head.num_outputs).apply(actor.params, obs, hidden)
        outputs, hidden = found
        return Assessment(outputs, jnp.zeros(outputs.shape[0], jnp.float32), hidden)

    def act(
        self,
        learner: Learner,
        obs: Any,
        hidden: jax.Array,
        key: jax.Array,
        progress: jax.Array,
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Actions drawn from the policy, [N]."""
        outputs, _, hidden = self.assess(learner.actor, obs, hidden)
        return learner.actor.head.sample(outputs, key)[0], hidden, ()

    def learn(
        self, learner: Learner, batch: Batch, key: jax.Array, env: Any, env_params: Any
    ) -> tuple[Learner, Metrics]:
        """Some gradient steps over one window."""
        scale = update_reward_scale(learner.reward_scale, batch, self.gamma)
        learner = dataclasses.replace(learner, reward_scale=scale)
        rate = self.rate(batch.progress)

        def update(learner: Learner, key: jax.Array) -> tuple[Learner, Metrics]:
            def loss_of(params: Any) -> tuple[jax.Array, Metrics]:
                actor = learner.actor.replace(params=params)  # type: ignore[attr-defined]
                begin = (*batch.start, batch.hidden)
                value, entropy = self.window_value(actor, begin, key, env, env_params)
                value = value / scale.deviation
                loss = -value - self.entropy_coefficient * entropy
                return loss, {"window_value": value, "entropy": entropy}

            grads, metrics = jax.grad(loss_of, has_aux=True)(learner.actor.params)
            learner, grad_norm = improve(
                learner, grads, learning_rate=rate, max_grad_norm=self.max_grad_norm
            )
            return learner, {**metrics, "grad_norm": grad_norm}

        learner, metrics = jax.lax.scan(update, learner, jax.random.split(key, self.num_updates))
        return learner, jax.tree.map(lambda x: x.mean(), metrics)

    def window_value(
        self, actor: Actor, begin: tuple[Any, ...], key: jax.Array, env: Any, env_params: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Discounted reward and entropy f32[] of a window, means over N; differentiable by actor.

        begin: observations, states and memories [N, ...] that it starts from. The discount begins
        anew with each episode.
        """
        env = env.with_transition_gradients()
        step_envs = jax.vmap(env.step, in_axes=(0, 0, 0, None))

        def step(carry: Any, key: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            obs, state, hidden, weight = carry
            draw_key, step_key = jax.random.split(key)
            outputs, _, hidden = self.assess(actor, obs, hidden)
            action, _ = actor.head.sample(outputs, draw_key)
            keys = jax.random.split(step_key, weight.shape[0])
            obs, state, reward, terminated, truncated, _ = step_envs(
                keys, state, action, env_params
            )
            done = terminated | truncated
            hidden = jnp.where(done[:, None], 0.0, hidden)
            following = jnp.where(done, 1.0, weight * self.gamma)
            return (obs, state, hidden, following), (weight * reward, actor.head.entropy(outputs))

        carry = (*begin, jnp.ones(begin[-1].shape[0], jnp.float32))
        _, (reward, entropy) = jax.lax.scan(step, carry, jax.random.split(key, self.rollout_steps))
        return reward.sum(axis=0).mean(), entropy.mean()

    def _network(self, num_outputs: int) -> Policy:
        return Policy(torso=self.make_torso(), num_outputs=num_outputs)
