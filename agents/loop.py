"""The one training loop: a host loop over jitted chunks of iterations.

An iteration is a rollout and an update. Nothing leaves the device within a chunk; between chunks
the host evaluates, logs, checkpoints or stops. How iterations are cut into chunks changes nothing
in the result, so a run that stopped and went on ends where an uninterrupted one does.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from optax import tree

from jaxtrade.agents.rollout import collect
from jaxtrade.agents.types import Agent, Metrics, TrainState
from jaxtrade.specs import JaxtradeError

EPISODE_SUMS = ("episode_return", "episode_length")


def init(
    agent: Agent, env: Any, env_params: Any, key: jax.Array, *, total_steps: int
) -> TrainState:
    """The state before training for at least `total_steps` environment steps."""
    return _init(agent, env, env_params, key, jnp.int32(count_iterations(agent, total_steps)))


def count_iterations(agent: Agent, total_steps: int) -> int:
    """Iterations that take at least `total_steps` environment steps."""
    return math.ceil(total_steps / (agent.num_envs * agent.rollout_steps))


@functools.partial(jax.jit, static_argnames="env")
def _init(
    agent: Agent, env: Any, env_params: Any, key: jax.Array, num_iterations: jax.Array
) -> TrainState:
    agent_key, reset_key, key = jax.random.split(key, 3)
    keys = jax.random.split(reset_key, agent.num_envs)
    obs, env_state = jax.vmap(env.reset, in_axes=(0, None))(keys, env_params)
    return TrainState(
        learner=agent.init(agent_key, env, env_params),
        env_state=env_state,
        obs=obs,
        hidden=jnp.zeros((agent.num_envs, agent.hidden_size), jnp.float32),
        episode_return=jnp.zeros(agent.num_envs, jnp.float32),
        episode_length=jnp.zeros(agent.num_envs, jnp.int32),
        key=key,
        iteration=jnp.int32(0),
        num_iterations=num_iterations,
    )


def chunks(
    agent: Agent,
    env: Any,
    env_params: Any,
    state: TrainState,
    *,
    chunk_iterations: int,
    refresh: Callable[[int], Any] | None = None,
) -> Iterator[tuple[TrainState, dict[str, float]]]:
    """Train to the planned end; after each chunk, the state and the chunk's mean metrics.

    A state is only good until the next one is asked for: its buffers are then used again.
    `episode_return` and `episode_length` are means over the episodes that ended, NaN if none did.
    `refresh(iteration)` gives other environment parameters of the same shapes before each chunk
    but the first; all episodes then begin anew, so that here the cuts into chunks do matter.

    Raises:
        JaxtradeError: a chunk of no iterations.
    """
    if chunk_iterations < 1:
        raise JaxtradeError(f"chunk_iterations is {chunk_iterations}: give 1 or more")
    done, planned = int(state.iteration), int(state.num_iterations)
    while done < planned:
        count = min(chunk_iterations, planned - done)
        if refresh is not None and done:
            env_params = refresh(done)
            state = _begin_anew(agent, env, env_params, state)
        state, sums = train_chunk(agent, env, env_params, state, jnp.int32(count))
        done += count
        totals = {name: float(value) for name, value in jax.device_get(sums).items()}
        episodes = totals["episodes"]
        means = {name: total / count for name, total in totals.items()}
        ended = {name: totals[name] / episodes if episodes else math.nan for name in EPISODE_SUMS}
        yield state, {**means, **ended, "episodes": episodes}


@functools.partial(jax.jit, static_argnames="env", donate_argnames="state")
def _begin_anew(agent: Agent, env: Any, env_params: Any, state: TrainState) -> TrainState:
    """The state with new episodes in every environment."""
    reset_key, key = jax.random.split(state.key)
    keys = jax.random.split(reset_key, agent.num_envs)
    obs, env_state = jax.vmap(env.reset, in_axes=(0, None))(keys, env_params)
    return dataclasses.replace(
        state,
        env_state=env_state,
        obs=obs,
        hidden=jnp.zeros_like(state.hidden),
        episode_return=jnp.zeros_like(state.episode_return),
        episode_length=jnp.zeros_like(state.episode_length),
        key=key,
    )


@functools.partial(jax.jit, static_argnames="env", donate_argnames="state")
def train_chunk(
    agent: Agent, env: Any, env_params: Any, state: TrainState, count: jax.Array
) -> tuple[TrainState, Metrics]:
    """`count` i32[] iterations, and the sums of their metrics: the agent's, the ended episodes',
    the mean `reward` of a step, and `param_norm`, the global norm of the actor's parameters.
    """

    @jax.jit  # so that its shapes and the loop's body come from one tracing
    def iteration(state: TrainState) -> tuple[TrainState, Metrics]:
        rollout_key, learn_key, key = jax.random.split(state.key, 3)
        state, batch, ended = collect(agent, env, env_params, state, rollout_key)
        learner, metrics = agent.learn(state.learner, batch, learn_key, env, env_params)
        state = state.replace(  # type: ignore[attr-defined]
            learner=learner, key=key, iteration=state.iteration + 1
        )
        health = {"reward": batch.reward.mean(), "param_norm": tree.norm(learner.actor.params)}
        return state, {**metrics, **ended, **health}

    def add(_: Any, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, sums = carry
        state, metrics = iteration(state)
        return state, jax.tree.map(jnp.add, sums, metrics)

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(iteration, state)[1]
    )
    return jax.lax.fori_loop(0, count, add, (state, zeros))


def train(
    agent: Agent,
    env: Any,
    env_params: Any,
    key: jax.Array,
    *,
    total_steps: int,
    chunk_iterations: int = 16,
    refresh: Callable[[int], Any] | None = None,
) -> tuple[TrainState, list[dict[str, float]]]:
    """Train from the start to the end; the last state and each chunk's metrics.

    `refresh`: see `chunks`.
    """
    state = init(agent, env, env_params, key, total_steps=total_steps)
    history = []
    for latest, metrics in chunks(
        agent, env, env_params, state, chunk_iterations=chunk_iterations, refresh=refresh
    ):
        state = latest
        history.append(metrics)
    return state, history
