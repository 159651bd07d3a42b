"""The `jaxtrade` command as people use it: what it does, and its one line when it cannot."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxtrade import cli
from tests import programs
from tests.small import SMALL


def jaxtrade(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jaxtrade.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def fails(monkeypatch, capsys, *arguments: object) -> str:
    """Run the command here; its one line, without the program's name, and exit code 1."""
    monkeypatch.setattr(sys, "argv", ["jaxtrade", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    text = stop.value.code
    assert isinstance(text, str), f"exit code {text}, no message"  # Python then exits with 1
    assert text.startswith("jaxtrade: ")
    assert "\n" not in text
    assert "Traceback" not in capsys.readouterr().err
    return text.removeprefix("jaxtrade: ")


def works(monkeypatch, capsys, *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["jaxtrade", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code in (0, None)
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """The directory of a small finished run."""
    folder = tmp_path_factory.mktemp("runs")
    wanted = ("train", *SMALL, f"output_dir={folder}", "name=small")
    done = jaxtrade(*wanted, env=programs.shared())
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "buy and hold" in done.stdout
    (found,) = folder.glob("*/*-small")
    assert str(found / "report.html") in done.stdout
    return found


def test_a_settings_slip_is_named(monkeypatch, capsys, tmp_path) -> None:
    assert "did you mean 'env.window'" in fails(monkeypatch, capsys, "train", "env.widnow=3")
    assert "did you mean" in fails(monkeypatch, capsys, "train", "data=cvs")
    assert "learning_rate" in fails(monkeypatch, capsys, "train", "agent.lerning_rate=1")
    assert "add -m" in fails(monkeypatch, capsys, "train", "seed=0,1")
    assert "unknown feature 'rsy'" in fails(
        monkeypatch, capsys, "train", "+env.features.rsy=true", f"output_dir={tmp_path}"
    )


def test_bad_files_are_named(monkeypatch, capsys, tmp_path) -> None:
    train = ("train", "data=csv", f"output_dir={tmp_path}")
    assert "data.path" in fails(monkeypatch, capsys, *train)
    missing = tmp_path / "missing.csv"
    assert str(missing) in fails(monkeypatch, capsys, *train, f"data.path={missing}")
    bad = tmp_path / "bad.csv"
    bad.write_text(
        "timestamp,open,high,low,close,volume\n2020-01-01,1,1,1,1,0\n2020-01-02,1,2,3,1,0\n"
    )
    assert "bad.csv: row 2" in fails(monkeypatch, capsys, *train, f"data.path={bad}")


def test_an_unknown_device_is_named(monkeypatch, capsys) -> None:
    message = fails(monkeypatch, capsys, "train", *SMALL, "device=tpu")
    assert message.startswith("device is 'tpu': this machine has cpu")


def test_a_directory_that_cannot_be_made_is_named(monkeypatch, capsys, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "runs"
    message = fails(monkeypatch, capsys, "train", *SMALL, f"output_dir={folder}")
    assert str(tmp_path / "file") in message


@pytest.mark.parametrize(
    "kibibytes",
    [pytest.param(2, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.soak)],
)
def test_a_disk_that_takes_no_more_is_one_line(tmp_path, kibibytes) -> None:
    """A limit on the size of files stands in for a full disk."""
    command = [sys.executable, "-m", "jaxtrade.cli", "train", *SMALL, f"output_dir={tmp_path}"]
    limited = ["bash", "-c", f'ulimit -f {kibibytes}; exec "$@"', "bash", *command]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.startswith("jaxtrade: ")
    assert str(tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback() -> None:
    done = jaxtrade("train", "env.widnow=3", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "did you mean" in done.stderr


def test_wrong_usage_exits_with_2() -> None:
    done = jaxtrade("train", "--nonsense")
    assert done.returncode == 2
    assert "--nonsense" in done.stderr


def test_help_lists_the_commands() -> None:
    done = jaxtrade("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("train", "export", "backtest", "models"))


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_resume_finishes(run, tmp_path) -> None:
    command = [sys.executable, "-m", "jaxtrade.cli", "train", *SMALL, f"output_dir={tmp_path}"]
    process = subprocess.Popen(
        [*command, "total_steps=30000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not list(tmp_path.glob("*/*/metrics.jsonl")):
        time.sleep(0.1)
    while time.monotonic() < deadline:
        if any(path.stat().st_size for path in tmp_path.glob("*/*/metrics.jsonl")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    (folder,) = tmp_path.glob("*/*")
    assert process.returncode == 130, err
    assert f"jaxtrade train --resume {folder}" in out
    assert err == ""
    config = folder / "config.yaml"
    assert "total_steps: 30000000" in config.read_text()


def test_resume_takes_no_settings(monkeypatch, capsys, run) -> None:
    assert "--resume" in fails(monkeypatch, capsys, "train", "seed=3", "--resume", run)
    assert "not a run directory" in fails(monkeypatch, capsys, "train", "--resume", run / "no")


@pytest.mark.slow
def test_a_sweep_trains_each_and_compares(monkeypatch, capsys, tmp_path) -> None:
    text = works(monkeypatch, capsys, "train", "-m", *SMALL, "seed=0,1", f"output_dir={tmp_path}")
    assert len(list(tmp_path.glob("*/*/report.html"))) == 2
    assert "validation Sharpe" in text
    assert "seed=1" in text


def test_backtest_and_its_replay(monkeypatch, capsys, run) -> None:
    text = works(monkeypatch, capsys, "backtest", run, "--onnx")
    assert "0 other than in JAX" in text
    assert "agent, ONNX" in text
    other = works(monkeypatch, capsys, "backtest", run, "data.seed=7", "env.costs.half_spread=0")
    assert "all span" in other
    assert "seen in training" not in other
    same = works(monkeypatch, capsys, "backtest", run, "env.costs.half_spread=0.001")
    assert "seen in training" in same
    refused = fails(monkeypatch, capsys, "backtest", run, "env.window=8")
    assert "env.window" in refused


def test_export_writes_the_policy_again(monkeypatch, capsys, run, tmp_path) -> None:
    output = tmp_path / "copy.onnx"
    assert str(output) in works(monkeypatch, capsys, "export", run, "--output", output)
    assert output.stat().st_size == (run / "policy.onnx").stat().st_size


def test_models_register_activate_and_list(monkeypatch, capsys, run, tmp_path) -> None:
    folder = ("--folder", tmp_path / "models")
    assert "no versions" in works(monkeypatch, capsys, "models", *folder)
    text = works(monkeypatch, capsys, "models", "--register", run, *folder)
    assert "v1 is" in text
    text = works(monkeypatch, capsys, "models", "--activate", "v1", *folder)
    assert "v1 is active for small" in text
    assert "v7" in fails(monkeypatch, capsys, "models", "--activate", "v7", *folder)
    assert "such as v3" in fails(monkeypatch, capsys, "models", "--activate", "newest", *folder)
    nothing = fails(monkeypatch, capsys, "models", "--register", tmp_path, *folder)
    assert "not a run directory" in nothing


def test_a_defect_is_one_line_too(monkeypatch, capsys) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(cli, "_call", broken)
    message = fails(monkeypatch, capsys, "models")
    assert message == "unexpected RuntimeError: first second (--debug shows where)"


def test_it_starts_without_jax() -> None:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import jaxtrade.cli, sys; assert 'jax' not in sys.modules"],
        check=True,
        env={**os.environ},
    )
    assert time.perf_counter() - started < 5


@pytest.mark.slow
def test_the_run_trades_on_paper_until_its_data_are_over(run, tmp_path) -> None:
    """Supervisor, engine and alert worker as processes; then what is left of it is looked at."""
    folder = f"folder={tmp_path}/account"
    done = jaxtrade("live", "broker=paper", f"model={run}", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "stopped: the data are over" in done.stdout
    account = ("--folder", tmp_path / "account")
    status = json.loads(jaxtrade("status", "--json", *account).stdout)
    assert status["state"] == "active"
    assert status["equity"] > 0
    (agent,) = status["agents"]
    assert agent["name"] == "main"
    table = tmp_path / "logs.csv"
    assert jaxtrade("logs", table, *account).returncode == 0
    rows = table.read_text().splitlines()
    assert rows[0].startswith("timestamp,agent,symbol,price,")
    assert len(rows) > 200
