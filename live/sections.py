"""The sections of live settings that concern no single agent: when, how often, who is told."""

import dataclasses
import math
import re

from jaxtrade.build import require
from jaxtrade.specs import JaxtradeError, unknown_name

LEVELS = ("info", "warning", "error", "critical")
"""Of alerts, from the lowest."""

EXTERNAL = ("adopt", "flatten", "halt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecisionSettings:
    """When a decision is made and when it is not.

    bar_wait_s: how long the bars of an agent's other symbols are waited for; deadline_s: a policy
    that takes longer is held; max_failures: held decisions in a row, after which the engine only
    reduces; max_move: a market order whose quote moved by this fraction since it was decided is
    decided again, 0 for any move.
    """

    bar_wait_s: float = 5.0
    deadline_s: float = 1.0
    max_failures: int = 3
    max_move: float = 0.0

    def __post_init__(self) -> None:
        require_seconds("bar_wait_s", self.bar_wait_s)
        require_seconds("deadline_s", self.deadline_s)
        require(self.max_failures >= 1, "max_failures", self.max_failures, "1 or more")
        require(0 <= self.max_move < 1, "max_move", self.max_move, "a fraction from 0 to below 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How the engine keeps house; seconds.

    reconcile_s: between comparisons with the broker; ack_timeout_s, cancel_timeout_s: after which
    an order, or its cancellation, counts as not answered; unprotected_s: how long a position may be
    without its stop; connect_s: between attempts to connect; snapshot_events: after how many events
    the state is written whole; backup_s: between backups of the journal, of which keep_backups are
    kept; external: what becomes of a position that nobody here opened, adopt, flatten or halt;
    on_stop: what an orderly end does with open positions, keep or flatten.
    """

    reconcile_s: float = 30.0
    ack_timeout_s: float = 5.0
    cancel_timeout_s: float = 5.0
    unprotected_s: float = 5.0
    connect_s: float = 10.0
    snapshot_events: int = 1000
    backup_s: float = 3600.0
    keep_backups: int = 7
    external: str = "halt"
    on_stop: str = "keep"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name.endswith("_s"):
                require_seconds(field.name, getattr(self, field.name))
        require(self.snapshot_events >= 1, "snapshot_events", self.snapshot_events, "1 or more")
        require(self.keep_backups >= 1, "keep_backups", self.keep_backups, "1 or more")
        require(self.external in EXTERNAL, "external", self.external, " or ".join(EXTERNAL))
        require(self.on_stop in ("keep", "flatten"), "on_stop", self.on_stop, "keep or flatten")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlertSettings:
    """Who is told what, and how often.

    channels: name to env:VARIABLE or file:PATH, where the address is that apprise is given; an
    address itself is a secret and does not belong here; level: the lowest that is sent; rules:
    event to the level that it has instead of its own, or off; repeat_s: within which the same alert
    is sent once, and then counted; max_per_hour: above which alerts wait for a summary; quiet:
    hours such as 22:00-07:00 in time_zone in which only critical ones are sent.
    """

    channels: dict[str, str] = dataclasses.field(default_factory=dict)
    level: str = "warning"
    rules: dict[str, str] = dataclasses.field(default_factory=dict)
    repeat_s: float = 300.0
    max_per_hour: int = 30
    quiet: str = ""
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        for name, source in self.channels.items():
            if not re.fullmatch(r"(env:\w+|file:.+)", source):  # do not repeat it: it may be secret
                raise JaxtradeError(
                    f"channels.{name} is no place of an address: give env:VARIABLE or file:PATH"
                )
        levels = ", ".join(LEVELS)
        require(self.level in LEVELS, "level", self.level, f"one of {levels}")
        if self.rules:  # most have none, and need not wait for what knows their names
            from jaxtrade.live.alerts.rules import NAMES
        for name, level in self.rules.items():
            if name not in NAMES:
                raise unknown_name("event of alerts.rules", name, NAMES)
            require(level in (*LEVELS, "off"), f"rules.{name}", level, f"one of {levels}, off")
        require(0 <= self.repeat_s < math.inf, "repeat_s", self.repeat_s, "seconds, 0 or more")
        require(self.max_per_hour >= 1, "max_per_hour", self.max_per_hour, "1 or more")
        hours = re.fullmatch(r"|([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", self.quiet)
        require(hours is not None, "quiet", self.quiet, "hours such as 22:00-07:00, or nothing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSettings:
    """Log files: the lowest level, the size at which a file is rolled, how many old ones stay."""

    level: str = "info"
    max_mb: float = 20.0
    keep: int = 10

    def __post_init__(self) -> None:
        levels = ("debug", *LEVELS)
        require(self.level in levels, "level", self.level, "one of " + ", ".join(levels))
        require(self.max_mb > 0, "max_mb", self.max_mb, "megabytes above 0")
        require(self.keep >= 1, "keep", self.keep, "1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisorSettings:
    """When the engine is started again.

    heartbeat_s: between signs of life that are asked for; missed: how many may be left out;
    start_s: how long a process may take to its first one; max_restarts within window_s: after which
    trading is halted instead; stop_s: how long an orderly end may take.
    """

    heartbeat_s: float = 1.0
    missed: int = 3
    start_s: float = 60.0
    max_restarts: int = 5
    window_s: float = 600.0
    stop_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("heartbeat_s", "start_s", "window_s", "stop_s"):
            require_seconds(name, getattr(self, name))
        require(self.missed >= 1, "missed", self.missed, "1 or more")
        patience_s = self.heartbeat_s * self.missed
        right = "such that heartbeat_s x missed is at least 0.5, twice what an engine needs"
        require(patience_s >= 0.5, "heartbeat_s", self.heartbeat_s, right)
        require(self.max_restarts >= 0, "max_restarts", self.max_restarts, "0 or more")


def require_seconds(where: str, value: float) -> None:
    """Raise unless a time is above 0 and has an end."""
    require(0 < value < math.inf, where, value, "seconds above 0")
