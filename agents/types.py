"""What agents, environments and the loop agree on."""

from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax

Metrics = dict[str, jax.Array]


class Env(Protocol):
    """What an agent needs of an environment: gymnax 1.x."""

    @property
    def num_actions(self) -> int:
        """Number of discrete actions."""

    def reset(self, key: jax.Array, params: Any) -> tuple[Any, Any]:
        """(obs, state)."""

    def step(self, key: jax.Array, state: Any, action: jax.Array, params: Any) -> Any:
        """(obs, state, reward, terminated, truncated, info), with automatic reset."""


@runtime_checkable
class ObservesState(Env, Protocol):
    """An environment whose observation is a pure function of its state.

    Learners then keep the state where it is the smaller of the two, and observe in the loss; its
    `info` holds `final_state`.
    """

    def observation(self, state: Any, params: Any) -> Any:
        """What an agent sees in this state."""


@flax.struct.dataclass(kw_only=True)
class TrainState:
    """All that training carries from one iteration to the next; saved and restored whole.

    learner: what the algorithm keeps (parameters, optimiser, moments); env_state, obs: of N
    environments; episode_return, episode_length: f32[N], i32[N], of the running episodes;
    key: the next iteration's; iteration, num_iterations: i32[], done and planned.
    """

    learner: Any
    env_state: Any
    obs: Any
    episode_return: jax.Array
    episode_length: jax.Array
    key: jax.Array
    iteration: jax.Array
    num_iterations: jax.Array


@flax.struct.dataclass(kw_only=True)
class Batch:
    """A rollout of T steps of N environments.

    seen, final: observations or states (see `rollout.keeps_state`), before each step and after it
    without the reset, leaves [T, N, ...]; last: the same after the last step, leaves [N, ...];
    action: i32[T, N]; extras: what the agent's `act` added; reward: f32[T, N]; terminated,
    truncated: bool[T, N]; progress: f32[], fraction of the planned training done.
    """

    seen: Any
    final: Any
    last: Any
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

    def init(self, key: jax.Array, env: Any, env_params: Any) -> Any:
        """The learner before training."""

    def assess(self, learner: Any, obs: Any) -> tuple[jax.Array, jax.Array]:
        """Logits f32[B, num_actions] and values f32[B] of observations [B, ...].

        The most probable action is what is evaluated, exported and traded.
        """

    def act(self, learner: Any, obs: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        """Exploring actions i32[N] for observations [N, ...], and what `learn` wants to know."""

    def learn(
        self, learner: Any, batch: Batch, key: jax.Array, env: Any, env_params: Any
    ) -> tuple[Any, Metrics]:
        """The learner after one batch, and f32[] metrics."""
