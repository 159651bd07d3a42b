"""Live settings from a command line, in the same language of key=value that training is told in.

    compose(["broker=paper", "model=runs/2026-11-21/10-00-00-spy", "data=SPY_1d.csv"])
    compose(["agents.spy.model=RUN", "agents.spy.budget=0.5", "agents.qqq.model=registry:qqq"])

`model=` is short for the model of one agent, named `main`; `data=` for the bars of the broker. Only
this module of live trading brings Hydra: the engine reads the file that is made of its result.
"""

import re
from collections.abc import Sequence

from jaxtrade.live.settings import FOLDERS, LiveSettings, from_tree
from jaxtrade.overrides import ConfigFiles, compose_tree
from jaxtrade.specs import JaxtradeError

FILES = ConfigFiles(
    primary="live",
    groups=("broker",),
    open_keys=("agents", "alerts.channels", "alerts.rules"),
)

SHORT = {"model": "agents.main.model", "data": "broker.data"}

_OF_SECTION = re.compile(
    r"(agents|broker\.faults|guard|protections|decisions|engine|alerts|logs|supervisor)(\.[\w.]+)?="
)


def compose(overrides: Sequence[str]) -> LiveSettings:
    """The settings of an account: those under `conf/live.yaml` with overrides.

    Raises:
        JaxtradeError: a text that cannot be read, an unknown key or option, a value that is
            missing, of the wrong type or out of range.
    """
    tree = compose_tree(FILES, [_in_full(text) for text in overrides])
    if not tree["folder"]:
        tree["folder"] = f"{FOLDERS}/{tree['name']}"
    return from_tree(tree)


def _in_full(text: str) -> str:
    """An override without shorthands.

    The sections have their defaults in their dataclasses, which also know every key: so any may be
    given without the + that adds what a file under `conf/` does not have.
    """
    key, equals, value = text.partition("=")
    full = SHORT.get(key, key)
    if full != key and not value:
        raise JaxtradeError(f"{text!r} names nothing: give {key}=VALUE")
    text = f"{full}{equals}{value}"
    return f"++{text}" if _OF_SECTION.match(text) else text
