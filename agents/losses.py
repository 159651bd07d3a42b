"""Losses: pure functions of arrays [B]."""

import jax
import jax.numpy as jnp

from jaxtrade.agents.normalise import is_spread, safe_deviation


def clipped_surrogate(
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantage: jax.Array,
    *,
    clip_ratio: jax.Array | float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """PPO's policy loss f32[], an estimate of the KL divergence, and the share clipped.

    Schulman et al. 2017, equation 7; the divergence is Schulman's low-variance (r - 1) - log r.
    The ratio ends at exp(20): were it to overflow, the gradient would be NaN.
    """
    log_ratio = jnp.minimum(log_prob - old_log_prob, 20.0)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_ratio, 1.0 + clip_ratio)
    loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    divergence = ((ratio - 1.0) - log_ratio).mean()
    return loss, divergence, (ratio != clipped).astype(jnp.float32).mean()


def squared_error(value: jax.Array, target: jax.Array) -> jax.Array:
    """Half the mean squared error, f32[]."""
    return 0.5 * jnp.square(value - target).mean()


def less_good(
    value: jax.Array, old_value: jax.Array, target: jax.Array, *, clip_ratio: jax.Array | float
) -> jax.Array:
    """The value, or where that is farther from the target, the old one moved towards the value by
    no more than `clip_ratio`, f32[B]: a squared error from there is PPO's clipped value loss.
    """
    clipped = old_value + jnp.clip(value - old_value, -clip_ratio, clip_ratio)
    return jnp.where(jnp.abs(clipped - target) > jnp.abs(value - target), clipped, value)


def standardise(advantage: jax.Array) -> jax.Array:
    """Advantages with mean 0 and deviation 1 within the batch, 0 where all are equal, f32[B]."""
    mean = advantage.mean()
    return (advantage - mean) / safe_deviation(advantage.var(), mean)


def explained_variance(value: jax.Array, target: jax.Array) -> jax.Array:
    """1 minus the share of the targets' variance that the values leave unexplained, f32[].

    0 where all targets are equal.
    """
    variance, mean = target.var(), target.mean()
    unexplained = (target - value).var() / safe_deviation(variance, mean) ** 2
    return jnp.where(is_spread(variance, mean), 1.0 - unexplained, 0.0)


def huber(error: jax.Array) -> jax.Array:
    """Half the square of errors up to 1, beyond that linear with slope 1; of any shape."""
    size = jnp.abs(error)
    near = jnp.minimum(size, 1.0)
    return near * (size - 0.5 * near)


def quantile_huber(quantiles: jax.Array, target: jax.Array) -> jax.Array:
    """Quantile regression towards samples of a return, f32[B].

    quantiles: f32[B, K], those at (i + 1/2) / K; target: f32[B, M], samples or other quantiles.
    The sum over quantiles of the mean over targets (Dabney et al. 2018, equation 10, kappa 1).
    """
    count = quantiles.shape[1]
    level = (jnp.arange(count, dtype=jnp.float32) + 0.5) / count
    error = target[:, None, :] - quantiles[:, :, None]
    below = (error < 0.0).astype(jnp.float32)
    weight = jnp.abs(level[None, :, None] - below)
    return (weight * huber(error)).mean(axis=2).sum(axis=1)


def soft_value(values: jax.Array, log_prob: jax.Array, temperature: jax.Array) -> jax.Array:
    """The least of several critics' values f32[K, ...], with the entropy's part, f32[...].

    Haarnoja et al. 2018b, equation 3, with clipped double Q (Fujimoto et al. 2018).
    """
    return values.min(axis=0) - temperature * log_prob


def temperature_loss(
    log_temperature: jax.Array, entropy: jax.Array, target_entropy: jax.Array | float
) -> jax.Array:
    """Its gradient raises the temperature while the policy's entropy is below the target, f32[].

    Haarnoja et al. 2018b, equation 18, in the logarithm, as their code has it.
    """
    return log_temperature * jax.lax.stop_gradient(entropy - target_entropy).mean()
