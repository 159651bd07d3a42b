"""Model versions and the one that is active per agent. This module imports no JAX.

A registry is a folder: `registry.sqlite` and `bundles/<sha256>.onnx`, read-only files named by
their content. A version never changes. Which version an agent trades is one pointer, switched in
one transaction together with a row of history; a bundle is hashed before it becomes active and
whenever its path is asked for, so a missing or altered file is refused.

A crash at any moment leaves the old state or the new one, and at most a bundle that no version
names: the file is durable before its row is written.
"""

import contextlib
import dataclasses
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from jaxtrade.database import transaction, use_wal
from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import finite, read_bytes, sha256_file, sync_folder, write_atomic

SCHEMA_VERSION = 1
BUSY_SECONDS = 5.0

_SCHEMA = (
    """CREATE TABLE versions (
        number INTEGER PRIMARY KEY AUTOINCREMENT, agent TEXT NOT NULL, created TEXT NOT NULL,
        run TEXT NOT NULL, sha256 TEXT NOT NULL, metrics TEXT NOT NULL, metadata TEXT NOT NULL,
        UNIQUE (agent, sha256))""",
    # `previous` is the activation that a rollback returns to: a stack kept inside the history
    """CREATE TABLE activations (
        number INTEGER PRIMARY KEY AUTOINCREMENT, agent TEXT NOT NULL,
        version INTEGER NOT NULL REFERENCES versions (number), at TEXT NOT NULL,
        reason TEXT NOT NULL, previous INTEGER REFERENCES activations (number))""",
    """CREATE TABLE active (
        agent TEXT PRIMARY KEY, activation INTEGER NOT NULL REFERENCES activations (number))""",
    *(
        f"CREATE TRIGGER {table}_{event} BEFORE {event} ON {table} "
        f"BEGIN SELECT RAISE (ABORT, '{table} are immutable'); END"
        for table in ("versions", "activations")
        for event in ("UPDATE", "DELETE")
    ),
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_VERSIONS = """SELECT versions.*, EXISTS (
        SELECT 1 FROM active JOIN activations ON activations.number = active.activation
        WHERE active.agent = versions.agent AND activations.version = versions.number
    ) AS is_active FROM versions """

_CURRENT = """SELECT activations.* FROM active
    JOIN activations ON activations.number = active.activation WHERE active.agent = ?"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """One registered bundle: `created` is UTC in ISO form, a metric that was not finite is None."""

    number: int
    agent: str
    created: str
    run: str
    sha256: str
    metrics: dict[str, float | None]
    metadata: dict[str, Any]
    is_active: bool

    @property
    def name(self) -> str:
        """The version as people write it: v1, v2, ..."""
        return f"v{self.number}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation:
    """One switch of an agent's pointer to `version`, at a UTC time in ISO form."""

    number: int
    agent: str
    version: int
    at: str
    reason: str


class Registry:
    """The model registry in a folder, opened or created; use it as a context manager.

    Any number of processes may work on one folder; an object belongs to one thread. Every method
    raises JaxtradeError, one line, when the database or a bundle cannot be used.
    """

    def __init__(
        self,
        folder: Path | str = "models",
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = Path(folder)
        self.file = self.folder / "registry.sqlite"
        self._bundles = self.folder / "bundles"
        self._now = now
        try:
            self._bundles.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder)
        except OSError as error:
            raise JaxtradeError(f"cannot create {self._bundles}: {error.strerror}") from error
        with _one_line_errors(self.file):
            self._db = _open(self.file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; the object cannot be used afterwards."""
        self._db.close()

    def register(
        self,
        bundle: Path,
        *,
        agent: str,
        run: str,
        metrics: dict[str, float],
        metadata: dict[str, Any],
    ) -> Version:
        """Keep a copy of a bundle as a new version; content the agent already has returns that."""
        content = read_bytes(bundle)
        digest = hashlib.sha256(content).hexdigest()
        texts = _as_json("metrics", _numbers(metrics)), _as_json("metadata", metadata)
        stored = self._bundle(digest)
        if not stored.exists() or sha256_file(stored) != digest:
            write_atomic(stored, content, mode=0o444)
        with self._transaction("IMMEDIATE"):
            same = self._db.execute(
                "SELECT number FROM versions WHERE agent = ? AND sha256 = ?", (agent, digest)
            ).fetchone()
            if same is not None:
                return self._find(same["number"])
            row = self._db.execute(
                "INSERT INTO versions (agent, created, run, sha256, metrics, metadata) "
                "VALUES (?, ?, ?, ?, ?, ?) RETURNING number",
                (agent, self._stamp(), run, digest, *texts),
            ).fetchone()
            return self._find(row["number"])

    def activate(self, version: int, *, reason: str = "") -> Version:
        """Make a version the active one of its agent, if its bundle is whole.

        The version that is active already stays so, without a new row of history.
        """
        with self._transaction("IMMEDIATE"):
            chosen = self._whole(version)
            if chosen.is_active:
                return chosen
            current = self._db.execute(_CURRENT, (chosen.agent,)).fetchone()
            self._point(chosen, reason, previous=current["number"] if current else None)
            return self._find(version)

    def rollback(self, agent: str, *, reason: str = "") -> Version:
        """Activate the version that was active before the current one.

        Rollbacks go back step by step: after v1, v2, v3 two of them lead to v1, not back to v3.
        """
        with self._transaction("IMMEDIATE"):
            current = self._db.execute(_CURRENT, (agent,)).fetchone()
            if current is None:
                raise JaxtradeError(f"cannot roll back agent {agent!r}: it has no active version")
            name = f"v{current['version']}"
            before = self._db.execute(
                "SELECT * FROM activations WHERE number = ?", (current["previous"],)
            ).fetchone()
            if before is None:
                raise JaxtradeError(
                    f"cannot roll back agent {agent!r}: no version was active before {name}"
                )
            chosen = self._whole(before["version"])
            self._point(chosen, reason or f"rollback from {name}", previous=before["previous"])
            return self._find(chosen.number)

    def active(self, agent: str) -> Version | None:
        """The version that the agent trades, or None."""
        with self._transaction():
            current = self._db.execute(_CURRENT, (agent,)).fetchone()
            return self._find(current["version"]) if current else None

    def versions(self) -> list[Version]:
        """All versions of all agents, newest first."""
        with self._transaction():
            return [_version(row) for row in self._db.execute(_VERSIONS + "ORDER BY number DESC")]

    def history(self, agent: str) -> list[Activation]:
        """Every activation and rollback of an agent, newest first."""
        query = (
            "SELECT number, agent, version, at, reason FROM activations "
            "WHERE agent = ? ORDER BY number DESC"
        )
        with self._transaction():
            return [Activation(**dict(row)) for row in self._db.execute(query, (agent,))]

    def path(self, version: int) -> Path:
        """Where a version's bundle lies, after checking that it is what was registered."""
        with self._transaction():
            return self._bundle(self._whole(version).sha256)

    def _find(self, number: int) -> Version:
        row = self._db.execute(_VERSIONS + "WHERE number = ?", (number,)).fetchone()
        if row is None:
            known = self._db.execute("SELECT number FROM versions ORDER BY number DESC").fetchall()
            names = ", ".join(f"v{other['number']}" for other in known[:10])
            more = f" and {len(known) - 10} older" if len(known) > 10 else ""
            raise JaxtradeError(
                f"no version v{number} in {self.folder}: there are {names or 'none yet'}{more}"
            )
        return _version(row)

    def _whole(self, number: int) -> Version:
        version = self._find(number)
        stored = self._bundle(version.sha256)
        if not stored.is_file():
            raise JaxtradeError(f"the bundle of {version.name} is missing: {stored}")
        if sha256_file(stored) != version.sha256:
            raise JaxtradeError(
                f"the bundle of {version.name} was altered: the SHA-256 of {stored} is not its name"
            )
        return version

    def _point(self, version: Version, reason: str, *, previous: int | None) -> None:
        row = self._db.execute(
            "INSERT INTO activations (agent, version, at, reason, previous) "
            "VALUES (?, ?, ?, ?, ?) RETURNING number",
            (version.agent, version.number, self._stamp(), reason, previous),
        ).fetchone()
        self._db.execute(
            "INSERT INTO active (agent, activation) VALUES (?, ?) "
            "ON CONFLICT (agent) DO UPDATE SET activation = excluded.activation",
            (version.agent, row["number"]),
        )

    def _bundle(self, digest: str) -> Path:
        return self._bundles / f"{digest}.onnx"

    def _stamp(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="milliseconds")

    @contextlib.contextmanager
    def _transaction(self, kind: str = "DEFERRED") -> Iterator[None]:
        with _one_line_errors(self.file), transaction(self._db, kind):
            yield


def _open(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = FULL")
        if _schema_version(db, file) == 0:
            with transaction(db, "IMMEDIATE"):
                if _schema_version(db, file) == 0:  # no other process came first
                    for statement in _SCHEMA:
                        db.execute(statement)
        use_wal(db, BUSY_SECONDS)
    except BaseException:
        db.close()
        raise
    return db


def _schema_version(db: sqlite3.Connection, file: Path) -> int:
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    if found > SCHEMA_VERSION:
        raise JaxtradeError(
            f"{file} has schema version {found}, above {SCHEMA_VERSION}: upgrade jaxtrade to use it"
        )
    return found


@contextlib.contextmanager
def _one_line_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, json.JSONDecodeError) as error:
        is_damaged = type(error) in (sqlite3.DatabaseError, json.JSONDecodeError)
        advice = "; restore it from a backup or move it away" if is_damaged else ""
        raise JaxtradeError(f"cannot use the registry {file}: {error}{advice}") from error


def _version(row: sqlite3.Row) -> Version:
    fields = dict(row)
    fields["metrics"] = json.loads(fields["metrics"])
    fields["metadata"] = json.loads(fields["metadata"])
    return Version(**{**fields, "is_active": bool(fields["is_active"])})


def _numbers(metrics: dict[str, float]) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in metrics.items()}
    except (TypeError, ValueError) as error:
        raise JaxtradeError(f"a metric is not a number: {error}") from error


def _as_json(what: str, value: dict[str, Any]) -> str:
    try:
        return json.dumps(finite(value), allow_nan=False)
    except TypeError as error:
        raise JaxtradeError(f"{what} cannot be kept as JSON: {error}") from error
