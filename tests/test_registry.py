"""Versions, the active pointer and what survives crashes in `jaxtrade.registry`."""

import hashlib
import math
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from jaxtrade.registry import Registry
from jaxtrade.specs import JaxtradeError

START = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))


@pytest.fixture
def registry(tmp_path):
    ticks = iter(range(10_000))
    with Registry(
        tmp_path / "models", now=lambda: START + timedelta(minutes=next(ticks))
    ) as opened:
        yield opened


@pytest.fixture
def add(registry, tmp_path):
    def register(content, agent="ppo", **fields):
        bundle = tmp_path / "policy.onnx"
        bundle.write_bytes(content.encode())
        fields = {"run": "runs/a", "metrics": {}, "metadata": {}, **fields}
        return registry.register(bundle, agent=agent, **fields)

    return register


def stored(registry):
    return sorted(path.name for path in (registry.folder / "bundles").iterdir())


def unlock(path):
    path.chmod(0o644)
    return path


def test_lifecycle(registry, add):
    assert registry.versions() == []
    assert registry.active("ppo") is None
    first = add("one", metrics={"sharpe": 1.5}, metadata={"symbols": ["SPY"], "nested": {"a": 1}})
    assert (first.number, first.name, first.agent, first.run) == (1, "v1", "ppo", "runs/a")
    assert first.created == "2024-01-02T02:04:05.000+00:00"
    assert first.sha256 == hashlib.sha256(b"one").hexdigest()
    assert first.metrics == {"sharpe": 1.5}
    assert first.metadata == {"symbols": ["SPY"], "nested": {"a": 1}}
    assert not first.is_active

    second = add("two")
    other = add("three", agent="sac")
    assert registry.activate(1, reason="paper test passed").is_active
    assert registry.activate(other.number).is_active  # pointers are per agent
    assert registry.activate(second.number).number == 2
    assert [(v.name, v.is_active) for v in registry.versions()] == [
        ("v3", True),
        ("v2", True),
        ("v1", False),
    ]
    history = registry.history("ppo")
    assert [(a.version, a.reason) for a in history] == [(2, ""), (1, "paper test passed")]
    assert history[0].at > history[1].at
    assert [a.version for a in registry.history("sac")] == [3]
    assert registry.history("nobody") == []

    with Registry(registry.folder) as again:
        assert again.versions() == registry.versions()
        assert again.active("ppo") == registry.active("ppo")


def test_a_bundle_is_a_read_only_copy(registry, add, tmp_path):
    path = registry.path(add("one").number)
    assert path == registry.folder / "bundles" / f"{hashlib.sha256(b'one').hexdigest()}.onnx"
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) & 0o222 == 0
    (tmp_path / "policy.onnx").unlink()
    assert registry.path(1).read_bytes() == b"one"


def test_same_content_is_one_file_and_per_agent_one_version(registry, add):
    first = add("one", metrics={"sharpe": 1.0})
    assert add("one", metrics={"sharpe": 2.0}, run="runs/b") == first  # immutable
    other = add("one", agent="sac")
    assert (other.number, other.sha256) == (2, first.sha256)
    assert len(stored(registry)) == 1
    assert [v.number for v in registry.versions()] == [2, 1]
    registry.activate(1)
    assert add("one").is_active


def test_metrics_are_finite_numbers_or_null(registry, add):
    version = add(
        "one",
        metrics={"a": math.nan, "b": -math.inf, "c": np.float32(0.5), "d": 3},
        metadata={"spans": (1.0, math.nan), "deep": [{"x": math.inf}]},
    )
    assert version.metrics == {"a": None, "b": None, "c": 0.5, "d": 3.0}
    assert version.metadata == {"spans": [1.0, None], "deep": [{"x": None}]}
    with pytest.raises(JaxtradeError, match=r"metadata cannot be kept as JSON: .*set"):
        add("two", metadata={"x": {1}})
    with pytest.raises(JaxtradeError, match=r"a metric is not a number: .*'high'$"):
        add("two", metrics={"x": "high"})
    assert len(registry.versions()) == 1


def test_activating_twice_changes_nothing(registry, add):
    add("one")
    registry.activate(1, reason="first")
    assert registry.activate(1, reason="second").is_active
    assert [a.reason for a in registry.history("ppo")] == ["first"]


def test_rollback_goes_back_step_by_step(registry, add):
    for content in ("one", "two", "three", "four"):
        add(content)
    for number in (1, 2, 3):
        registry.activate(number)
    assert registry.rollback("ppo").number == 2
    assert registry.rollback("ppo", reason="loses money").number == 1
    with pytest.raises(JaxtradeError, match=r"'ppo': no version was active before v1$"):
        registry.rollback("ppo")
    registry.activate(4)  # a new branch: v3 was abandoned
    active = registry.rollback("ppo")
    assert (active.number, active.is_active) == (1, True)
    assert [(a.version, a.reason) for a in registry.history("ppo")] == [
        (1, "rollback from v4"),
        (4, ""),
        (1, "loses money"),
        (2, "rollback from v3"),
        (3, ""),
        (2, ""),
        (1, ""),
    ]
    with pytest.raises(JaxtradeError, match=r"'sac': it has no active version$"):
        registry.rollback("sac")


def test_a_missing_version_names_those_there_are(registry, add):
    for use in (registry.activate, registry.path):
        with pytest.raises(JaxtradeError, match=r"no version v7 in .*models: there are none yet$"):
            use(7)
    add("one")
    add("two")
    with pytest.raises(JaxtradeError, match=r"no version v7 in .*models: there are v2, v1$"):
        registry.activate(7)
    for index in range(10):
        add(f"more {index}")
    with pytest.raises(JaxtradeError, match=r"there are v12, v11, .*, v3 and 2 older$"):
        registry.path(99)


def test_an_altered_or_missing_bundle_is_refused(registry, add):
    add("one")
    add("two")
    registry.activate(1)
    registry.activate(2)
    one = registry.path(1)
    unlock(one).write_bytes(b"0ne")
    for use in (registry.activate, registry.path):
        with pytest.raises(JaxtradeError, match="the bundle of v1 was altered: the SHA-256 of"):
            use(1)
    one.unlink()
    for use in (lambda: registry.rollback("ppo"), lambda: registry.activate(1)):
        with pytest.raises(JaxtradeError, match=r"the bundle of v1 is missing: .*\.onnx$"):
            use()
    active = registry.active("ppo")
    assert active is not None
    assert active.number == 2
    assert [a.version for a in registry.history("ppo")] == [2, 1]


def test_registering_again_repairs_a_damaged_bundle(registry, add):
    unlock(registry.path(add("one").number)).write_bytes(b"")
    assert add("one").number == 1
    assert registry.path(1).read_bytes() == b"one"


@pytest.mark.parametrize("event", ["INSERT ON activations", "UPDATE ON active"])
@pytest.mark.parametrize("switch", ["activate", "rollback"])
def test_a_failure_inside_the_transaction_leaves_the_old_pointer(registry, add, event, switch):
    for content in ("one", "two", "three"):
        add(content)
    registry.activate(1)
    registry.activate(2)
    with closing(sqlite3.connect(registry.file, isolation_level=None)) as other:
        other.execute(f"CREATE TRIGGER f AFTER {event} BEGIN SELECT RAISE (ABORT, 'boom'); END")
        with pytest.raises(JaxtradeError, match=r"cannot use the registry .*: boom$"):
            registry.activate(3) if switch == "activate" else registry.rollback("ppo")
        other.execute("DROP TRIGGER f")
    assert [v.number for v in registry.versions() if v.is_active] == [2]
    assert [a.version for a in registry.history("ppo")] == [2, 1]
    assert registry.activate(3).is_active


@pytest.mark.parametrize("table", ["versions", "activations"])
@pytest.mark.parametrize("change", ["UPDATE {} SET agent = 'x'", "DELETE FROM {}"])
def test_versions_and_history_cannot_be_changed(registry, add, table, change):
    add("one")
    registry.activate(1)
    with (
        closing(sqlite3.connect(registry.file)) as other,
        pytest.raises(sqlite3.IntegrityError, match=f"{table} are immutable"),
    ):
        other.execute(change.format(table))


def test_a_failure_between_file_and_row_leaves_an_unreferenced_file(registry, add, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_now", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            add("one")
    assert len(stored(registry)) == 1
    assert registry.versions() == []
    assert add("one").number == 1
    assert len(stored(registry)) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from jaxtrade.registry import Registry

folder, action, before = sys.argv[1:]
bundle = Path(folder, "new.onnx")
bundle.write_bytes(b"new")
with Registry(Path(folder, "models")) as registry:
    def kill(statement):
        if statement.startswith(before):
            os.kill(os.getpid(), signal.SIGKILL)
    registry._db.set_trace_callback(kill)
    if action == "register":
        registry.register(bundle, agent="ppo", run="", metrics={}, metadata={})
    else:
        registry.activate(2)
"""


@pytest.mark.parametrize(
    ("action", "before"),
    [
        ("register", "BEGIN"),
        ("register", "INSERT"),
        ("register", "COMMIT"),
        ("activate", "INSERT INTO activations"),
        ("activate", "INSERT INTO active "),
        ("activate", "COMMIT"),
    ],
)
def test_a_kill_at_any_statement_leaves_the_old_state(registry, add, tmp_path, action, before):
    add("one")
    add("two")
    registry.activate(1)
    was = registry.versions(), registry.history("ppo")
    command = [sys.executable, "-c", KILLED, str(tmp_path), action, before]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert (registry.versions(), registry.history("ppo")) == was
    assert len(stored(registry)) == (3 if action == "register" else 2)
    assert add("new").number == 3  # the number was not burnt, the file is taken over
    assert registry.activate(2).is_active
    assert len(stored(registry)) == 3


WORKER = """
import sys
from pathlib import Path
from jaxtrade.registry import Registry

folder, name = Path(sys.argv[1]), sys.argv[2]
for index in range(10):
    with Registry(folder / "models") as registry:
        for content in (f"shared {index}", f"{name} {index}"):
            bundle = folder / f"{name}.onnx"
            bundle.write_text(content)
            version = registry.register(bundle, agent="ppo", run=name, metrics={}, metadata={})
            assert registry.activate(version.number).is_active
        registry.rollback("ppo")
"""


def test_processes_side_by_side_end_consistent(tmp_path):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), name], stderr=subprocess.PIPE, text=True
        )
        for name in ("a", "b", "c")
    ]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], errors
    with Registry(tmp_path / "models") as registry:
        versions = registry.versions()
        assert [v.number for v in versions] == list(range(40, 0, -1))
        assert len({v.sha256 for v in versions}) == len(stored(registry)) == 40
        history = registry.history("ppo")
        assert [v.number for v in versions if v.is_active] == [history[0].version]
        assert sum(a.reason.startswith("rollback") for a in history) == 30
        assert all(registry.path(v.number).is_file() for v in versions)
    with closing(sqlite3.connect(tmp_path / "models" / "registry.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


def test_a_newer_schema_is_refused_and_left_alone(tmp_path):
    with Registry(tmp_path) as registry:
        file = registry.file
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA user_version = 2")
    before = file.read_bytes()
    with pytest.raises(JaxtradeError) as caught:
        Registry(tmp_path)
    expected = f"{file} has schema version 2, above 1: upgrade jaxtrade to use it"
    assert str(caught.value) == expected
    assert file.read_bytes() == before


def test_a_database_that_is_not_sqlite_is_one_line(tmp_path):
    file = tmp_path / "registry.sqlite"
    file.write_text("version,agent\n" * 100)
    with pytest.raises(JaxtradeError) as caught:
        Registry(tmp_path)
    assert str(caught.value) == (
        f"cannot use the registry {file}: file is not a database; "
        "restore it from a backup or move it away"
    )
    assert file.read_text().startswith("version,agent")


def test_a_corrupt_database_is_one_line(tmp_path, registry, add):
    add("one")
    registry.close()
    content = bytearray(registry.file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    registry.file.write_bytes(content)
    with (
        Registry(registry.folder) as again,
        pytest.raises(JaxtradeError, match=r"cannot use the registry .* is malformed; restore it"),
    ):
        again.versions()


def test_a_folder_that_cannot_be_made_and_a_bundle_that_is_not_there(registry, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JaxtradeError, match=r"cannot create .*bundles: Not a directory$"):
        Registry(tmp_path / "file")
    with pytest.raises(JaxtradeError, match=r"cannot read .*none.onnx: No such file"):
        registry.register(tmp_path / "none.onnx", agent="a", run="", metrics={}, metadata={})


def test_a_locked_database_is_one_line(registry, add, monkeypatch):
    add("one")
    registry._db.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(registry.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JaxtradeError, match=r"cannot use the registry .*database is locked$"):
            registry.activate(1)
        assert registry.active("ppo") is None  # readers do not wait for a writer
    assert registry.activate(1).is_active


def test_pragmas_and_default_clock(tmp_path):
    with Registry(tmp_path) as registry:
        pragmas = {
            name: registry._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
        (tmp_path / "x.onnx").write_bytes(b"x")
        version = registry.register(tmp_path / "x.onnx", agent="a", run="", metrics={}, metadata={})
    assert pragmas == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": 5000,
        "synchronous": 2,
    }
    assert abs(datetime.now(UTC) - datetime.fromisoformat(version.created)) < timedelta(minutes=1)


def test_importing_the_registry_does_not_import_jax():
    script = "import sys, jaxtrade.registry; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
