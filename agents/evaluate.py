"""What an actor earns when it explores nothing, on environments of its own."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrade.agents.types import Actor, Agent, Env, Metrics


@functools.partial(jax.jit, static_argnames=("env", "num_envs", "num_steps"))
def evaluate(
    agent: Agent,
    actor: Actor,
    env: Env,
    env_params: Any,
    key: jax.Array,
    *,
    num_envs: int,
    num_steps: int,
) -> Metrics:
    """Means f32[] over the episodes that end within `num_steps` of `num_envs` environments.

    `episode_return` and `episode_length`, NaN if none ended, and how many `episodes` did. The
    action is the mode of the actor's head, its memory starts each episode with zeros; the same key
    gives the same numbers. Leave room for whole episodes: of unequal ones, only the short fit into
    few steps. May be mapped over actors, agents and keys.
    """
    reset_key, key = jax.random.split(key)
    reset_keys = jax.random.split(reset_key, num_envs)
    obs, env_state = jax.vmap(env.reset, in_axes=(0, None))(reset_keys, env_params)
    step_envs = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def step(carry: Any, step_key: jax.Array) -> tuple[Any, None]:
        obs, env_state, hidden, running, sums = carry
        outputs, _, hidden = agent.assess(actor, obs, hidden)
        action = actor.head.mode(outputs)
        keys = jax.random.split(step_key, num_envs)
        obs, env_state, reward, terminated, truncated, _ = step_envs(
            keys, env_state, action, env_params
        )
        done = terminated | truncated
        running = running + jnp.stack([reward, jnp.ones_like(reward)])
        ended = jnp.where(done[None], running, 0.0).sum(axis=1)
        sums = sums + jnp.append(ended, done.sum().astype(jnp.float32))
        hidden = jnp.where(done[:, None], 0.0, hidden)
        return (obs, env_state, hidden, jnp.where(done[None], 0.0, running), sums), None

    hidden = jnp.zeros((num_envs, agent.hidden_size), jnp.float32)
    running = jnp.zeros((2, num_envs), jnp.float32)  # return and length of the running episodes
    start = (obs, env_state, hidden, running, jnp.zeros(3, jnp.float32))
    (*_, sums), _ = jax.lax.scan(step, start, jax.random.split(key, num_steps))
    earned, length, episodes = sums
    return {
        "episode_return": earned / episodes,
        "episode_length": length / episodes,
        "episodes": episodes,
    }
