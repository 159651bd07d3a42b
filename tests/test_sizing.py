import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtrade.sizing import delta_order

SETTINGS = hypothesis.settings(deadline=None, max_examples=150)
# Below 1e-30 a difference may be subnormal, which a device flushes to zero and NumPy does not.
exposure = st.one_of(
    st.just(0.0), st.floats(2.0**-99, 8, width=32), st.floats(-8, -(2.0**-99), width=32)
)
exposures = hnp.arrays(np.float32, 3, elements=exposure)
bands = st.sampled_from([0.0, 1e-6, 0.05, 0.5, 1.0])
compiled = jax.jit(lambda target, weights, band: delta_order(target, weights, band, xp=jnp))


def order(target, weights, band):
    return delta_order(np.float32(target), np.float32(weights), band, xp=np)


def test_band_by_hand():
    target = [0.5, 0.5, 0.5, -0.5, 0.25]
    weights = [0.25, 0.375, 0.4375, -0.375, 0.25]
    # changes of 0.25, 0.125, 0.0625, -0.125 and none; the band's own width is still inside
    np.testing.assert_array_equal(order(target, weights, 0.125), [0.25, 0, 0, 0, 0])
    np.testing.assert_array_equal(order(target, weights, 0.1), [0.25, 0.125, 0, -0.125, 0])
    np.testing.assert_array_equal(order(target, weights, 0.0), [0.25, 0.125, 0.0625, -0.125, 0])


def test_closing_is_never_held_back():
    closing = order([0, 0, 0], [0.01, -0.01, 0], 0.9)
    np.testing.assert_array_equal(closing, np.float32([-0.01, 0.01, 0]))
    np.testing.assert_array_equal(order([0.01, 0.0], [0.0, 0.0], 0.9), [0, 0])


@pytest.mark.parametrize("band", [np.float32(0.125), 0.125])
def test_types(band):
    ours = delta_order(jnp.float32([0.5]), jnp.float32([0.0]), band, xp=jnp)
    theirs = order([0.5], [0.0], band)
    assert ours.dtype == theirs.dtype == np.float32
    assert isinstance(ours, jax.Array)
    assert type(theirs) is np.ndarray
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        delta_order(jnp.float32([0.5]), jnp.float32([0.0]), jnp.float32(band), xp=jnp)


@SETTINGS
@hypothesis.given(exposures, exposures, bands)
def test_numpy_and_jax_agree_bit_for_bit(target, weights, band):
    expected = order(target, weights, band)
    for other in (compiled(target, weights, band), delta_order(target, weights, band, xp=jnp)):
        np.testing.assert_array_equal(np.asarray(other).view(np.int32), expected.view(np.int32))


@SETTINGS
@hypothesis.given(exposures, exposures, bands)
def test_an_order_is_the_whole_difference_or_nothing(target, weights, band):
    traded = order(target, weights, band)
    for delta, wanted, held in zip(traded, target, weights, strict=True):
        if delta != 0:
            assert delta == wanted - held
        else:
            assert abs(wanted - held) <= np.float32(band)
            assert wanted != 0 or held == 0
    closing = order(np.zeros(3), weights, band)
    np.testing.assert_array_equal(weights + closing, 0)
