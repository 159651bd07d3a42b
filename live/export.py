"""Policies as bundles: one ONNX file with the graph that decides, the graph that explains and all
that is needed to run them.

The graph is `decision.decide` itself. Inputs: bar [A, 5], context [C], clock [3], mask [A],
account [3A + 3], limits [5], indicators [K, A], window [W, A * F]; they are there whether used or
not, but for context where C is 0, and indicators and next_indicators where K is 0. Outputs:
next_indicators, next_window, requested, target, binding, action, probabilities, value, confidence;
they may have other axes of length 1 than in JAX, and have one at least. The explaining graph,
window and account to contributions, is kept in the file's metadata.

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
from numpy.typing import NDArray

from jaxtrade import decision, features
from jaxtrade.decision import Carry, Inputs, Policy
from jaxtrade.live.policy import EXPLAIN_KEY, METADATA_KEY, OnnxPolicy
from jaxtrade.live.simplify import simplify
from jaxtrade.specs import (
    CLOCK_FIELDS,
    HARD_LIMITS,
    BundleMetadata,
    JaxtradeError,
    account_fields,
)
from jaxtrade.storage import write_atomic

TOLERANCE = 1e-4
"""Largest difference from JAX, absolute or relative; a choice may differ where the best two
probabilities are ten times as close."""

CHECKED_BARS = 8

OUTPUTS = (
    "next_indicators",
    "next_window",
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
        JaxtradeError: the metadata is of other features or levels, or ONNX cannot say what the
            policy does, or says it wrongly.
    """
    if (metadata.features, metadata.levels) != (policy.features, tuple(policy.levels)):
        raise JaxtradeError("the metadata's features and levels are not those of the policy")
    assets = len(metadata.symbols)
    carry = decision.init_carry(policy.features, assets)
    metadata = dataclasses.replace(
        metadata,
        columns=features.columns(policy.features),
        groups=features.groups(policy.features),
        carry_init=tuple(map(tuple, np.asarray(carry.indicators).tolist())),
    )
    explaining = _explaining(policy, carry, assets).SerializeToString()
    model = _deciding(policy, carry, assets)
    onnx.helper.set_model_props(
        model,
        {METADATA_KEY: metadata.to_json(), EXPLAIN_KEY: base64.b64encode(explaining).decode()},
    )
    content = model.SerializeToString()
    _compare(policy, OnnxPolicy(content))
    return bytes(content)


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
    }
    empty = {name: jnp.zeros(shape) for name, shape in shapes.items() if not all(shape)}
    shapes = {name: shape for name, shape in shapes.items() if name not in empty}

    def decide(*arrays: jax.Array) -> dict[str, jax.Array]:
        values = {**empty, **dict(zip(shapes, arrays, strict=True))}
        before = Carry(indicators=values.pop("indicators"), window=values.pop("window"))
        after, decided = decision.decide(policy, Inputs(**values), before)
        outputs = {"next_indicators": after.indicators, "next_window": after.window}
        return outputs | {name: jnp.ravel(value) for name, value in vars(decided).items()}

    outputs = [name for name in OUTPUTS if name.removeprefix("next_") not in empty]
    return _graph(decide, shapes, outputs)


def _explaining(policy: Policy, carry: Carry, assets: int) -> onnx.ModelProto:
    """The graph of `explain`."""
    shapes: Shapes = {"window": carry.window.shape, "account": (len(account_fields(assets)),)}

    def explain(window: jax.Array, account: jax.Array) -> dict[str, jax.Array]:
        return {"contributions": decision.explain(policy, window, account)}

    return _graph(explain, shapes, ["contributions"])


def _graph(
    function: Callable[..., dict[str, jax.Array]], shapes: Shapes, outputs: list[str]
) -> onnx.ModelProto:
    """A function of f32 arrays to arrays by name as an ONNX graph, simplified and checked."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes.values()]

    def listed(*arrays: jax.Array) -> list[jax.Array]:
        values = function(*arrays)
        return [values[name] for name in outputs]

    try:
        with _silence():
            import jax2onnx  # takes seconds, which only an export is worth

            model = jax2onnx.to_onnx(listed, arrays, input_names=list(shapes), output_names=outputs)
        model = simplify(model)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # whatever the converter stumbles over
        reason = " ".join(str(error).split())[:300]
        raise JaxtradeError(f"the policy cannot be said in ONNX: {reason}") from error
    return model


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
    assets = len(exported.metadata.symbols)
    decide = jax.jit(lambda inputs, carry: decision.decide(policy, inputs, carry))
    explain = jax.jit(lambda window, account: decision.explain(policy, window, account))
    members = np.asarray(exported.metadata.groups * assets + exported.metadata.account_fields)
    carry, rng = decision.init_carry(policy.features, assets), np.random.default_rng(0)
    for _ in range(CHECKED_BARS):
        inputs = _random_inputs(rng, len(policy.features.context), assets)
        got = exported.decide(*map(np.asarray, vars(inputs).values()))
        with _silence():
            carry, wanted = decide(inputs, carry)
            contributions = np.asarray(explain(carry.window, inputs.account))
        pairs = {
            "the indicators": (exported.carry().indicators, carry.indicators),
            "the window": (exported.carry().window, carry.window),
            "value": (got.value, wanted.value),
            "probabilities": (got.probabilities, wanted.probabilities),
        }
        if _lead(np.asarray(wanted.probabilities)) > 10 * TOLERANCE:
            names = ("requested", "target", "binding", "action")
            pairs |= {name: (getattr(got, name), getattr(wanted, name)) for name in names}
            explained = exported.explain()
            pairs |= {
                f"the part of {name}": (explained[name], contributions[members == name].sum())
                for name in explained
            }
        for name, (mine, other) in pairs.items():
            _require_close(name, np.asarray(mine, np.float64), np.asarray(other, np.float64))


def _random_inputs(rng: np.random.Generator, num_context: int, assets: int) -> Inputs:
    """Something of everything: hours of quiet, no volume, closed assets, tight limits."""
    bar = rng.normal(0.0, rng.choice([1e-4, 0.03]), (assets, 5))
    bar[:, 4] = rng.integers(0, 3, assets) * 1e4
    account = rng.normal(0.0, 0.2, len(account_fields(assets)))
    arrays = {
        "bar": bar,
        "context": rng.normal(size=num_context),
        "clock": rng.random(len(CLOCK_FIELDS)),
        "mask": rng.random(assets) > 0.2,
        "account": account,
        "limits": rng.uniform(0.1, 1.2, len(HARD_LIMITS)),
    }
    return Inputs(**{name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()})


def _lead(probabilities: NDArray[np.float32]) -> float:
    """By how much the best probability leads; 0 where one is not a number."""
    best, second = np.sort(probabilities)[:-3:-1]
    return float(np.nan_to_num(best - second))


def _require_close(name: str, mine: Any, other: Any) -> None:
    if not np.allclose(mine, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
        apart = np.nanmax(np.abs(mine - other))
        raise JaxtradeError(f"{name} in ONNX and in JAX are {apart:.1e} apart: not exported")
