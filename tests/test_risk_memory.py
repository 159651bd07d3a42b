import dataclasses
import json

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtrade import risk
from jaxtrade.specs import HARD_LIMITS, BundleMetadata, FeatureSpec, JaxtradeError, RiskLimits
from tests.bundles import metadata_of, of_levels
from tests.reviews import (
    ASSETS,
    assert_within,
    compiled,
    compiled_remember,
    compiled_size,
    exposures,
    limit_sets,
    masks,
    review,
    vector_of,
)

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
    metadata = metadata_of(of_levels(spec, None, None))
    metadata = dataclasses.replace(metadata, limits=limits)
    assert BundleMetadata.from_json(metadata.to_json()).limits == limits
    tree = json.loads(metadata.to_json())
    tree["limits"] = {name: tree["limits"][name] for name in HARD_LIMITS}
    old = BundleMetadata.from_json(json.dumps(tree)).limits
    assert old == RiskLimits(max_gross=np.inf, max_drawdown=0.25)
    tree["limits"]["cooldown_bars"] = "3"
    with pytest.raises(JaxtradeError, match="metadata cannot be read"):
        BundleMetadata.from_json(json.dumps(tree))
