"""What the subcommands do that look at an account or tell it something; `jaxtrade.cli` has them.

They start quickly, for one of them is the kill switch: what starts an account is in `starting`.
"""

import getpass
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from jaxtrade import yaml_text
from jaxtrade.live.control import NotRunningError, ask
from jaxtrade.live.journal_status import status as status_of
from jaxtrade.live.kill import kill as kill_account
from jaxtrade.live.latches import lift
from jaxtrade.live.settings import FILE, FOLDERS
from jaxtrade.live.view import line, picture
from jaxtrade.specs import JaxtradeError

PERIOD_S = 0.5
"""Between two pictures."""


def account_folder(folder: str | None) -> Path:
    """The folder of an account: as given, by its name, or the only one there is.

    Raises:
        JaxtradeError: there is none, or there are several.
    """
    accounts = sorted(path.parent for path in Path(FOLDERS).glob(f"*/{FILE}"))
    if folder is not None:
        found = Path(folder)
        named = Path(FOLDERS) / folder
        return named if not found.exists() and named.exists() else found
    if len(accounts) == 1:
        return accounts[0]
    if not accounts:
        raise JaxtradeError(f"no account in {FOLDERS}: give --folder FOLDER")
    names = ", ".join(path.name for path in accounts)
    raise JaxtradeError(f"several accounts: give --folder, one of {names}")


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
    command(folder=folder, request="set", changes=changes, by=getpass.getuser())


def kill(*, folder: str | None, reason: str, flatten: bool, timeout_s: float) -> None:
    """Stop all trading of an account over a connection of this process's own."""
    path = account_folder(folder)
    outcome = kill_account(path, reason, flatten=flatten, timeout_s=timeout_s)
    print(outcome.engine)
    held = ", ".join(outcome.positions) or "nothing"
    if not outcome.is_done:
        left = ", ".join(outcome.orders) or "none known"
        raise JaxtradeError(
            f"{outcome.problem}; last seen orders: {left}; positions: {held}; the latch is set: "
            "run it again, or act at the broker"
        )
    print(f"no order works, held: {held} ({outcome.seconds:.1f} s)")
    if outcome.positions:
        print("these positions have no stops any more: jaxtrade kill --flatten closes them")
    print("no engine trades until: jaxtrade rearm --reason TEXT")


def rearm(*, folder: str | None, reason: str) -> None:
    """Lift what is latched, because a person said why."""
    path = account_folder(folder)
    try:
        command(folder=str(path), request="rearm", reason=reason)
    except NotRunningError:
        lifted = lift(path, reason)
        print(f"lifted: {' '.join(lifted) or 'no file'}")
        print("no engine runs: what its journal has latched is lifted by the same once it does")
