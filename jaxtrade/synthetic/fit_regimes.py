"""Expectation-maximisation for Markov regimes."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic.bars import BarParams
from jaxtrade.synthetic.checks import whole_number
from jaxtrade.synthetic.likelihood import Array
from jaxtrade.synthetic.regimes import MAX_REGIMES, RegimeParams, make_regimes, stationary

MAX_ROUNDS = 500
TOLERANCE = 1e-9
"""Rounds end when the mean log-likelihood gains less than this."""

MIN_VARIANCE = 1e-4  # of a regime, over that of all returns: none may shrink onto one value


@flax.struct.dataclass(kw_only=True)
class _Guess:
    """drift f64[K], variance f64[K], transition f64[K, K]."""

    drift: jax.Array
    variance: jax.Array
    transition: jax.Array


def fit_regimes(returns: Array, bars: BarParams, *, num_regimes: int = 2) -> RegimeParams:
    """K regimes of log returns f64[T], the calmest first.

    Raises:
        JaxtradeError: K is no number from 1 to MAX_REGIMES; too many for these returns.
    """
    num_regimes = whole_number("num_regimes", num_regimes, 1, MAX_REGIMES)
    scale = float(returns.std())
    with jax.enable_x64(True):
        data = jnp.asarray(returns / scale, jnp.float64)
        guess, last = _start(num_regimes, data), -np.inf
        improve = jax.jit(_improve)
        for _ in range(MAX_ROUNDS):
            guess, likelihood = improve(guess, data)
            if float(likelihood) - last < TOLERANCE:
                break
            last = float(likelihood)
        drift, variance, transition = (
            np.asarray(leaf) for leaf in (guess.drift, guess.variance, guess.transition)
        )
    if not np.isfinite(transition).all():
        raise JaxtradeError(f"a regime of {num_regimes} died out: give fewer num_regimes")
    order = np.argsort(variance)
    transition = transition[order][:, order]
    return make_regimes(
        drift=(scale * drift[order]).tolist(),
        volatility=(scale * np.sqrt(variance[order])).tolist(),
        transition=(transition / transition.sum(axis=1, keepdims=True)).tolist(),
        bars=bars,
    )


def _start(num_regimes: int, returns: jax.Array) -> _Guess:
    """Regimes that differ in volatility and last 20 bars."""
    stay = 0.95 if num_regimes > 1 else 1.0
    leave = (1.0 - stay) / max(num_regimes - 1, 1)
    deviation = jnp.geomspace(0.5, 1.5, num_regimes) if num_regimes > 1 else jnp.ones(1)
    return _Guess(
        drift=jnp.full((num_regimes,), returns.mean()),
        variance=deviation**2,
        transition=jnp.full((num_regimes, num_regimes), leave)
        + (stay - leave) * jnp.eye(num_regimes),
    )


def _improve(guess: _Guess, returns: jax.Array) -> tuple[_Guess, jax.Array]:
    """One round, and the mean log-likelihood of the guess that it began with.

    Filter: Hamilton, "Time Series Analysis", 1994, 22.4; smoother and re-estimation: Kim, Journal
    of Econometrics 60, 1994, and Hamilton, Journal of Econometrics 45, 1990.
    """
    distance = returns[:, None] - guess.drift
    log_density = -(jnp.log(2.0 * jnp.pi * guess.variance) + distance**2 / guess.variance) / 2.0
    highest = log_density.max(axis=1, keepdims=True)
    density = jnp.exp(log_density - highest)  # f64[T, K]

    def forward(
        belief: jax.Array, density: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
        expected = belief @ guess.transition
        joint = expected * density
        total = joint.sum()
        return joint / total, (expected, joint / total, jnp.log(total))

    start = stationary(guess.transition)
    expected, belief, gains = jax.lax.scan(forward, start, density)[1]

    def backward(
        smooth: jax.Array, row: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        belief, expected_next = row
        pairs = belief[:, None] * guess.transition * (smooth / expected_next)
        return pairs.sum(axis=1), (pairs.sum(axis=1), pairs)

    rows = (belief[:-1], expected[1:])
    smooth, pairs = jax.lax.scan(backward, belief[-1], rows, reverse=True)[1]
    weight = jnp.concatenate([smooth, belief[-1:]])
    total = weight.sum(axis=0)
    drift = (weight * returns[:, None]).sum(axis=0) / total
    variance = (weight * (returns[:, None] - drift) ** 2).sum(axis=0) / total
    moves = pairs.sum(axis=0)
    improved = _Guess(
        drift=drift,
        variance=jnp.maximum(variance, MIN_VARIANCE),
        transition=moves / moves.sum(axis=1, keepdims=True),
    )
    return improved, (gains.sum() + highest.sum()) / len(returns)
