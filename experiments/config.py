"""What a run is told, as frozen dataclasses: Hydra ends here, at the door.

    config = compose(["data=csv", "data.path=SPY_1d.csv", "env.window=64"])
    config.env.window                                      # 64
    from_yaml(to_yaml(config)) == config                   # a run's config.yaml
    apply(config, ["data.path=OTHER.csv"]).data.path       # an old run on other bars
    [compose(one) for one in expand(["seed=0,1,2"])]       # a sweep

Defaults are in the files under `conf/`, and only there; a default below is what stands for "not
given" where a setting does not apply. Importing this module imports no JAX.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

from jaxtrade import overrides as language
from jaxtrade.build import REST, build, plain, require, unknown_key
from jaxtrade.overrides import ConfigFiles, change_tree, compose_tree, read_yaml, write_yaml
from jaxtrade.specs import JaxtradeError, RiskLimits

__all__ = [
    "AgentConfig",
    "Config",
    "CostsConfig",
    "DataConfig",
    "EnvConfig",
    "JoinConfig",
    "apply",
    "as_dict",
    "build",
    "compose",
    "expand",
    "from_yaml",
    "to_yaml",
    "unknown_key",
]

DEVICES = ("auto", "cpu", "gpu", "tpu")

MAX_SEED = 2**32 - 1

ENVIRONMENTS = (
    "Trading-v0",
    "StockTrading-v0",
    "LeveragedETF-v0",
    "Forex-v0",
    "Perpetual-v0",
)
"""Those of one asset, which a run can train in."""

TRACKERS = ("none", "wandb", "tensorboard")

FILES = ConfigFiles(
    primary="config",
    groups=("agent", "data", "env"),
    open_keys=("env.features", "env.rewards", "agent"),
    framed="env.features",
    refused={"env=portfolio": "several assets are for Python so far: jaxtrade.make"},
)
"""A run's; the group `preset`, which no one chooses, follows from the agent and the environment."""

CHOICE_OF_KIND = {"synthetic": "data=synthetic", "file": "data=csv"}

KIND_OF_SETTING = {
    **dict.fromkeys(("seed", "num_bars"), "synthetic"),
    **dict.fromkeys(("path", "symbol", "bar_seconds", "join"), "file"),
}
"""The settings of `DataConfig` that have a meaning for one kind only."""

Scalar = bool | int | float | str
Hyperparameter = Scalar | tuple[Scalar, ...] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """Columns of another file as context; see `Market.join`.

    path: a .csv, .csv.gz or .parquet file; name: the context column's, with `_{column}` behind
    it unless columns is ("close",); max_age_days: how old a value may be, in days.
    """

    path: str
    name: str
    columns: tuple[str, ...] = ("close",)
    max_age_days: float = 10.0

    def __post_init__(self) -> None:
        require(self.path != "", "path", self.path, "a file")
        require(self.name != "", "name", self.name, "the context column's name")
        require(len(self.columns) > 0, "columns", self.columns, "at least one column")
        require(self.max_age_days > 0, "max_age_days", self.max_age_days, "days above 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where bars come from.

    kind: "synthetic" or "file"; fractions: of the rows, for training, validation and test, in
    time order. Of a file: path, a .csv, .csv.gz or .parquet file; symbol, by default from its
    name; bar_seconds, length of a bar, by default the most frequent step; join, context columns
    of other files. Of a synthetic market: seed; num_bars, its length.
    """

    kind: str
    fractions: tuple[float, float, float]
    path: str | None = None
    symbol: str | None = None
    bar_seconds: int | None = None
    join: tuple[JoinConfig, ...] = ()
    seed: int = 0
    num_bars: int = 0

    def __post_init__(self) -> None:
        kinds = " or ".join(CHOICE_OF_KIND)
        require(self.kind in CHOICE_OF_KIND, "data.kind", self.kind, kinds)
        for field in dataclasses.fields(self):
            kind = KIND_OF_SETTING.get(field.name, self.kind)
            if kind != self.kind and getattr(self, field.name) != field.default:
                raise JaxtradeError(
                    f"data.{field.name} has no meaning with data.kind={self.kind}: "
                    f"add {CHOICE_OF_KIND[kind]} or leave it out"
                )
        if self.kind == "file" and not self.path:
            raise JaxtradeError("data.path is missing: give data.path=FILE")
        if self.kind == "synthetic":
            require(self.num_bars >= 1, "data.num_bars", self.num_bars, "1 or more")
        _require_seed("data.seed", self.seed)
        length = self.bar_seconds
        require(length is None or length >= 1, "data.bar_seconds", length, "1 or more")
        good = min(self.fractions) > 0 and abs(sum(self.fractions) - 1) <= 1e-6
        right = "three above 0 that add up to 1"
        require(good, "data.fractions", self.fractions, right)
        names = tuple(join.name for join in self.join)
        require(len(set(names)) == len(names), "data.join", names, "every join its own name")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostsConfig:
    """Rates of `jaxtrade.costs.Costs`, which says their units; null is the environment's own."""

    commission_rate: float | None
    half_spread: float | None
    slippage: float | None
    commission_per_unit: float | None
    minimum_ticket: float | None
    borrow_rate: float | None
    margin_rate: float | None
    idle_rate: float | None

    def __post_init__(self) -> None:
        for name, rate in self.given().items():
            most = math.inf if name in ("commission_per_unit", "minimum_ticket") else 1.0
            right = "0 or more" if most == math.inf else "a fraction, from 0 to below 1"
            require(0 <= rate < most, f"env.costs.{name}", rate, right)

    def given(self) -> dict[str, float]:
        """Those that are not null."""
        return {name: rate for name, rate in plain(self).items() if rate is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """The environment.

    id: its registered name; window: bars that an observation shows; what an action is, levels:
    one of these exposures (position value over equity, signed), or exposure: any from the lower to
    the higher, or, both null, what the environment has; rewards: weights of terms, of which one of
    weight 0 is left out; episode_steps: bars; features: indicator names, also on a slower frame
    (`rsi@1h`), `relative_spread` and `context`, on or off, in the order of the columns; clip: of a
    normalised feature, standard deviations; no_trade_band: change of exposure up to which no trade
    is made.
    """

    id: str
    window: int
    levels: tuple[float, ...] | None
    exposure: tuple[float, float] | None
    rewards: dict[str, float]
    episode_steps: int
    features: dict[str, bool]
    clip: float
    no_trade_band: float
    costs: CostsConfig
    limits: RiskLimits

    def __post_init__(self) -> None:
        require(self.id in ENVIRONMENTS, "env.id", self.id, _one_asset(self.id))
        require(self.window >= 1, "env.window", self.window, "1 or more")
        if self.levels is not None:
            good = all(map(math.isfinite, self.levels)) and len(set(self.levels)) > 1
            good = good and len(set(self.levels)) == len(self.levels)
            right = "at least two different, finite exposures"
            require(good, "env.levels", self.levels, right)
        if self.exposure is not None:
            low, high = self.exposure
            good, right = -math.inf < low < high < math.inf, "a lower and a higher exposure"
            require(good, "env.exposure", self.exposure, right)
            require(self.levels is None, "env.levels", self.levels, "null beside env.exposure")
        good, right = any(self.rewards.values()), "at least one term a weight other than 0"
        require(good, "env.rewards", self.rewards, right)
        require(self.episode_steps >= 1, "env.episode_steps", self.episode_steps, "1 or more")
        require(0 < self.clip < math.inf, "env.clip", self.clip, "a number above 0")
        band = self.no_trade_band
        require(0 <= band < 1, "env.no_trade_band", band, "a number from 0 to below 1")

    @property
    def weights(self) -> dict[str, float]:
        """The reward's terms with a weight."""
        return {name: weight for name, weight in self.rewards.items() if weight}


def _one_asset(name: str) -> str:
    """What may be given instead of an environment that a run cannot train in."""
    names = " or ".join((", ".join(ENVIRONMENTS[:-1]), ENVIRONMENTS[-1]))
    return f"{names} (several assets are for Python so far)" if "Portfolio" in name else names


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """An algorithm by name, and its hyperparameters, which stand beside the name in YAML.

    `jaxtrade.agents.make(name, **hyperparameters)` knows which there are and checks them.
    """

    name: str
    hyperparameters: dict[str, Hyperparameter] = dataclasses.field(metadata=REST)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A run.

    name: shown in its folder's name, may be empty; seed: of everything random but the synthetic
    market; total_steps: environment steps over all parallel environments; output_dir: the folder
    of runs; keep_checkpoints: how many of the newest; tracker: who else is told the metrics, one
    of `TRACKERS` or several; device: auto, cpu, gpu or tpu.
    """

    name: str
    seed: int
    total_steps: int
    output_dir: str
    keep_checkpoints: int
    tracker: str | tuple[str, ...]
    device: str
    data: DataConfig
    env: EnvConfig
    agent: AgentConfig

    def __post_init__(self) -> None:
        slug = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)?", self.name)
        require(slug is not None, "name", self.name, "letters, digits and . _ - after the first")
        _require_seed("seed", self.seed)
        require(self.total_steps >= 1, "total_steps", self.total_steps, "1 or more")
        require(self.output_dir != "", "output_dir", self.output_dir, "a folder")
        keep = self.keep_checkpoints
        require(keep >= 1, "keep_checkpoints", keep, "1 or more")
        good, right = set(self.trackers) <= set(TRACKERS), "some of " + ", ".join(TRACKERS)
        require(good, "tracker", self.tracker, right)
        require(self.device in DEVICES, "device", self.device, "one of " + ", ".join(DEVICES))

    @property
    def trackers(self) -> tuple[str, ...]:
        """The chosen trackers."""
        return (self.tracker,) if isinstance(self.tracker, str) else self.tracker


def compose(overrides: Sequence[str]) -> Config:
    """The configuration of one run: the defaults under `conf/` with overrides as Hydra has them.

    Raises:
        JaxtradeError: a text that cannot be read, an unknown key or option, a sweep, a value that
            is missing, of the wrong type or out of range.
    """
    return build(Config, compose_tree(FILES, overrides))


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each run of a sweep; see `jaxtrade.overrides.expand`."""
    return language.expand(FILES, overrides)


def apply(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with overrides; a choice such as `data=csv` replaces its group by its defaults.

    Raises:
        JaxtradeError: as `compose`.
    """
    return build(Config, change_tree(FILES, as_dict(config), overrides))


def as_dict(config: Config) -> dict[str, Any]:
    """The configuration in mappings, lists, numbers, text and None, keyed as in YAML."""
    tree: dict[str, Any] = plain(config)
    return tree


def to_yaml(config: Config) -> str:
    """The text of a run's config.yaml: everything, resolved; `from_yaml` gives it back exactly."""
    return write_yaml(as_dict(config))


def from_yaml(text: str, source: str = "config.yaml") -> Config:
    """The configuration from the text of a run's config.yaml; `source` names it in messages.

    Raises:
        JaxtradeError: not YAML, a key unknown or missing, or as `compose` for values.
    """
    try:
        return build(Config, read_yaml(text))
    except JaxtradeError as error:
        raise JaxtradeError(f"{source}: {error}") from error


def _require_seed(where: str, seed: int) -> None:
    require(0 <= seed <= MAX_SEED, where, seed, f"a whole number from 0 to {MAX_SEED}")
