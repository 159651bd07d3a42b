import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtrade.sizing import TOLERANCE, delta_order, lots_order, ticks

SETTINGS = hypothesis.settings(deadline=None, max_examples=150)
# Below 1e-30 a difference may be subnormal, which a device flushes to zero and NumPy does not.
exposure = st.one_of(
    st.just(0.0), st.floats(2.0**-99, 8, width=32), st.floats(-8, -(2.0**-99), width=32)
)
exposures = hnp.arrays(np.float32, 3, elements=exposure)
bands = st.sampled_from([0.0, 1e-6, 0.05, 0.5, 1.0])
compiled = jax.jit(functools.partial(delta_order, xp=jnp))
compiled_lots = jax.jit(functools.partial(lots_order, xp=jnp))
compiled_ticks = jax.jit(functools.partial(ticks, xp=jnp))


def order(target, weights, band, minimum=0.0):
    return delta_order(np.float32(target), np.float32(weights), band, minimum, xp=np)


def order_lots(target, lots, lot_value, band=0.0, minimum=0.0):
    arrays = np.float32(target), np.int32(lots), np.float32(lot_value)
    return lots_order(*arrays, np.float32(band), np.float32(minimum), xp=np)


def ticks_of(offset, price, is_buy):
    return ticks(np.float32(offset), np.float32(price), np.asarray(is_buy), xp=np)


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


def test_minimum_by_hand():
    target, weights = [0.5, 0.5, 0.5, 0.0, -0.5], [0.375, 0.4375, 0.25, 0.0625, -0.375]
    # changes of 0.125 (the minimum itself), 0.0625, 0.25, closing, -0.125
    np.testing.assert_array_equal(
        order(target, weights, 0.0, 0.125), [0.125, 0, 0.25, -0.0625, -0.125]
    )
    np.testing.assert_array_equal(order(target, weights, 0.125, 0.2), [0, 0, 0.25, -0.0625, 0])


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
@hypothesis.given(exposures, exposures, bands, bands)
def test_numpy_and_jax_agree_bit_for_bit(target, weights, band, minimum):
    expected = order(target, weights, band, minimum)
    given = (target, weights, band, minimum)
    for other in (compiled(*given), delta_order(*given, xp=jnp)):
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


# Whole lots


def test_lots_by_hand():
    # a lot is 0.1 of the equity: 0.35 are 3 lots and -0.35 are -3; 0.3 / 0.1 are 3, not 2
    got = order_lots([0.35, -0.35, 0.3, -0.7, 0.05, 1.0], [0, 0, 1, 1, 0, 12], [0.1] * 6)
    np.testing.assert_array_equal(got, [3, -3, 2, -8, 0, -2])
    assert got.dtype == np.int32
    # 3 lots, now worth 0.33, of a target of 0.3: inside a band of 0.05, outside one of 0.02
    np.testing.assert_array_equal(order_lots([0.3], [3], [0.11], 0.05), [0])
    np.testing.assert_array_equal(order_lots([0.3], [3], [0.11], 0.02), [-1])
    # a target of 0.09 is no lot, but only one of 0 closes whatever the band
    np.testing.assert_array_equal(order_lots([0.09, 0.0], [1, 1], [0.1, 0.1], 0.5), [0, -1])


def test_smallest_order_in_lots_by_hand():
    target, lots, value = [0.3, 0.3, 0.3, 0.0, -0.3], [0, 1, 2, 2, -2], [0.1] * 5
    # orders of 3, 2, 1, -2 and -1 lots; two lots are worth exactly the minimum
    np.testing.assert_array_equal(order_lots(target, lots, value, minimum=0.2), [3, 2, 0, -2, 0])


@pytest.mark.parametrize("size", [1, 3, 7, 1_000, 99_999])
def test_an_exactly_met_target_is_not_lost(size):
    for lot_value in np.float32([0.1, 0.07, 1 / 3, 3e-6]):
        target = np.float32(size) * lot_value
        assert order_lots([target], [0], [lot_value]) == size
        assert order_lots([target], [size], [lot_value]) == 0
        below = np.float32(size - 0.01) * lot_value
        assert order_lots([below], [0], [lot_value]) == size - (size < 10_000)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_known_trades_no_lots(nothing):
    got = order_lots([nothing, nothing, 0.0], [0, 5, 5], [0.1, 0.1, 0.1])
    np.testing.assert_array_equal(got, [0, 0, -5])
    for value in (np.nan, np.inf, 0.0, -0.1):
        np.testing.assert_array_equal(order_lots([0.5, 0.0], [5, 5], [value] * 2), [0, -5])


held_lots = hnp.arrays(np.int32, 3, elements=st.integers(-1_000_000, 1_000_000))
lot_values = hnp.arrays(np.float32, 3, elements=st.floats(2.0**-20, 2, width=32))
minimums = st.sampled_from([0.0, 0.01, 0.5])


@SETTINGS
@hypothesis.given(exposures, held_lots, lot_values, bands, minimums)
def test_lots_agree_bit_for_bit(target, lots, lot_value, band, minimum):
    expected = order_lots(target, lots, lot_value, band, minimum)
    given = (target, lots, lot_value, np.float32(band), np.float32(minimum))
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        arrays = [jnp.asarray(array) for array in given]
        for got in (compiled_lots(*arrays), lots_order(*arrays, xp=jnp)):
            assert got.dtype == expected.dtype == np.int32
            np.testing.assert_array_equal(got, expected)


@SETTINGS
@hypothesis.given(exposures, held_lots, lot_values, bands, minimums)
def test_lots_after_the_order(target, lots, lot_value, band, minimum):
    traded = order_lots(target, lots, lot_value, band, minimum)
    after = lots + traded
    value = np.float64(lot_value)
    moved = (traded != 0) | (band == minimum == 0)
    slack = 1 + 2e-6
    assert np.all((np.abs(after) * value <= np.abs(target) * slack)[moved])
    assert np.all((after * np.sign(target) >= 0)[moved])
    assert np.all((np.abs(target - after * value) < value * slack + 2e-6 * np.abs(target))[moved])
    assert np.all((np.abs(traded) * value * slack >= minimum)[(traded != 0) & (target != 0)])
    still = traded == 0
    unmet = np.abs(target - lots * value)
    one_lot = np.maximum(value, max(band, minimum + value.max())) * slack
    assert np.all((unmet <= one_lot + 2e-6 * (np.abs(target) + np.abs(lots) * value))[still])
    np.testing.assert_array_equal(lots + order_lots([0] * 3, lots, lot_value, band, minimum), 0)


# Ticks


def test_ticks_by_hand():
    # at 100.00 with ticks of 0.01: -0.00015 are -1.5 ticks, which a buy rounds to -2
    offsets = [-0.00015, -0.00015, 0.00015, 0.00015, 0.0, 0.0]
    is_buy = [True, False, True, False, True, False]
    got = ticks_of(offsets, [10_000] * 6, is_buy)
    np.testing.assert_array_equal(got, [-2, -1, 1, 2, 0, 0])
    assert got.dtype == np.int32


@pytest.mark.parametrize("is_buy", [True, False])
def test_a_whole_number_of_ticks_stays(is_buy):
    for count in (1, 3, 17, 250, -1, -3, -17, -250):
        for price in (12_345, 30_017, 1_234_567):
            offset = np.float32(count / price)
            assert ticks_of([offset], [price], [is_buy]) == count
            whole = ticks(np.float32([offset]), np.int32([price]), np.array([is_buy]), xp=np)
            assert whole == count


def test_an_offset_that_is_no_number_is_never_filled():
    for nothing in (np.nan, np.inf, -np.inf):
        got = ticks_of([nothing, nothing], [100, 100], [True, False])
        np.testing.assert_array_equal(got, [-(2**30), 2**30])


offsets = hnp.arrays(np.float32, 3, elements=st.floats(-0.5, 0.5, width=32, allow_subnormal=False))
prices = hnp.arrays(np.int32, 3, elements=st.integers(1, 5_000_000))
sides = hnp.arrays(np.bool_, 3)


@SETTINGS
@hypothesis.given(offsets, prices, sides)
def test_ticks_are_passive_and_agree_bit_for_bit(offset, price, is_buy):
    got = ticks(offset, price, is_buy, xp=np)
    exact = offset.astype(np.float64) * price
    slack = 2 * TOLERANCE * np.maximum(np.abs(exact), 1)
    assert np.all(np.where(is_buy, got - exact, exact - got) <= slack)
    assert np.all(np.abs(got - exact) <= 1 + slack)
    arrays = jnp.asarray(offset), jnp.asarray(price), jnp.asarray(is_buy)
    with jax.numpy_dtype_promotion("strict"):
        for other in (compiled_ticks(*arrays), ticks(*arrays, xp=jnp)):
            assert other.dtype == got.dtype == np.int32
            np.testing.assert_array_equal(other, got)
