"""Maximum likelihood for Merton's jump diffusion."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, logsumexp

from jaxtrade.synthetic.bars import BarParams
from jaxtrade.synthetic.diffusions import MAX_JUMPS, MertonParams, make_merton
from jaxtrade.synthetic.likelihood import Array, minimise

JUMP_DEVIATIONS = 3.0
"""A return further out than this, in robust deviations, counts as a jump where the search starts.
"""


def fit_merton(returns: Array, bars: BarParams) -> MertonParams:
    """On log returns f64[T], a mixture of normals by the number of jumps.

    The likelihood grows without bound as the diffusion's deviation goes to zero at a return of
    exactly its mean (prices that stand still), so that deviation stays above a tenth of all.
    """
    scale = float(returns.std())
    data = returns / scale
    centre = float(np.median(data))
    robust = float(np.clip(1.4826 * np.median(np.abs(data - centre)), 0.2, 0.95))
    jumps = data[np.abs(data - centre) > JUMP_DEVIATIONS * robust] - centre
    intensity = float(np.clip(len(jumps) / len(data), 1e-3, 0.5))
    size = float(np.clip(jumps.std(), 0.5, 50.0)) if len(jumps) > 1 else 2.0
    starts = [
        (centre, np.log(robust), np.log(intensity * factor), 0.0, np.log(size / factor**0.5))
        for factor in (0.5, 1.0, 2.0)
    ]
    bounds = [
        (-1.0, 1.0),
        (np.log(0.1), np.log(2.0)),
        (np.log(1e-5), 0.0),
        (-20.0, 20.0),
        (np.log(0.05), np.log(100.0)),
    ]
    mean, log_deviation, log_intensity, jump_mean, log_jump = minimise(_loss, starts, data, bounds)
    volatility, jump_deviation = scale * np.exp(log_deviation), scale * np.exp(log_jump)
    intensity, jump_mean = np.exp(log_intensity), scale * jump_mean
    growth = np.expm1(jump_mean + jump_deviation**2 / 2.0)
    return make_merton(
        drift=float(scale * mean + volatility**2 / 2.0 + intensity * growth),
        volatility=float(volatility),
        intensity=float(intensity),
        jump_mean=float(jump_mean),
        jump_deviation=float(jump_deviation),
        bars=bars,
    )


def _loss(raw: jax.Array, returns: jax.Array) -> jax.Array:
    """Mean negative log-likelihood f64[]; raw: f64[5] as in `fit_merton`."""
    mean, log_deviation, log_intensity, jump_mean, log_jump = raw
    count = jnp.arange(MAX_JUMPS + 1, dtype=returns.dtype)
    chance = count * log_intensity - jnp.exp(log_intensity) - gammaln(count + 1.0)
    variance = jnp.exp(2.0 * log_deviation) + count * jnp.exp(2.0 * log_jump)
    distance = returns[:, None] - mean - count * jump_mean
    density = -(jnp.log(2.0 * jnp.pi * variance) + distance**2 / variance) / 2.0
    return -logsumexp(chance + density, axis=1).mean()
