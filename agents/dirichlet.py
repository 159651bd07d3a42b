"""The Dirichlet family, for weights that sum to 1; a head like those of `distributions`."""

import dataclasses
import math

import jax
import jax.numpy as jnp

NUM_TRIES = 6
"""Candidates of a gamma draw; all are rejected once in 1e8."""


@dataclasses.dataclass(frozen=True)
class Dirichlet:
    """Shares f32[..., size] that sum to 1; outputs become concentrations 1 + softplus(x) > 1."""

    size: int

    @property
    def num_outputs(self) -> int:
        """A concentration for each share."""
        return self.size

    @property
    def max_entropy(self) -> float:
        """See `Head`."""
        return -math.lgamma(self.size)

    def uniform(self, outputs: jax.Array, key: jax.Array) -> jax.Array:
        """See `Head`."""
        shares = jax.random.exponential(key, outputs.shape)
        return shares / shares.sum(axis=-1, keepdims=True)

    def sample(self, outputs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Head`; the gradient is that of `_log_gamma`."""
        action = jax.nn.softmax(_log_gamma(key, self._concentration(outputs)))
        return action, self.log_prob(outputs, action)

    def mode(self, outputs: jax.Array) -> jax.Array:
        """The shares of highest density, in proportion to softplus(x)."""
        # log softplus(x), which is x where softplus(x) would underflow
        logs = jnp.log(jax.nn.softplus(jnp.maximum(outputs, -15.0)))
        return jax.nn.softmax(jnp.where(outputs > -15.0, logs, outputs))

    def spread(self, outputs: jax.Array) -> jax.Array:
        """The deviation of each share: about half the width of its central 68 %, f32[..., size]."""
        concentration = self._concentration(outputs)
        total = concentration.sum(axis=-1, keepdims=True)
        mean = concentration / total
        return jnp.sqrt(mean * (1.0 - mean) / (total + 1.0))

    def log_prob(self, outputs: jax.Array, action: jax.Array) -> jax.Array:
        """See `Head`; shares are kept above 1e-6."""
        excess = jax.nn.softplus(outputs)
        logs = jnp.log(jnp.maximum(action, 1e-6))
        return (excess * logs).sum(axis=-1) - self._log_beta(1.0 + excess)

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """See `Head`."""
        excess = jax.nn.softplus(outputs)
        concentration = 1.0 + excess
        psi = jax.scipy.special.digamma
        mean_log = psi(concentration) - psi(concentration.sum(axis=-1, keepdims=True))
        return self._log_beta(concentration) - (excess * mean_log).sum(axis=-1)

    def _concentration(self, outputs: jax.Array) -> jax.Array:
        return 1.0 + jax.nn.softplus(outputs)

    def _log_beta(self, concentration: jax.Array) -> jax.Array:
        gammaln = jax.scipy.special.gammaln
        return gammaln(concentration).sum(axis=-1) - gammaln(concentration.sum(axis=-1))


def _log_gamma(key: jax.Array, concentration: jax.Array) -> jax.Array:
    """Logs of gamma draws f32[...] for concentrations f32[...] of at least 1.

    Marsaglia & Tsang 2000, for one more than the concentration, all candidates at once where
    `jax.random.gamma` loops over each number. The gradient follows the accepted normal and leaves
    out how acceptance changes, which is at most 1 % of it (Naesseth et al. 2017, section 4).
    """
    normal_key, accept_key, boost_key = jax.random.split(key, 3)
    shape = (NUM_TRIES, *concentration.shape)
    tries = jax.random.normal(normal_key, shape)
    height = jax.random.exponential(accept_key, shape)
    third = concentration + (1.0 - 1.0 / 3.0)
    step = jax.lax.rsqrt(9.0 * third)
    root = 1.0 + step[None] * tries
    log_cube = 3.0 * jnp.log(jnp.maximum(root, 1e-6))
    bound = 0.5 * jnp.square(tries) + third[None] * (1.0 - jnp.exp(log_cube) + log_cube)
    accepted = jax.lax.stop_gradient((root > 0.0) & (-height < bound))
    first = jnp.argmax(accepted, axis=0)[None]
    normal = jnp.take_along_axis(tries, first, axis=0)[0]
    cube = 3.0 * jnp.log(jnp.maximum(1.0 + step * normal, 1e-6))
    boost = jax.random.exponential(boost_key, concentration.shape) / concentration
    return jnp.log(third) + cube - boost
