"""The one way an engine starts, which is how it recovers from a crash.

    recovered = recover(folder, clock=clock, run_id=run_id, version=version)
    recovered.journal, recovered.state, recovered.notes

Takes the folder's lock; checks the journal; folds the newest whole snapshot and the events after
it. Then journals that the engine has started, that every order that was sent, or may have been, and
not answered is UNKNOWN, and what the latch files say. Nothing is sent here: what the broker holds
is compared next (`reconcile`).

A journal that is damaged is moved into `quarantine/`, with its log, and the newest whole backup
takes its place, followed by all events after it that can still be read from the damaged one. Since
a latch may be among what is lost, the engine then starts REDUCING, latched: a person looks at it
and rearms. The same where a journal has lost its end, or is gone altogether.
"""

import contextlib
import dataclasses
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from jaxtrade.live.clock import Clock
from jaxtrade.live.events import EngineStarted, Event, TradingState, TradingStateChanged
from jaxtrade.live.journal import Journal, JournalError
from jaxtrade.live.journal_db import JOURNAL, DamagedError, read_events
from jaxtrade.live.journal_files import backups, damage
from jaxtrade.live.latches import Latch, latched
from jaxtrade.live.lock import Lock
from jaxtrade.live.reached import reached
from jaxtrade.live.state import State
from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import sync_folder

SNAPSHOT_AFTER = 2_000
"""Events folded at a start beyond which the result is kept for the next one."""

CHECK_SECONDS = 3.0
"""How long a start looks for damage; the copy of every backup is looked through in full."""

_SUFFIXES = ("", "-wal", "-shm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recovered:
    """A journal that is open, the state that it leads to, and what was found, one line each, that
    a person should know; use it as a context manager, or `close` it.
    """

    journal: Journal
    state: State
    lock: Lock
    notes: tuple[str, ...]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal and let the folder go."""
        self.journal.close()
        self.lock.release()


def recover(folder: Path | str, *, clock: Clock, run_id: str, version: str = "") -> Recovered:
    """Open the journal of a folder, or make it, and bring the state to where it was.

    clock: the broker's, so that what happened before the first start can be told from what comes.

    Raises:
        JaxtradeError: another engine works in the folder, or its files cannot be used.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JaxtradeError(f"cannot create {folder}: {error.strerror}") from error
    lock = Lock(folder / "engine.lock")
    lock.take()
    journal = None
    try:
        journal, state, problems = _open(folder, clock)
        _begin(journal, state, folder, clock, (run_id, version), problems)
    except BaseException:
        if journal is not None:
            journal.close()
        lock.release()
        raise
    return Recovered(journal=journal, state=state, lock=lock, notes=tuple(problems))


def fold(journal: Journal, problems: list[str] | None = None) -> State:
    """The state that a journal leads to, from the newest whole snapshot on.

    An event that cannot be applied is told in `problems`, and passed over: it ended the process
    that met it, and would end every one after it. Without `problems` it is raised.

    Raises:
        DamagedError: an event is damaged or missing.
    """
    state = journal.latest_snapshot() or State()
    start = state.last_seq
    for seq, event in journal.read(start):
        try:
            state.apply(event)
        except Exception as error:
            if problems is None:
                raise
            problems.append(f"event {seq}, {type(event).__name__}, cannot be applied: {error!r}")
    journal.orders = state.orders
    if state.last_seq - start > SNAPSHOT_AFTER:
        journal.save_snapshot(state)
    return state


def _open(folder: Path, clock: Clock) -> tuple[Journal, State, list[str]]:
    path = folder / JOURNAL
    problem = _missing(path, folder) or (
        damage(path, limit_s=CHECK_SECONDS) if path.exists() else ""
    )
    if not problem:
        journal = None
        try:
            journal = Journal(path, now=clock.wall_ns)
            problems = [journal.lost] if journal.lost else []
            return journal, fold(journal, problems), problems
        except BaseException as error:
            if journal is not None:
                journal.close()
            if not isinstance(error, DamagedError):
                raise
            problem = str(error)
    notes = [f"the journal was not usable: {problem}", *_restore(path, folder, clock)]
    journal = Journal(path, now=clock.wall_ns)
    return journal, fold(journal, notes), notes


def _missing(path: Path, folder: Path) -> str:
    """Why there should be a journal where there is none."""
    if path.exists() or not (reached(path) or backups(folder / "backups")):
        return ""
    return f"{path} is gone"


def _begin(
    journal: Journal,
    state: State,
    folder: Path,
    clock: Clock,
    names: tuple[str, str],
    problems: list[str],
) -> None:
    """Journal the start, and what follows from how the last one ended."""
    at_ns = clock.wall_ns()
    events: list[Event] = [EngineStarted(at_ns=at_ns, run_id=names[0], version=names[1])]
    events += state.unanswered(at_ns, "the engine started anew before it was answered")
    if problems:
        events.append(
            TradingStateChanged(
                at_ns=at_ns,
                state=TradingState.REDUCING,
                reason="; ".join(problems),
                is_latched=True,
            )
        )
    for trading in (TradingState.HALTED, TradingState.KILLED):
        found = latched(folder, Latch[trading.name])
        if found is not None and not (state.is_latched and state.trading is trading):
            events.append(
                TradingStateChanged(
                    at_ns=at_ns, state=trading, reason=found.reason, is_latched=True
                )
            )
    journal.record(events, durable=True)
    state.apply_all(events)


# --- a journal that is damaged -----------------------------------------------------------------


def _restore(path: Path, folder: Path, clock: Clock) -> list[str]:
    """Put the newest whole backup in the journal's place; what was done, one line each."""
    aside = _quarantine(path, folder, clock)
    notes = [f"it was moved to {aside}"] if aside else []
    source = next((copy for copy in backups(folder / "backups") if _is_whole(copy)), None)
    if source is None:
        notes.append("there is no backup: positions will be taken from the broker, without owners")
    else:
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            shutil.copyfile(source, temporary)
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise JournalError(f"cannot restore {source} to {path}: {error.strerror}") from error
        notes.append(f"the backup {source.name} took its place")
    saved = 0 if aside is None else _salvage(aside / path.name, path, clock)
    if saved:
        notes.append(f"{saved} later events were read from the damaged one")
    return notes


def _quarantine(path: Path, folder: Path, clock: Clock) -> Path | None:
    present = [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
    present = [file for file in present if file.exists()]
    if not present:
        return None
    stamp = datetime.fromtimestamp(clock.wall_ns() / 1e9, UTC).strftime("%Y%m%dT%H%M%S")
    aside = folder / "quarantine" / stamp
    try:
        number = 0
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{stamp}-{number}")
        aside.mkdir(parents=True)
        for file in present:
            file.replace(aside / file.name)
        sync_folder(folder)
    except OSError as error:
        raise JournalError(f"cannot move {path} to {aside}: {error.strerror}") from error
    return aside


def _is_whole(copy: Path) -> bool:
    """Whether every page and every event of a backup can be read."""
    if damage(copy):
        return False
    try:
        with contextlib.closing(sqlite3.connect(copy)) as db:
            for _ in read_events(db, 0, name=str(copy)):
                pass
    except (sqlite3.Error, JaxtradeError):
        return False
    return True


def _salvage(damaged: Path, path: Path, clock: Clock) -> int:
    """Append what can still be read after a journal's end to it; how many events."""
    count = 0
    with Journal(path, now=clock.wall_ns) as journal:
        state = fold(journal, [])
        with (
            contextlib.suppress(sqlite3.Error, JaxtradeError),
            contextlib.closing(sqlite3.connect(damaged)) as db,
        ):
            for _, event in read_events(db, journal.last_seq, name=str(damaged)):
                journal.record([event], durable=False)
                state.apply(event)
                count += 1
    return count
