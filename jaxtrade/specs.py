"""Plain frozen dataclasses that training and live trading share. This module imports no JAX.

Whatever decides shapes or program text is here as a hashable value; arrays live elsewhere.
"""

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any

CLOCK_FIELDS = ("day_fraction", "week_fraction", "elapsed_years")
"""What one row of a market's clock holds: time of day and of week in [0, 1), years since the bar
before."""

HARD_LIMITS = ("max_exposure", "max_gross", "max_net", "max_drawdown", "max_daily_loss")
"""The order of the limits that the exported decision takes: those that need no memory."""

LIMIT_FIELDS = (
    *HARD_LIMITS,
    "target_volatility",
    "risk_per_trade",
    "drawdown_resume",
    "drawdown_scale",
    "cooldown_bars",
)
"""The order of all risk limits in a vector."""

BINDING_FLAGS = (
    "not_finite",
    "max_exposure",
    "max_gross",
    "max_net",
    "max_drawdown",
    "max_daily_loss",
    "masked",
    "cooldown",
    "size",
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
    +-`clip` standard deviations. A name may carry a slower frame (`rsi@15m`); then `bar_seconds`
    is the length of the market's bars. Without frames it is 0: bars of any length will do.
    """

    names: tuple[str, ...]
    context: tuple[str, ...] = ()
    window: int = 32
    clip: float = 5.0
    bar_seconds: int = 0

    @property
    def schema_hash(self) -> str:
        """Twelve hex digits that change with anything that changes the meaning of a column."""
        fields = dataclasses.asdict(self)
        if not self.bar_seconds:
            del fields["bar_seconds"]  # a bundle from before there were frames keeps its hash
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RiskLimits:
    """Limits of the risk review, as fractions of equity.

    `max_exposure` bounds each asset, `max_gross` the sum of absolute and `max_net` the absolute
    sum of exposures. At a drawdown of `max_drawdown`, or a loss of `max_daily_loss` since the
    day's start, the target is flat; 1 means off.

    Off by default, and known only where an account has a memory or a volatility estimate:
    `target_volatility` (yearly) scales a request by it over the market's, `risk_per_trade` (what
    a hit stop costs) by it over the stop's distance; 0 means off. The drawdown breaker stays out
    until the drawdown is back to `drawdown_resume` (1: to below `max_drawdown`) and leaves
    `drawdown_scale` of the target. For `cooldown_bars` decisions after a stop its asset may only
    be reduced.
    """

    max_exposure: float = 1.0
    max_gross: float = 1.0
    max_net: float = 1.0
    max_drawdown: float = 1.0
    max_daily_loss: float = 1.0
    target_volatility: float = 0.0
    risk_per_trade: float = 0.0
    drawdown_resume: float = 1.0
    drawdown_scale: float = 0.0
    cooldown_bars: int = 0

    def __post_init__(self) -> None:
        for name in HARD_LIMITS:
            value = getattr(self, name)
            if not value > 0:
                raise JaxtradeError(f"risk limit {name} is {value}: it must be above 0")
        for name in ("max_drawdown", "max_daily_loss"):
            if getattr(self, name) > 1:
                raise JaxtradeError(
                    f"risk limit {name} is {getattr(self, name)}: a fraction of equity is at most 1"
                )
        for name, most in (
            ("target_volatility", math.inf),
            ("risk_per_trade", 1),
            ("drawdown_resume", 1),
            ("drawdown_scale", 1),
            ("cooldown_bars", 2**24),
        ):
            value = getattr(self, name)
            if not (0 <= value <= most and value < math.inf):
                right = "finite" if most == math.inf else f"at most {most}"
                raise JaxtradeError(f"risk limit {name} is {value}: give 0 or more, {right}")
        if self.cooldown_bars != int(self.cooldown_bars):
            raise JaxtradeError(
                f"risk limit cooldown_bars is {self.cooldown_bars}: give a whole number"
            )
        if self.max_drawdown < self.drawdown_resume < 1:
            raise JaxtradeError(
                f"risk limit drawdown_resume is {self.drawdown_resume}: give at most the "
                f"max_drawdown of {self.max_drawdown}"
            )

    def vector(self) -> tuple[float, ...]:
        """The limits in the order of `LIMIT_FIELDS`."""
        return tuple(float(getattr(self, name)) for name in LIMIT_FIELDS)

    def hard_vector(self) -> tuple[float, ...]:
        """Those that an exported decision takes, in the order of `HARD_LIMITS`."""
        return self.vector()[: len(HARD_LIMITS)]


def binding_names(flags: int) -> tuple[str, ...]:
    """The limits that bound, from the bits of a decision's `binding` number."""
    return tuple(name for bit, name in enumerate(BINDING_FLAGS) if flags >> bit & 1)


def as_json(value: Any) -> str:
    """A dataclass as one line of JSON with sorted keys."""
    return json.dumps(dataclasses.asdict(value), sort_keys=True)


ACTION_KINDS = ("levels", "exposure", "weights", "long_short")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """What the actions of a policy are, for A assets.

    `kind` and its `numbers`: levels, the exposures that an index stands for, i32[] for one asset,
    i32[A] for several; exposure, the lowest and the highest, f32[A]; weights, their gross, shares
    of the assets and of cash f32[A + 1]; long_short, their gross, weights f32[A] from -1 to 1.
    """

    kind: str
    numbers: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in ACTION_KINDS:
            raise unknown_name("kind of actions", self.kind, ACTION_KINDS)

    @property
    def is_discrete(self) -> bool:
        """Whether actions are indices."""
        return self.kind == "levels"

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest that a number of an action can be."""
        if self.kind == "levels":
            return 0.0, len(self.numbers) - 1.0
        if self.kind == "exposure":
            return self.numbers[0], self.numbers[1]
        return (0.0, 1.0) if self.kind == "weights" else (-1.0, 1.0)

    def size(self, num_assets: int) -> int:
        """How many numbers an action has."""
        return num_assets + (self.kind == "weights")


BUNDLE_FORMAT = 2
"""Version of what a policy bundle holds; a reader refuses any other."""


def account_fields(num_assets: int) -> tuple[str, ...]:
    """Names of the 3A + 3 numbers of `ledger.account_vector`; one name for all assets."""
    each = [name for name in ("exposure", "open_return", "bars_held") for _ in range(num_assets)]
    return (*each, "drawdown", "day_return", "last_return")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BundleMetadata:
    """What a policy bundle says of itself, kept as JSON inside its ONNX file.

    `features` and `actions` are the policy's. A decision counts after `warmup_bars` bars. `limits`
    and `no_trade_band` are defaults. `spans`: first and last stamp of each, by name;
    `fingerprint`: of the data; `commit`: of the source; `metrics`: figures of the training, None
    where one was not finite.

    The export fills in the rest: `hidden_size`, H, numbers that the network remembers, 0 without a
    memory; `columns`, the F feature columns; `groups`, the indicator or
    context column that each belongs to; `carry_init`, the indicators' carry [K][A] before the
    first bar (the window starts as zeros).
    """

    agent: str
    features: FeatureSpec
    actions: ActionSpec
    symbols: tuple[str, ...]
    bar_seconds: int
    warmup_bars: int
    limits: RiskLimits
    no_trade_band: float
    spans: dict[str, tuple[str, str]]
    fingerprint: str
    commit: str
    metrics: dict[str, float | None]
    hidden_size: int = 0
    columns: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    carry_init: tuple[tuple[float, ...], ...] = ()

    @property
    def account_fields(self) -> tuple[str, ...]:
        """Names of the numbers of the account vector."""
        return account_fields(len(self.symbols))

    def to_json(self) -> str:
        """One line of strict JSON: a number that is not finite is null."""
        tree = {
            "format": BUNDLE_FORMAT,
            "schema_hash": self.features.schema_hash,
            "account_fields": self.account_fields,
            **dataclasses.asdict(self),
        }
        return json.dumps(_finite(tree), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "BundleMetadata":
        """The metadata of a bundle.

        Raises:
            JaxtradeError: not such JSON, another format, or features that mean something else by
                now than when the bundle was written.
        """
        try:
            tree = json.loads(text)
            written, schema_hash = tree.pop("format"), tree.pop("schema_hash")
            if written != BUNDLE_FORMAT:
                raise JaxtradeError(
                    f"the bundle has format {written!r}, this version reads {BUNDLE_FORMAT}: "
                    "export the policy again"
                )
            known = _metadata(tree)
        except JaxtradeError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JaxtradeError(f"the bundle's metadata cannot be read: {error!r}") from error
        if known.features.schema_hash != schema_hash:
            raise JaxtradeError(
                f"the bundle's features have schema {schema_hash!r}, here they have "
                f"{known.features.schema_hash!r}: export the policy again"
            )
        return known


def _metadata(tree: dict[str, Any]) -> BundleMetadata:
    """The metadata from its JSON tree; any error of Python's where it has another shape."""
    fields = {field.name: tree[field.name] for field in dataclasses.fields(BundleMetadata)}
    spec, limits, actions = fields["features"], fields["limits"], fields["actions"]
    unlimited = float("inf")
    known: dict[str, Any] = {k: unlimited if v is None else v for k, v in limits.items()}
    return BundleMetadata(
        **{
            **fields,
            "features": FeatureSpec(
                names=tuple(spec["names"]),
                context=tuple(spec["context"]),
                window=int(spec["window"]),
                clip=unlimited if spec["clip"] is None else float(spec["clip"]),
                bar_seconds=int(spec.get("bar_seconds", 0)),
            ),
            "limits": RiskLimits(**known),
            "actions": ActionSpec(
                kind=str(actions["kind"]), numbers=tuple(map(float, actions["numbers"]))
            ),
            "hidden_size": int(fields["hidden_size"]),
            "symbols": tuple(fields["symbols"]),
            "warmup_bars": int(fields["warmup_bars"]),
            "bar_seconds": int(fields["bar_seconds"]),
            "spans": {name: (str(a), str(b)) for name, (a, b) in fields["spans"].items()},
            "columns": tuple(fields["columns"]),
            "groups": tuple(fields["groups"]),
            "carry_init": tuple(tuple(float(x) for x in row) for row in fields["carry_init"]),
        }
    )


def _finite(value: Any) -> Any:
    """A tree of plain values for JSON, with None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
