"""Families of distributions over actions, each a frozen value that reads the numbers of a network.

`outputs` are f32[..., num_outputs]; all functions keep the leading axes, and stay finite for any
finite outputs, as do their gradients. `mode` is the one action that is evaluated, exported and
traded. Densities are per unit of the action itself, so that entropies of boxes of another width
differ.
"""

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.agents.dirichlet import Dirichlet
from jaxtrade.specs import JaxtradeError

MIN_LOG_STD, MAX_LOG_STD = -5.0, 2.0
"""A deviation before the tanh is kept within exp of these."""

INSIDE = 1.0 - 1e-6
"""How near a bound an action may come before its density is taken there."""

NUM_NODES = 12
"""Of the quadrature over a normal."""


class Head(Protocol):
    """A family of distributions."""

    @property
    def num_outputs(self) -> int:
        """How many numbers it takes."""

    @property
    def max_entropy(self) -> float:
        """That of the uniform distribution, which no other exceeds, in nats."""

    def uniform(self, outputs: jax.Array, key: jax.Array) -> jax.Array:
        """One action for each outputs, whatever they are, all actions alike."""

    def sample(self, outputs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One action each and its log probability f32[...]; differentiable where continuous.

        The density is that of the draw before rounding; a ratio of densities takes both from
        `log_prob`.
        """

    def mode(self, outputs: jax.Array) -> jax.Array:
        """The action taken when nothing is to be explored."""

    def log_prob(self, outputs: jax.Array, action: jax.Array) -> jax.Array:
        """Log probability or density of actions, f32[...]."""

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """In nats, f32[...]."""


@dataclasses.dataclass(frozen=True)
class Categorical:
    """One index i32[...]; outputs are its logits, -inf where an action is ruled out."""

    num_actions: int

    @property
    def num_outputs(self) -> int:
        """A logit for each action."""
        return self.num_actions

    @property
    def max_entropy(self) -> float:
        """See `Head`."""
        return math.log(self.num_actions)

    def uniform(self, outputs: jax.Array, key: jax.Array) -> jax.Array:
        """See `Head`."""
        return jax.random.randint(key, outputs.shape[:-1], 0, self.num_actions)

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
        probability = jnp.exp(logs)
        return -(probability * jnp.where(probability > 0.0, logs, 0.0)).sum(axis=-1)


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

    @property
    def max_entropy(self) -> float:
        """See `Head`."""
        return sum(map(math.log, self.counts))

    def branches(self, outputs: jax.Array) -> list[jax.Array]:
        """The logits f32[..., count] of each branch."""
        return jnp.split(outputs, np.cumsum(self.counts)[:-1].tolist(), axis=-1)

    def uniform(self, outputs: jax.Array, key: jax.Array) -> jax.Array:
        """See `Head`."""
        shape = (*outputs.shape[:-1], len(self.counts))
        counts = jnp.broadcast_to(jnp.asarray(self.counts, jnp.int32), shape)
        return jax.random.randint(key, shape, 0, counts)

    def sample(self, outputs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Head`."""
        table = self._table(outputs)
        action, log_prob = self._widest.sample(table, key)
        return action, log_prob.sum(axis=-1)

    def mode(self, outputs: jax.Array) -> jax.Array:
        """The most probable of each branch."""
        return self._widest.mode(self._table(outputs))

    def log_prob(self, outputs: jax.Array, action: jax.Array) -> jax.Array:
        """See `Head`."""
        return self._widest.log_prob(self._table(outputs), action).sum(axis=-1)

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """See `Head`."""
        return self._widest.entropy(self._table(outputs)).sum(axis=-1)

    @property
    def _widest(self) -> Categorical:
        return Categorical(max(self.counts))

    def _table(self, outputs: jax.Array) -> jax.Array:
        """Logits f32[..., branches, max(counts)]; what a branch lacks is ruled out.

        One operation then does for all branches, of which a portfolio has one for each asset.
        """
        widest = max(self.counts)
        if min(self.counts) == widest:
            return outputs.reshape(*outputs.shape[:-1], len(self.counts), widest)
        before = [(0, 0)] * (outputs.ndim - 1)
        rows = [
            jnp.pad(logits, [*before, (0, widest - count)], constant_values=-jnp.inf)
            for count, logits in zip(self.counts, self.branches(outputs), strict=True)
        ]
        return jnp.stack(rows, axis=-2)


@dataclasses.dataclass(frozen=True)
class TanhNormal:
    """Numbers f32[..., A] in [low, high]: the scaled tanh of a normal with independent parts.

    Outputs are the A means and the A log deviations before the tanh; these are bent, not cut, to
    the range allowed, so that their gradient does not end. Haarnoja et al. 2018, appendix C.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def num_outputs(self) -> int:
        """A mean and a log deviation for each number."""
        return 2 * len(self.low)

    @property
    def max_entropy(self) -> float:
        """See `Head`."""
        return float(np.log(np.subtract(self.high, self.low)).sum())

    def uniform(self, outputs: jax.Array, key: jax.Array) -> jax.Array:
        """See `Head`."""
        shape = (*outputs.shape[:-1], len(self.low))
        return self._scale(jax.random.uniform(key, shape, minval=-1.0, maxval=1.0))

    def sample(self, outputs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Head`; in float32 a draw far out is rounded to the bound."""
        mean, log_std = self.moments(outputs)
        noise = jax.random.normal(key, mean.shape)
        raw = mean + jnp.exp(log_std) * noise
        return self._scale(jnp.tanh(raw)), self._density(raw, noise, log_std)

    def mode(self, outputs: jax.Array) -> jax.Array:
        """The median: the squashed mean."""
        return self._scale(jnp.tanh(self.moments(outputs)[0]))

    def spread(self, outputs: jax.Array) -> jax.Array:
        """Half the width of the central 68 % of each number, f32[..., A]."""
        mean, log_std = self.moments(outputs)
        std = jnp.exp(log_std)
        _, half = self._box(mean.shape)
        return 0.5 * half * (jnp.tanh(mean + std) - jnp.tanh(mean - std))

    def log_prob(self, outputs: jax.Array, action: jax.Array) -> jax.Array:
        """See `Head`; actions at or beyond a bound count as just inside."""
        mean, log_std = self.moments(outputs)
        centre, half = self._box(action.shape)
        raw = jnp.arctanh(jnp.clip((action - centre) / half, -INSIDE, INSIDE))
        return self._density(raw, (raw - mean) * jnp.exp(-log_std), log_std)

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """See `Head`; by Gauss-Hermite quadrature, there being no closed form.

        Right to 0.01 for deviations up to 2 before the tanh. It falls where a wide normal piles up
        at the bounds, as that of the normal does not.
        """
        mean, log_std = self.moments(outputs)
        nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)
        slope = jnp.zeros_like(mean)
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            slope += float(weight) * _log_slope(mean + float(node) * jnp.exp(log_std))
        _, half = self._box(mean.shape)
        normal = log_std + 0.5 * math.log(2.0 * math.pi * math.e)
        return (normal + slope + jnp.log(half)).sum(axis=-1)

    def moments(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mean and the log deviation before the tanh, f32[..., A] each."""
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        below = MAX_LOG_STD - jax.nn.softplus(MAX_LOG_STD - log_std)
        return mean, MIN_LOG_STD + jax.nn.softplus(below - MIN_LOG_STD)

    def _box(self, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """The centre and half the width."""
        low, high = (np.asarray(each, np.float32) for each in (self.low, self.high))
        centre, half = 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low
        return jnp.broadcast_to(centre, shape), jnp.broadcast_to(half, shape)

    def _scale(self, unit: jax.Array) -> jax.Array:
        """From -1 to 1, to the box, with no rounding beyond it."""
        centre, half = self._box(unit.shape)
        low, high = (
            jnp.broadcast_to(np.asarray(each, np.float32), unit.shape)
            for each in (self.low, self.high)
        )
        return jnp.clip(centre + half * unit, low, high)

    def _density(self, raw: jax.Array, noise: jax.Array, log_std: jax.Array) -> jax.Array:
        """Log density of the squashed action: of the normal, less log of the slope."""
        normal = -0.5 * jnp.square(noise) - log_std - 0.5 * math.log(2.0 * math.pi)
        _, half = self._box(raw.shape)
        return (normal - _log_slope(raw) - jnp.log(half)).sum(axis=-1)


def _log_slope(raw: jax.Array) -> jax.Array:
    """Log of the tanh's slope, 1 - tanh(x)^2, which itself would underflow."""
    return 2.0 * (math.log(2.0) - raw - jax.nn.softplus(-2.0 * raw))


def head_of(env: Any, env_params: Any) -> Head:
    """The family for the actions of an environment.

    Bounds are part of the program. Where they come of traced parameters, as in gymnax's Pendulum,
    those of the environment's default parameters are taken.

    Raises:
        JaxtradeError: see `head_for`.
    """
    space = env.action_space(env_params)
    bounds = getattr(space, "low", None), getattr(space, "high", None)
    if any(isinstance(bound, jax.core.Tracer) for bound in bounds):
        space = env.action_space(env.default_params)
    return head_for(space)


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
        is_real = jnp.issubdtype(space.dtype, jnp.floating)
        if is_real and np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all():
            return TanhNormal(tuple(low.tolist()), tuple(high.tolist()))
    raise JaxtradeError(f"no agent here acts in {space}: give indices or a box with finite bounds")
