"""Policies as bundles: one ONNX file with the graph that decides, the graph that explains and all
that is needed to run them.

The graph is `decision.decide` itself. Inputs: bar [A, 5], context [C], clock [3], mask [A],
account [3A + 3], limits [5], indicators [K, A], window [W, A * F], hidden [H]; they are there
whether used or not, but for those without a number. Outputs: next_indicators, next_window,
next_hidden, requested, target, binding, action, probabilities, spread, value, confidence, again
but for those without a number; they may have other axes of length 1 than in JAX, and have one at
least. The explaining graph, window, account and hidden_before to contributions, is kept in the
file's metadata, and so is the same graph of `decide` as `OnnxPolicy` runs it, see `inplace`.

Of the modules in `live` this one alone imports JAX.
"""

import base64
import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend.core import jaxpr_as_fun

from jaxtrade import decision, features
from jaxtrade.decision import Carry, Inputs, Policy
from jaxtrade.live import golden
from jaxtrade.live.buffers import Told
from jaxtrade.live.golden import EXPOSURE_TOLERANCE, TOLERANCE
from jaxtrade.live.inplace import in_place
from jaxtrade.live.policy import EXPLAIN_KEY, FAST_KEY, GOLDEN_KEY, METADATA_KEY, OnnxPolicy
from jaxtrade.live.simplify import simplify
from jaxtrade.specs import (
    CLOCK_FIELDS,
    HARD_LIMITS,
    BundleMetadata,
    JaxtradeError,
    account_fields,
)
from jaxtrade.storage import write_atomic

CHECKED_BARS = 8

OUTPUTS = (
    "next_indicators",
    "next_window",
    "next_hidden",
    *(field.name for field in dataclasses.fields(decision.Decision)),
)

Shapes = dict[str, tuple[int, ...]]


def export_policy(path: Path | str, policy: Policy, metadata: BundleMetadata) -> None:
    """Write a policy's bundle, once it has been seen to decide as the policy does.

    Of the metadata, what follows from the policy (columns, groups, carry_init) is filled in.

    Raises:
        JaxtradeError: as `bundle`, or the file cannot be written.
    """
    write_atomic(path, bundle(policy, metadata))


def bundle(policy: Policy, metadata: BundleMetadata) -> bytes:
    """The content of a policy's bundle, checked against the policy on random bars.

    Raises:
        JaxtradeError: the metadata is of other features or actions, or ONNX cannot say what the
            policy does, or says it wrongly.
    """
    if (metadata.features, metadata.actions) != (policy.features, policy.actions.spec):
        raise JaxtradeError("the metadata's features and actions are not those of the policy")
    assets = len(metadata.symbols)
    carry = decision.init_carry(policy.features, assets, policy.hidden_size)
    metadata = dataclasses.replace(
        metadata,
        hidden_size=policy.hidden_size,
        columns=features.columns(policy.features),
        groups=features.groups(policy.features),
        carry_init=tuple(map(tuple, np.asarray(carry.indicators).tolist())),
    )
    explaining = _explaining(policy, carry, assets).SerializeToString()
    model = _deciding(policy, carry, assets)
    texts = {METADATA_KEY: metadata.to_json(), EXPLAIN_KEY: base64.b64encode(explaining).decode()}
    with _one_line_errors():
        fast = in_place(model)
        onnx.checker.check_model(fast, full_check=True)
    plain = _with_texts(model, texts)
    quick_texts = {**texts, FAST_KEY: base64.b64encode(fast.SerializeToString()).decode()}
    try:
        exported = OnnxPolicy(_with_texts(model, quick_texts))
        _compare(policy, exported)
        quick_texts[GOLDEN_KEY] = golden.answers(exported)
        check = OnnxPolicy(plain)
        check.golden = quick_texts[GOLDEN_KEY]
        golden.check(check)
        return _with_texts(model, quick_texts)
    except JaxtradeError:  # rounding decides, as where actions are drawn: then its own graph runs
        exported = OnnxPolicy(plain)
        _compare(policy, exported)
        return _with_texts(model, {**texts, GOLDEN_KEY: golden.answers(exported)})


def _with_texts(model: onnx.ModelProto, texts: dict[str, str]) -> bytes:
    """The content of a model with just these metadata."""
    onnx.helper.set_model_props(model, texts)
    return bytes(model.SerializeToString())


def _deciding(policy: Policy, carry: Carry, assets: int) -> onnx.ModelProto:
    """The graph of `decide`."""
    shapes: Shapes = {
        "bar": (assets, 5),
        "context": (len(policy.features.context),),
        "clock": (len(CLOCK_FIELDS),),
        "mask": (assets,),
        "account": (len(account_fields(assets)),),
        "limits": (len(HARD_LIMITS),),
        "indicators": carry.indicators.shape,
        "window": carry.window.shape,
        "hidden": carry.hidden.shape,
    }
    empty = {name: jnp.zeros(shape) for name, shape in shapes.items() if not all(shape)}
    shapes = {name: shape for name, shape in shapes.items() if name not in empty}

    def decide(*arrays: jax.Array) -> dict[str, jax.Array]:
        values = {**empty, **dict(zip(shapes, arrays, strict=True))}
        before = Carry(**{name: values.pop(name) for name in vars(carry)})
        after, decided = decision.decide(policy, Inputs(**values), before)
        outputs = {f"next_{name}": value for name, value in vars(after).items()}
        return outputs | {name: jnp.ravel(value) for name, value in vars(decided).items()}

    return _graph(decide, shapes, OUTPUTS)


def _explaining(policy: Policy, carry: Carry, assets: int) -> onnx.ModelProto:
    """The graph of `explain`."""
    shapes: Shapes = {"window": carry.window.shape, "account": (len(account_fields(assets)),)}
    if policy.hidden_size:
        shapes["hidden_before"] = carry.hidden.shape

    def explain(
        window: jax.Array, account: jax.Array, hidden: jax.Array = carry.hidden
    ) -> jax.Array:
        return decision.explain(policy, window, account, hidden)

    # the converter puts functions of its own, without derivatives, in place of many of JAX's
    with _one_line_errors():
        derived = jaxpr_as_fun(jax.make_jaxpr(explain)(*_arrays(shapes)))
    return _graph(lambda *seen: {"contributions": derived(*seen)[0]}, shapes, ("contributions",))


def _graph(
    function: Callable[..., dict[str, jax.Array]], shapes: Shapes, names: tuple[str, ...]
) -> onnx.ModelProto:
    """A function of f32 arrays to arrays by name as an ONNX graph, simplified and checked."""
    arrays = _arrays(shapes)

    def listed(*arrays: jax.Array) -> list[jax.Array]:
        values = function(*arrays)
        return [values[name] for name in outputs]

    with _one_line_errors():
        sizes = {name: value.size for name, value in jax.eval_shape(function, *arrays).items()}
        outputs = [name for name in names if sizes[name]]
        with _silence():
            import jax2onnx  # takes seconds, which only an export is worth

            model = jax2onnx.to_onnx(listed, arrays, input_names=list(shapes), output_names=outputs)
        model = simplify(model)
        onnx.checker.check_model(model, full_check=True)
    return model


def _arrays(shapes: Shapes) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes.values()]


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Raise whatever JAX and the converter stumble over as one JaxtradeError."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise JaxtradeError(f"the policy cannot be said in ONNX: {reason}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing of what the converter warns of, logs and prints."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)


def _compare(policy: Policy, exported: OnnxPolicy) -> None:
    """Both on the same random bars, one after the other.

    Raises:
        JaxtradeError: they differ.
    """
    assets, spec = len(exported.metadata.symbols), policy.actions.spec
    decide = jax.jit(lambda inputs, carry: decision.decide(policy, inputs, carry))
    explain = jax.jit(lambda *seen: decision.explain(policy, *seen))
    members = np.asarray(exported.metadata.groups * assets + exported.metadata.account_fields)
    carry = decision.init_carry(policy.features, assets, policy.hidden_size)
    rng = np.random.default_rng(0)
    for _ in range(CHECKED_BARS):
        told = golden.random_inputs(rng, exported.metadata)
        inputs, got = _inputs(told), exported.decide(*told)
        with _silence():
            before, (carry, wanted) = carry.hidden, decide(inputs, carry)
            contributions = np.asarray(explain(carry.window, inputs.account, before))
        for name, mine in exported.carry()._asdict().items():
            if name != "bars_seen":
                _require_close(f"the carry's {name}", mine, getattr(carry, name))
        for name in ("value", "probabilities", "spread", "confidence"):
            _require_close(name, getattr(got, name), getattr(wanted, name))
        if golden.lead(wanted.probabilities, spec) <= 10 * TOLERANCE:
            continue
        for name in ("requested", "target", "binding", "action"):
            mine, other = getattr(got, name), getattr(wanted, name)
            _require_close(name, mine, other, tolerance=EXPOSURE_TOLERANCE)
        for name, part in exported.explain().items():
            _require_close(f"the part of {name}", part, contributions[members == name].sum())


def _inputs(told: Told) -> Inputs:
    bar, context, clock, mask, account, limits = map(jnp.asarray, told)
    return Inputs(bar=bar, context=context, clock=clock, mask=mask, account=account, limits=limits)


def _require_close(name: str, mine: Any, other: Any, *, tolerance: float = TOLERANCE) -> None:
    mine, other = np.asarray(mine, np.float64), np.asarray(other, np.float64)
    if not np.allclose(mine, other, rtol=tolerance, atol=tolerance, equal_nan=True):
        apart = np.nanmax(np.abs(mine - other))
        raise JaxtradeError(f"{name} in ONNX and in JAX are {apart:.1e} apart: not exported")
