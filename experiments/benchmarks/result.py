"""The one line that a benchmark prints for each result."""

import importlib.metadata
import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

PACKAGES = ("jaxtrade", "jax", "gymnax", "onnxruntime")


def print_result(
    *,
    bench: str,
    impl: str,
    case: str,
    metric: str,
    values: Sequence[float],
    unit: str,
    config: Mapping[str, Any],
) -> None:
    """Print the median of `values` with what it needs to be understood, as one JSON line."""
    line = {
        "bench": bench,
        "impl": impl,
        "case": case,
        "metric": metric,
        "median": float(f"{statistics.median(values):.5g}"),
        "unit": unit,
        "repeats": len(values),
        "config": dict(config),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": f"{platform.machine()} CPU",
    }
    print(json.dumps(line), flush=True)
