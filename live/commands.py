"""What the subcommands do that look at an account or ask its engine; `jaxtrade.cli` has them.

What starts an account is in `starting`, the kill switch in `emergency`.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live

from jaxtrade import yaml_text
from jaxtrade.live.control import ask
from jaxtrade.live.folders import account_folder
from jaxtrade.live.journal_status import status as status_of
from jaxtrade.live.latches import person
from jaxtrade.live.view import line, picture
from jaxtrade.specs import JaxtradeError

PERIOD_S = 0.5
"""Between two pictures."""


def status(*, folder: str | None, watch: bool, as_json: bool) -> None:
    """Show an account, once or for as long as it is looked at."""
    path, console = account_folder(folder), Console()
    if as_json:
        print(json.dumps(status_of(path)))
    elif not watch:
        found = status_of(path)
        if console.is_terminal:
            console.print(picture(found))
        else:
            print(line(found))
    else:
        with Live(console=console, auto_refresh=False) as shown:
            while True:
                shown.update(picture(status_of(path)), refresh=True)
                time.sleep(PERIOD_S)


def command(*, folder: str | None, request: str, **arguments: Any) -> None:
    """Ask a running engine for one thing, and print what it says."""
    answer = ask(account_folder(folder), request, **arguments)
    said = ", ".join(f"{key}: {_words(value)}" for key, value in answer.items())
    print(said or "done")


def _words(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items()) or "none"
    return str(value)


def change(*, folder: str | None, settings: Sequence[str]) -> None:
    """Change settings of a running engine, from the next bar on."""
    changes = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise JaxtradeError(f"cannot read {text!r}: give key=value, as in guard.max_gross=1.5")
        changes[key] = yaml_text.read(value)
    command(folder=folder, request="set", changes=changes, by=person())
