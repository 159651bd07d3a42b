"""What an actor earns when it explores nothing, on environments of its own."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrade.agents.masks import show
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
    """Means f32[] over the first episode of each of `num_envs` environments.

    `episode_return` and `episode_length` of those that end within `num_steps`, NaN if none did, and
    how many `episodes` did. The action is the mode of the actor's head, its memory starts with
    zeros; the same key gives the same numbers. Leave room for whole episodes: of unequal ones, only
    the short fit into few steps. May be mapped over actors, agents and keys.
    """
    reset_key, key = jax.random.split(key)
    reset_keys = jax.random.split(reset_key, num_envs)
    obs, env_state = jax.vmap(env.reset, in_axes=(0, None))(reset_keys, env_params)
    step_envs = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def step(carry: Any, step_key: jax.Array) -> tuple[Any, None]:
        obs, env_state, hidden, found = carry
        shown = show(agent, env, env_params, obs, env_state)
        outputs, _, hidden = agent.assess(actor, shown, hidden)
        action = actor.head.mode(outputs)
        keys = jax.random.split(step_key, num_envs)
        obs, env_state, reward, terminated, truncated, _ = step_envs(
            keys, env_state, action, env_params
        )
        alive, total, length = found
        found = (
            alive & ~(terminated | truncated),
            total + jnp.where(alive, reward, 0.0),
            length + alive,
        )
        return (obs, env_state, hidden, found), None

    hidden = jnp.zeros((num_envs, agent.hidden_size), jnp.float32)
    nothing = jnp.zeros(num_envs, jnp.float32)
    start = (obs, env_state, hidden, (jnp.ones(num_envs, bool), nothing, nothing))
    (*_, found), _ = jax.lax.scan(step, start, jax.random.split(key, num_steps))
    alive, total, length = found
    episodes = (~alive).sum().astype(jnp.float32)
    return {
        "episode_return": jnp.where(alive, 0.0, total).sum() / episodes,
        "episode_length": jnp.where(alive, 0.0, length).sum() / episodes,
        "episodes": episodes,
    }
