"""Families of distributions over actions, each a frozen value that reads the numbers of a network.

`outputs` are f32[..., num_outputs]; all functions keep the leading axes. `mode` is the one action
that is evaluated, exported and traded.
"""

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.specs import JaxtradeError

MIN_LOG_STD, MAX_LOG_STD = -5.0, 2.0
"""A deviation before the tanh is kept within exp of these."""


class Head(Protocol):
    """A family of distributions."""

    @property
    def num_outputs(self) -> int:
        """How many numbers it takes."""

    def sample(self, outputs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One action each and its log probability f32[...]; differentiable where continuous."""

    def mode(self, outputs: jax.Array) -> jax.Array:
        """The action taken when nothing is to be explored."""

    def log_prob(self, outputs: jax.Array, action: jax.Array) -> jax.Array:
        """Log probability or density of actions, f32[...]."""

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """In nats, f32[...]."""


@dataclasses.dataclass(frozen=True)
class Categorical:
    """One index i32[...]; outputs are its logits."""

    num_actions: int

    @property
    def num_outputs(self) -> int:
        """A logit for each action."""
        return self.num_actions

    def sample(self, outputs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Head`."""
        action = jax.random.categorical(key, outputs).astype(jnp.int32)
        return action, self.log_prob(outputs, action)

    def mode(self, outputs: jax.Array) -> jax.Array:
        """The most probable, the first of equals."""
        return jnp.argmax(outputs, axis=-1).astype(jnp.int32)

    def log_prob(self, outputs: jax.Array, action: jax.Array) -> jax.Array:
        """See `Head`."""
        logs = jax.nn.log_softmax(outputs)
        return jnp.take_along_axis(logs, action[..., None], axis=-1)[..., 0]

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """See `Head`."""
        logs = jax.nn.log_softmax(outputs)
        return -(jnp.exp(logs) * logs).sum(axis=-1)


@dataclasses.dataclass(frozen=True)
class MultiCategorical:
    """Several independent indices i32[..., len(counts)]; outputs are their logits, one branch after
    the other.
    """

    counts: tuple[int, ...]

    @property
    def num_outputs(self) -> int:
        """A logit for each action of each branch."""
        return sum(self.counts)

    def branches(self, outputs: jax.Array) -> list[jax.Array]:
        """The logits f32[..., count] of each branch."""
        return jnp.split(outputs, np.cumsum(self.counts)[:-1].tolist(), axis=-1)

    def sample(self, outputs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Head`."""
        keys = jax.random.split(key, len(self.counts))
        pairs = zip(self.branches(outputs), keys, strict=True)
        drawn = [jax.random.categorical(key, logits) for logits, key in pairs]
        action = jnp.stack(drawn, axis=-1).astype(jnp.int32)
        return action, self.log_prob(outputs, action)

    def mode(self, outputs: jax.Array) -> jax.Array:
        """The most probable of each branch."""
        best = [jnp.argmax(logits, axis=-1) for logits in self.branches(outputs)]
        return jnp.stack(best, axis=-1).astype(jnp.int32)

    def log_prob(self, outputs: jax.Array, action: jax.Array) -> jax.Array:
        """See `Head`."""
        parts = zip(self.counts, self.branches(outputs), strict=True)
        return sum(
            (Categorical(n).log_prob(x, action[..., i]) for i, (n, x) in enumerate(parts)),
            start=jnp.float32(0),
        )

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """See `Head`."""
        parts = zip(self.counts, self.branches(outputs), strict=True)
        return sum((Categorical(n).entropy(x) for n, x in parts), start=jnp.float32(0))


@dataclasses.dataclass(frozen=True)
class TanhNormal:
    """Numbers f32[..., A] in (low, high): the scaled tanh of a normal with independent parts.

    Outputs are the A means and the A log deviations before the tanh. Haarnoja et al. 2018,
    appendix C.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def num_outputs(self) -> int:
        """A mean and a log deviation for each number."""
        return 2 * len(self.low)

    def sample(self, outputs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Head`; the density is that of the draw itself, not of the rounded action."""
        mean, log_std = self._moments(outputs)
        noise = jax.random.normal(key, mean.shape)
        raw = mean + jnp.exp(log_std) * noise
        return self._squash(raw), self._density(raw, noise, log_std)

    def mode(self, outputs: jax.Array) -> jax.Array:
        """The median: the squashed mean."""
        return self._squash(self._moments(outputs)[0])

    def spread(self, outputs: jax.Array) -> jax.Array:
        """Half the width of the central 68 % of each number, f32[..., A]."""
        mean, log_std = self._moments(outputs)
        std = jnp.exp(log_std)
        return 0.5 * (self._squash(mean + std) - self._squash(mean - std))

    def log_prob(self, outputs: jax.Array, action: jax.Array) -> jax.Array:
        """See `Head`; actions at or beyond a bound count as just inside."""
        mean, log_std = self._moments(outputs)
        low, high = jnp.asarray(self.low, jnp.float32), jnp.asarray(self.high, jnp.float32)
        unit = 2.0 * (action - low) / (high - low) - 1.0
        raw = jnp.arctanh(jnp.clip(unit, -1.0 + 1e-6, 1.0 - 1e-6))
        return self._density(raw, (raw - mean) * jnp.exp(-log_std), log_std)

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """That of the normal before the tanh: the squashed one has no closed form."""
        _, log_std = self._moments(outputs)
        return (log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum(axis=-1)

    def _moments(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return mean, jnp.clip(log_std, MIN_LOG_STD, MAX_LOG_STD)

    def _squash(self, raw: jax.Array) -> jax.Array:
        low, high = jnp.asarray(self.low, jnp.float32), jnp.asarray(self.high, jnp.float32)
        return low + (high - low) * 0.5 * (jnp.tanh(raw) + 1.0)

    def _density(self, raw: jax.Array, noise: jax.Array, log_std: jax.Array) -> jax.Array:
        """Log density of the squashed action: of the normal, less log of the tanh's slope."""
        normal = -0.5 * jnp.square(noise) - log_std - 0.5 * math.log(2.0 * math.pi)
        half = 0.5 * (jnp.asarray(self.high, jnp.float32) - jnp.asarray(self.low, jnp.float32))
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2 x)), which does not underflow
        slope = 2.0 * (math.log(2.0) - raw - jax.nn.softplus(-2.0 * raw)) + jnp.log(half)
        return (normal - slope).sum(axis=-1)


@dataclasses.dataclass(frozen=True)
class Dirichlet:
    """Shares f32[..., size] that sum to 1; outputs become concentrations 1 + softplus(x) > 1."""

    size: int

    @property
    def num_outputs(self) -> int:
        """A concentration for each share."""
        return self.size

    def sample(self, outputs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Head`."""
        action = jax.random.dirichlet(key, self._concentration(outputs))
        return action, self.log_prob(outputs, action)

    def mode(self, outputs: jax.Array) -> jax.Array:
        """The shares of highest density."""
        excess = jax.nn.softplus(outputs)
        return excess / excess.sum(axis=-1, keepdims=True)

    def spread(self, outputs: jax.Array) -> jax.Array:
        """The deviation of each share: about half the width of its central 68 %, f32[..., size]."""
        concentration = self._concentration(outputs)
        total = concentration.sum(axis=-1, keepdims=True)
        mean = concentration / total
        return jnp.sqrt(mean * (1.0 - mean) / (total + 1.0))

    def log_prob(self, outputs: jax.Array, action: jax.Array) -> jax.Array:
        """See `Head`; shares are kept above 1e-6."""
        concentration = self._concentration(outputs)
        logs = jnp.log(jnp.maximum(action, 1e-6))
        return ((concentration - 1.0) * logs).sum(axis=-1) - self._log_beta(concentration)

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """See `Head`."""
        concentration = self._concentration(outputs)
        total = concentration.sum(axis=-1)
        psi = jax.scipy.special.digamma
        spread = (total - self.size) * psi(total)
        return (
            self._log_beta(concentration)
            + spread
            - ((concentration - 1.0) * psi(concentration)).sum(axis=-1)
        )

    def _concentration(self, outputs: jax.Array) -> jax.Array:
        return 1.0 + jax.nn.softplus(outputs)

    def _log_beta(self, concentration: jax.Array) -> jax.Array:
        gammaln = jax.scipy.special.gammaln
        return gammaln(concentration).sum(axis=-1) - gammaln(concentration.sum(axis=-1))


def mask_logits(logits: jax.Array, allowed: jax.Array | None) -> jax.Array:
    """Logits (or action values) where `allowed` bool[..., n], elsewhere what is never chosen: -1e9,
    of which probabilities are 0, and gradients too, but nothing is NaN. None allows all.
    """
    return logits if allowed is None else jnp.where(allowed, logits, -1e9)


def head_for(space: Any) -> Head:
    """The family for a space of actions.

    Raises:
        JaxtradeError: a space that there is none for, such as an unbounded box.
    """
    from gymnax.environments import spaces  # makes arrays when it is imported

    from jaxtrade.spaces import MultiDiscrete, Simplex

    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n))
    if isinstance(space, MultiDiscrete):
        return MultiCategorical(space.counts)
    if isinstance(space, Simplex):
        return Dirichlet(space.shape[0])
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        low, high = (
            np.broadcast_to(np.asarray(bound, np.float32), space.shape)
            for bound in (space.low, space.high)
        )
        if np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all():
            return TanhNormal(tuple(low.tolist()), tuple(high.tolist()))
    raise JaxtradeError(f"no agent here acts in {space}: give indices or a box with finite bounds")
