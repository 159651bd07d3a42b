"""Markov switching between K regimes, each with a drift and a volatility (Hamilton, 1989).

Hamilton, "A new approach to the economic analysis of nonstationary time series and the business
cycle", Econometrica 57. The regime may change from bar to bar, never inside one.
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic.bars import BarParams, Moves, Path, durations, make_bar_params, path_of
from jaxtrade.synthetic.checks import scalars

MAX_REGIMES = 16


@flax.struct.dataclass(kw_only=True)
class RegimeParams:
    """K regimes; every leaf traced, K by its shape.

    drift, volatility: f32[K], mean and deviation of a bar's log return; transition: f32[K, K], the
    probability of each regime (column) after each (row).
    """

    drift: jax.Array
    volatility: jax.Array
    transition: jax.Array
    bars: BarParams


def make_regimes(
    *,
    drift: Sequence[float] = (2e-4, -4e-4),
    volatility: Sequence[float] = (3e-3, 9e-3),
    transition: Sequence[Sequence[float]] = ((0.99, 0.01), (0.03, 0.97)),
    bars: BarParams | None = None,
) -> RegimeParams:
    """Parameters of K regimes from K drifts, K volatilities and K rows of K probabilities.

    Raises:
        JaxtradeError: numbers of regimes that differ; a value out of bounds, or no number; a row
            that does not add up to 1; regimes that fall apart into sets that never meet.
    """
    num = len(volatility)
    sizes = {len(drift), len(transition), *(len(row) for row in transition)}
    if sizes != {num} or not 1 <= num <= MAX_REGIMES:
        raise JaxtradeError(
            f"synthetic market: {len(drift)} drifts, {num} volatilities and transition rows of "
            f"{[len(row) for row in transition]}: give as many of each, up to {MAX_REGIMES}"
        )
    for regime in range(num):
        scalars(
            {"drift": (-0.1, 0.1), "volatility": (1e-6, 0.5)},
            {"drift": drift[regime], "volatility": volatility[regime]},
        )
        for chance in transition[regime]:
            scalars({"transition": (0.0, 1.0)}, {"transition": chance})
        if abs(sum(transition[regime]) - 1.0) > 1e-6:
            raise JaxtradeError(
                f"synthetic market: transition row {regime} adds up to {sum(transition[regime]):g}:"
                " give probabilities that add up to 1"
            )
    matrix = np.asarray(transition, np.float64)
    if np.linalg.matrix_rank(np.eye(num) - matrix) < num - 1:
        raise JaxtradeError(
            "synthetic market: transition has regimes that never meet: "
            "give every regime a way to the others"
        )
    return RegimeParams(
        drift=jnp.asarray(drift, jnp.float32),
        volatility=jnp.asarray(volatility, jnp.float32),
        transition=jnp.asarray(matrix, jnp.float32),
        bars=bars or make_bar_params(),
    )


def stationary(transition: NDArray[np.floating] | jax.Array) -> jax.Array:
    """Long-run share [K] of each regime (Resnick, "Adventures in Stochastic Processes", 2.14)."""
    matrix = jnp.asarray(transition)
    num = matrix.shape[0]
    system = jnp.eye(num, dtype=matrix.dtype) - matrix + jnp.ones_like(matrix)
    return jnp.linalg.solve(system.T, jnp.ones((num,), matrix.dtype))


def sample_regimes(params: RegimeParams, key: jax.Array, num_bars: int) -> Path:
    """Draw a path; the regime before the first bar comes from the stationary law."""
    start_key, regime_key, shock_key, bar_key = jax.random.split(key, 4)
    lengths = durations(params.bars)[None, :, None]
    share = stationary(params.transition)
    limits = jnp.cumsum(params.transition, axis=1)
    last = jnp.int32(len(share) - 1)

    def choose(limits: jax.Array, chance: jax.Array) -> jax.Array:
        return jnp.minimum((chance >= limits).sum(dtype=jnp.int32), last)

    def step(regime: jax.Array, chance: jax.Array) -> tuple[jax.Array, jax.Array]:
        regime = choose(limits[regime], chance)
        return regime, regime

    start = choose(jnp.cumsum(share), jax.random.uniform(start_key, (), jnp.float32))
    chance = jax.random.uniform(regime_key, (num_bars,), jnp.float32)
    regimes = jax.lax.scan(step, start, chance)[1]
    drift, volatility = params.drift[regimes][:, None], params.volatility[regimes][:, None]
    shocks = jax.random.normal(shock_key, (num_bars, *lengths.shape[1:]), jnp.float32)
    deviation = volatility[:, None] * jnp.sqrt(lengths)
    moves = Moves(
        diffusion=drift[:, None] * lengths + deviation * shocks,
        deviation=deviation,
        jump=jnp.zeros_like(shocks),
        drift=drift,
        volatility=volatility,
        usual=jnp.sqrt((share * params.volatility**2).sum())[None],
    )
    return path_of(moves, params.bars, bar_key)
