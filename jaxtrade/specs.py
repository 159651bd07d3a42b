"""Plain frozen dataclasses that training and live trading share. This module imports no JAX.

Whatever decides shapes or program text is here as a hashable value; arrays live elsewhere.
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterable
from typing import Any

CLOCK_FIELDS = ("day_fraction", "week_fraction", "elapsed_years")
"""What one row of a market's clock holds: time of day and of week in [0, 1), years since the bar
before."""

LIMIT_FIELDS = ("max_exposure", "max_gross", "max_net", "max_drawdown", "max_daily_loss")
"""The order of the risk limits in the vector that the decision function takes."""

BINDING_FLAGS = (
    "not_finite",
    "max_exposure",
    "max_gross",
    "max_net",
    "max_drawdown",
    "max_daily_loss",
    "masked",
)
"""Names of the bits in a decision's `binding` number, lowest bit first."""


class JaxtradeError(ValueError):
    """Bad input from outside: its message is one line that says what, where and what is right."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> JaxtradeError:
    """The error for a name that is not one of `known`, with the nearest that is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "there are"
    return JaxtradeError(f"unknown {what} {name!r}: {hint} ({', '.join(names)})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarketSpec:
    """What is known of a market apart from its numbers.

    `base_price` holds, for each asset, the close before the first bar (its open where there is
    none): prices are it times the
    cumulated relative returns. `bars_per_year` annualises; it is estimated from the stamps,
    leaving out breaks of more than ten days.
    """

    symbols: tuple[str, ...]
    context: tuple[str, ...] = ()
    bar_seconds: int = 86_400
    bars_per_year: float = 252.0
    base_price: tuple[float, ...] = (1.0,)
    source: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """The columns of a feature table: indicator names in order, then context columns as they come.

    `window` is the number of rows W that an observation shows; a normalised value is clipped to
    +-`clip` standard deviations.
    """

    names: tuple[str, ...]
    context: tuple[str, ...] = ()
    window: int = 32
    clip: float = 5.0

    @property
    def schema_hash(self) -> str:
        """Twelve hex digits that change with anything that changes the meaning of a column."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RiskLimits:
    """Hard limits of the risk review, as fractions of equity; 1 in the last two means off.

    `max_exposure` bounds each asset, `max_gross` the sum of absolute and `max_net` the absolute
    sum of exposures. At a drawdown of `max_drawdown`, or a loss of `max_daily_loss` since the
    day's start, the target is flat.
    """

    max_exposure: float = 1.0
    max_gross: float = 1.0
    max_net: float = 1.0
    max_drawdown: float = 1.0
    max_daily_loss: float = 1.0

    def __post_init__(self) -> None:
        for name in LIMIT_FIELDS:
            value = getattr(self, name)
            if not value > 0:
                raise JaxtradeError(f"risk limit {name} is {value}: it must be above 0")
        for name in ("max_drawdown", "max_daily_loss"):
            if getattr(self, name) > 1:
                raise JaxtradeError(
                    f"risk limit {name} is {getattr(self, name)}: a fraction of equity is at most 1"
                )

    def vector(self) -> tuple[float, ...]:
        """The limits in the order of `LIMIT_FIELDS`."""
        return tuple(float(getattr(self, name)) for name in LIMIT_FIELDS)


def binding_names(flags: int) -> tuple[str, ...]:
    """The limits that bound, from the bits of a decision's `binding` number."""
    return tuple(name for bit, name in enumerate(BINDING_FLAGS) if flags >> bit & 1)


def as_json(value: Any) -> str:
    """A dataclass as one line of JSON with sorted keys."""
    return json.dumps(dataclasses.asdict(value), sort_keys=True)
