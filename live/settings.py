"""What one account's live trading is told, as frozen dataclasses; its file is FOLDER/settings.yaml.

    settings = read("live-data/spy")                     # every key, checked
    settings.agents["spy"].stop_loss
    changed(settings, {"guard.max_gross": 1.5})          # while it runs: checked, and a new value

Which agents there are is what `agents` holds. `jaxtrade.live.compose` makes settings of a command
line. This module brings neither Hydra nor JAX, for the engine reads it when it starts.
"""

import dataclasses
import math
import re
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtrade import yaml_text
from jaxtrade.build import REST, build, plain, require
from jaxtrade.live.limits import GuardLimits, Protections
from jaxtrade.live.sections import (
    AlertSettings,
    DecisionSettings,
    EngineSettings,
    LogSettings,
    SupervisorSettings,
    require_seconds,
)
from jaxtrade.specs import HARD_LIMITS, JaxtradeError, RiskLimits
from jaxtrade.storage import read_bytes, write_atomic

FILE = "settings.yaml"
FOLDERS = "live-data"
"""Where accounts are kept that were not told where."""

HOT_SECTIONS = ("guard", "protections", "decisions")
HOT_OF_AGENT = (
    "limits",
    "no_trade_band",
    "minimum_order",
    "stop_loss",
    "take_profit",
    "max_order_age_s",
)
"""What may be changed while the engine runs; the rest takes a restart, a model a swap."""

Option = bool | int | float | str
NAME = re.compile(r"[A-Za-z0-9]\w*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrokerSettings:
    """Which broker, and what its adapter is told.

    kind: a name of `live.brokers.making.BROKERS`, or module:function of one's own; options: every
    other key of the section, which the adapter's maker knows and checks.
    """

    kind: str = "paper"
    options: dict[str, Option | tuple[Option, ...] | dict[str, Option] | None] = dataclasses.field(
        default_factory=dict, metadata=REST
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """One agent of the account.

    name: its key; model: a run's directory, an .onnx file, or registry:AGENT, whose active version
    is followed; symbols: the broker's names of what it trades, in the order of the bundle, by
    default the bundle's own; budget: fraction of the account's equity that is allotted to it.

    limits: hard limits of the policy's risk review by name, over the bundle's; no_trade_band:
    change of exposure up to which no trade is made, null is the bundle's; minimum_order: exposure
    below which no order is worth its ticket; stop_loss, take_profit: distance from the entry,
    fraction of the price, 0 for none; max_order_age_s: after which what is not filled is cancelled,
    null: once two more decisions were made; shadow_bars: for which a new version only watches;
    online: whether transitions are kept for a trainer.
    """

    name: str
    model: str
    symbols: tuple[str, ...] = ()
    budget: float = 1.0
    limits: dict[str, float] = dataclasses.field(default_factory=dict)
    no_trade_band: float | None = None
    minimum_order: float = 0.0
    stop_loss: float = 0.0
    take_profit: float = 0.0
    max_order_age_s: float | None = None
    shadow_bars: int = 0
    online: bool = False

    def __post_init__(self) -> None:
        require(NAME.fullmatch(self.name) is not None, "name", self.name, "letters, digits and _")
        require(self.model != "", "model", self.model, "a run, an .onnx file or registry:AGENT")
        good = len(set(self.symbols)) == len(self.symbols) and all(self.symbols)
        require(good, "symbols", self.symbols, "every symbol once")
        require(0 < self.budget <= 1, "budget", self.budget, "a fraction above 0, at most 1")
        for name in self.limits:
            require(name in HARD_LIMITS, "limits", name, "some of " + ", ".join(HARD_LIMITS))
        self.reviewed_by(RiskLimits())
        band = self.no_trade_band
        require(band is None or 0 <= band < 1, "no_trade_band", band, "null or 0 to below 1")
        right = "a fraction of the price from 0 to below 1"
        require(0 <= self.stop_loss < 1, "stop_loss", self.stop_loss, right)
        require(0 <= self.take_profit < math.inf, "take_profit", self.take_profit, "0 or more")
        least = self.minimum_order
        require(0 <= least < 1, "minimum_order", least, "an exposure from 0 to below 1")
        if self.max_order_age_s is not None:
            require_seconds("max_order_age_s", self.max_order_age_s)
        require(self.shadow_bars >= 0, "shadow_bars", self.shadow_bars, "0 or more")

    def reviewed_by(self, limits: RiskLimits) -> RiskLimits:
        """The limits of the risk review: those of the bundle with the agent's own over them."""
        given: dict[str, Any] = dict(self.limits)
        return dataclasses.replace(limits, **given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveSettings:
    """One account: its broker, its agents, its limits.

    folder: where everything of it is kept; time_zone: of the account's day, IANA name; registry:
    folder of the model registry that models named registry:AGENT are of.
    """

    name: str
    folder: str
    broker: BrokerSettings
    agents: dict[str, AgentSettings]
    time_zone: str = "UTC"
    registry: str = "models"
    guard: GuardLimits = dataclasses.field(default_factory=GuardLimits)
    protections: Protections = dataclasses.field(default_factory=Protections)
    decisions: DecisionSettings = dataclasses.field(default_factory=DecisionSettings)
    engine: EngineSettings = dataclasses.field(default_factory=EngineSettings)
    alerts: AlertSettings = dataclasses.field(default_factory=AlertSettings)
    logs: LogSettings = dataclasses.field(default_factory=LogSettings)
    supervisor: SupervisorSettings = dataclasses.field(default_factory=SupervisorSettings)

    def __post_init__(self) -> None:
        good = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name) is not None
        require(good, "name", self.name, "letters, digits and . _ - after the first")
        require(self.folder != "", "folder", self.folder, "a folder")
        if not self.agents:
            raise JaxtradeError("agents is empty: give model=RUN, or agents.NAME.model=RUN")
        for name, agent in self.agents.items():
            require(agent.name == name, f"agents.{name}.name", agent.name, name)
        budget = math.fsum(agent.budget for agent in self.agents.values())
        if budget > 1 + 1e-9:
            raise JaxtradeError(
                f"the budgets of the agents add up to {budget:g}: give agents.NAME.budget, in sum "
                "at most 1"
            )
        self._require_one_owner()
        for key, zone in (
            ("time_zone", self.time_zone),
            ("alerts.time_zone", self.alerts.time_zone),
        ):
            _require_zone(key, zone)

    def _require_one_owner(self) -> None:
        owners: dict[str, str] = {}
        for name, agent in self.agents.items():
            for symbol in agent.symbols:
                if symbol in owners:
                    raise JaxtradeError(
                        f"agents.{name}.symbols: {symbol} is traded by {owners[symbol]} already: "
                        "a symbol has one owner"
                    )
                owners[symbol] = name

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)


def read(folder: Path | str) -> LiveSettings:
    """The settings in a folder.

    Raises:
        JaxtradeError: no such file, or what `from_tree` refuses.
    """
    path = Path(folder) / FILE
    try:
        tree = yaml_text.read(read_bytes(path).decode())
        if isinstance(tree, dict):
            tree["folder"] = str(folder)  # it may have been moved
        return from_tree(tree)
    except (JaxtradeError, UnicodeDecodeError) as error:
        text = str(error)
        raise JaxtradeError(text if str(path) in text else f"{path}: {text}") from error


def write(settings: LiveSettings) -> Path:
    """Write the file that `read` reads, with every setting in it; the folder is made."""
    settings.path.mkdir(parents=True, exist_ok=True)
    write_atomic(settings.path / FILE, yaml_text.write(plain(settings)), mode=0o600)
    return settings.path / FILE


def from_tree(tree: object) -> LiveSettings:
    """Settings from plain mappings, as YAML holds them; what is left out has its default.

    Raises:
        JaxtradeError: a key that is unknown or missing, a value of the wrong type or out of range.
    """
    agents = tree.get("agents") if isinstance(tree, Mapping) else None
    if isinstance(tree, Mapping) and isinstance(agents, Mapping):
        named = {
            key: {"name": key, **agent} if isinstance(agent, Mapping) else agent
            for key, agent in agents.items()
        }
        tree = {**tree, "agents": named}
    return build(LiveSettings, tree)


def changed(settings: LiveSettings, changes: Mapping[str, Any]) -> LiveSettings:
    """Settings with `changes`, dotted keys to values, made while the engine runs.

    Raises:
        JaxtradeError: a key that is unknown or needs a restart, a value that is refused.
    """
    tree: dict[str, Any] = plain(settings)
    for key, value in changes.items():
        parts = key.split(".")
        node = tree
        for depth, part in enumerate(parts[:-1]):
            inner = node.get(part)
            if not isinstance(inner, dict):
                raise JaxtradeError(
                    f"unknown setting {key!r}: there is no {'.'.join(parts[: depth + 1])!r}"
                )
            node = inner
        _require_hot(key, parts)
        node[parts[-1]] = value
    return from_tree(tree)


def _require_hot(key: str, parts: list[str]) -> None:
    """Raise unless a key may be changed while the engine runs."""
    is_hot = parts[0] in HOT_SECTIONS and len(parts) > 1
    is_hot |= parts[0] == "agents" and len(parts) > 2 and parts[2] in HOT_OF_AGENT
    if is_hot:
        return
    if parts[0] == "agents" and parts[2:] == ["model"]:
        raise JaxtradeError(f"{key} is not changed but swapped: jaxtrade swap AGENT MODEL")
    sections = ", ".join(f"{name}.*" for name in HOT_SECTIONS)
    agents = ", ".join(f"agents.NAME.{name}" for name in HOT_OF_AGENT)
    raise JaxtradeError(
        f"{key} cannot be changed while it runs: that can be {sections}, {agents}; stop the engine "
        f"and edit {FILE}"
    )


def _require_zone(where: str, name: str) -> None:
    """Raise unless the machine knows the time zone."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise JaxtradeError(
            f"{where} is {name!r}: give a time zone such as Europe/Berlin"
        ) from error
