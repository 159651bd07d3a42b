import dataclasses
import json

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtrade import risk
from jaxtrade.decision import Policy
from jaxtrade.specs import (
    BINDING_FLAGS,
    HARD_LIMITS,
    LIMIT_FIELDS,
    BundleMetadata,
    FeatureSpec,
    JaxtradeError,
    RiskLimits,
    binding_names,
)
from tests.bundles import metadata_of

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


# Memory: the drawdown breaker with hysteresis, and the cooldown after a stop


def remembered(drawdowns, stops=None, **limits):
    """Memories after each of some bars, of three assets."""
    memory, memories = risk.init_memory(ASSETS), []
    stops = np.zeros((len(drawdowns), ASSETS), bool) if stops is None else np.asarray(stops)
    for drawdown, stopped in zip(drawdowns, stops, strict=True):
        memory = compiled_remember(
            memory, jnp.float32(drawdown), jnp.asarray(stopped), vector_of(**limits)
        )
        memories.append(memory)
    assert memory.is_halted.dtype == jnp.bool
    assert memory.cooldown.dtype == jnp.int32
    return memories


def test_the_breaker_stays_out_until_the_drawdown_is_back():
    drawdowns = [0.1, 0.19, 0.2, 0.19, 0.11, 0.3, 0.1, 0.15, 0.19, 0.25, 0.05]
    hysteresis = remembered(drawdowns, max_drawdown=0.2, drawdown_resume=0.1)
    assert [int(m.is_halted) for m in hysteresis] == [0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0]
    default = remembered(drawdowns, max_drawdown=0.2)
    assert [bool(m.is_halted) for m in default] == [bool(d >= 0.2) for d in drawdowns]
    off = remembered([0.5, 1.0], max_drawdown=1.0)
    assert not any(m.is_halted for m in off)


def test_the_cooldown_counts_decisions_down():
    stops = np.zeros((7, ASSETS), bool)
    stops[1, 0] = stops[1, 2] = stops[3, 2] = True
    memories = remembered(np.zeros(7), stops, cooldown_bars=3)
    # asset 0: stopped in bar 1, so the decisions after bars 1, 2 and 3 may not add to it
    expected = [[0, 0, 0], [3, 0, 3], [2, 0, 2], [1, 0, 3], [0, 0, 2], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_array_equal([m.cooldown for m in memories], expected)
    assert (np.asarray([m.cooldown for m in remembered(np.zeros(7), stops)]) == 0).all()


@pytest.mark.parametrize(
    ("requested", "held", "expected"),
    [
        (0.5, 0.0, 0.0),  # not opened
        (-0.5, 0.0, 0.0),
        (0.5, 0.25, 0.25),  # not increased
        (-0.5, -0.25, -0.25),
        (0.125, 0.25, 0.125),  # reduced
        (0.0, 0.25, 0.0),
        (-0.5, 0.25, 0.0),  # a flip closes
        (0.5, -0.25, 0.0),
        (np.nan, 0.25, 0.25),
    ],
)
def test_cooldown_by_hand(requested, held, expected):
    target, names = review([requested, 0.7], [held, 0.1], cooldown=[2, 0])
    np.testing.assert_array_equal(target, np.float32([expected, 0.7]))
    assert ("cooldown" in names) == (requested != expected and not np.isnan(requested))
    free, names = review([requested, 0.7], [held, 0.1], cooldown=[0, 0])
    np.testing.assert_array_equal(free[0], np.float32(held if np.isnan(requested) else requested))
    assert "cooldown" not in names


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_while_halted_a_share_of_the_target_is_left(scale):
    limits = {"max_drawdown": 0.2, "drawdown_scale": scale, "drawdown_resume": 0.05}
    half = [0.5 * scale, -0.25 * scale]
    for given in ({"drawdown": 0.25}, {"drawdown": 0.1, "halted": True}):
        target, names = review([0.5, -0.25], **given, **limits)
        np.testing.assert_array_equal(target, np.float32(half))
        assert names == ("max_drawdown",)
    target, names = review([0.5, -0.25], drawdown=0.1, halted=False, **limits)
    np.testing.assert_array_equal(target, np.float32([0.5, -0.25]))
    assert names == ()
    target, _ = review([2.0, -1.0], halted=True, max_gross=1.5, **limits)  # of what gross leaves
    np.testing.assert_allclose(target, np.float32([1.0, -0.5]) * scale)
    target, _ = review([0.5], halted=True, day_return=-0.1, max_daily_loss=0.05, **limits)
    assert target == 0  # the daily loss knows no half


def test_a_halted_account_tells_a_graph_without_memory():
    """As the module says: `max_drawdown` = `drawdown_resume` while halted is the same breaker."""
    flat, one, resume = jnp.zeros(1), jnp.ones(1), 0.05
    for drawdown in (0.06, 0.15, 0.3):
        hard = jnp.asarray(RiskLimits(max_drawdown=resume).hard_vector(), jnp.float32)
        told, _ = compiled(one, flat, one, (jnp.float32(drawdown), jnp.float32(0)), hard)
        remembering = review(
            [1.0], drawdown=drawdown, halted=True, max_drawdown=0.2, drawdown_resume=resume
        )
        assert told == remembering[0] == 0


# Size


def sized(requested, volatility=None, stop=None, *, bars_per_year=256.0, **limits):
    arrays = [
        None if x is None else jnp.asarray(x, jnp.float32) for x in (requested, volatility, stop)
    ]
    return np.asarray(compiled_size(*arrays, vector_of(**limits), bars_per_year=bars_per_year))


def test_size_by_hand():
    request, deviation, stop = [1.0, -0.5, 0.25], [0.01, 0.02, 0.005], [0.05, 0.02, 0.1]
    # a deviation of 1 % a bar, 256 bars a year: 16 % a year; 8 % wanted: half
    both = {"target_volatility": 0.08, "risk_per_trade": 0.01}
    by_volatility = [0.5, -0.125, 0.25]
    by_stop = [0.2, -0.25, 0.025]
    np.testing.assert_allclose(sized(request, deviation, target_volatility=0.08), by_volatility)
    np.testing.assert_allclose(
        sized(request, deviation, stop, target_volatility=0.08), by_volatility
    )
    np.testing.assert_allclose(sized(request, None, stop, **both), by_stop, rtol=1e-6)
    np.testing.assert_allclose(sized(request, deviation, None, **both), by_volatility)
    np.testing.assert_allclose(
        sized(request, deviation, stop, **both), [0.2, -0.125, 0.025], rtol=1e-6
    )
    for nothing in (
        sized(request, deviation, stop),
        sized(request, None, None, **both),
        sized(request, [0, 0, 0], [0, 0, 0], **both),
    ):
        np.testing.assert_array_equal(nothing, np.float32(request))
    # where one rule says nothing the other one holds
    np.testing.assert_allclose(
        sized(request, [0, 0.02, 0], [0.05, 0, 0], **both), [0.2, -0.125, 0.25], rtol=1e-6
    )


def test_size_where_something_is_not_known():
    both = {"target_volatility": 0.08, "risk_per_trade": 0.01}
    for unknown in (np.nan, np.inf, -np.inf):
        got = sized([0.5, 0.5, np.nan], [unknown, 0.01, 0.01], [0.01, unknown, 0.01], **both)
        assert np.isnan(got).all()  # which the review takes for: hold
        off = sized([0.5, 0.5, 0.5], [unknown] * 3, [unknown] * 3)
        np.testing.assert_array_equal(off, np.float32([0.5] * 3))
    assert np.isfinite(sized([1.0], [1e-38], [1e-38], **both)).all()


def test_the_review_takes_the_size():
    target, names = review([0.5, -0.5], sized=[0.25, -0.5])
    np.testing.assert_array_equal(target, np.float32([0.25, -0.5]))
    assert names == ("size",)
    target, names = review([0.5, -0.5], sized=[0.75, -0.5], max_exposure=0.6)
    np.testing.assert_array_equal(target, np.float32([0.6, -0.5]))
    assert names == ("max_exposure",)
    target, names = review([0.5, -0.5], [0.1, 0.2], sized=[np.nan, -0.5])
    np.testing.assert_array_equal(target, np.float32([0.1, -0.5]))
    assert names == ("not_finite",)


def test_caps_by_asset():
    target, names = review([1.0, -1.0, 1.0], caps=[0.5, 2.0, 0.0], max_exposure=0.75)
    np.testing.assert_array_equal(target, np.float32([0.5, -0.75, 0.0]))
    assert names == ("max_exposure",)
    assert review([0.5, -0.5], caps=[0.5, 0.5])[1] == ()


# Properties of all of it

memories = st.fixed_dictionaries(
    {"halted": st.booleans(), "cooldown": st.lists(st.integers(0, 2), min_size=3, max_size=3)}
)
shares = hnp.arrays(np.float32, ASSETS, elements=st.floats(0, 8, width=32, allow_subnormal=False))
drawdowns = st.floats(0, 1, width=32)


def permitted(requested, weights, mask, memory, caps, drawdown, limits):
    """The rules one by one, asset by asset, in float64; and the net over the gross they share."""
    limits = {**dataclasses.asdict(RiskLimits()), **limits}
    cut = []
    for i, wanted in enumerate(np.float64(requested)):
        most = min(limits["max_exposure"], caps[i])
        wanted = max(-most, min(most, wanted))
        if memory["cooldown"][i] and weights[i] * wanted <= 0:
            wanted = 0.0
        elif memory["cooldown"][i] and abs(wanted) > abs(weights[i]):
            wanted = float(weights[i])
        cut.append(wanted)
    cut = np.array(cut)
    held, free = np.where(mask > 0, 0, np.float64(weights)), np.where(mask > 0, cut, 0)
    gross, net = np.abs(free).sum(), free.sum()
    gross_left = max(0.0, limits["max_gross"] - np.abs(held).sum())
    net_left = max(0.0, limits["max_net"] - np.sign(net) * held.sum())
    share = min(1.0, gross_left / gross if gross else 1.0, net_left / abs(net) if net else 1.0)
    if memory["halted"] or drawdown >= limits["max_drawdown"]:
        share *= limits["drawdown_scale"]
    return held + share * free, abs(net) / max(gross, 1e-30)


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(exposures, exposures, masks, memories, shares, drawdowns, limit_sets)
def test_all_the_rules_in_order(requested, weights, mask, memory, caps, drawdown, limits):
    limits |= {"max_drawdown": 0.5, "drawdown_scale": 0.25}
    target, names = review(
        requested, weights, mask, drawdown=drawdown, caps=caps, **memory, **limits
    )
    expected, rest = permitted(requested, weights, mask, memory, caps, drawdown, limits)
    hypothesis.assume(not 0 < rest < 0.01)  # float32 loses a net that cancels
    np.testing.assert_allclose(target, expected, rtol=1e-4, atol=1e-5 * (1 + np.abs(weights).max()))
    assert ("max_drawdown" in names) == (memory["halted"] or drawdown >= 0.5)


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(exposures, exposures, memories, shares, drawdowns, limit_sets)
def test_nothing_exceeds_a_limit(requested, weights, memory, caps, drawdown, limits):
    target, _ = review(requested, weights, drawdown=drawdown, caps=caps, **memory, **limits)
    assert_within(target, limits)
    assert np.all(np.abs(target) <= caps)
    cooling = np.asarray(memory["cooldown"]) > 0
    assert np.all(np.abs(target[cooling]) <= np.abs(weights[cooling]))
    assert np.all(target[cooling] * weights[cooling] >= 0)
    assert np.all(target * np.sign(requested) >= 0)
    if memory["halted"]:
        np.testing.assert_array_equal(target, 0)


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(exposures, exposures, masks, limit_sets, drawdowns, st.floats(-1, 1, width=32))
def test_by_default_the_rest_changes_no_bit(requested, weights, mask, limits, drawdown, day_return):
    known = RiskLimits(**limits, max_drawdown=0.5, max_daily_loss=0.25)
    returns = (jnp.float32(drawdown), jnp.float32(day_return))
    hard, full = (jnp.asarray(v, jnp.float32) for v in (known.hard_vector(), known.vector()))
    memory = compiled_remember(risk.init_memory(ASSETS), returns[0], jnp.zeros(ASSETS, bool), full)
    options = {
        "memory": memory,
        "caps": jnp.full(ASSETS, jnp.inf),
        "sized": compiled_size(requested, jnp.abs(weights), None, full, bars_per_year=252.0),
    }
    expected = compiled(requested, weights, mask, returns, hard)
    for got in (
        compiled(requested, weights, mask, returns, full),
        compiled(requested, weights, mask, returns, full, **options),
    ):
        np.testing.assert_array_equal(got[0], expected[0])
        assert got[1] == expected[1]


# Given on the host


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_gross": 0.0}, "max_gross is 0.0: it must be above 0"),
        ({"max_drawdown": 1.5}, "max_drawdown is 1.5: a fraction of equity is at most 1"),
        ({"target_volatility": -0.1}, "target_volatility is -0.1: give 0 or more, finite"),
        ({"target_volatility": np.inf}, "target_volatility is inf: give 0 or more, finite"),
        ({"risk_per_trade": np.nan}, "risk_per_trade is nan: give 0 or more, at most 1"),
        ({"risk_per_trade": 2.0}, "risk_per_trade is 2.0: give 0 or more, at most 1"),
        ({"drawdown_scale": 1.5}, "drawdown_scale is 1.5: give 0 or more, at most 1"),
        ({"cooldown_bars": -1}, "cooldown_bars is -1: give 0 or more"),
        ({"cooldown_bars": 1.5}, "cooldown_bars is 1.5: give a whole number"),
        (
            {"max_drawdown": 0.2, "drawdown_resume": 0.3},
            "drawdown_resume is 0.3: give at most the max_drawdown of 0.2",
        ),
    ],
)
def test_limits_that_mean_nothing(limits, message):
    with pytest.raises(JaxtradeError, match=message):
        RiskLimits(**limits)


def test_bundles_written_before_there_were_more_limits_still_read():
    spec = FeatureSpec(names=("rsi",))
    limits = RiskLimits(max_gross=np.inf, max_drawdown=0.25, cooldown_bars=3, drawdown_scale=0.5)
    metadata = metadata_of(Policy(features=spec, levels=(0.0, 1.0), normaliser=None, assess=None))
    metadata = dataclasses.replace(metadata, limits=limits)
    assert BundleMetadata.from_json(metadata.to_json()).limits == limits
    tree = json.loads(metadata.to_json())
    tree["limits"] = {name: tree["limits"][name] for name in HARD_LIMITS}
    old = BundleMetadata.from_json(json.dumps(tree)).limits
    assert old == RiskLimits(max_gross=np.inf, max_drawdown=0.25)
    tree["limits"]["cooldown_bars"] = "3"
    with pytest.raises(JaxtradeError, match="metadata cannot be read"):
        BundleMetadata.from_json(json.dumps(tree))
