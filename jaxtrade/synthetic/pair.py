"""A cointegrated pair: two assets whose log prices keep to each other.

    log second = geometric Brownian motion
    log first = hedge_ratio log second + spread,  spread an Ornstein-Uhlenbeck process around 0

Engle and Granger, Econometrica 55, 1987; Uhlenbeck and Ornstein, Physical Review 36, 1930. The
spread takes its exact transition over every part of a bar. Prices start at any level: the spread is
measured from the constant that the levels make.
"""

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.synthetic.bars import (
    SUBSTEPS,
    BarParams,
    Moves,
    Path,
    durations,
    make_bar_params,
    path_of,
)
from jaxtrade.synthetic.checks import scalars

_BOUNDS = {
    "drift": (-0.1, 0.1),
    "volatility": (1e-6, 0.5),
    "hedge_ratio": (-10.0, 10.0),
    "half_life": (0.1, 1e6),
    "spread_volatility": (1e-6, 1.0),
}


@flax.struct.dataclass(kw_only=True)
class PairParams:
    """Every leaf f32[], traced; assets in the order first, second.

    drift: log growth per bar of the second asset's mean price; volatility: deviation of its log
    return per bar; hedge_ratio: log moves of the first for one of the second; half_life: bars in
    which the spread is expected to lose half of itself; spread_volatility: long-run deviation of
    the spread, a log ratio.
    """

    drift: jax.Array
    volatility: jax.Array
    hedge_ratio: jax.Array
    half_life: jax.Array
    spread_volatility: jax.Array
    bars: BarParams


def make_pair(
    *,
    drift: float = 0.0,
    volatility: float = 5e-3,
    hedge_ratio: float = 1.0,
    half_life: float = 50.0,
    spread_volatility: float = 0.02,
    bars: BarParams | None = None,
) -> PairParams:
    """Parameters of a cointegrated pair.

    Raises:
        JaxtradeError: a value out of bounds, or no number.
    """
    values = {
        "drift": drift,
        "volatility": volatility,
        "hedge_ratio": hedge_ratio,
        "half_life": half_life,
        "spread_volatility": spread_volatility,
    }
    return PairParams(**scalars(_BOUNDS, values), bars=bars or make_bar_params())


def pair_volatility(params: PairParams) -> jax.Array:
    """f32[2], deviation of each asset's log return over one bar."""
    spread = params.spread_volatility * _fresh(params, jnp.ones_like(params.half_life))
    first = jnp.sqrt((params.hedge_ratio * params.volatility) ** 2 + spread**2)
    return jnp.stack([first, params.volatility])


def sample_pair(params: PairParams, key: jax.Array, num_bars: int) -> Path:
    """Draw a path of two assets; the spread before the first bar comes from its long-run law."""
    start_key, shock_key, bar_key = jax.random.split(key, 3)
    lengths = durations(params.bars)
    kept = jnp.exp2(-lengths / params.half_life)
    fresh = params.spread_volatility * _fresh(params, lengths)

    def bar(spread: jax.Array, shocks: jax.Array) -> tuple[jax.Array, jax.Array]:
        spreads = [spread]
        for part in range(SUBSTEPS + 1):
            spreads.append(kept[part] * spreads[-1] + fresh[part] * shocks[part])
        return spreads[-1], jnp.stack(spreads)

    start = params.spread_volatility * jax.random.normal(start_key, (), jnp.float32)
    shocks = jax.random.normal(shock_key, (num_bars, SUBSTEPS + 1, 2), jnp.float32)
    spreads = jax.lax.scan(bar, start, shocks[..., 0])[1]  # f32[T, S + 2], before and after parts

    mean = params.drift - params.volatility**2 / 2.0
    second_deviation = params.volatility * jnp.sqrt(lengths)
    second = (mean * lengths)[None] + second_deviation[None] * shocks[..., 1]
    first = params.hedge_ratio * second + jnp.diff(spreads, axis=1)
    first_deviation = jnp.sqrt((params.hedge_ratio * second_deviation) ** 2 + fresh**2)
    diffusion = jnp.stack([first, second], axis=-1)
    reverting = jnp.expm1(-jnp.log(2.0) / params.half_life) * spreads[:, 0]
    usual = pair_volatility(params)
    moves = Moves(
        diffusion=diffusion,
        deviation=jnp.broadcast_to(
            jnp.stack([first_deviation, second_deviation], axis=-1)[None], diffusion.shape
        ),
        jump=jnp.zeros_like(diffusion),
        drift=jnp.stack([params.hedge_ratio * mean + reverting, jnp.full((num_bars,), mean)], -1),
        volatility=jnp.broadcast_to(usual[None], (num_bars, 2)),
        usual=usual,
    )
    return path_of(moves, params.bars, bar_key)


def _fresh(params: PairParams, time: jax.Array) -> jax.Array:
    """Part of the spread's long-run deviation that comes anew within a time in bars."""
    return jnp.sqrt(-jnp.expm1(-2.0 * jnp.log(2.0) * time / params.half_life))
