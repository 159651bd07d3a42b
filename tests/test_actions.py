"""Kinds of actions: what they ask for, what they make of nonsense, and bad choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

from jaxtrade.envs.actions import Exposure, Levels, PricedOrders, Weights
from jaxtrade.spaces import MultiDiscrete
from jaxtrade.specs import JaxtradeError

HELD = jnp.float32([0.25])
THREE = jnp.float32([0.1, -0.2, 0.3])


def read(actions, action, held=HELD):
    """A request, which is the same compiled and not, without implicit promotion."""
    action = jnp.asarray(action)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        plain = actions.read(action, held)
        compiled = jax.jit(actions.read)(action, held)
    jax.tree.map(np.testing.assert_array_equal, plain, compiled)
    assert plain.exposure.shape == held.shape
    assert plain.exposure.dtype == jnp.float32
    return plain


def counts(request):
    return int(request.invalid), int(request.clipped)


def test_levels_by_index():
    levels = Levels((-1, 0.5, 2))
    assert levels.levels == (-1.0, 0.5, 2.0)
    for index, exposure in enumerate((-1, 0.5, 2)):
        request = read(levels, jnp.int32(index))
        np.testing.assert_array_equal(request.exposure, [exposure])
        assert counts(request) == (0, 0)
    several = read(levels, jnp.int32([2, 0, 7]), THREE)
    np.testing.assert_array_equal(several.exposure, np.float32([2, -1, np.nan]))
    assert counts(several) == (1, 0)


@pytest.mark.parametrize(
    ("actions", "action", "held"),
    [
        (Levels((-1.0, 0.5, 2.0)), jnp.int32(1), HELD),
        (Levels((-1.0, 0.5, 2.0)), jnp.int32([2, 0, 1]), THREE),
        (Exposure(-0.5, 1.0), jnp.float32([-0.5, 0.25, 1.0]), THREE),
        (Exposure(0.1, 0.7), jnp.float32([np.nextafter(np.float32(0.7), np.float32(1))]), HELD),
        (Weights(gross=1.5), jnp.float32([0.5, 0.2, 0.2, 0.1]), THREE),
        (Weights(long_short=True), jnp.float32([0.5, -1.0, 0.2]), THREE),
    ],
)
def test_what_a_head_chooses_reads_as_in_the_environment(actions, action, held):
    exposure = actions.exposure(action)
    assert (exposure.shape, exposure.dtype) == (held.shape, jnp.float32)
    np.testing.assert_array_equal(exposure, read(actions, action, held).exposure)


@pytest.mark.parametrize("index", [-1, 3, -(2**31), 2**31 - 1])
def test_an_index_that_is_none_asks_for_nothing(index):
    request = read(Levels(), jnp.int32(index))
    assert np.isnan(request.exposure).all()
    assert counts(request) == (1, 0)


def test_exposures_are_clipped_and_nonsense_asks_for_nothing():
    request = read(Exposure(-0.5, 1.0), jnp.float32([-2.0, 0.25, np.nan]), THREE)
    np.testing.assert_array_equal(request.exposure, np.float32([-0.5, 0.25, np.nan]))
    assert counts(request) == (1, 1)
    both = read(Exposure(), jnp.float32([np.inf, -np.inf, 1.0]), THREE)
    np.testing.assert_array_equal(both.exposure, np.float32([np.nan, np.nan, 1.0]))
    assert counts(both) == (2, 0)


def test_weights_are_shares_of_assets_and_cash():
    request = read(Weights(), jnp.float32([0.2, 0.1, 0.0, 0.1]), THREE)
    np.testing.assert_allclose(request.exposure, [0.5, 0.25, 0], rtol=1e-6)
    doubled = read(Weights(gross=2.0), jnp.float32([0.2, 0.1, 0.0, 0.1]), THREE)
    np.testing.assert_allclose(doubled.exposure, [1.0, 0.5, 0], rtol=1e-6)
    np.testing.assert_array_equal(read(Weights(), jnp.zeros(4), THREE).exposure, [0, 0, 0])
    clipped = read(Weights(), jnp.float32([5.0, -1.0, 0.0, 1.0]), THREE)
    np.testing.assert_allclose(clipped.exposure, [0.5, 0, 0], rtol=1e-6)
    assert counts(clipped) == (0, 2)
    none = read(Weights(), jnp.float32([1.0, np.nan, 0.0, 0.0]), THREE)
    assert np.isnan(none.exposure).all()
    assert counts(none) == (1, 0)


def test_long_short_weights_keep_the_gross():
    small = jnp.float32([0.2, -0.3, 0.1])
    np.testing.assert_array_equal(read(Weights(long_short=True), small, THREE).exposure, small)
    large = read(Weights(long_short=True, gross=1.5), jnp.float32([1.0, -1.0, 0.5]), THREE)
    np.testing.assert_allclose(large.exposure, [0.6, -0.6, 0.3], rtol=1e-6)
    below = read(Weights(long_short=True), jnp.float32([-3.0, 0.0, 0.0]), THREE)
    np.testing.assert_array_equal(below.exposure, [-1, 0, 0])
    assert counts(below) == (0, 1)


@pytest.mark.parametrize("stop", [False, True])
def test_priced_orders_wait_on_the_passive_side_or_stop_on_the_other(stop):
    orders = PricedOrders(offsets=(0.0, 0.01), quantities=(-0.5, 0.0, 0.5), stop=stop)
    for index, side in ((0, -1), (2, 1)):
        request = read(orders, jnp.int32([1, index]))
        level = request.stop if stop else request.limit
        assert (request.limit is None) == stop
        assert (request.stop is None) != stop
        np.testing.assert_allclose(level, [0.01 * side * (1 if stop else -1)], rtol=1e-6)
        np.testing.assert_allclose(request.exposure, [0.25 + 0.5 * side], rtol=1e-6)
        assert counts(request) == (0, 0)
    nothing = read(orders, jnp.int32([1, 1]))
    assert np.isnan(nothing.exposure).all()
    assert counts(nothing) == (0, 0)
    for action in ([2, 0], [0, 3], [-1, 0], [0, -1]):
        request = read(orders, jnp.int32(action))
        assert np.isnan(request.exposure).all()
        assert counts(request) == (1, 0)


KINDS = [
    (Levels(), 1, ()),
    (Levels((0.0, 1.0)), 3, (3,)),
    (Exposure(), 3, (3,)),
    (Weights(), 3, (4,)),
    (Weights(long_short=True), 3, (3,)),
    (PricedOrders(), 1, (2,)),
]


@pytest.mark.parametrize(("actions", "num_assets", "shape"), KINDS, ids=str)
def test_samples_of_a_space_are_in_it_and_ask_for_something(actions, num_assets, shape):
    space = actions.space(num_assets)
    held = jnp.zeros(num_assets)
    for seed in range(20):
        action = space.sample(jax.random.key(seed))
        assert action.shape == space.shape == shape
        assert bool(space.contains(action))
        assert counts(actions.read(action, held)) == (0, 0)


def test_multi_discrete_draws_all_and_contains_no_other():
    space = MultiDiscrete((2, 3))
    drawn = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 200))
    assert {tuple(row) for row in np.asarray(drawn).tolist()} == {
        (a, b) for a in range(2) for b in range(3)
    }
    for wrong in ([2, 0], [0, 3], [-1, 0]):
        assert not bool(space.contains(jnp.int32(wrong)))
    assert isinstance(Levels().space(1), spaces.Discrete)
    assert repr(space) == "MultiDiscrete(2, 3)"


def test_equal_choices_are_equal_and_hash_alike():
    assert Levels([-1, 0, 1]) == Levels((-1.0, 0.0, 1.0))
    assert hash(Levels([-1, 0, 1])) == hash(Levels())
    assert hash(PricedOrders(offsets=[0, 0.01])) == hash(PricedOrders(offsets=(0.0, 0.01)))


BAD = {
    "one level": (lambda: Levels((1.0,)), r"levels are \(1.0,\): give at least two different"),
    "twice": (lambda: Levels((1, 1, 0)), "give at least two different target exposures"),
    "nan level": (lambda: Levels((0, np.nan)), "give at least two different target exposures"),
    "empty range": (lambda: Exposure(1.0, 1.0), "exposures from 1.0 to 1.0: give low < high"),
    "endless": (lambda: Exposure(0.0, np.inf), "give low < high"),
    "no gross": (lambda: Weights(gross=0.0), "gross is 0.0: give a finite number above 0"),
    "offset": (lambda: PricedOrders(offsets=(0.0, 1.0)), "offsets are .*: give fractions from 0"),
    "below": (lambda: PricedOrders(offsets=(-0.1, 0.5)), "give fractions from 0 to below 1"),
    "quantities": (lambda: PricedOrders(quantities=(1, 1)), "quantities are .*: give different"),
    "no quantity": (lambda: PricedOrders(quantities=()), "give different finite numbers"),
    "two assets": (lambda: PricedOrders().space(2), "priced orders are for one asset, there are 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_choices(case):
    make, message = BAD[case]
    with pytest.raises(JaxtradeError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
