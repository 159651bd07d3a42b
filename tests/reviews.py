"""Risk reviews to test: one call with everything by default, and what hypothesis draws."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtrade import risk
from jaxtrade.specs import RiskLimits, binding_names

WIDE = {"max_exposure": 9.0, "max_gross": 9.0, "max_net": 9.0}
ASSETS = 3
compiled = jax.jit(risk.review)
compiled_size = jax.jit(risk.size)
compiled_remember = jax.jit(risk.remember)


def vector_of(**limits):
    return jnp.asarray(RiskLimits(**{**WIDE, **limits}).vector(), jnp.float32)


def review(
    requested,
    weights=None,
    mask=None,
    *,
    drawdown=0.0,
    day_return=0.0,
    halted=None,
    cooldown=None,
    caps=None,
    sized=None,
    **limits,
):
    """Target and names of what bound; by default flat, nothing masked, wide limits, no memory."""
    requested = jnp.asarray(requested, jnp.float32)
    weights = jnp.zeros_like(requested) if weights is None else jnp.asarray(weights, jnp.float32)
    mask = jnp.ones_like(requested) if mask is None else jnp.asarray(mask, jnp.float32)
    returns = (jnp.float32(drawdown), jnp.float32(day_return))
    options = {
        name: jnp.asarray(value, jnp.float32)
        for name, value in (("caps", caps), ("sized", sized))
        if value is not None
    }
    if halted is not None or cooldown is not None:
        bars = jnp.asarray(np.zeros(requested.shape) if cooldown is None else cooldown, jnp.int32)
        options["memory"] = risk.Memory(is_halted=jnp.array(bool(halted)), cooldown=bars)
    target, binding = compiled(requested, weights, mask, returns, vector_of(**limits), **options)
    assert target.dtype == jnp.float32
    assert binding.dtype == jnp.int32
    return np.asarray(target), binding_names(int(binding))


exposures = hnp.arrays(
    np.float32, ASSETS, elements=st.floats(-50, 50, width=32, allow_subnormal=False)
)
masks = hnp.arrays(np.float32, ASSETS, elements=st.sampled_from([0, 1]))
limit_sets = st.fixed_dictionaries(
    {name: st.floats(0.01, 20) for name in ("max_exposure", "max_gross", "max_net")}
)


def assert_within(target, limits):
    slack = 1e-6 * (1 + max(limits.values()))
    assert np.abs(target).max() <= limits["max_exposure"] + slack
    assert np.abs(target).sum() <= limits["max_gross"] + slack
    assert abs(target.sum(dtype=np.float64)) <= limits["max_net"] + slack
