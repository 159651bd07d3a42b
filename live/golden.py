"""What a bundle answered when it was exported, kept in it, so that it can be asked again.

Bars at random, told one after the other, and the decisions on them. A bundle that answers otherwise
on this machine, with this onnxruntime, is not the policy that was tested.
"""

import json
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxtrade.live.buffers import Told
from jaxtrade.live.policy import Decision, OnnxPolicy
from jaxtrade.specs import CLOCK_FIELDS, HARD_LIMITS, ActionSpec, BundleMetadata, JaxtradeError

TOLERANCE = 1e-4
"""Largest difference between machines, or from JAX, absolute or relative; a choice may differ where
the best two probabilities are ten times as close."""

EXPOSURE_TOLERANCE = 1e-5
"""The same of actions and exposures."""

NUM_BARS = 8


def answers(policy: OnnxPolicy) -> str:
    """Some bars and the decisions of a policy on them, as JSON."""
    rng = np.random.default_rng(1)
    told = [random_inputs(rng, policy.metadata) for _ in range(NUM_BARS)]
    rows = _answered(policy, told)
    return json.dumps({"told": [[x.tolist() for x in each] for each in told], "decided": rows})


def check(policy: OnnxPolicy) -> int:
    """Ask a policy what it was asked when it was exported: how many bars, 0 of an older bundle.

    The policy is then as after a reset.

    Raises:
        JaxtradeError: it answers otherwise, or what it carries cannot be read.
    """
    if not policy.golden:
        return 0
    try:
        tree = json.loads(policy.golden)
        told = [tuple(np.asarray(x, np.float32) for x in each) for each in tree["told"]]
        wanted = tree["decided"]
        got = _answered(policy, told)
        pairs = [
            (name, mine[name], other[name])
            for mine, other in zip(got, wanted, strict=True)
            for name in mine
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise JaxtradeError(f"the bundle's golden answers cannot be read: {error}") from error
    for name, mine, other in pairs:
        if mine is not None and other is not None:
            tolerance = EXPOSURE_TOLERANCE if name in ("requested", "target") else TOLERANCE
            if not np.allclose(mine, other, rtol=tolerance, atol=tolerance, equal_nan=True):
                raise JaxtradeError(
                    f"the bundle answers {name} {mine} where it was exported with {other}: "
                    "export the policy again, with the onnxruntime that runs it"
                )
    return len(told)


def random_inputs(rng: np.random.Generator, metadata: BundleMetadata) -> Told:
    """Something of everything: hours of quiet, no volume, closed assets, tight limits."""
    assets = len(metadata.symbols)
    bar = rng.normal(0.0, rng.choice([1e-4, 0.03]), (assets, 5))
    bar[:, 4] = rng.integers(0, 3, assets) * 1e4
    account = rng.normal(0.0, 0.2, len(metadata.account_fields))
    told = (
        bar,
        rng.normal(size=len(metadata.features.context)),
        rng.random(len(CLOCK_FIELDS)),
        rng.random(assets) > 0.2,
        account,
        rng.uniform(0.1, 1.2, len(HARD_LIMITS)),
    )
    first, second, third, fourth, fifth, sixth = (np.asarray(x, np.float32) for x in told)
    return first, second, third, fourth, fifth, sixth


def lead(probabilities: ArrayLike, spec: ActionSpec) -> float:
    """By how much an asset's best probability leads, at least: 0 where one is not a number,
    infinite where actions are no levels.
    """
    if not spec.is_discrete:
        return math.inf
    second, best = np.sort(np.reshape(probabilities, (-1, len(spec.numbers))), axis=1)[:, -2:].T
    return float(np.nan_to_num(best - second).min())


def _answered(policy: OnnxPolicy, told: list[Any]) -> list[dict[str, Any]]:
    policy.reset()
    rows = [_row(policy, policy.decide(*each)) for each in told]
    policy.reset()
    return rows


def _row(policy: OnnxPolicy, decision: Decision) -> dict[str, Any]:
    """A decision, and what the carry's indicators sum to; exposures are None where it is a tie."""
    is_tie = lead(decision.probabilities, policy.metadata.actions) <= 10 * TOLERANCE
    carry = policy.carry()
    return {
        "requested": None if is_tie else decision.requested.tolist(),
        "target": None if is_tie else decision.target.tolist(),
        "value": decision.value,
        "confidence": decision.confidence,
        "row": carry.window[-1].tolist(),
        "indicators": float(np.abs(carry.indicators).sum()),
        "hidden": float(np.abs(carry.hidden).sum()),
    }
