"""What `jaxtrade live` does: settings into the folder, a supervisor, a picture of it all."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from jaxtrade.live.commands import PERIOD_S
from jaxtrade.live.compose import compose
from jaxtrade.live.control import NotRunningError, ask
from jaxtrade.live.folders import account_folder
from jaxtrade.live.journal_status import status as status_of
from jaxtrade.live.settings import FILE, LiveSettings, read, write
from jaxtrade.live.view import picture
from jaxtrade.specs import JaxtradeError

CONSOLE_LOG = "console.log"
"""What the processes of an account print, in its logs folder."""

BOOKS = ("journal.db", "paper.db")
"""What an account has that has begun to trade."""

START_S = 15.0
"""How long a start beside the terminal is watched."""

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
            env=os.environ | {"PYTHONUNBUFFERED": "1"},  # lines in the order they are printed in
        )
    if detach:
        _await_start(settings, process)
        console.print(
            f"process {process.pid}; jaxtrade status, jaxtrade stop: --folder {settings.folder}",
            highlight=False,
            soft_wrap=True,
        )
        return
    _watch(settings, process, console)


def _await_start(settings: LiveSettings, process: "subprocess.Popen[bytes]") -> None:
    """Return once the engine answers, or when it has taken long.

    Raises:
        JaxtradeError: it has ended, and what it said.
    """
    limit = time.monotonic() + START_S
    while time.monotonic() < limit:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PERIOD_S)
            break
        with contextlib.suppress(JaxtradeError):
            ask(settings.folder, "status", timeout_s=1.0)
            return
    if process.poll():
        raise _failure(settings)


def _failure(settings: LiveSettings) -> JaxtradeError:
    """Why the processes have ended badly, as far as they said it."""
    said = _last_words(settings.path).removeprefix("jaxtrade: ") or "no word of it"
    return JaxtradeError(f"{said} (more in {settings.path / 'logs'})")


def _settings(overrides: Sequence[str], folder: str | None) -> LiveSettings:
    """Those of the command line or, without any, those in the folder."""
    if overrides:
        given = [f"folder={json.dumps(folder)}"] if folder else []
        return compose([*overrides, *given])
    return read(account_folder(folder))


def _make_room(settings: LiveSettings, *, fresh: bool) -> None:
    """Put an account aside that is to be begun anew; refuse to mix two."""
    with contextlib.suppress(NotRunningError):
        ask(settings.folder, "status", timeout_s=1.0)
        raise JaxtradeError(
            f"{settings.folder}: an engine trades there already; jaxtrade stop ends it, "
            "name=OTHER makes another account"
        )
    begun = any((settings.path / name).exists() for name in BOOKS)
    if not begun or not (settings.path / FILE).exists():
        return
    if fresh:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        settings.path.rename(settings.path.with_name(f"{settings.path.name}.{stamp}"))
        return
    before = read(settings.path)
    if _place(before) != _place(settings):
        raise JaxtradeError(
            f"{settings.folder} holds an account at another broker, or with other bars: give "
            "name=OTHER for one of its own, or --fresh to put that one aside"
        )


def _place(settings: LiveSettings) -> dict[str, object]:
    """What makes an account's broker another one; how fast bars are replayed does not."""
    options = {key: value for key, value in settings.broker.options.items() if key != "speed"}
    return {"kind": settings.broker.kind, **options}


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
    words = _last_words(settings.path)
    try:
        last = {"name": settings.name, "note": words or "stopped"}
        console.print(picture({**status_of(settings.folder), **last}))
    except JaxtradeError:  # nothing was journalled
        console.print(words, highlight=False, soft_wrap=True)
    if process.returncode and not is_interrupted:
        raise _failure(settings)
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
