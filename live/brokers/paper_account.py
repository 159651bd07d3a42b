"""The paper broker of an account's settings: its books are `paper.db` in the account's folder.

The kill switch gets a further connection to the same books, at the last known prices, without JAX
and without the market; the engine gets the market, which `jaxtrade.experiments` builds of runs.
"""

import dataclasses
import importlib
import math
from collections.abc import Mapping
from typing import Any

from jaxtrade.build import build, unknown_key
from jaxtrade.live.brokers.base import Broker
from jaxtrade.live.brokers.making import Role
from jaxtrade.live.brokers.paper import connection
from jaxtrade.live.brokers.paper_faults import Faults
from jaxtrade.live.settings import LiveSettings
from jaxtrade.specs import JaxtradeError

FILE = "paper.db"
MARKETS = "jaxtrade.experiments.paper_runs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperOptions:
    """The section `broker` of an account on paper.

    data: a file of bars; a list of settings as a training run takes them
    (["data=csv", "data.path=FILE"]); of several agents a mapping of their names to files; null for
    the test span of each run's own data. run: the run whose market, costs and rules they are, null
    for each model's own; speed: bars a second, 0 for as
    fast as they are decided; quotes: tell a quote before each bar; faults: what goes wrong, for a
    rehearsal, by the names of `paper_faults.Faults`, as in {reject: 2}.
    """

    data: str | tuple[str, ...] | dict[str, str] | None = None
    run: str | None = None
    speed: float = 0.0
    quotes: bool = False
    faults: Faults = dataclasses.field(default_factory=Faults)

    def overrides(self, agent: str) -> tuple[str, ...]:
        """The data of an agent as settings of a training run."""
        data = self.data.get(agent) if isinstance(self.data, dict) else self.data
        if isinstance(data, str):
            return ("data=csv", f"data.path={_quoted(data)}")
        return data or ()


def options_of(settings: LiveSettings) -> PaperOptions:
    """The options of an account on paper.

    Raises:
        JaxtradeError: one is unknown, of the wrong type, or out of range.
    """
    options = build(PaperOptions, dict(settings.broker.options), "broker")
    if isinstance(options.data, dict):
        for name in options.data:
            if name not in settings.agents:
                raise unknown_key(name, settings.agents, "broker.data")
    if not 0 <= options.speed < math.inf:
        raise JaxtradeError(f"broker.speed is {options.speed:g}: give bars a second, 0 or more")
    return options


def make_paper(settings: LiveSettings, *, role: Role) -> Broker:
    """A connection to an account on paper.

    Raises:
        JaxtradeError: an option is wrong, the data cannot be read, or, for the kill switch, the
            account has not begun.
    """
    options = options_of(settings)
    path = settings.path / FILE
    if role == "kill":
        return connection(path)
    markets: Mapping[str, Any] = vars(importlib.import_module(MARKETS))
    broker: Broker = markets["market_account"](settings, options, path)
    return broker


def _quoted(path: str) -> str:
    """A path as Hydra's grammar takes any text."""
    text = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
