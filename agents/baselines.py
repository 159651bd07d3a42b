"""Baselines: what any trained policy has to beat under the same costs. See `rules`."""

import dataclasses
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.agents.rules import Learner, Rule, outputs_of_dice, shape_of
from jaxtrade.agents.settings import static
from jaxtrade.agents.types import Actor, Assessment
from jaxtrade.specs import JaxtradeError


@flax.struct.dataclass(kw_only=True)
class BuyAndHold(Rule):
    """The same position always, long by default, in equal parts of several assets."""

    position: Any = 1.0

    def wish(self, params: Any, obs: Any) -> jax.Array:
        """See `Rule`."""
        return jnp.zeros(shape_of(obs), jnp.float32) + self.position


@flax.struct.dataclass(kw_only=True)
class Flat(Rule):
    """Nothing, ever."""

    def wish(self, params: Any, obs: Any) -> jax.Array:
        """See `Rule`."""
        return jnp.zeros(shape_of(obs), jnp.float32)


@flax.struct.dataclass(kw_only=True)
class SMACross(Rule):
    """Long while the mean of the last `fast_bars` closes is above that of `slow_bars`, else short.

    Brock, Lakonishok & LeBaron 1992, "Simple technical trading rules".
    """

    position: Any = 1.0
    fast_bars: int = static(8)
    slow_bars: int = static(32)

    @property
    def num_bars(self) -> int:
        """The slow mean."""
        return self.slow_bars

    def validate(self) -> None:
        """See `Rule.validate`; fast is faster than slow."""
        super().validate()
        if self.fast_bars >= self.slow_bars:
            raise JaxtradeError(
                f"agent setting fast_bars is {self.fast_bars}: give less than slow_bars = "
                f"{self.slow_bars}"
            )

    def wish(self, params: Any, obs: Any) -> jax.Array:
        """See `Rule`."""
        price = jnp.exp(jnp.cumsum(self.log_returns(params, obs), axis=1))
        fast = price[:, self.slow_bars - self.fast_bars :].mean(axis=1)
        return jnp.sign(fast - price.mean(axis=1)) * self.position


@flax.struct.dataclass(kw_only=True)
class Momentum(Rule):
    """Long after a rise over `lookback_bars`, short after a fall.

    Moskowitz, Ooi & Pedersen 2012, "Time series momentum", without their scaling by volatility.
    """

    position: Any = 1.0
    lookback_bars: int = static(32)

    @property
    def num_bars(self) -> int:
        """The lookback."""
        return self.lookback_bars

    def wish(self, params: Any, obs: Any) -> jax.Array:
        """See `Rule`."""
        return jnp.sign(self.log_returns(params, obs).sum(axis=1)) * self.position


@flax.struct.dataclass(kw_only=True)
class VolatilityTarget(Rule):
    """Long, the less so the wilder the last `lookback_bars` were: target over realised volatility.

    target: deviation of a year's log return; realised: root mean square log return of a bar, times
    the root of the bars in a year; no position is larger than `max_position`. Moreira & Muir 2017,
    "Volatility-managed portfolios".
    """

    target: Any = 0.15
    max_position: Any = 1.0
    lookback_bars: int = static(32)

    @property
    def num_bars(self) -> int:
        """The lookback."""
        return self.lookback_bars

    def validate(self) -> None:
        """See `Rule.validate`; neither number is negative."""
        super().validate()
        for name in ("target", "max_position"):
            if getattr(self, name) < 0:
                raise JaxtradeError(
                    f"agent setting {name} is {getattr(self, name)}: give 0 or more"
                )

    def wish(self, params: Any, obs: Any) -> jax.Array:
        """See `Rule`."""
        square = jnp.square(self.log_returns(params, obs)).mean(axis=1)
        realised = jnp.sqrt(square * params["bars_per_year"])
        return jnp.minimum(self.target / jnp.maximum(realised, 1e-12), self.max_position)


@flax.struct.dataclass(kw_only=True)
class Random(Rule):
    """An action drawn uniformly from all there are, at every bar.

    A mode is a function of the observation, so there the dice are a hash of the newest feature row
    and the account: as good as random from bar to bar, the same each time it is asked, and other
    for each initial key. The hash is exact in whole numbers, so that the exported graph agrees.
    """

    PRIME = 1019  # 2 modulo 3: no two numbers below it have the same cube

    def init(self, key: jax.Array, env: Any, env_params: Any) -> Learner:
        """See `Rule`; and the key of the hash."""
        learner = super().init(key, env, env_params)
        obs, _ = jax.eval_shape(lambda: env.reset(jax.random.key(0), env_params))
        size = math.prod(obs.market.shape[1:]) + obs.account.size
        shape = (size + 1, learner.actor.head.num_outputs)
        salt = jax.random.randint(key, shape, 1, self.PRIME).astype(jnp.float32)
        actor = dataclasses.replace(learner.actor, params={**learner.actor.params, "salt": salt})
        return dataclasses.replace(learner, actor=actor)

    def assess(self, actor: Actor, obs: Any, hidden: jax.Array) -> Assessment:
        """See `Agent`."""
        outputs = outputs_of_dice(actor.head, self._hash(actor.params["salt"], obs))
        return Assessment(outputs, jnp.zeros(outputs.shape[0], jnp.float32), hidden)

    def act(
        self, learner: Learner, obs: Any, hidden: jax.Array, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Drawn from the key."""
        del progress
        head = learner.actor.head
        outputs, _, hidden = self.assess(learner.actor, obs, hidden)
        return head.uniform(outputs, key), hidden, ()

    def _hash(self, salt: jax.Array, obs: Any) -> jax.Array:
        """Numbers f32[B, k] in (0, 1): the cube of a sum of the inputs' 4096ths, modulo a prime.

        Neighbours have cubes far apart, and each number is the cube of one. Every step is exact in
        float32: no number reaches 2**24 with fewer than 16,000 inputs.
        """
        newest = obs.market[:, -1]
        parts = (newest.reshape(newest.shape[0], -1), obs.account)
        total = salt[:1]
        row = 1
        for part in parts:
            digits = _modulo(jnp.floor(part * 4096.0), self.PRIME)
            weights = salt[row : row + part.shape[1]]
            total = total + _modulo(digits[:, :, None] * weights[None], self.PRIME).sum(axis=1)
            row += part.shape[1]
        mixed = _modulo(total, self.PRIME)
        mixed = _modulo(_modulo(mixed * mixed, self.PRIME) * mixed, self.PRIME)
        return (mixed + 0.5) / self.PRIME


def _modulo(number: jax.Array, prime: int) -> jax.Array:
    """The remainder of whole numbers; the half keeps the rounded quotient off the next one."""
    return number - prime * jnp.floor((number + 0.5) / prime)
