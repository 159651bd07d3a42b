"""The engine's control port: who may ask, what, and what is answered when it goes wrong."""

import asyncio
import json
import math
import socket
import stat

import pytest

from jaxtrade.live.control import COMMANDS, FILE, NotRunningError, ask
from jaxtrade.live.heartbeat import PLACE
from jaxtrade.specs import JaxtradeError
from tests.live_fakes import served


class Engine:
    """Controls that remember what they were asked."""

    def __init__(self):
        self.asked = []

    def status(self):
        return {"state": "active", "equity": math.nan, "agents": ["a"] * 30_000}

    def command(self, name, arguments):
        self.asked.append((name, arguments))
        if name == "swap":
            return self.slowly()
        if name == "resume":
            raise JaxtradeError("agent 'x' is not there")
        if name == "flatten":
            raise KeyError("defect")
        return None

    async def slowly(self):
        await asyncio.sleep(0)
        return {"version": "v3"}


@pytest.fixture
def engine(tmp_path):
    """An engine that listens in a thread of its own, as another process would."""
    made = Engine()
    with served(tmp_path, made):
        yield made
    assert not (tmp_path / FILE).exists()


def raw(folder, line: bytes) -> dict:
    address = json.loads((folder / FILE).read_text())
    with socket.create_connection(("127.0.0.1", address["port"]), 5) as connection:
        connection.sendall(line)
        with connection.makefile("rb") as file:
            return json.loads(file.readline())


def test_what_is_asked_reaches_the_engine_and_comes_back(engine, tmp_path):
    status = ask(tmp_path, "status")
    assert status["state"] == "active"
    assert status["equity"] is None  # no number: strict JSON
    assert len(status["agents"]) == 30_000
    assert ask(tmp_path, "pause", agent="spy", reason="earnings") == {}
    assert ask(tmp_path, "swap", agent="spy", model="v3") == {"version": "v3"}
    assert engine.asked == [
        ("pause", {"agent": "spy", "reason": "earnings"}),
        ("swap", {"agent": "spy", "model": "v3"}),
    ]


def test_a_refusal_is_one_line_and_a_defect_does_not_end_the_server(engine, tmp_path):
    with pytest.raises(JaxtradeError, match="agent 'x' is not there"):
        ask(tmp_path, "resume", agent="x", reason="")
    with pytest.raises(JaxtradeError, match="unexpected KeyError"):
        ask(tmp_path, "flatten", reason="now")
    assert ask(tmp_path, "status")["state"] == "active"


def test_only_who_reads_the_file_may_ask(engine, tmp_path):
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    for token in ("", "x", None):
        request = {"token": token, "command": "status", "arguments": {}}
        assert "token" in raw(tmp_path, json.dumps(request).encode() + b"\n")["error"]
    assert engine.asked == []


def test_a_request_that_is_none_is_refused(engine, tmp_path):
    token = json.loads((tmp_path / FILE).read_text())["token"]
    assert "no request" in raw(tmp_path, b"GET / HTTP/1.1\r\n\r\n")["error"]
    assert "no request" in raw(tmp_path, b"x" * 70_000 + b"\n")["error"]
    assert "a request is" in raw(tmp_path, b"[]\n")["error"]
    for command, arguments, said in (
        ("stats", {}, "did you mean 'status'"),
        ("pause", {"agent": "a"}, "pause: give agent, reason"),
        ("kill", {"reason": "r", "flatten": 1}, "flatten is 1: give a bool"),
        ("status", [], "status: give no arguments"),
        (["status"], {}, "unknown command"),
    ):
        request = {"token": token, "command": command, "arguments": arguments}
        assert said in raw(tmp_path, json.dumps(request).encode() + b"\n")["error"]
    assert engine.asked == []


def test_who_is_told_to_stop_tells_its_supervisor(engine, tmp_path, monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(("127.0.0.1", 0))
        supervisor.settimeout(5)
        monkeypatch.setenv(PLACE, f"{supervisor.getsockname()[1]}:token")
        ask(tmp_path, "pause", agent="", reason="")
        ask(tmp_path, "stop", reason="maintenance")
        assert supervisor.recv(100) == b"token last"


def test_the_asker_checks_before_it_asks(tmp_path):
    with pytest.raises(JaxtradeError, match="did you mean 'status'"):
        ask(tmp_path, "statsu")
    assert all(set(wanted.values()) <= {str, bool, dict} for wanted in COMMANDS.values())


def test_no_engine_is_one_line(tmp_path):
    with pytest.raises(NotRunningError, match="no engine runs there"):
        ask(tmp_path, "status")
    (tmp_path / FILE).write_text('{"port": 1, "token": "t"}')
    with pytest.raises(NotRunningError, match="no engine answers there"):
        ask(tmp_path, "status")
    (tmp_path / FILE).write_text("{")
    with pytest.raises(NotRunningError, match="cannot be read"):
        ask(tmp_path, "status")


def test_an_engine_that_hangs_is_not_waited_for(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        (tmp_path / FILE).write_text(json.dumps({"port": port, "token": "t"}))
        with pytest.raises(NotRunningError, match="does not answer"):
            ask(tmp_path, "status", timeout_s=0.1)
