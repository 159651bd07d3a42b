import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtrade import risk
from jaxtrade.specs import BINDING_FLAGS, RiskLimits, binding_names

WIDE = {"max_exposure": 9.0, "max_gross": 9.0, "max_net": 9.0}
ASSETS = 3
compiled = jax.jit(risk.review)


def review(requested, weights=None, mask=None, *, drawdown=0.0, day_return=0.0, **limits):
    """Target and names of what bound; by default flat, nothing masked, wide limits."""
    requested = jnp.asarray(requested, jnp.float32)
    weights = jnp.zeros_like(requested) if weights is None else jnp.asarray(weights, jnp.float32)
    mask = jnp.ones_like(requested) if mask is None else jnp.asarray(mask, jnp.float32)
    vector = jnp.asarray(RiskLimits(**{**WIDE, **limits}).vector(), jnp.float32)
    returns = (jnp.float32(drawdown), jnp.float32(day_return))
    target, binding = compiled(requested, weights, mask, returns, vector)
    assert target.dtype == jnp.float32
    assert binding.dtype == jnp.int32
    return np.asarray(target), binding_names(int(binding))


# Each limit by hand


@pytest.mark.parametrize(
    ("requested", "limits", "expected", "bound"),
    [
        ([1.0, -2.0, 0.5], {}, [1.0, -2.0, 0.5], ()),
        ([1.0, -2.0, 0.5], {"max_exposure": 0.8}, [0.8, -0.8, 0.5], ("max_exposure",)),
        ([0.8, -0.8, 0.5], {"max_exposure": 0.8}, [0.8, -0.8, 0.5], ()),
        # gross 4 of 2: all halved
        ([1.0, -2.0, 1.0], {"max_gross": 2.0}, [0.5, -1.0, 0.5], ("max_gross",)),
        ([1.0, -0.5, 0.5], {"max_gross": 2.0}, [1.0, -0.5, 0.5], ()),
        # net 2 of 0.5: all to a quarter, though one of them lowers the net
        ([2.0, -1.0, 1.0], {"max_net": 0.5}, [0.5, -0.25, 0.25], ("max_net",)),
        ([-2.0, 1.0, -1.0], {"max_net": 0.5}, [-0.5, 0.25, -0.25], ("max_net",)),
        ([1.0, -1.0, 0.0], {"max_net": 0.5}, [1.0, -1.0, 0.0], ()),
        # capped to 1, 1, -1: gross 3 of 1.5: 0.5, 0.5, -0.5: net 0.5 of 0.1
        (
            [7.0, 1.0, -3.0],
            {"max_exposure": 1.0, "max_gross": 1.5, "max_net": 0.1},
            [0.1, 0.1, -0.1],
            ("max_exposure", "max_gross", "max_net"),
        ),
    ],
)
def test_exposure_limits_by_hand(requested, limits, expected, bound):
    target, names = review(requested, **limits)
    np.testing.assert_allclose(target, expected, rtol=1e-6)
    assert names == bound


@pytest.mark.parametrize("drawdown", [0.2, 0.5])
def test_drawdown_breaker(drawdown):
    limits = {"max_drawdown": 0.2}
    target, names = review([1.0, -1.0], [0.5, 0.5], drawdown=drawdown, **limits)
    assert (target == 0).all()
    assert names == ("max_drawdown",)
    assert review([1.0], drawdown=0.19, **limits) == ([1.0], ())
    assert review([1.0], drawdown=1.0, max_drawdown=1.0) == ([1.0], ())  # 1 is off


@pytest.mark.parametrize("day_return", [-0.05, -0.5])
def test_daily_loss_breaker(day_return):
    limits = {"max_daily_loss": 0.05}
    target, names = review([1.0, -1.0], [0.5, 0.5], day_return=day_return, **limits)
    assert (target == 0).all()
    assert names == ("max_daily_loss",)
    for harmless in (-0.04, 0.05, 0.5):
        assert review([1.0], day_return=harmless, **limits) == ([1.0], ())
    assert review([1.0], day_return=-1.0, max_daily_loss=1.0) == ([1.0], ())


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_a_request_that_is_no_number_holds(nothing):
    target, names = review([nothing, 0.5], [0.3, 0.1])
    np.testing.assert_array_equal(target, np.float32([0.3, 0.5]))
    assert names == ("not_finite",)
    target, names = review([nothing, 0.5], [0.3, 0.1], max_exposure=0.2)  # within the limits
    np.testing.assert_allclose(target, [0.2, 0.2])
    assert names == ("not_finite", "max_exposure")


@pytest.mark.parametrize("closed", [0.0, -1.0, np.nan])
def test_a_masked_asset_holds(closed):
    target, names = review([0.9, 0.5], [-0.3, 0.1], [closed, 1.0])
    np.testing.assert_array_equal(target, np.float32([-0.3, 0.5]))
    assert names == ("masked",)
    assert review([-0.3, 0.5], [-0.3, 0.1], [closed, 1.0])[1] == ()  # it asked for what it has


@pytest.mark.parametrize(
    ("requested", "held", "limits", "free"),
    [
        # 0.8 is held and cannot be sold: of a gross of 1, 0.2 are left for the other two
        ([0.0, 0.6, -0.2], 0.8, {"max_gross": 1.0}, [0.15, -0.05]),
        ([0.0, 0.6, -0.2], 1.1, {"max_gross": 1.0}, [0.0, 0.0]),
        ([0.0, 0.125, -0.125], 0.75, {"max_gross": 1.0}, [0.125, -0.125]),
        # a net of 1: 0.2 more on the same side, up to 1.8 on the other
        ([0.0, 0.6, -0.2], 0.8, {"max_net": 1.0}, [0.3, -0.1]),
        ([0.0, -1.8, 0.0], 0.8, {"max_net": 1.0}, [-1.8, 0.0]),
        ([0.0, -3.6, 0.0], 0.8, {"max_net": 1.0}, [-1.8, 0.0]),
        ([0.0, -0.1, 0.0], 1.3, {"max_net": 1.0}, [-0.1, 0.0]),
        ([0.0, 0.1, 0.0], 1.3, {"max_net": 1.0}, [0.0, 0.0]),
    ],
)
def test_what_a_masked_asset_holds_counts(requested, held, limits, free):
    target, names = review(requested, [held, 0.0, 0.0], [0.0, 1.0, 1.0], **limits)
    np.testing.assert_allclose(target, [held, *free], rtol=1e-5, atol=1e-7)
    was_cut = not np.allclose(requested[1:], free)
    assert names == ((*limits, "masked") if was_cut else ("masked",))


def test_several_at_once():
    target, names = review(
        [np.nan, 9.0, 3.0],
        [0.4, 0.1, -0.2],
        [1.0, 1.0, 0.0],
        drawdown=0.3,
        day_return=-0.3,
        max_exposure=1.0,
        max_gross=0.5,
        max_net=0.05,
        max_drawdown=0.1,
        max_daily_loss=0.1,
    )
    np.testing.assert_array_equal(target, np.float32([0.0, 0.0, -0.2]))
    assert names == BINDING_FLAGS


def test_plain_equals_compiled_without_implicit_promotion():
    requested = jnp.float32([1.0, -2.0, 0.5])
    limits = jnp.asarray(RiskLimits().vector(), jnp.float32)
    arguments = (requested, requested / 9, jnp.float32([1, 1, 0]), (jnp.float32(0),) * 2, limits)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        plain = risk.review(*arguments)
    for mine, other in zip(plain, compiled(*arguments), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6)


# Properties

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


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(exposures, exposures, limit_sets)
def test_target_keeps_every_limit_and_every_sign(requested, weights, limits):
    target, names = review(requested, weights, **limits)
    assert_within(target, limits)
    assert np.all(target * np.sign(requested) >= 0)
    assert np.all(np.abs(target) <= np.abs(requested) * (1 + 1e-6))
    if not names:
        np.testing.assert_array_equal(target, requested)
    again, _ = review(target, weights, **limits)
    np.testing.assert_allclose(again, target, rtol=2e-6, atol=1e-7)


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(exposures, exposures, limit_sets, masks)
def test_masked_assets_hold_and_the_others_keep_what_they_leave(requested, weights, limits, mask):
    target, _ = review(requested, weights, mask, **limits)
    held, free = np.where(mask > 0, 0, weights), np.where(mask > 0, target, 0)
    np.testing.assert_array_equal(np.where(mask > 0, 0, target), held)
    slack = 1e-5 * (1 + np.abs(held).sum() + max(limits.values()))
    gross, net = np.abs(target).sum(), abs(target.sum(dtype=np.float64))
    assert gross <= max(limits["max_gross"], np.abs(held).sum()) + slack
    assert net <= max(limits["max_net"], abs(held.sum(dtype=np.float64))) + slack
    assert np.all(np.abs(free) <= limits["max_exposure"] + slack)
    assert np.all(free * np.sign(requested) >= 0)


@hypothesis.settings(deadline=None)
@hypothesis.given(exposures, st.floats(0, 1), st.floats(-1, 1))
def test_breakers_flatten_or_leave_alone(requested, drawdown, day_return):
    limits = {"max_drawdown": 0.25, "max_daily_loss": 0.125, **dict.fromkeys(WIDE, 1e3)}
    target, names = review(requested, drawdown=drawdown, day_return=day_return, **limits)
    drawdown, day_return = np.float32(drawdown), np.float32(day_return)
    assert ("max_drawdown" in names) == (drawdown >= 0.25)
    assert ("max_daily_loss" in names) == (day_return <= -0.125)
    np.testing.assert_array_equal(target, 0 if names else requested)
