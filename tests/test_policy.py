import dataclasses
import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jaxtrade import decision, features
from jaxtrade.decision import Observation, Policy
from jaxtrade.live.export import bundle, export_policy
from jaxtrade.live.policy import EXPLAIN_KEY, METADATA_KEY, Carry, Decision, OnnxPolicy
from jaxtrade.market import Market
from jaxtrade.specs import (
    BUNDLE_FORMAT,
    BundleMetadata,
    FeatureSpec,
    JaxtradeError,
    RiskLimits,
    binding_names,
)
from tests.bundles import (
    LEVELS,
    facts,
    fitted,
    linear_policy,
    metadata_of,
    network_policy,
    rows_of,
)
from tests.markets import random_frame

SPEC = FeatureSpec(names=("ema_10", "rsi", "time_of_day"), window=3)
WARMUP = 7


def make_policy() -> Policy:
    """Buys after a rise, sells after a fall; the exposure held speaks for waiting."""
    market = np.zeros((4, 3))
    market[0] = [1, 0, -1]  # the average's distance from the close: below 0 after a rise
    account = np.zeros((6, 3))
    account[0] = [0, 0.01, 0]
    return linear_policy(SPEC, market, account, [0, 0.001, 0])


@pytest.fixture(scope="module")
def content():
    policy = make_policy()
    return bundle(policy, metadata_of(policy, warmup_bars=WARMUP))


@pytest.fixture
def policy(content):
    return OnnxPolicy(content)


def rise(r=0.01):
    return [[0.0, abs(r), -abs(r), r, 50.0]]


# Deciding


def test_deciding_needs_no_jax(content, tmp_path):
    (tmp_path / "policy.onnx").write_bytes(content)
    code = """if True:
        import sys
        import numpy as np
        from jaxtrade.live.policy import OnnxPolicy
        policy = OnnxPolicy("policy.onnx")
        f = np.float32
        for _ in range(3):
            decision = policy.decide(
                f([[0, 0, 0, 0.01, 5]]), np.zeros(0, f), np.zeros(3, f), np.ones(1, f),
                np.zeros(6, f), np.ones(5, f),
            )
        assert decision.target == [1.0], decision
        assert policy.explain()["ema_10"] > 0
        bad = {"jax", "jaxlib", "flax", "onnx", "jax2onnx"} & set(sys.modules)
        assert not bad, bad
        """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_decision_is_plain_and_keeps_its_numbers(policy):
    first = policy.decide(**facts(bar=rise()))
    assert isinstance(first, Decision)
    assert first._fields == tuple(field.name for field in dataclasses.fields(decision.Decision))
    assert [type(value) for value in first] == [np.ndarray] * 2 + [int] * 2 + [np.ndarray] * 2 + [
        float
    ] * 2
    assert {v.dtype for v in first if isinstance(v, np.ndarray)} == {np.dtype(np.float32)}
    assert first.spread.shape == (0,)
    before = [np.copy(value) for value in first]
    assert (first.requested, first.target, first.action, first.binding) == ([1.0], [1.0], 2, 0)
    assert (first.value, first.confidence) == (7.0, first.probabilities.max())
    assert first.probabilities.sum() == pytest.approx(1.0, abs=1e-6)
    for _ in range(3):
        other = policy.decide(**facts(bar=rise(-0.5)))
    assert (other.target, other.action) == ([-1.0], 0)
    for value, kept in zip(first, before, strict=True):
        np.testing.assert_array_equal(value, kept)


def test_what_is_told_is_not_changed(policy):
    given = facts(bar=rise(), account=[0.4, 0, 0, 0, 0, 0])
    kept = {name: value.copy() for name, value in given.items()}
    policy.decide(**given)
    for name, value in given.items():
        np.testing.assert_array_equal(value, kept[name])


def test_limits_and_mask_are_live(policy):
    def decide(**changes):
        got = policy.decide(**facts(bar=rise(), **changes))
        return got.target[0], binding_names(got.binding)

    held = [0.25, 0, 0, 0, 0, 0]
    assert decide() == (1.0, ())
    assert decide(limits=[0.5, 1, 1, 1, 1]) == (0.5, ("max_exposure",))
    assert decide(limits=[1, 0.25, 1, 1, 1]) == (0.25, ("max_gross",))
    assert decide(limits=[1, math.inf, 0.125, 1, 1]) == (0.125, ("max_net",))
    assert decide(mask=[0], account=held) == (0.25, ("masked",))
    assert decide(account=[0.25, 0, 0, 0.3, 0, 0], limits=[1, 1, 1, 0.2, 1]) == (
        0.0,
        ("max_drawdown",),
    )
    assert decide(account=[0.25, 0, 0, 0, -0.1, 0], limits=[1, 1, 1, 1, 0.05]) == (
        0.0,
        ("max_daily_loss",),
    )
    assert decide() == (1.0, ())


@pytest.mark.parametrize("exposure", [-0.5, 0.0], ids=["nan", "minus infinity"])
def test_a_network_without_a_number_holds(exposure):
    def assess(obs: Observation, hidden):
        held = obs.account[:, :1]
        return jnp.concatenate([held, jnp.log(held), 3 * held], axis=1), held[:, 0], hidden

    policy = dataclasses.replace(make_policy(), assess=assess)
    live = OnnxPolicy(bundle(policy, metadata_of(policy)))
    assert live.decide(**facts(account=[0.5, 0, 0, 0, 0, 0])).requested == [1.0]
    got = live.decide(**facts(account=[exposure, 0, 0, 0, 0, 0]))
    assert np.isnan(got.requested).all()
    assert got.target == np.float32([exposure])
    assert binding_names(got.binding) == ("not_finite",)
    assert live.decide(**facts(account=[0.5, 0, 0, 0, 0, 0])).requested == [1.0]


# The carry


def test_bars_seen_and_warmth(policy):
    for number in range(WARMUP):
        assert (policy.bars_seen, policy.is_warm) == (number, False)
        policy.decide(**facts(bar=rise()))
    assert (policy.bars_seen, policy.is_warm) == (WARMUP, True)
    policy.reset()
    assert (policy.bars_seen, policy.is_warm) == (0, False)


def test_reset_forgets_and_a_restored_carry_goes_on(content):
    bars = [facts(bar=rise(r)) for r in np.random.default_rng(0).normal(0, 0.02, 21)]
    policy = OnnxPolicy(content)
    whole = [policy.decide(**bar) for bar in bars]
    policy.reset()
    for bar in bars[:10]:
        policy.decide(**bar)
    saved = policy.carry()
    for bar in bars[10:15]:
        policy.decide(**bar)
    other = OnnxPolicy(content)
    other.restore(saved)
    assert other.bars_seen == 10
    for bar, expected in zip(bars[10:], whole[10:], strict=True):
        for one, two in zip(other.decide(**bar), expected, strict=True):
            np.testing.assert_array_equal(one, two)


def test_window_and_recursions_are_those_of_the_features(policy):
    closes = np.float32([0.01, -0.02, 0.03, 0.005])
    for r in closes:
        policy.decide(**facts(bar=rise(r)))
    spec = policy.metadata.features
    carry, rows = features.init_carry(spec, 1), []
    for r in closes:
        none = jnp.zeros(1)
        bar = features.make_bar([none, none, none, jnp.full(1, r)], none, none[:0], none)
        bar = bar.replace(clock=jnp.float32([0.25, 0.5, 1e-4]))
        carry, row = features.update(spec, carry, bar)
        rows.append(row[0])
    mine = policy.carry()
    np.testing.assert_allclose(mine.indicators, carry, atol=1e-7)
    np.testing.assert_allclose(mine.window, np.clip(rows[1:], -5, 5), atol=1e-5)


def test_a_carry_of_something_else_is_refused(policy):
    good = policy.carry()
    for bad in (
        good._replace(window=good.window[1:]),
        good._replace(indicators=np.full_like(good.indicators, np.nan)),
        Carry(3, np.zeros((9, 1), np.float32), good.window, good.hidden),
        good._replace(hidden=np.zeros(1, np.float32)),
    ):
        with pytest.raises(JaxtradeError, match=r"carry: give .* as finite numbers of shape"):
            policy.restore(bad)
    assert policy.decide(**facts(bar=rise())).target == [1.0]


# What is refused

WRONG = {
    "bar of another shape": ({"bar": [0, 0, 0, 0, 0]}, r"bar has shape \(5,\): give \(1, 5\)"),
    "context too many": ({"context": [1.0]}, r"context has shape \(1,\): give \(0,\)"),
    "mask too short": ({"mask": []}, r"mask has shape \(0,\): give \(1,\)"),
    "account too short": ({"account": [0] * 5}, r"account has shape \(5,\): give \(6,\)"),
    "bar not a number": ({"bar": [[0, 0, 0, math.nan, 0]]}, "bar is .*nan.*give finite numbers"),
    "volume infinite": ({"bar": [[0, 0, 0, 0, math.inf]]}, "bar is .*inf.*give finite numbers"),
    "clock": ({"clock": [0, -math.inf, 0]}, "clock is .*-inf.*give finite numbers"),
    "mask": ({"mask": [math.nan]}, r"mask is \[nan\]: give finite numbers"),
    "account": ({"account": [0, 0, 0, 0, math.nan, 0]}, "account is .*nan.*give finite numbers"),
    "limit nan": ({"limits": [1, math.nan, 1, 1, 1]}, "limits are .*nan.*give numbers above 0"),
    "limit zero": ({"limits": [1, 1, 0, 1, 1]}, r"limits are .*0\.0.*give numbers above 0"),
    "limit negative": ({"limits": [-1, 1, 1, 1, 1]}, r"limits are .*-1\.0.*give numbers above 0"),
    "worthless": ({"bar": [[0, 0, 0, -1, 0]]}, "makes the carry or the target not finite"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_and_leaves_the_carry(content, name):
    changes, message = WRONG[name]
    policy, twin = OnnxPolicy(content), OnnxPolicy(content)
    for r in (0.01, -0.03, 0.02, -0.002):
        for each in (policy, twin):
            each.decide(**facts(bar=rise(r)))
        with pytest.raises(JaxtradeError, match=message) as error:
            policy.decide(**facts(**changes))
        assert str(error.value).isprintable()
        for mine, other in zip(policy.carry(), twin.carry(), strict=True):
            np.testing.assert_array_equal(mine, other)
    assert policy.explain() == twin.explain()
    got, wanted = (each.decide(**facts(bar=rise(-0.04))) for each in (policy, twin))
    for mine, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("value", [None, [[0, 0, 0, 0, 0]], "bar"])
def test_what_is_no_array_is_refused(policy, value):
    with pytest.raises(JaxtradeError, match=r"bar is of type .*: give an array"):
        policy.decide(**{**facts(), "bar": value})
    with pytest.raises(JaxtradeError, match="mask is an array of <U1: give float32"):
        policy.decide(**{**facts(), "mask": np.array(["x"])})
    assert policy.bars_seen == 0


@pytest.mark.parametrize("kind", [np.float64, ">f4", np.float16])
def test_other_kinds_of_numbers_are_converted(content, kind):
    policy, twin = OnnxPolicy(content), OnnxPolicy(content)
    told = facts(bar=[[0, 0.5, 0, 0.25, 8]], account=[0.5, 0.25, 3, 0, 0, 0], clock=[0.5, 0.25, 0])
    policy.decide(**{name: value.astype(kind) for name, value in told.items()})
    wide = {name: np.repeat(value, 2, axis=-1)[..., ::2] for name, value in told.items()}
    twin.decide(**wide)  # not contiguous
    for mine, other in zip(policy.carry(), twin.carry(), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert policy.explain() == twin.explain()
    policy.decide(**{**told, "mask": np.array([True])})


# Explaining


def test_explanation_of_a_linear_policy_by_hand(policy):
    with pytest.raises(JaxtradeError, match="there is no decision yet"):
        policy.explain()
    policy.decide(**facts(bar=rise(), account=[0.5, 0, 0, 0, 0, 0]))
    # ema_10: (9/11) (0 - 0.01) / 1.01; the best logit is the third, its weight is -1, the mean 0
    distance = -9 / 11 * 0.01 / 1.01
    parts = policy.explain()
    assert list(parts) == [
        *("ema_10", "rsi", "time_of_day"),
        *("exposure", "open_return", "bars_held", "drawdown", "day_return", "last_return"),
    ]
    assert parts["ema_10"] == pytest.approx(-distance, rel=1e-5)
    assert parts["exposure"] == pytest.approx((0 - 0.01 / 3) * 0.5, rel=1e-5)
    assert parts["rsi"] == parts["time_of_day"] == parts["drawdown"] == 0
    policy.decide(**facts(bar=rise(-0.05), account=[0.5, 0, 0, 0, 0, 0]))
    assert policy.explain()["ema_10"] > 0  # the average now speaks for the first level
    policy.reset()
    with pytest.raises(JaxtradeError, match="there is no decision yet"):
        policy.explain()


@pytest.mark.slow
def test_explanation_of_a_network_is_jaxs_gradient():
    frame = random_frame(120, freq="h")
    market = Market.from_frame(frame)
    spec = FeatureSpec(names=("log_return", "macd", "volatility"), window=4)
    policy = network_policy(spec, fitted(spec, market, first=40), hidden=(16,))
    live = OnnxPolicy(bundle(policy, metadata_of(policy)))
    groups = np.asarray((*live.metadata.groups, *live.metadata.account_fields))
    for row in rows_of(market, spec):
        before = live.carry()
        got = live.decide(**row)
        after = live.carry()
        parts = live.explain()
        assert [*map(tuple, before.window[1:])] == [*map(tuple, after.window[:-1])]
        if np.diff(np.sort(np.log(got.probabilities))[-2:]) < 1e-4:
            continue

        def lead(market, account, action=got.action):
            obs = Observation(market=market[None], account=account[None])
            logits = policy.assess(obs, jnp.zeros((1, 0)))[0][0]
            return logits[action] - logits.mean()

        seen = (jnp.asarray(after.window), features.account_features(jnp.asarray(row["account"])))
        slopes = jax.grad(lead, argnums=(0, 1))(*seen)
        each = np.concatenate([(slopes[0] * seen[0]).sum(0), slopes[1] * seen[1]])
        for name, part in parts.items():
            wanted = each[groups == name].sum()
            assert part == pytest.approx(wanted, rel=1e-3, abs=1e-4 * float(np.abs(each).max()))
        assert live.carry().window.tobytes() == after.window.tobytes()


# Metadata


def test_metadata_is_read_as_it_was_written(content, policy):
    known = metadata_of(make_policy(), warmup_bars=WARMUP)
    got = policy.metadata
    assert got.columns == ("ema_10", "rsi", "time_of_day_sin", "time_of_day_cos")
    assert got.groups == ("ema_10", "rsi", "time_of_day", "time_of_day")
    assert got.carry_init == ((0.0,),) * 3
    unchanged = [f.name for f in dataclasses.fields(got)][:-4]
    assert unchanged[-1] == "metrics"
    for name in unchanged:
        assert getattr(got, name) == getattr(known, name), name
    assert BundleMetadata.from_json(got.to_json()) == got
    tree = json.loads(texts_of(content)[METADATA_KEY])
    assert tree["format"] == BUNDLE_FORMAT
    assert tree["schema_hash"] == SPEC.schema_hash
    assert tree["account_fields"] == list(got.account_fields)


def test_metadata_is_strict_json():
    known = metadata_of(
        make_policy(),
        metrics={"sharpe": math.nan, "calmar": math.inf, "trades": 3.0},
        limits=RiskLimits(max_gross=math.inf),
    )
    text = known.to_json()
    json.loads(text, parse_constant=pytest.fail)
    got = BundleMetadata.from_json(text)
    assert got.metrics == {"sharpe": None, "calmar": None, "trades": 3.0}
    assert got.limits == known.limits


def texts_of(content):
    return {item.key: item.value for item in onnx.load_from_string(content).metadata_props}


def with_texts(content, **changes):
    model = onnx.load_from_string(content)
    texts = {**texts_of(content), **changes}
    del model.metadata_props[:]
    helper.set_model_props(model, {key: value for key, value in texts.items() if value is not None})
    return model.SerializeToString()


def with_metadata(content, **changes):
    tree = json.loads(texts_of(content)[METADATA_KEY])
    return with_texts(content, **{METADATA_KEY: json.dumps({**tree, **changes})})


def plain_onnx():
    value = helper.make_tensor_value_info
    node = helper.make_node("Neg", ["x"], ["y"])
    ends = ([value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])])
    graph = helper.make_graph([node], "g", *ends)
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


BROKEN = {
    "empty": (lambda good: b"", "not an ONNX file that runs"),
    "text": (lambda good: b"timestamp,open,high\n" * 99, "not an ONNX file that runs"),
    "truncated": (lambda good: good[: len(good) // 2], "not an ONNX file that runs"),
    "cut at the end": (lambda good: good[:-10], "not an ONNX file that runs"),
    "another ONNX file": (lambda good: plain_onnx(), "but not the bundle of a policy"),
    "no explanation": (lambda good: with_texts(good, **{EXPLAIN_KEY: None}), "not the bundle of"),
    "explanation": (
        lambda good: with_texts(good, **{EXPLAIN_KEY: "AA=A"}),
        "Base64|base64|padding",
    ),
    "explaining graph": (
        lambda good: with_texts(good, **{EXPLAIN_KEY: "AAAA"}),
        "not an ONNX file",
    ),
    "metadata": (lambda good: with_texts(good, **{METADATA_KEY: "{"}), "metadata cannot be read"),
    "list": (lambda good: with_texts(good, **{METADATA_KEY: "[]"}), "metadata cannot be read"),
    "format": (lambda good: with_metadata(good, format=99), "has format 99, this version reads"),
    "schema": (
        lambda good: with_metadata(good, schema_hash="0" * 12),
        "have schema '000000000000'",
    ),
    "features": (
        lambda good: with_metadata(
            good, features={"names": ["rsi"], "context": [], "window": 3, "clip": 5.0}
        ),
        "have schema",
    ),
    "key": (lambda good: with_metadata(good, limits=None), "metadata cannot be read"),
    "levels": (
        lambda good: with_metadata(good, actions={"kind": "levels", "numbers": [0, 1]}),
        "graph does not fit its metadata",
    ),
    "kind": (
        lambda good: with_metadata(good, actions={"kind": "level", "numbers": [0, 1]}),
        "unknown kind of actions 'level': did you mean 'levels'",
    ),
    "other actions": (
        lambda good: with_metadata(good, actions={"kind": "exposure", "numbers": [0, 1]}),
        "graph does not fit its metadata",
    ),
    "memory": (lambda good: with_metadata(good, hidden_size=4), "does not fit its metadata"),
    "symbols": (lambda good: with_metadata(good, symbols=["X", "Y"]), "does not fit its metadata"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_bundle_is_refused(content, tmp_path, name, capfd):
    damage, message = BROKEN[name]
    path = tmp_path / "policy.onnx"
    path.write_bytes(damage(content))
    for source in (path, str(path), path.read_bytes()):
        with pytest.raises(JaxtradeError, match=message) as error:
            OnnxPolicy(source)
        assert str(error.value).isprintable()
        assert str(error.value).startswith(
            "the bundle:" if isinstance(source, bytes) else f"{path}: "
        )
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(JaxtradeError, match=r"cannot read .*absent\.onnx: No such file"):
        OnnxPolicy(tmp_path / "absent.onnx")


def test_an_exported_file_loads_with_more_threads(tmp_path):
    policy = make_policy()
    export_policy(tmp_path / "policy.onnx", policy, metadata_of(policy))
    live = OnnxPolicy(str(tmp_path / "policy.onnx"), threads=2)
    assert live.decide(**facts(bar=rise())).target == [LEVELS[2]]
