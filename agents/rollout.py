"""Collecting experience: T steps of N environments, and what a batch keeps of them."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrade.agents.masks import show
from jaxtrade.agents.types import Agent, Batch, Metrics, ObservesState, TrainState


def keeps_state(env: Any, env_params: Any) -> bool:
    """Whether a batch keeps states instead of observations: where it can, if they are smaller."""
    if not isinstance(env, ObservesState):
        return False
    obs, state = jax.eval_shape(lambda: env.reset(jax.random.key(0), env_params))
    return _num_bytes(state) < _num_bytes(obs)


def see(env: Any, env_params: Any, kept: Any) -> Any:
    """The observations [B, ...] of what a batch kept [B, ...]."""
    if not keeps_state(env, env_params):
        return kept
    return jax.vmap(env.observation, in_axes=(0, None))(kept, env_params)


def one_observation(env: Any, env_params: Any) -> Any:
    """Zeros [1, ...] in the shape of one observation, for making parameters."""
    obs, _ = jax.eval_shape(lambda: env.reset(jax.random.key(0), env_params))
    return jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), obs)


def collect(
    agent: Agent, env: Any, env_params: Any, state: TrainState, key: jax.Array
) -> tuple[TrainState, Batch, Metrics]:
    """One rollout, and the sums `episodes`, `episode_return`, `episode_length` of what ended."""
    lazy = keeps_state(env, env_params)
    step_envs = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def step(state: TrainState, keys: jax.Array) -> tuple[TrainState, tuple[Any, Metrics]]:
        act_key, step_key = keys
        obs = show(agent, env, env_params, state.obs, state.env_state)
        action, hidden, extras = agent.act(
            state.learner, obs, state.hidden, act_key, state.progress
        )
        obs, env_state, reward, terminated, truncated, info = step_envs(
            jax.random.split(step_key, agent.num_envs), state.env_state, action, env_params
        )
        kept = {
            "seen": state.env_state if lazy else state.obs,
            "final": info["final_state"] if lazy else info["final_observation"],
            "action": action,
            "extras": extras,
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
        }
        done = terminated | truncated
        hidden = jnp.where(done[:, None], 0.0, hidden)
        following = dataclasses.replace(state, obs=obs, env_state=env_state, hidden=hidden)
        following, ended = _count_episodes(following, reward, done)
        return following, (kept, ended)

    keys = jax.random.split(key, (agent.rollout_steps, 2))
    start = (state.obs, state.env_state)
    hidden, progress = state.hidden, state.progress
    state, (kept, ended) = jax.lax.scan(step, state, keys)
    batch = Batch(
        **kept,
        last=state.env_state if lazy else state.obs,
        start=start,
        hidden=hidden,
        progress=progress,
    )
    return state, batch, jax.tree.map(lambda x: x.sum(), ended)


def _count_episodes(
    state: TrainState, reward: jax.Array, done: jax.Array
) -> tuple[TrainState, Metrics]:
    """Add a step to the running episodes; sums over those that it ended."""
    total = state.episode_return + reward
    length = state.episode_length + 1
    ended = {
        "episodes": done.sum().astype(jnp.float32),
        "episode_return": jnp.where(done, total, 0.0).sum(),
        "episode_length": jnp.where(done, length, 0).sum().astype(jnp.float32),
    }
    state = dataclasses.replace(
        state,
        episode_return=jnp.where(done, 0.0, total),
        episode_length=jnp.where(done, 0, length),
    )
    return state, ended


def next_values(
    value_of: Any, batch: Batch, value: jax.Array, last_value: jax.Array, *, block: int = 256
) -> jax.Array:
    """The value of what each step led to, before any reset, f32[T, N].

    It is the next step's `value` f32[T, N], or `last_value` f32[N]; only at truncations, which
    are few, `value_of` (kept [block, ...] -> f32[block]) is asked about the final observation.
    """
    following = jnp.concatenate([value[1:], last_value[None]]).reshape(-1)
    truncated = batch.truncated.reshape(-1)
    size = following.shape[0]
    padded = math.ceil(size / block) * block
    (rows,) = jnp.nonzero(truncated, size=padded, fill_value=size)
    final = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), batch.final)

    def fill(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        start, values = carry
        some = jax.lax.dynamic_slice(rows, (start,), (block,))
        kept = jax.tree.map(lambda x: x[jnp.minimum(some, size - 1)], final)
        return start + block, values.at[some].set(value_of(kept), mode="drop")

    count = truncated.sum()
    _, filled = jax.lax.while_loop(lambda carry: carry[0] < count, fill, (jnp.int32(0), following))
    return filled.reshape(value.shape)


def _num_bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
