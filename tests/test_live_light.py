"""An engine that trades for money: no JAX, quickly there, small."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxtrade.live.control import NotRunningError, ask
from jaxtrade.live.export import export_policy
from jaxtrade.live.settings import write
from jaxtrade.specs import FeatureSpec, JaxtradeError
from tests.bundles import linear_policy, metadata_of
from tests.live_runs import settings_of

ABSENT = ("jax", "flax", "optax", "gymnax", "onnx", "pandas", "scipy", "pyarrow", "hydra", "rich")
"""What an engine beside a real broker does without; the README says what to install."""

PROCESS = (
    f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))\n"
    "from jaxtrade.live.run import main; sys.exit(main(sys.argv[1:]))"
)
LIMIT_S, LIMIT_MB = 1.0, 200.0
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """An account at a broker that needs no JAX, in memory."""
    place = tmp_path_factory.mktemp("light")
    spec = FeatureSpec(names=("ema_10",), window=2)
    policy = linear_policy(spec, np.zeros((1, 3)), np.zeros((6, 3)), [0.0, 0.0, 5.0])
    export_policy(place / "policy.onnx", policy, metadata_of(policy))
    kind = {"kind": "jaxtrade.experiments.benchmarks.stand_in:make"}
    write(settings_of(place / "a", place / "policy.onnx", broker=kind))
    return place / "a"


def until_it_answers(folder: pathlib.Path, process: subprocess.Popen) -> dict:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask(folder, "status", timeout_s=5.0)
        except NotRunningError:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)


def peak_mb(pid: int) -> float:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = [line for line in lines if line.startswith("VmHWM")]
    return int(peak.split()[1]) / 1024


def test_an_engine_needs_no_jax_and_starts_small_and_quickly(folder) -> None:
    taken = []
    for _ in range(2):  # the first start makes the journal and reads files that are cold
        began = time.monotonic()
        command = [sys.executable, "-c", PROCESS, str(folder)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            status = until_it_answers(folder, process)
            taken.append(time.monotonic() - began)
            peak = peak_mb(process.pid)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        assert status["broker"]["connected"]
        assert status["agents"][0]["paused"] == ""
        assert peak < LIMIT_MB
    print(f"ready in {min(taken):.2f} s, {peak:.0f} MB")
    assert min(taken) < LIMIT_S * max(os.getloadavg()[0], 1.0)


def test_an_adapter_that_is_not_there_is_one_line(folder) -> None:
    settings = settings_of(folder.parent / "b", folder.parent / "policy.onnx")
    write(dataclasses.replace(settings, broker=dataclasses.replace(settings.broker, kind="no:no")))
    command = [sys.executable, "-c", PROCESS, settings.folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert done.stderr.startswith("jaxtrade: broker.kind is 'no:no'")
    assert done.stderr.count("\n") == 1
    with pytest.raises(JaxtradeError):
        ask(settings.folder, "status")
