"""What agents, environments and the loop agree on."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.agents.distributions import Head

Metrics = dict[str, jax.Array]


def per_env(axis: int = 0) -> Any:
    """A field whose arrays have one row for each environment along `axis`.

    Several devices share these out; of all else in a training state each has a copy.
    """
    return flax.struct.field(metadata={"env_axis": axis})


class Env(Protocol):
    """What an agent needs of an environment: gymnax 1.x."""

    def reset(self, key: jax.Array, params: Any) -> tuple[Any, Any]:
        """(obs, state)."""

    def step(self, key: jax.Array, state: Any, action: jax.Array, params: Any) -> Any:
        """(obs, state, reward, terminated, truncated, info), with automatic reset."""

    def action_space(self, params: Any) -> Any:
        """What actions are; see `distributions.head_for`."""


@runtime_checkable
class ObservesState(Env, Protocol):
    """An environment whose observation is a pure function of its state.

    Learners then keep the state where it is the smaller of the two, and observe in the loss; its
    `info` holds `final_state`.
    """

    def observation(self, state: Any, params: Any) -> Any:
        """What an agent sees in this state."""


@flax.struct.dataclass(kw_only=True)
class Actor:
    """What decides, and all that is kept of a policy: its parameters, and how they are read."""

    params: Any
    head: Head = flax.struct.field(pytree_node=False)


class Assessment(NamedTuple):
    """Of observations [B, ...]: outputs f32[B, num_outputs], which the actor's head reads; value
    f32[B], of the state; hidden f32[B, H], the memory after it.
    """

    outputs: jax.Array
    value: jax.Array
    hidden: jax.Array


class Learner(Protocol):
    """What an algorithm keeps: a pytree of parameters, optimisers, moments, a replay."""

    @property
    def actor(self) -> Actor:
        """What decides."""


@flax.struct.dataclass(kw_only=True)
class TrainState:
    """All that training carries from one iteration to the next; saved and restored whole.

    learner: what the algorithm keeps; env_state, obs: of N environments; hidden: f32[N, H], what
    the policy remembers of each episode, H is 0 without a memory; episode_return, episode_length:
    f32[N], i32[N], of the running episodes; key: the next iteration's; iteration, num_iterations:
    i32[], done and planned.
    """

    learner: Any
    env_state: Any = per_env()
    obs: Any = per_env()
    hidden: jax.Array = per_env()
    episode_return: jax.Array = per_env()
    episode_length: jax.Array = per_env()
    key: jax.Array
    iteration: jax.Array
    num_iterations: jax.Array

    @property
    def progress(self) -> jax.Array:
        """Fraction of the planned training done, f32[]."""
        return self.iteration / jnp.maximum(self.num_iterations, 1)


@flax.struct.dataclass(kw_only=True)
class Batch:
    """A rollout of T steps of N environments.

    seen, final: observations or states (see `rollout.keeps_state`), before each step and after it
    without the reset, leaves [T, N, ...]; last: the same after the last step, leaves [N, ...];
    start: observations and states before the first, leaves [N, ...]; hidden: f32[N, H], the
    policy's memory there; action: [T, N, ...]; extras: what the agent's `act` added; reward:
    f32[T, N]; terminated, truncated: bool[T, N]; progress: f32[], fraction of the planned training
    done.
    """

    seen: Any
    final: Any
    last: Any
    start: Any = None
    hidden: jax.Array
    action: jax.Array
    extras: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    progress: jax.Array


class Agent(Protocol):
    """An algorithm as a value: a pytree whose leaves are its traced hyperparameters."""

    @property
    def num_envs(self) -> int:
        """N, environments stepped side by side."""

    @property
    def rollout_steps(self) -> int:
        """T, steps of each environment between updates."""

    @property
    def hidden_size(self) -> int:
        """H, numbers that the policy remembers; an episode starts with zeros."""

    def init(self, key: jax.Array, env: Any, env_params: Any) -> Any:
        """The learner before training."""

    def assess(self, actor: Actor, obs: Any, hidden: jax.Array) -> Assessment:
        """What the policy makes of observations [B, ...] with memories f32[B, H].

        `actor.head.mode(outputs)` is what is evaluated, exported and traded.
        """

    def act(
        self, learner: Any, obs: Any, hidden: jax.Array, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any]:
        """For N environments: exploring actions, next memories, and what `learn` wants to know."""

    def learn(
        self, learner: Any, batch: Batch, key: jax.Array, env: Any, env_params: Any
    ) -> tuple[Any, Metrics]:
        """The learner after one batch, and f32[] metrics."""
