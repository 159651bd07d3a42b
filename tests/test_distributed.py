"""Two processes, as on two hosts, train one run together."""

import json
import socket
import subprocess
import sys

import pytest

from tests.small import SMALL
from tests.test_devices import answer_of, command

pytestmark = pytest.mark.soak


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def both(options, timeout=300):
    """What two processes that know of each other say."""
    port = free_port()
    processes = []
    for index in range(2):
        names = {
            "JAXTRADE_COORDINATOR": f"127.0.0.1:{port}",
            "JAXTRADE_NUM_PROCESSES": "2",
            "JAXTRADE_PROCESS_ID": str(index),
        }
        options = {**options, "env": {**options["env"], **names}}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(**options, **pipes))
    try:
        said = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    return [out for out, _ in said]


@pytest.fixture(scope="module", params=["ppo", "dqn"])
def answers(request):
    said = both(command(request.param, num_devices=2))
    return request.param, [json.loads(out.splitlines()[-1]) for out in said]  # Gloo talks too


def test_two_processes_agree_on_parameters_and_metrics(answers):
    _, (first, second) = answers
    assert first["actor"] == second["actor"]
    assert first["all"] == second["all"]
    assert [first["is_main"], second["is_main"]] == [True, False]


def test_each_has_its_share_of_the_environments(answers):
    _, both = answers
    for each in both:
        assert each["devices"] == 4
        assert each["shares"][".obs"] == [4, 4]


def test_together_they_train_as_one_process_would(answers):
    name, (first, _) = answers
    alone = answer_of(name, num_devices=1)
    assert len(first["all"]) == len(alone["one"]) == 5
    for together, one in zip(first["all"], alone["one"], strict=True):
        assert together == pytest.approx(one, rel=1e-5, abs=1e-5, nan_ok=True)


def test_the_job_leaves_one_run(tmp_path):
    job = ["-m", "jaxtrade.cli", "train", *SMALL, "total_steps=512", f"output_dir={tmp_path}"]
    options = command(num_devices=1)
    first, second = both({**options, "args": [sys.executable, *job]})
    (run,) = tmp_path.glob("*/*")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [256, 512]
    assert (run / "policy.onnx").is_file()
    assert str(run) in first
    assert str(run) not in second
