"""Running moments and safe deviations, for scaling rewards and advantages."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.agents.returns import discounted
from jaxtrade.agents.types import Batch, per_env


@flax.struct.dataclass(kw_only=True)
class Moments:
    """count: f32[]; mean and m2 (sum of squared deviations): f32[]."""

    count: jax.Array
    mean: jax.Array
    m2: jax.Array


def init_moments() -> Moments:
    """Nothing seen."""
    return Moments(count=jnp.float32(0), mean=jnp.float32(0), m2=jnp.float32(0))


def update_moments(moments: Moments, values: jax.Array) -> Moments:
    """With all of `values`, of any shape. Chan, Golub & LeVeque 1979, parallel update."""
    size = jnp.float32(values.size)
    mean = values.mean()
    total = moments.count + size
    delta = mean - moments.mean
    return Moments(
        count=total,
        mean=moments.mean + delta * size / total,
        m2=moments.m2 + values.var() * size + delta**2 * moments.count * size / total,
    )


def deviation(moments: Moments) -> jax.Array:
    """Population deviation f32[], 1 where nothing has varied."""
    return safe_deviation(moments.m2 / jnp.maximum(moments.count, 1.0), moments.mean)


def safe_deviation(variance: jax.Array, mean: jax.Array) -> jax.Array:
    """The square root of a variance, 1 where nothing has varied."""
    spread = is_spread(variance, mean)
    return jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1.0)), 1.0)


def is_spread(variance: jax.Array, mean: jax.Array) -> jax.Array:
    """Whether a variance is more than what rounding to float32 makes of equal numbers, bool[]."""
    return variance > (1e-5 * mean) ** 2


@flax.struct.dataclass(kw_only=True)
class RewardScale:
    """moments: of the discounted sums of past rewards; discounted: f32[N], those sums now."""

    moments: Moments
    discounted: jax.Array = per_env()

    @property
    def deviation(self) -> jax.Array:
        """What rewards are divided by, f32[]; values are in units of it."""
        return deviation(self.moments)


def init_reward_scale(num_envs: int) -> RewardScale:
    """Nothing seen."""
    return RewardScale(moments=init_moments(), discounted=jnp.zeros(num_envs, jnp.float32))


def update_reward_scale(scale: RewardScale, batch: Batch, gamma: Any) -> RewardScale:
    """With the rewards of a batch (Engstrom et al. 2020, section 3)."""
    done = batch.terminated | batch.truncated
    carry, sums = discounted(scale.discounted, batch.reward, done, gamma=gamma)
    return RewardScale(moments=update_moments(scale.moments, sums), discounted=carry)
