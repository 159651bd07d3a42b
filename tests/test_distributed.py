"""Two processes, as on two hosts, train one run together."""

import json
import socket
import subprocess

import pytest

from tests.test_devices import answer_of, command

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(index, port, name):
    """One of two processes with two devices each."""
    variables = {
        "JAXTRADE_COORDINATOR": f"127.0.0.1:{port}",
        "JAXTRADE_NUM_PROCESSES": "2",
        "JAXTRADE_PROCESS_ID": str(index),
    }
    return subprocess.Popen(
        **command(name, num_devices=2, **variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture(scope="module", params=["ppo", "dqn"])
def answers(request):
    """What each process says."""
    port = free_port()
    processes = [start(index, port, request.param) for index in range(2)]
    try:
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    return request.param, [json.loads(out.splitlines()[-1]) for out, _ in said]  # Gloo talks too


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
