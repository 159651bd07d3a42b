import base64
import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from jaxtrade.envs import Levels
from jaxtrade.indicators import INDICATORS
from jaxtrade.live import export
from jaxtrade.live.policy import FAST_KEY, OnnxPolicy
from jaxtrade.live.simplify import simplify
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec, JaxtradeError
from tests.bundles import (
    assert_decide_alike,
    exported,
    facts,
    fitted,
    linear_policy,
    metadata_of,
    network_policy,
    normaliser,
    of_levels,
    rows_of,
)
from tests.markets import random_frame

ALL = FeatureSpec(names=tuple(INDICATORS), window=32)


def with_context(num_bars, seed=0):
    frame = random_frame(num_bars, freq="h", seed=seed)
    rng = np.random.default_rng(seed)
    return Market.from_frame(
        frame.assign(vix=20 + rng.normal(size=num_bars).cumsum(), spread=rng.random(num_bars))
    )


# The graph decides as JAX does


@pytest.mark.slow
def test_long_random_bars_with_context():
    market = with_context(2_500)
    spec = FeatureSpec(names=ALL.names, context=("spread", "vix"), window=32)
    policy = network_policy(spec, fitted(spec, market))
    gaps = assert_decide_alike(policy, exported(policy), rows_of(market, spec))
    print(gaps)


@pytest.mark.slow
def test_real_bars(data_folder):
    market = Market.load(data_folder / "SPY_1d.csv.gz").rows(0, 1_499)
    policy = network_policy(ALL, fitted(ALL, market), seed=1)
    print(assert_decide_alike(policy, exported(policy), rows_of(market, ALL)))


@pytest.mark.slow
def test_features_without_a_carry_and_context_alone():
    market = with_context(300)
    for spec in (
        FeatureSpec(names=("log_return",), window=4),
        FeatureSpec(names=(), context=("vix",), window=1),
    ):
        policy = network_policy(spec, fitted(spec, market, first=5), hidden=(8,))
        live = exported(policy)
        assert live.carry().indicators.shape == (0, 1)
        assert_decide_alike(policy, live, rows_of(market, spec))


# What single features see


@pytest.mark.slow
def test_minute_returns_keep_their_digits():
    spec = FeatureSpec(names=("log_return",), window=2)
    policy = linear_policy(spec, np.zeros((1, 3)), np.zeros((6, 3)), [1, 0, 0])
    live = exported(policy)
    rng = np.random.default_rng(0)
    returns = rng.choice([-1, 1], 400) * np.exp(rng.uniform(np.log(1e-9), np.log(0.4), 400))
    for r in np.float32(returns):
        live.decide(**facts(bar=[[0, 0, 0, r, 0]]))
        seen = float(live.carry().window[-1, 0])
        assert seen == pytest.approx(np.log1p(np.float64(r)), rel=4e-7, abs=0)


def test_volume_that_is_not_known():
    spec = FeatureSpec(names=("relative_volume",), window=2)
    live = exported(linear_policy(spec, np.zeros((2, 3)), np.zeros((6, 3)), [1, 0, 0]))
    seen = []
    for volume in (0.0, 10.0, 0.0, 0.0, 30.0, 10.0):
        live.decide(**facts(bar=[[0, 0, 0, 0, volume]]))
        seen.append(live.carry().window[-1])
    ratios = [1, 1, 1, 1, 3, 10 / (10 + 40 / 21)]  # see the indicator's own test
    np.testing.assert_allclose(seen, np.stack([ratios, [0, 1, 0, 0, 1, 1]], -1), rtol=1e-6)


def test_context_comes_in_the_order_of_the_specification():
    spec = FeatureSpec(names=("log_return",), context=("spread", "vix"), window=2)
    policy = linear_policy(
        spec, np.zeros((3, 3)), np.zeros((6, 3)), [1, 0, 0], mean=1.0, inverse_scale=0.5
    )
    live = exported(policy)
    live.decide(**facts(context=[3.0, 0.5]))
    np.testing.assert_allclose(live.carry().window[-1, 1:], [1.0, -0.25])
    assert live.metadata.columns == ("log_return", "relative_spread", "vix")
    assert live.metadata.groups == live.metadata.columns


# The file


@pytest.fixture(scope="module")
def small():
    """A small policy and the content of its bundle."""
    spec = FeatureSpec(names=("ema_10",), window=2)
    rng = np.random.default_rng(1)
    policy = linear_policy(spec, rng.normal(size=(1, 3)), rng.normal(size=(6, 3)), [0, 0.1, 0])
    return policy, export.bundle(policy, metadata_of(policy))


def names_of(values):
    return [value.name for value in values]


def test_inputs_are_there_whether_used_or_not(small):
    graph = onnx.load_from_string(small[1]).graph
    told = ["bar", "clock", "mask", "account", "limits", "indicators", "window"]
    assert names_of(graph.input) == told
    absent = {"next_hidden", "spread"}
    assert names_of(graph.output) == [name for name in export.OUTPUTS if name not in absent]
    spec = FeatureSpec(names=("log_return",), context=("vix",), window=2)
    policy = linear_policy(spec, np.zeros((2, 3)), np.zeros((6, 3)), [1, 0, 0])
    graph = onnx.load_from_string(export.bundle(policy, metadata_of(policy))).graph
    told = ["bar", "context", "clock", "mask", "account", "limits", "window"]
    assert names_of(graph.input) == told  # no recursion: no indicators
    absent.add("next_indicators")
    assert names_of(graph.output) == [name for name in export.OUTPUTS if name not in absent]


def test_export_writes_the_file_in_silence(small, tmp_path, capfd):
    policy, content = small
    path = tmp_path / "policy.onnx"
    export.export_policy(path, policy, metadata_of(policy))
    assert onnx.load(path).graph.input == onnx.load_from_string(content).graph.input
    assert [item.name for item in tmp_path.iterdir()] == ["policy.onnx"]
    assert capfd.readouterr() == ("", "")


def adding_for_dividing(model):
    for node in model.graph.node:
        if node.op_type == "Div":
            node.op_type = "Add"
    return simplify(model)


def test_a_graph_that_decides_otherwise_is_not_written(small, tmp_path, monkeypatch):
    policy, _ = small
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"before")
    monkeypatch.setattr(export, "simplify", adding_for_dividing)
    with pytest.raises(JaxtradeError, match=r"in ONNX and in JAX are .* apart") as error:
        export.export_policy(path, policy, metadata_of(policy))
    assert str(error.value).isprintable()
    assert path.read_bytes() == b"before"


def test_a_policy_that_onnx_cannot_say(small):
    policy, _ = small

    def assess(obs, hidden):
        shape = jax.ShapeDtypeStruct((1, 3), jnp.float32)
        logits = jax.pure_callback(lambda x: np.zeros((1, 3), np.float32), shape, obs.account)
        return logits, obs.account[:, 0], hidden

    with pytest.raises(JaxtradeError, match="cannot be said in ONNX: ") as error:
        export.bundle(dataclasses.replace(policy, assess=assess), metadata_of(policy))
    assert str(error.value).isprintable()


def test_metadata_of_another_policy_is_refused(small):
    policy, _ = small
    for changes in (
        {"actions": Levels((0.0, 1.0)).spec},
        {"features": FeatureSpec(names=("rsi",), window=2)},
    ):
        with pytest.raises(JaxtradeError, match="not those of the policy"):
            export.bundle(policy, metadata_of(policy, **changes))


# Fewer nodes, the same numbers

F = np.float32


def scalars(x):
    total = jnp.abs(x[:3]).sum()
    return jnp.stack([total + x[3], jnp.where(x[4] > 0, total, x[5] * 2)])


@pytest.mark.parametrize(
    ("function", "shape", "kinds"),
    [
        # axes of length 1: none is left around scalars, several in a row, or at an output
        (
            scalars,
            (6,),
            {"Gather": 4, "ReduceL1": 1, "Add": 1, "Greater": 1, "Mul": 1, "Where": 1, "Concat": 1},
        ),
        (lambda x: (x.reshape(1, 3, 1)[None] + 1).reshape(3, 1)[:, 0], (3,), {"Add": 1}),
        (lambda x: x.T * F([[1, 2, 3]]), (3, 1), {"Reshape": 1, "Mul": 1}),
        (lambda x: x.T + 1, (2, 3), {"Transpose": 1, "Add": 1}),
        (lambda x: jnp.minimum(x, F([1, 2, 3]))[None], (3,), {"Min": 1}),
        (lambda x: jnp.broadcast_to(x, (4, 3)), (1, 3), {"Concat": 1, "Expand": 1}),
        # reductions
        (lambda x: x.sum(axis=0), (1, 3), {"Identity": 1}),
        (lambda x: jnp.abs(x).sum(axis=1), (3, 1), {"Abs": 1}),
        (lambda x: x - x.mean(axis=0, keepdims=True), (4, 3), {"ReduceSum": 1, "Div": 1, "Sub": 1}),
        (lambda x: x.max(axis=1), (4, 3), {"ReduceMax": 1}),
        (lambda x: (x * 2).max(axis=1).min().reshape(1), (1, 3), {"Mul": 1, "ReduceMax": 1}),
        # truth values
        (
            lambda x: jnp.stack([(x > 0).all(), (x < 9).any()]),
            (1,),
            {"Greater": 1, "Less": 1, "Concat": 1},
        ),
        (
            lambda x: (x > 0).all().astype(F) * x,
            (3,),
            {"Greater": 1, "Cast": 2, "ReduceMin": 1, "Mul": 1},
        ),
        # products
        (lambda x: x @ F([[1, 2], [3, 4]]) + F([5, 6]), (1, 2), {"Gemm": 1}),
        (lambda x: 1 + x @ F([[1, 2], [3, 4]]) + x, (1, 2), {"Gemm": 1, "Add": 1}),
        (lambda x: (x * F([7, 8])) @ F([[1, 2], [3, 4]]) + F(9), (1, 2), {"Gemm": 1}),
        (lambda x: (x * 7) @ F([[1, 2], [3, 4]]) + F(9), (3, 2), {"Gemm": 1}),
        (
            lambda x: (F([[7], [8], [9]]) * x) @ F([[1, 2], [3, 4]]) + F(9),
            (3, 2),
            {"Mul": 1, "Gemm": 1},
        ),
        # extremes
        (lambda x: jnp.minimum(jnp.minimum(x, 1), x * 2), (1, 2), {"Mul": 1, "Min": 1}),
        # parts
        (
            lambda x: jnp.concatenate([x[2:5], x[5:6] * 2, x[:1]]),
            (7,),
            {"Gather": 3, "Mul": 1, "Concat": 1},
        ),
        (
            lambda x: jnp.concatenate([x[1:3], x[3:5], jnp.concatenate([x, x])]),
            (7,),
            {"Gather": 1, "Concat": 1},
        ),
        (lambda x: x[1:6][2:4], (7,), {"Gather": 1}),
        (lambda x: x[1:], (99,), {"Slice": 1}),
        # work done twice
        (lambda x: jnp.sin(x[:2]) * jnp.sin(x[:2]), (7,), {"Gather": 1, "Sin": 1, "Mul": 1}),
    ],
)
def test_simplified_graphs(function, shape, kinds):
    with export._silence():
        import jax2onnx

        full = jax2onnx.to_onnx(function, [jax.ShapeDtypeStruct(shape, jnp.float32)])
    before = full.SerializeToString()
    model = simplify(full)
    assert full.SerializeToString() == before  # it was not changed in place
    onnx.checker.check_model(model, full_check=True)
    found = collections.Counter(node.op_type for node in model.graph.node)
    assert found == kinds
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        (got,) = session.run(None, {session.get_inputs()[0].name: x})
        assert list(got.shape) == session.get_outputs()[0].shape
        wanted = np.asarray(function(jnp.asarray(x)))
        np.testing.assert_allclose(got.reshape(wanted.shape), wanted, rtol=1e-6, atol=1e-7)


def test_half_of_the_nodes_of_a_decision_go(monkeypatch):
    counts = []

    def counted(model):
        small = simplify(model)
        counts.append((len(model.graph.node), len(small.graph.node)))
        return small

    monkeypatch.setattr(export, "simplify", counted)
    export.bundle(
        network_policy(ALL, normaliser(ALL)), metadata_of(network_policy(ALL, normaliser(ALL)))
    )
    (_, explaining), (before, deciding) = counts
    print(counts)
    assert before > 180
    assert deciding < 115
    assert explaining < 55


def test_an_elementwise_node_of_more_axes_keeps_them():
    # a constant must not be widened to fewer axes than what it is added to has
    spec = FeatureSpec(names=("ema_10",), window=2)

    def assess(obs, hidden):
        bad = jnp.where(obs.market[:, -1, :1] > 0, 1.0, 0.0)
        return jnp.asarray([[0.0, 0.0, 1.0]]) + bad, jnp.zeros(1), hidden

    policy = of_levels(spec, normaliser(spec), assess)
    assert exported(policy).decide(**facts()).action == 2


# The graph that is run


PART_COUNT = 90
"""Nodes of the graph that is run for two layers of 64 units and all features."""


def without(content: bytes, key: str) -> bytes:
    model = onnx.load_from_string(content)
    texts = {item.key: item.value for item in model.metadata_props if item.key != key}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, texts)
    return model.SerializeToString()


def test_the_graph_that_is_run_is_the_bundles_own_in_fewer_nodes():
    spec = dataclasses.replace(ALL, context=("vix", "spread"))
    market = with_context(300)
    policy = network_policy(spec, fitted(spec, market))
    content = export.bundle(policy, metadata_of(policy))
    fast, plain = OnnxPolicy(content), OnnxPolicy(without(content, FAST_KEY))
    texts = {i.key: i.value for i in onnx.load_from_string(content).metadata_props}
    graph = onnx.load_from_string(base64.b64decode(texts[FAST_KEY])).graph
    own = onnx.load_from_string(content).graph
    print(len(graph.node), len(own.node))
    assert len(graph.node) < PART_COUNT
    assert len(graph.node) < 0.85 * len(own.node)
    actions, bindings = set(), set()
    for row in rows_of(market, spec):
        mine, other = fast.decide(**row), plain.decide(**row)
        np.testing.assert_allclose(mine.probabilities, other.probabilities, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fast.carry().window, plain.carry().window, rtol=0, atol=1e-5)
        np.testing.assert_allclose(fast.carry().indicators, plain.carry().indicators, 1e-5, 1e-7)
        second, best = np.sort(mine.probabilities)[-2:]
        if best - second > 1e-3:
            assert (mine.action, mine.binding) == (other.action, other.binding)
            np.testing.assert_array_equal(mine.requested, other.requested)
            np.testing.assert_array_equal(mine.target, other.target)
            actions.add(mine.action)
            bindings.add(mine.binding)
    assert len(actions) == 3
    assert len(bindings) > 8  # limits that bind in many combinations


def test_a_graph_to_run_that_does_not_fit_is_refused(small):
    model = onnx.load_from_string(small[1])
    texts = {item.key: item.value for item in model.metadata_props}
    fast = onnx.load_from_string(base64.b64decode(texts[FAST_KEY]))
    broken = [(b"text", "is not an ONNX file that runs")]
    for name in ("target", "kept[1:2]", "next_indicators"):
        other = onnx.ModelProto()
        other.CopyFrom(fast)
        found = [item for item in fast.graph.output if item.name.startswith(name)]
        other.graph.output.remove(found[0])
        message = rf"does not fit its metadata: no {name.split('[')[0]}"
        broken.append((other.SerializeToString(), message))
    for content, message in broken:
        text = base64.b64encode(content).decode()
        onnx.helper.set_model_props(model, {**texts, FAST_KEY: text})
        with pytest.raises(JaxtradeError, match=message):
            OnnxPolicy(model.SerializeToString())
