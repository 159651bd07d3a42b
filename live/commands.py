"""What the subcommands of live trading do; `jaxtrade.cli` declares them."""

import contextlib
import getpass
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from jaxtrade import yaml_text
from jaxtrade.live import compose as composing
from jaxtrade.live.control import NotRunningError, ask
from jaxtrade.live.journal_status import status as status_of
from jaxtrade.live.kill import kill as kill_account
from jaxtrade.live.latches import lift
from jaxtrade.live.settings import FILE, LiveSettings, read, write
from jaxtrade.live.view import line, picture
from jaxtrade.specs import JaxtradeError

CONSOLE_LOG = "console.log"
"""What the processes of an account print, in its logs folder."""

PERIOD_S = 0.5
"""Between two pictures."""

SUPERVISOR = ("-m", "jaxtrade.live.supervisor")
"""What Python is started with, before the folder."""


def live(*, overrides: Sequence[str], folder: str | None, detach: bool, fresh: bool) -> None:
    """Trade: write the account's settings, start its supervisor, show what happens."""
    settings = _settings(overrides, folder)
    _make_room(settings, fresh=fresh)
    path = write(settings)
    console = Console()
    console.print(f"account {settings.name}: {path}", highlight=False, soft_wrap=True)
    with _console_log(settings.path) as log:
        process = subprocess.Popen(
            [sys.executable, *SUPERVISOR, settings.folder],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    if detach:
        console.print(
            f"process {process.pid}; jaxtrade status, jaxtrade stop: --folder {settings.folder}",
            highlight=False,
            soft_wrap=True,
        )
        return
    _watch(settings, process, console)


def _settings(overrides: Sequence[str], folder: str | None) -> LiveSettings:
    """Those of the command line or, without any, those in the folder."""
    if overrides:
        given = [f"folder={json.dumps(folder)}"] if folder else []
        return composing.compose([*overrides, *given])
    return read(account_folder(folder))


def _make_room(settings: LiveSettings, *, fresh: bool) -> None:
    """Put an account aside that is to be begun anew; refuse to mix two."""
    with contextlib.suppress(NotRunningError):
        ask(settings.folder, "status", timeout_s=1.0)
        raise JaxtradeError(
            f"{settings.folder}: an engine trades there already; jaxtrade stop ends it, "
            "name=OTHER makes another account"
        )
    if not (settings.path / FILE).exists():
        return
    if fresh:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        settings.path.rename(settings.path.with_name(f"{settings.path.name}.{stamp}"))
        return
    before = read(settings.path)
    if before.broker != settings.broker:
        raise JaxtradeError(
            f"{settings.folder} holds an account at another broker, or with other bars: give "
            "name=OTHER for one of its own, or --fresh to put that one aside"
        )


@contextlib.contextmanager
def _console_log(folder: Path) -> Iterator[IO[str]]:
    """Where the processes print; what an earlier start left is put aside."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    path = folder / "logs" / CONSOLE_LOG
    with open(path, "w", encoding="utf-8") as file:
        yield file


def _last_words(folder: Path) -> str:
    """The last line that the processes have printed."""
    try:
        text = (folder / "logs" / CONSOLE_LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return next((each for each in reversed(text.splitlines()) if each.strip()), "")


def _watch(settings: LiveSettings, process: "subprocess.Popen[bytes]", console: Console) -> None:
    """Show the account until its supervisor ends; Ctrl-C ends that in order."""
    is_interrupted = False
    with _interrupts():
        try:
            _show(settings, process, console)
        except KeyboardInterrupt:
            is_interrupted = True
            console.print("stopping in order")
            process.terminate()
            process.wait(2 * settings.supervisor.stop_s + 10.0)
    with contextlib.suppress(JaxtradeError):  # nothing was journalled
        console.print(picture({**status_of(settings.folder), "name": settings.name}))
    words = _last_words(settings.path)
    if process.returncode and not is_interrupted:
        said = words.removeprefix("jaxtrade: ") or "no word of it"
        raise JaxtradeError(f"{said} (more in {settings.path / 'logs'})")
    if words:
        console.print(words, highlight=False, soft_wrap=True)
    if is_interrupted:
        raise typer.Exit(130)


def _show(settings: LiveSettings, process: "subprocess.Popen[bytes]", console: Console) -> None:
    """Draw the account again and again while its processes run."""
    if not console.is_terminal:
        process.wait()
        return
    with Live(console=console, auto_refresh=False, transient=True) as shown:
        while process.poll() is None:
            try:
                drawn = picture(ask(settings.folder, "status", timeout_s=2.0))
            except JaxtradeError:
                drawn = Text(f"starting ... {_last_words(settings.path)}")
            shown.update(drawn, refresh=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PERIOD_S)


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Whatever asks this process to end is a Ctrl-C, also a terminal that is closed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def account_folder(folder: str | None) -> Path:
    """The folder of an account: as given, by its name, or the only one there is.

    Raises:
        JaxtradeError: there is none, or there are several.
    """
    accounts = sorted(path.parent for path in Path(composing.FOLDERS).glob(f"*/{FILE}"))
    if folder is not None:
        found = Path(folder)
        named = Path(composing.FOLDERS) / folder
        return named if not found.exists() and named.exists() else found
    if len(accounts) == 1:
        return accounts[0]
    if not accounts:
        raise JaxtradeError(f"no account in {composing.FOLDERS}: give --folder FOLDER")
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
    print(f"{path}: {outcome.engine}")
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
