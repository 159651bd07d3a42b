"""jaxtrade: a JAX-accelerated market simulator and agent suite.

This folder is the ground floor: markets, features, money, risk and statistics. It knows no agent
and no broker. Names below load on first use, so that importing the package is quick and touches
no device.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Market": "jaxtrade.market",
    "FeatureSpec": "jaxtrade.specs",
    "RiskLimits": "jaxtrade.specs",
    "JaxtradeError": "jaxtrade.specs",
    "make": "jaxtrade.envs",
    "backtest": "jaxtrade.experiments.backtest",
}
_PACKAGES = ("agents", "envs", "experiments", "live")

__all__ = sorted([*_EXPORTS, *_PACKAGES, "__version__"])


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name in _PACKAGES:
        return importlib.import_module(f"jaxtrade.{name}")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'jaxtrade' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return __all__
