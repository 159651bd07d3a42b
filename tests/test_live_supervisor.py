"""The supervisor: what hangs is killed, what crashes is started again, but not for ever."""

import asyncio
import configparser
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from importlib import resources

import pytest

from jaxtrade.live import keeper as module
from jaxtrade.live.alerts.outbox import Outbox
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.heartbeat import PLACE, Heartbeat, Listener
from jaxtrade.live.keeper import Program
from jaxtrade.live.latches import Latch, latched
from jaxtrade.live.notify import notify, watchdog_s
from jaxtrade.live.sections import AlertSettings, SupervisorSettings
from jaxtrade.live.settings import from_tree, write
from jaxtrade.live.supervisor import HALTED_CODE, Supervisor, programs

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")

QUICK = SupervisorSettings(
    heartbeat_s=0.2, missed=3, start_s=20.0, max_restarts=5, window_s=600.0, stop_s=5.0
)

BEATS = """
import os, signal, sys, time
from jaxtrade.live.heartbeat import Heartbeat
heart = Heartbeat()
starts = open(sys.argv[1], "a+")
starts.write(f"{os.getpid()} {time.time()}\\n")
starts.flush()
starts.seek(0)
number = len(starts.readlines())
"""


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def starts(tmp_path):
    """The file in which every process of a program says that it has started."""
    return tmp_path / "starts"


def program(code: str, starts, name="engine", **options) -> Program:
    command = (sys.executable, "-c", BEATS + code, str(starts))
    return Program(name=name, command=command, **{"has_heartbeat": True, **options})


def run(folder, *listed, settings=QUICK, during=None, clock=None) -> int:
    """Supervise until it ends by itself or `during` says to."""

    async def main() -> int:
        supervisor = Supervisor(folder, listed, settings, clock)
        task = asyncio.create_task(supervisor.run())
        if during is not None:
            await during(supervisor)
        async with asyncio.timeout(30):
            return await task

    return asyncio.run(main())


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def lines(path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_what_hangs_is_killed_within_three_beats_and_started_again(tmp_path, starts):
    """F27: the loop stands still, as after SIGSTOP; the second process is well and ends."""
    code = (
        "heart.beat()\n"
        "if number == 1:\n"
        "    open(sys.argv[1] + '.hung', 'w').write(str(time.time()))\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    assert run(tmp_path, program(code, starts, is_vital=True)) == 0
    assert len(lines(starts)) == 2
    hung = float((tmp_path / "starts.hung").read_text())
    assert float(lines(starts)[1].split()[1]) - hung < 0.6 + 2.0  # and the start of a process


def test_one_that_beats_is_left_alone(tmp_path, starts):
    code = "end = time.time() + 1.0\nwhile time.time() < end:\n    heart.beat(); time.sleep(0.05)\n"
    assert run(tmp_path, program(code, starts, is_vital=True)) == 0
    assert len(lines(starts)) == 1


def test_beats_of_somebody_else_do_not_count(tmp_path, starts):
    code = (
        "place = os.environ['JAXTRADE_HEARTBEAT'].split(':')[0]\n"
        "heart.beat()\n"
        "forged = Heartbeat(place + ':x')\n"
        "end = time.time() + (20 if number == 1 else 0)\n"
        "while time.time() < end:\n    forged.beat(); time.sleep(0.05)\n"
    )
    assert run(tmp_path, program(code, starts, is_vital=True)) == 0
    assert len(lines(starts)) == 2


def test_a_crash_loop_ends_in_a_latch_and_an_alert(tmp_path, starts):
    """F28: at most five restarts in ten minutes."""
    other = program("while True: time.sleep(0.1)", starts.with_name("o"), name="alerts")
    other = Program(name="alerts", command=other.command, has_heartbeat=True)
    settings = SupervisorSettings(heartbeat_s=30.0, stop_s=5.0)
    crashing = program("sys.exit(3)", starts, is_vital=True)
    assert run(tmp_path, crashing, other, settings=settings) == HALTED_CODE
    assert len(lines(starts)) == 6
    found = latched(tmp_path, Latch.HALTED)
    assert found is not None
    assert "ended badly 6 times in 600 s, last with 3" in found.reason
    with Outbox(tmp_path, AlertSettings()) as outbox:
        assert outbox.collect(1) == [("critical", found.reason)]
    (pid, _) = lines(starts.with_name("o"))[0].split()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_one_that_refuses_to_start_is_not_started_again(tmp_path, starts):
    assert run(tmp_path, program("sys.exit(1)", starts, is_vital=True)) == 1
    assert len(lines(starts)) == 1
    assert latched(tmp_path, Latch.HALTED) is None
    with Outbox(tmp_path, AlertSettings()) as outbox:
        assert outbox.collect(1) == [("critical", "engine refused to start; its log says why")]


def test_one_that_lived_and_then_refuses_is(tmp_path, starts):
    code = "heart.beat(); time.sleep(0.1); sys.exit(1 if number < 3 else 0)"
    assert run(tmp_path, program(code, starts, is_vital=True)) == 0
    assert len(lines(starts)) == 3


def test_crashes_that_are_long_past_do_not_count(tmp_path, starts):
    clock = SimulatedClock()

    async def pass_time(_):
        for number in range(1, 9):
            await until(lambda number=number: len(lines(starts)) >= number)
            clock.advance(200 * 10**9)

    code = "sys.exit(0 if number == 9 else 3)"
    patient = SupervisorSettings(max_restarts=4)
    listed = program(code, starts, is_vital=True)
    assert run(tmp_path, listed, settings=patient, during=pass_time, clock=clock) == 0
    assert latched(tmp_path, Latch.HALTED) is None


def test_a_worker_that_crashes_does_not_end_trading(tmp_path, starts):
    alerts = program("sys.exit(3)", starts.with_name("o"), name="alerts")
    code = "while not os.path.exists(sys.argv[1] + '.end'):\n    heart.beat(); time.sleep(0.02)\n"

    async def wait(_):
        with Outbox(tmp_path, AlertSettings()) as outbox:
            await until(lambda: outbox.collect(1))
        starts.with_name("starts.end").touch()

    listed = (program(code, starts, is_vital=True), alerts)
    assert run(tmp_path, *listed, during=wait) == 0
    assert len(lines(starts)) == 1
    assert latched(tmp_path, Latch.HALTED) is None


def test_the_order_to_end_is_passed_on_in_order(tmp_path, starts):
    code = (
        "def end(*_):\n"
        "    open(os.path.dirname(sys.argv[1]) + '/ended', 'a').write(sys.argv[1][-1])\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "heart.beat()\n"
        "while True: heart.beat(); time.sleep(0.02)\n"
    )
    first, second = starts.with_name("1"), starts.with_name("2")

    async def stop(supervisor):
        await until(lambda: lines(first) and lines(second))
        await asyncio.sleep(0.1)
        supervisor.stop("a test")

    listed = (program(code, first, is_vital=True), program(code, second, name="alerts"))
    assert run(tmp_path, *listed, during=stop) == 0
    assert (tmp_path / "ended").read_text() == "12"


def test_one_that_does_not_end_is_killed(tmp_path, starts):
    code = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(sys.argv[1] + '.ready', 'w')\n"
        "while True: heart.beat(); time.sleep(0.02)\n"
    )

    async def stop(supervisor):
        await until(lambda: starts.with_name("starts.ready").exists())
        supervisor.stop("a test")

    settings = SupervisorSettings(stop_s=0.1)
    assert run(tmp_path, program(code, starts, is_vital=True), settings=settings, during=stop) == 0
    (pid, _) = lines(starts)[0].split()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_one_that_was_told_to_end_and_hangs_is_not_started_again(tmp_path, starts):
    """`jaxtrade stop` reaches the engine, not the supervisor: the engine's last beat tells it."""
    code = "heart.beat(); heart.beat_last(); os.kill(os.getpid(), signal.SIGSTOP)"
    settings = SupervisorSettings(heartbeat_s=0.2, stop_s=0.1)
    assert run(tmp_path, program(code, starts, is_vital=True), settings=settings) == 0
    assert len(lines(starts)) == 1


def test_an_orderly_end_has_its_time_and_need_not_beat(tmp_path, starts):
    code = (
        "def end(*_):\n"
        "    time.sleep(0.8)\n"
        "    open(sys.argv[1] + '.ended', 'w')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "open(sys.argv[1] + '.ready', 'w')\n"
        "while True: heart.beat(); time.sleep(0.02)\n"
    )

    async def stop(supervisor):
        await until(lambda: starts.with_name("starts.ready").exists())
        supervisor.stop("a test")

    settings = SupervisorSettings(heartbeat_s=0.2, missed=3, stop_s=20.0)
    assert run(tmp_path, program(code, starts, is_vital=True), settings=settings, during=stop) == 0
    assert starts.with_name("starts.ended").exists()


def test_a_program_that_is_not_there_ends_it(tmp_path):
    assert run(tmp_path, Program(name="engine", command=("/nowhere/x",), is_vital=True)) == 1


def test_its_process_ends_with_its_engine_when_told(tmp_path, monkeypatch):
    """The whole of it: its own process, SIGTERM, logs; the engine is a stand-in for `live.run`."""
    tree = {"name": "a", "folder": str(tmp_path), "broker": {}, "agents": {"a": {"model": "m"}}}
    write(from_tree(tree))
    stand_in = (
        "import asyncio, signal, sys\n"
        "from jaxtrade.live import supervisor\n"
        "from jaxtrade.live.keeper import Program\n"
        f"code = {BEATS!r} + 'while True: heart.beat(); time.sleep(0.02)'\n"
        "engine = Program(name='engine', is_vital=True, has_heartbeat=True, command=(\n"
        "    sys.executable, '-c', code, sys.argv[1] + '/starts'))\n"
        "supervisor.programs = lambda folder: (engine,)\n"
        "supervisor.main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", stand_in, str(tmp_path)]) as process:
        asyncio.run(until(lambda: lines(tmp_path / "starts")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    rows = [json.loads(line) for line in lines(tmp_path / "logs" / "supervisor.jsonl")]
    assert [row["text"] for row in rows] == ["started", "stopping"]
    assert rows[1]["reason"] == "SIGTERM"


def test_an_account_has_an_engine_and_a_teller():
    engine, alerts = programs("folder")
    assert engine.command[1:] == ("-m", "jaxtrade.live.run", "folder")
    assert engine.is_vital and engine.has_heartbeat
    assert alerts.command[1:] == ("-m", "jaxtrade.live.alerts.worker", "folder")
    assert not alerts.is_vital


# Signs of life


def test_a_heart_without_a_supervisor_does_nothing():
    heart = Heartbeat("")
    assert not heart.beat()


def test_a_beat_is_heard_costs_little_and_never_fails():
    async def main():
        heard, listener = [], Listener()
        await listener.listen()
        place = listener.expect(lambda: heard.append(1), lambda: heard.append("last"))[PLACE]
        heart = Heartbeat(place)
        started = time.perf_counter()
        for _ in range(100):
            assert heart.beat()
        cost = (time.perf_counter() - started) / 100
        async with asyncio.timeout(5):
            while len(heard) < 100:
                await asyncio.sleep(0.001)
        assert heart.beat_last()
        async with asyncio.timeout(5):
            while len(heard) < 101:
                await asyncio.sleep(0.001)
        assert heard[-1] == "last"
        listener.forget({PLACE: place})
        heart.beat()
        heart.beat_last()
        await asyncio.sleep(0.01)
        assert len(heard) == 101
        listener.close()
        await asyncio.sleep(0.01)
        outcomes = [heart.beat() for _ in range(3)]
        heart.close()
        assert heart.beat() is False
        return cost, outcomes

    cost, outcomes = asyncio.run(main())
    assert cost < 2e-4
    assert False in outcomes  # nobody listens any more, and it says so


def test_systemd_is_told_over_its_socket(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(tmp_path / "s"))
        assert notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "s")})
        assert service.recv(100) == b"READY=1"
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_the_watchdog_is_for_this_process():
    assert watchdog_s({"WATCHDOG_USEC": "30000000"}) == 15.0
    assert watchdog_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}) == 15.0
    assert watchdog_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_s({}) is None


def test_the_unit_says_what_the_supervisor_does():
    file = resources.files("jaxtrade.live") / "systemd" / "jaxtrade@.service"
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read_string(pathlib.Path(str(file)).read_text())
    service = unit["Service"]
    assert service["RestartPreventExitStatus"] == str(HALTED_CODE)
    assert (service["Type"], service["KillMode"]) == ("notify", "mixed")
    assert "jaxtrade.live.supervisor" in service["ExecStart"]
    assert float(service["WatchdogSec"]) > 0
