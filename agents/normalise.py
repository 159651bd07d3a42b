"""Running moments, for scaling rewards."""

import flax.struct
import jax
import jax.numpy as jnp


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
    variance = moments.m2 / jnp.maximum(moments.count, 1.0)
    varies = variance > 0
    return jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1.0)), 1.0)
