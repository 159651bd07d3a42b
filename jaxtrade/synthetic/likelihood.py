"""Maximum likelihood: SciPy's optimiser on JAX's gradients, in float64."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""Mean negative log-likelihood f64[] of raw numbers f64[n] on returns f64[T]."""


def minimise(
    loss: Loss,
    starts: Sequence[Sequence[float]],
    returns: Array,
    bounds: Sequence[tuple[float, float]],
) -> Array:
    """The raw numbers of the lowest loss, by L-BFGS-B from the best of the starts."""
    from scipy import optimize  # half a second, and only calibration needs it

    with jax.enable_x64(True):
        data = jnp.asarray(returns, jnp.float64)
        both = jax.jit(jax.value_and_grad(loss))

        def evaluate(raw: Array) -> tuple[float, Array]:
            value, slope = both(jnp.asarray(raw, jnp.float64), data)
            return float(value), np.asarray(slope)

        start = min(starts, key=lambda raw: evaluate(np.asarray(raw))[0])
        found = optimize.minimize(
            evaluate,
            np.asarray(start),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-7},
        )
    return np.asarray(found.x)
