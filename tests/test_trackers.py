"""Trackers: what is handed over, what is not, and what happens when one fails."""

import io
import math
import pathlib
import struct
import sys
import time

import pytest
from rich.console import Console

from jaxtrade.experiments import trackers
from jaxtrade.experiments.config import compose
from jaxtrade.experiments.rundir import RunDirectory
from jaxtrade.experiments.trackers import Trackers, require_packages
from jaxtrade.specs import JaxtradeError

ROW = {"iteration": 2, "step": 512, "entropy": 1.5, "episode_return": math.nan}
SECRET = "0123456789abcdef0123456789abcdef01234567"


class Recorder:
    """A tracker that keeps what it is told, and fails when it is told too much."""

    def __init__(self, config, folder: pathlib.Path) -> None:
        self.told: list = []
        self.folder = folder
        OPENED.append(self)

    def log(self, figures, step) -> None:
        self.told.append((figures, step))
        if step > 512:
            raise OSError("no\nnetwork")

    def close(self) -> None:
        self.told.append("closed")


OPENED: list[Recorder] = []


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    OPENED.clear()
    kinds = {"wandb": Recorder, "tensorboard": Recorder}
    monkeypatch.setattr(trackers, "KINDS", kinds)
    return RunDirectory.create(compose([f"output_dir={tmp_path}"]), "run")


def test_finite_figures_reach_every_tracker_once(run) -> None:
    config = compose(["tracker=[wandb,tensorboard,wandb,none]"])
    with Trackers(config, run, Console(file=io.StringIO())) as several:
        several.log(ROW)
    told = [({"iteration": 2, "entropy": 1.5}, 512), "closed"]
    assert [each.told for each in OPENED] == [told, told]
    assert OPENED[0].folder == run.folder.absolute()


def test_none_is_none(run) -> None:
    with Trackers(compose([]), run, Console(file=io.StringIO())) as none:
        none.log(ROW)
    assert not OPENED


def test_one_that_fails_is_left_out_and_said_once(run) -> None:
    screen = Console(file=io.StringIO(), width=40)
    with Trackers(compose(["tracker=wandb"]), run, screen) as one:
        for step in (512, 1024, 2048):
            one.log({**ROW, "step": step})
    assert len(OPENED[0].told) == 2
    text = screen.file.getvalue()
    assert text == "tracker wandb is left out from here on: OSError: no network\n"


def test_one_that_cannot_be_opened_is_one_line(run, monkeypatch) -> None:
    def broken(config, folder):
        raise ValueError("no\nkey")

    monkeypatch.setattr(trackers, "KINDS", {"wandb": broken})
    with pytest.raises(JaxtradeError, match=r"^tracker wandb: ValueError: no key$"):
        Trackers(compose(["tracker=wandb"]), run, Console())


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("tensorboard", "tensorboardX")])
def test_a_missing_package_is_one_line_that_says_what_to_install(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(JaxtradeError) as error:
        require_packages(compose([f"tracker={name}"]))
    wanted = f"tracker {name} needs the package {package}: pip install 'jaxtrade[{name}]'"
    assert str(error.value) == wanted
    require_packages(compose([]))


@pytest.fixture
def real_run(tmp_path) -> RunDirectory:
    return RunDirectory.create(compose([f"output_dir={tmp_path}", "seed=77"]), "run")


def scalars(folder: pathlib.Path) -> dict[tuple[str, int], float]:
    """Tags, steps and values of TensorBoard's event files."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in folder.glob("events.*"):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])  # a record: length, its check, event, check
            event = Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found


def test_tensorboard_files_hold_the_figures(real_run) -> None:
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
    config = compose(["tracker=tensorboard"])
    for step in (512, 1024):  # a run, and the same resumed
        with Trackers(config, real_run, Console(file=io.StringIO())) as one:
            one.log({**ROW, "step": step})
    found = scalars(real_run.folder / "tensorboard")
    assert found["entropy", 512] == found["entropy", 1024] == 1.5
    assert {tag for tag, _ in found} == {"iteration", "entropy"}


def test_wandb_offline_holds_figures_and_settings_and_no_secret(real_run, monkeypatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("BROKER_PASSWORD", SECRET)
    monkeypatch.setattr(sys, "argv", ["jaxtrade", SECRET])
    screen = Console(file=io.StringIO())
    with Trackers(compose(["tracker=wandb", "seed=77"]), real_run, screen) as one:
        one.log(ROW)
    assert screen.file.getvalue() == ""
    (logged,) = real_run.folder.rglob("*.wandb")
    deadline = time.monotonic() + 20
    while b"entropy" not in (content := logged.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.1)  # its own process writes it, some time after it was closed
    assert b"entropy" in content and b"total_steps" in content and b"episode_return" not in content
    for path in filter(pathlib.Path.is_file, real_run.folder.rglob("*")):
        assert SECRET.encode() not in path.read_bytes(), path
