"""The one training loop: a host loop over jitted chunks of iterations.

An iteration is a rollout and an update. Nothing leaves the device within a chunk; between chunks
the host evaluates, logs, checkpoints or stops. How iterations are cut into chunks changes nothing
in the result, so a run that stopped and went on ends where an uninterrupted one does. One run, the
members of a population, one device and many: all go through `chunks`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from optax import tree

from jaxtrade.agents.devices import place, spread
from jaxtrade.agents.rollout import collect
from jaxtrade.agents.types import Agent, Metrics, TrainState
from jaxtrade.specs import JaxtradeError

EPISODE_SUMS = ("episode_return", "episode_length")


def init(
    agent: Agent, env: Any, env_params: Any, key: jax.Array, *, total_steps: int
) -> TrainState:
    """The state before training for at least `total_steps` environment steps."""
    num_iterations = jnp.int32(count_iterations(agent, total_steps))
    agent, env_params, key, num_iterations = place((agent, env_params, key, num_iterations))
    return init_state(agent, env, env_params, key, num_iterations)


def count_iterations(agent: Agent, total_steps: int) -> int:
    """Iterations that take at least `total_steps` environment steps."""
    return math.ceil(total_steps / (agent.num_envs * agent.rollout_steps))


@functools.partial(jax.jit, static_argnames="env")
def init_state(
    agent: Agent, env: Any, env_params: Any, key: jax.Array, num_iterations: jax.Array
) -> TrainState:
    """The state before `num_iterations` i32[] iterations."""
    agent_key, reset_key, key = jax.random.split(key, 3)
    state = TrainState(
        learner=agent.init(agent_key, env, env_params),
        **_episodes(agent, env, env_params, reset_key),
        key=key,
        iteration=jnp.int32(0),
        num_iterations=num_iterations,
    )
    return spread(state)


def _episodes(agent: Agent, env: Any, env_params: Any, key: jax.Array) -> dict[str, Any]:
    """The fields of a `TrainState` at the start of an episode in every environment."""
    keys = jax.random.split(key, agent.num_envs)
    obs, env_state = _strong(jax.vmap(env.reset, in_axes=(0, None))(keys, env_params))
    return {
        "env_state": env_state,
        "obs": obs,
        "hidden": jnp.zeros((agent.num_envs, agent.hidden_size), jnp.float32),
        "episode_return": jnp.zeros(agent.num_envs, jnp.float32),
        "episode_length": jnp.zeros(agent.num_envs, jnp.int32),
    }


def _strong(tree: Any) -> Any:
    """Without weak types, which a step would end: the next chunk would compile again.

    The state of gymnax's Pendulum has one.
    """
    return jax.tree.map(lambda x: x.astype(x.dtype) if jax.typeof(x).weak_type else x, tree)


@functools.partial(jax.jit, static_argnames="env", donate_argnames="state")
def begin_anew(agent: Agent, env: Any, env_params: Any, state: TrainState) -> TrainState:
    """The state with new episodes in every environment."""
    reset_key, key = jax.random.split(state.key)
    begun = _episodes(agent, env, env_params, reset_key)
    return spread(dataclasses.replace(state, **begun, key=key))


@functools.partial(jax.jit, static_argnames="env", donate_argnames="state")
def train_chunk(
    agent: Agent, env: Any, env_params: Any, state: TrainState, count: jax.Array
) -> tuple[TrainState, Metrics]:
    """`count` i32[] iterations, and the sums of their metrics: the agent's, the ended episodes',
    the mean `reward` of a step; and `count` times `param_norm`, the global norm of the actor's
    parameters after them.
    """

    @jax.jit  # so that its shapes and the loop's body come from one tracing
    def iteration(state: TrainState) -> tuple[TrainState, Metrics]:
        rollout_key, learn_key, key = jax.random.split(state.key, 3)
        state, batch, ended = collect(agent, env, env_params, state, rollout_key)
        learner, metrics = agent.learn(state.learner, batch, learn_key, env, env_params)
        state = dataclasses.replace(state, learner=learner, key=key, iteration=state.iteration + 1)
        return spread((state, {**metrics, **ended, "reward": batch.reward.mean()}))

    def add(_: Any, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, sums = carry
        state, metrics = iteration(state)
        return state, jax.tree.map(jnp.add, sums, metrics)

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(iteration, state)[1]
    )
    state, sums = jax.lax.fori_loop(0, count, add, (state, zeros))
    params = state.learner.actor.params
    return state, {**sums, "param_norm": count.astype(jnp.float32) * tree.norm(params)}


class Program(NamedTuple):
    """What the loop runs on the device: for one run, or for all members of a population."""

    train_chunk: Callable[..., tuple[Any, Metrics]]
    begin_anew: Callable[..., Any]


ONE_RUN = Program(train_chunk, begin_anew)


def chunks(
    agent: Agent,
    env: Any,
    env_params: Any,
    state: TrainState,
    *,
    chunk_iterations: int,
    refresh: Callable[[int], Any] | None = None,
    program: Program = ONE_RUN,
) -> Iterator[tuple[TrainState, dict[str, Any]]]:
    """Train to the planned end; after each chunk, the state and the chunk's mean metrics.

    A state is only good until the next one is asked for: its buffers are then used again.
    `episode_return` and `episode_length` are means over the episodes that ended, NaN if none did.
    `refresh(iteration)` gives other environment parameters of the same shapes before each chunk
    but the first; all episodes then begin anew, so that here the cuts into chunks do matter.
    Metrics are floats; those of a population's program, lists of them.

    Raises:
        JaxtradeError: a chunk of no iterations.
    """
    if chunk_iterations < 1:
        raise JaxtradeError(f"chunk_iterations is {chunk_iterations}: give 1 or more")
    done, planned = (
        int(np.max(jax.device_get(each))) for each in (state.iteration, state.num_iterations)
    )
    agent, env_params = place((agent, env_params))
    while done < planned:
        count = min(chunk_iterations, planned - done)
        if refresh is not None and done:
            env_params = place(refresh(done))
            state = program.begin_anew(agent, env, env_params, state)
        state, sums = program.train_chunk(agent, env, env_params, state, place(jnp.int32(count)))
        done += count
        yield state, _means(jax.device_get(sums), count)


def _means(sums: Metrics, count: int) -> dict[str, Any]:
    """Metrics of an iteration and of an episode from their sums over `count` iterations."""
    totals = {name: np.asarray(each, np.float64) for name, each in sums.items()}
    episodes = totals["episodes"]
    means = {name: total / count for name, total in totals.items()}
    for name in EPISODE_SUMS:
        means[name] = np.where(episodes > 0, totals[name] / np.maximum(episodes, 1), math.nan)
    return {name: mean.tolist() for name, mean in {**means, "episodes": episodes}.items()}


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
