"""Atomic writes, hashes and reads of `jaxtrade.storage`."""

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import read_bytes, sha256_file, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("data", [b"", b"\x00\xff" * 100_000, "Überschuss 12 €\r\n"])
def test_what_is_written_is_read_and_hashed(tmp_path, data):
    path = tmp_path / "file.bin"
    write_atomic(path, data)
    content = data.encode() if isinstance(data, str) else data
    assert read_bytes(path) == content
    assert sha256_file(path) == hashlib.sha256(content).hexdigest()
    assert names(tmp_path) == ["file.bin"]


def test_replaces_a_file_also_a_read_only_one(tmp_path):
    path = tmp_path / "file.txt"
    write_atomic(path, "old", mode=0o444)
    assert stat.S_IMODE(path.stat().st_mode) & 0o222 == 0
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) & 0o200


def test_order_is_file_synced_then_renamed_then_folder_synced(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_replace(source, target):
        assert Path(source).read_bytes() == b"data"  # flushed before the rename
        assert Path(source).parent == Path(target).parent
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_atomic(tmp_path / "file", b"data")
    assert events == ["file", "rename", "folder"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "report.html"
    write_atomic(path, "old")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(JaxtradeError) as caught:
        write_atomic(path, "new")
    assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.html"]


def test_a_real_write_that_runs_out_of_room(tmp_path):
    path = tmp_path / "large.bin"
    script = (
        "import resource, signal, sys\n"
        "from jaxtrade.storage import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write_atomic(sys.argv[1], bytes(100_000))\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert done.stdout == f"cannot write {path}: File too large\n", done.stderr
    assert names(tmp_path) == []


def test_an_interrupt_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "old")
    script = (
        "import os, signal, sys\n"
        "from jaxtrade.storage import write_atomic\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomic(sys.argv[1], 'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_missing_things_are_one_line(tmp_path):
    missing = tmp_path / "no" / "file"
    for action, verb in [
        (lambda: read_bytes(missing), "read"),
        (lambda: sha256_file(missing), "read"),
        (lambda: write_atomic(missing, b""), "write"),
    ]:
        with pytest.raises(JaxtradeError) as caught:
            action()
        assert str(caught.value) == f"cannot {verb} {missing}: No such file or directory"
    with pytest.raises(JaxtradeError, match="Is a directory"):
        read_bytes(tmp_path)
