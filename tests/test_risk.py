import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxtrade import risk
from jaxtrade.specs import BINDING_FLAGS, HARD_LIMITS, LIMIT_FIELDS, JaxtradeError, RiskLimits
from tests.reviews import (
    WIDE,
    assert_within,
    compiled,
    exposures,
    limit_sets,
    masks,
    review,
    vector_of,
)

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


@pytest.mark.parametrize("extended", [False, True])
def test_several_at_once(extended):
    options = {"cooldown": [0, 1, 0], "sized": [np.nan, 8.0, 3.0]} if extended else {}
    target, names = review(
        [np.nan, 9.0, 3.0],
        [0.4, 0.1, -0.2],
        [1.0, 1.0, 0.0],
        **options,
        drawdown=0.3,
        day_return=-0.3,
        max_exposure=1.0,
        max_gross=0.48,
        max_net=0.05,
        max_drawdown=0.1,
        max_daily_loss=0.1,
    )
    np.testing.assert_array_equal(target, np.float32([0.0, 0.0, -0.2]))
    assert names == BINDING_FLAGS[: None if extended else -2]
    assert BINDING_FLAGS.index("masked") == 6  # bits are stored: old names keep theirs


# What was there before, and how it does without the rest


def test_the_first_limits_keep_their_places():
    assert LIMIT_FIELDS[:5] == HARD_LIMITS
    limits = RiskLimits(max_gross=2.0, max_daily_loss=0.5, target_volatility=0.25, cooldown_bars=3)
    assert limits.hard_vector() == (1.0, 2.0, 1.0, 1.0, 0.5)
    assert limits.vector() == (*limits.hard_vector(), 0.25, 0.0, 1.0, 0.0, 3.0)


@pytest.mark.parametrize(("size", "memory"), [(4, False), (11, False), (5, True)])
def test_limits_of_another_length_are_refused(size, memory):
    flat = jnp.zeros(1)
    options = {"memory": risk.init_memory(1)} if memory else {}
    with pytest.raises(JaxtradeError, match=rf"limits have shape \({size},\): give"):
        risk.review(flat, flat, flat, jnp.zeros(2), jnp.zeros(size), **options)


def test_plain_equals_compiled_without_implicit_promotion():
    requested = jnp.float32([1.0, -2.0, 0.5])
    limits = vector_of(max_exposure=1.0)
    arguments = (requested, requested / 9, jnp.float32([1, 1, 0]), (jnp.float32(0),) * 2, limits)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        plain = risk.review(*arguments)
    for mine, other in zip(plain, compiled(*arguments), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6)


# Properties


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
