"""The spaces that gymnax lacks."""

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces


class MultiDiscrete(spaces.Space):
    """Several indices, i32[len(counts)], each from 0 to its count less one."""

    def __init__(self, counts: tuple[int, ...]):
        self.counts = tuple(counts)
        self.shape = (len(self.counts),)
        self.dtype = jnp.int32

    def __repr__(self) -> str:
        return f"MultiDiscrete{self.counts}"

    def sample(self, key: jax.Array) -> jax.Array:
        """Uniform, each apart."""
        return jax.random.randint(key, self.shape, 0, np.asarray(self.counts, np.int32), jnp.int32)

    def contains(self, x: jax.Array) -> jax.Array:
        """Whether all indices are in range, bool[]."""
        return ((x >= 0) & (x < np.asarray(self.counts, np.int32))).all()


class Simplex(spaces.Box):
    """Shares f32[size], at least 0, that sum to 1; other boxes of shares are taken over their sum.

    As a gymnax space it is the box from 0 to 1, so that whoever does not know it may use it as one.
    """

    def __init__(self, size: int):
        super().__init__(0.0, 1.0, (size,), jnp.float32)

    def __repr__(self) -> str:
        return f"Simplex({self.shape[0]})"

    def sample(self, key: jax.Array) -> jax.Array:
        """Uniform on the simplex."""
        return jax.random.dirichlet(key, jnp.ones(self.shape, jnp.float32))
