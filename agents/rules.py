"""What rules that learn nothing have in common: from the position they want to an agent's outputs.

A rule wishes for a position in each asset, 1 for all that may be held long and -1 for all short,
from what any policy sees: prices relative to the close before the window, which the `log_return`
column gives once its normaliser is undone. (Returns that the features clip, beyond 5 deviations
by default, count as clipped.) A wish becomes the outputs of the head that policies have in that
environment, such that its mode is the nearest action:

- levels: the level nearest to the wish, in each asset;
- exposures and weights: the wish over the number of assets, so that 1 is fully invested; where
  nothing can be held short, a negative wish is none.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.agents.dirichlet import Dirichlet
from jaxtrade.agents.distributions import (
    MIN_LOG_STD,
    Categorical,
    Head,
    MultiCategorical,
    TanhNormal,
    head_of,
)
from jaxtrade.agents.settings import static
from jaxtrade.agents.types import Actor, Assessment, Batch, Env, Metrics
from jaxtrade.features import columns
from jaxtrade.specs import FeatureSpec, JaxtradeError

COLUMN = "log_return"


@runtime_checkable
class ShowsFeatures(Env, Protocol):
    """An environment whose observation has a `market` leaf of known features."""

    @property
    def features(self) -> FeatureSpec:
        """The columns of that leaf, and its window."""

    @property
    def num_assets(self) -> int:
        """A."""


@flax.struct.dataclass(kw_only=True)
class Learner:
    """actor: the rule's numbers; nothing else is kept."""

    actor: Actor


@flax.struct.dataclass(kw_only=True)
class Rule:
    """What all rules share; each is a subclass with `wish`, and says how many bars it looks at.

    num_envs, rollout_steps: of the loop, were it to be trained.
    """

    num_envs: int = static(16)
    rollout_steps: int = static(128)

    @property
    def hidden_size(self) -> int:
        """See `Agent`."""
        return 0

    @property
    def num_bars(self) -> int:
        """How many of the newest bars it looks at."""
        return 0

    def validate(self) -> None:
        """Check the values on the host.

        Raises:
            JaxtradeError: one is out of range.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise JaxtradeError(f"agent setting {field.name} is {value}: give 1 or more")
            if not np.isfinite(value):
                raise JaxtradeError(f"agent setting {field.name} is {value}: give a finite number")

    def init(self, key: jax.Array, env: Any, env_params: Any) -> Learner:
        """What the rule has to know of the environment.

        Raises:
            JaxtradeError: it does not show what the rule looks at, or has no positions.
        """
        del key
        if not isinstance(env, ShowsFeatures):
            name = type(self).__name__
            raise JaxtradeError(f"{name} is for markets of known features, {env.name} shows none")
        head = head_of(env, env_params)
        params = {
            "share": jnp.float32(1.0 / env.num_assets),
            "bars_per_year": jnp.asarray(env_params.bars_per_year, jnp.float32),
        }
        if isinstance(head, Categorical | MultiCategorical):
            params["levels"] = jnp.asarray(env.levels, jnp.float32)  # type: ignore[attr-defined]
        if self.num_bars:
            params |= self._column(env, env_params)
        return Learner(actor=Actor(params=params, head=head))

    def wish(self, params: Any, obs: Any) -> jax.Array:
        """Positions f32[B, A] from -1 to 1."""
        raise NotImplementedError

    def assess(self, actor: Actor, obs: Any, hidden: jax.Array) -> Assessment:
        """See `Agent`; the value is not known, 0."""
        wish = self.wish(actor.params, obs)
        outputs = outputs_for(actor.head, actor.params, wish)
        return Assessment(outputs, jnp.zeros(outputs.shape[0], jnp.float32), hidden)

    def act(
        self, learner: Learner, obs: Any, hidden: jax.Array, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any]:
        """What it would do anyway: nothing is explored."""
        del key, progress
        outputs, _, hidden = self.assess(learner.actor, obs, hidden)
        return learner.actor.head.mode(outputs), hidden, ()

    def learn(
        self, learner: Learner, batch: Batch, key: jax.Array, env: Any, env_params: Any
    ) -> tuple[Learner, Metrics]:
        """Nothing."""
        del batch, key, env, env_params
        return learner, {}

    def _column(self, env: ShowsFeatures, env_params: Any) -> dict[str, jax.Array]:
        """How a log return comes out of a feature row f32[F]: row @ weights + mean."""
        names = columns(env.features)
        if COLUMN not in names:
            raise JaxtradeError(
                f"{type(self).__name__} needs the feature {COLUMN}, there are {', '.join(names)}"
            )
        if env.features.window < self.num_bars:
            raise JaxtradeError(
                f"{type(self).__name__} looks at {self.num_bars} bars, the window has "
                f"{env.features.window}: give fewer, or a larger env.window"
            )
        column = names.index(COLUMN)
        scaling = env_params.normaliser
        picked = jnp.arange(len(names)) == column
        return {
            "weights": jnp.where(picked, 1.0 / scaling.inverse_scale, 0.0),
            "mean": scaling.mean[column],
        }

    def log_returns(self, params: Any, obs: Any) -> jax.Array:
        """Of the newest `num_bars` bars, f32[B, num_bars, A]."""
        rows = obs.market[:, obs.market.shape[1] - self.num_bars :]
        returns = (rows @ params["weights"][:, None])[..., 0] + params["mean"]
        return returns if returns.ndim == 3 else returns[..., None]


def outputs_for(head: Head, params: Any, wish: jax.Array) -> jax.Array:
    """Outputs f32[B, k] whose mode is the action nearest to positions f32[B, A]."""
    if isinstance(head, TanhNormal):
        return _outputs_of_numbers(head, wish * params["share"])
    if isinstance(head, Dirichlet):
        shares = jnp.clip(wish, 0.0, 1.0) * params["share"]
        cash = 1.0 - shares.sum(axis=1, keepdims=True)
        return _outputs_of_shares(jnp.concatenate([shares, cash], axis=1))
    closeness = -jnp.abs(wish[:, :, None] - params["levels"][None, None])
    return closeness.reshape(wish.shape[0], -1)


def outputs_of_dice(head: Head, dice: jax.Array) -> jax.Array:
    """Outputs f32[B, k] whose mode is a uniform action, from as many uniform numbers in (0, 1)."""
    if isinstance(head, TanhNormal):
        low, high = _bounds(head)
        return _outputs_of_numbers(head, low + (high - low) * dice[:, : len(head.low)])
    return _outputs_of_shares(-jnp.log(dice)) if isinstance(head, Dirichlet) else dice


def _outputs_of_numbers(head: TanhNormal, numbers: jax.Array) -> jax.Array:
    """Means and the least deviations of numbers f32[B, A]; those beyond a bound are at it."""
    low, high = _bounds(head)
    unit = jnp.clip(2.0 * (numbers - low) / (high - low) - 1.0, -1.0, 1.0)
    inside = jnp.clip(unit, -1.0 + 1e-6, 1.0 - 1e-6)
    raw = 0.5 * jnp.log((1.0 + inside) / (1.0 - inside))
    raw = jnp.where(jnp.abs(unit) < 1.0, raw, 20.0 * unit)  # the tanh of 20 is 1 in float32
    return jnp.concatenate([raw, jnp.full_like(raw, MIN_LOG_STD - 20.0)], axis=1)


def _outputs_of_shares(shares: jax.Array) -> jax.Array:
    """What softplus, of which a Dirichlet's mode is made, turns into shares f32[B, k]."""
    return jnp.log(jnp.expm1(jnp.maximum(shares, 1e-6)))


def _bounds(head: TanhNormal) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray([head.low], jnp.float32), jnp.asarray([head.high], jnp.float32)


def shape_of(obs: Any) -> tuple[int, int]:
    """B and A."""
    shape = obs.market.shape
    return shape[0], shape[2] if len(shape) == 4 else 1
