"""Paths of the synthetic markets as NumPy arrays, and statistics of them in float64."""

import jax
import numpy as np

from jaxtrade.synthetic import make_params, sample

NUM_PATHS, NUM_BARS = 16, 50_000


def keys(num):
    return jax.vmap(lambda seed: jax.random.key(seed, impl="threefry2x32"))(np.arange(num))


def draw(**changes):
    """Paths of the embedded market, of the seeds 0, 1, ..., [N, T, ...]."""
    draw_paths = jax.vmap(sample, in_axes=(0, None, None))
    return jax.device_get(draw_paths(keys(NUM_PATHS), NUM_BARS, make_params(**changes)))


def log_returns(paths):
    """To the close, f64 of the leading axes."""
    return np.log1p(paths.bars[..., 3].astype(np.float64))


def autocorrelation(x, lag):
    """Mean over paths f64[N, T]."""
    x = x - x.mean(axis=1, keepdims=True)
    return float(((x[:, lag:] * x[:, :-lag]).mean(axis=1) / (x * x).mean(axis=1)).mean())


def kurtosis(x):
    x = x - x.mean()
    return float((x**4).mean() / (x**2).mean() ** 2)


def assert_bars_consistent(bars, volume):
    opening, high, low, closing = np.moveaxis(bars, -1, 0)
    assert bars.dtype == volume.dtype == np.float32
    assert np.isfinite(bars).all() and np.isfinite(volume).all()
    assert (bars > -1).all() and (volume > 0).all()
    assert (low <= np.minimum(opening, closing)).all()
    assert (high >= np.maximum(opening, closing)).all()
