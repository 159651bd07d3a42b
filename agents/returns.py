"""Returns and advantages of rollouts; all arrays [T, N], time first."""

import jax
import jax.numpy as jnp

Pair = tuple[jax.Array, jax.Array]


def gae(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    *,
    gamma: jax.Array | float,
    gae_lambda: jax.Array | float,
) -> Pair:
    """Generalised advantage estimates and the returns they imply, both f32[T, N].

    reward, value: f32[T, N], at step t; next_value: f32[T, N], of what step t led to, before any
    reset: at a truncation that is the final observation's, and it is bootstrapped from; at a
    termination it does not count. No advantage flows across the end of an episode.

    Schulman et al. 2016, equation 16; truncation as in Pardo et al. 2018.
    """
    alive = 1.0 - terminated.astype(jnp.float32)
    going_on = alive * (1.0 - truncated.astype(jnp.float32))
    delta = reward + gamma * alive * next_value - value

    def back(following: jax.Array, step: Pair) -> Pair:
        error, carries_on = step
        advantage = error + gamma * gae_lambda * carries_on * following
        return advantage, advantage

    _, advantage = jax.lax.scan(back, jnp.zeros_like(value[0]), (delta, going_on), reverse=True)
    return advantage, advantage + value


def discounted(
    carry: jax.Array, reward: jax.Array, done: jax.Array, *, gamma: jax.Array | float
) -> Pair:
    """Running discounted sums of past rewards, restarted after `done`.

    carry: f32[N], the sum before the first step. Returns the sum after the last, and f32[T, N].
    """

    def forward(total: jax.Array, step: Pair) -> Pair:
        earned, ended = step
        total = gamma * total + earned
        return jnp.where(ended, 0.0, total), total

    return jax.lax.scan(forward, carry, (reward, done))
