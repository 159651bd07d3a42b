"""The subcommands of live trading as people use them; engine and supervisor are stand-ins."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from jaxtrade.live import starting
from jaxtrade.live.alerts import trial
from jaxtrade.live.alerts.channels import ChannelError
from jaxtrade.live.events import CashMoved
from jaxtrade.live.folders import account_folder
from jaxtrade.live.journal import Journal
from jaxtrade.live.latches import Latch, is_latched, set_latch
from jaxtrade.live.settings import from_tree, read, write
from jaxtrade.specs import JaxtradeError
from tests.live_fakes import FileBroker, served
from tests.test_cli import fails, works


@pytest.fixture
def account(tmp_path, monkeypatch):
    """The folder of the one account there is, at a broker in a file."""
    monkeypatch.chdir(tmp_path)
    broker = {"kind": "tests.live_fakes:make", "path": str(tmp_path / "broker.json")}
    tree = {"name": "spy", "folder": "live-data/spy", "broker": broker}
    settings = from_tree({**tree, "agents": {"spy": {"model": "m"}}})
    write(settings)
    FileBroker(tmp_path / "broker.json").hold(["o1"], SPY="10")
    return settings.path


class Engine:
    def __init__(self):
        self.asked = []

    def status(self):
        return {"name": "spy", "state": "active", "equity": 1000.0, "agents": []}

    def command(self, name, arguments):
        self.asked.append((name, arguments))
        if name == "pause" and arguments["agent"] == "x":
            raise JaxtradeError("unknown agent 'x'")
        return {"version": 2, "pending": {"a": 1}, "paused": []} if name == "set" else {}


@pytest.fixture
def engine(account):
    """An engine that listens in a thread."""
    made = Engine()
    with served(account, made):
        yield made


# Asking an engine


def test_what_is_asked_reaches_the_engine(monkeypatch, capsys, engine):
    assert works(monkeypatch, capsys, "pause", "spy", "--reason", "earnings") == "done\n"
    works(monkeypatch, capsys, "resume")
    works(monkeypatch, capsys, "swap", "spy", "registry:spy")
    works(monkeypatch, capsys, "rollback", "spy", "--reason", "worse")
    said = works(monkeypatch, capsys, "set", "guard.max_gross=1.5", "agents.spy.limits.max_net=1")
    assert said == "version: 2, pending: a=1, paused: none\n"
    works(monkeypatch, capsys, "flatten")
    works(monkeypatch, capsys, "stop", "--reason", "maintenance")
    works(monkeypatch, capsys, "rearm", "--reason", "looked at it")
    by = engine.asked[4][1].pop("by")
    assert by
    assert engine.asked == [
        ("pause", {"agent": "spy", "reason": "earnings"}),
        ("resume", {"agent": "", "reason": ""}),
        ("swap", {"agent": "spy", "model": "registry:spy"}),
        ("rollback", {"agent": "spy", "reason": "worse"}),
        ("set", {"changes": {"guard.max_gross": 1.5, "agents.spy.limits.max_net": 1}}),
        ("flatten", {"reason": ""}),
        ("stop", {"reason": "maintenance"}),
        ("rearm", {"reason": "looked at it"}),
    ]


def test_a_refusal_and_a_slip_are_one_line(monkeypatch, capsys, engine):
    assert fails(monkeypatch, capsys, "pause", "x") == "unknown agent 'x'"
    assert "give key=value" in fails(monkeypatch, capsys, "set", "guard.max_gross")
    assert "not YAML" in fails(monkeypatch, capsys, "set", "guard.max_gross=[1")


def test_without_an_engine_it_is_said(monkeypatch, capsys, account):
    assert "no engine runs there" in fails(monkeypatch, capsys, "pause", "spy")
    assert "no account has traded there yet" in fails(monkeypatch, capsys, "status")


def test_status_of_an_engine_and_of_a_journal(monkeypatch, capsys, account, engine):
    assert works(monkeypatch, capsys, "status") == "spy: ACTIVE equity 1,000.00\n"
    assert json.loads(works(monkeypatch, capsys, "status", "--json"))["state"] == "active"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "ACTIVE" in works(monkeypatch, capsys, "status")


def test_status_of_a_journal(monkeypatch, capsys, account):
    with Journal(account / "journal.db", now=lambda: 1) as journal:
        journal.record([CashMoved(at_ns=1, agent="spy", amount=1)], durable=False)
    found = json.loads(works(monkeypatch, capsys, "status", "--json", "--folder", "spy"))
    assert (found["state"], "no engine runs" in found["note"]) == ("active", True)


def test_the_account_is_found_or_named(account, tmp_path):
    assert account_folder(None) == account
    assert account_folder("spy") == account
    assert account_folder(str(tmp_path)) == tmp_path
    (tmp_path / "spy").mkdir()  # no account, and of the same name
    assert account_folder("spy") == account
    write(
        from_tree(
            {"name": "b", "folder": "live-data/b", "broker": {}, "agents": {"a": {"model": "m"}}}
        )
    )
    with pytest.raises(JaxtradeError, match="give --folder, one of b, spy"):
        account_folder(None)


def test_no_account_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "give --folder" in fails(monkeypatch, capsys, "status")
    assert "there is no such folder" in fails(monkeypatch, capsys, "kill", "--folder", "nowhere")


# Alerts


def test_every_channel_is_tried(monkeypatch, capsys, home):
    sent = []

    class Channel:
        def __init__(self, name, place):
            self.place = place

        def send(self, title, text, level):
            sent.append((self.place, title, level))
            if "bad" in self.place:
                raise ChannelError("the service did not take it")

    stand_in(monkeypatch, QUICK)
    monkeypatch.setattr(trial, "AppriseChannel", Channel)
    monkeypatch.setenv("GOOD_URL", "json://good")
    monkeypatch.setenv("BAD_URL", "json://bad")
    works(monkeypatch, capsys, "live", "model=m")
    assert "give alerts.channels.NAME=env:VARIABLE" in fails(monkeypatch, capsys, "alerts")
    good, bad = "alerts.channels.a=env:GOOD_URL", "alerts.channels.b=env:BAD_URL"
    works(monkeypatch, capsys, "live", "model=m", good)
    assert works(monkeypatch, capsys, "alerts") == "a: delivered\n"
    works(monkeypatch, capsys, "live", "model=m", good, bad, "alerts.channels.c=env:NONE")
    assert fails(monkeypatch, capsys, "alerts") == "not delivered: b, c"
    assert sent[-2:] == [
        ("json://good", "jaxtrade paper", "info"),
        ("json://bad", "jaxtrade paper", "info"),
    ]


# Kill and rearm


def test_kill_cancels_flattens_and_latches(monkeypatch, capsys, account):
    said = works(monkeypatch, capsys, "kill")
    assert "no order works, held: SPY 10" in said
    assert "kill --flatten closes them" in said
    assert is_latched(account, Latch.KILLED)
    assert "held: nothing" in works(monkeypatch, capsys, "kill", "--flatten")
    said = works(monkeypatch, capsys, "rearm", "--reason", "looked at it")
    assert said == "lifted: KILLED\n"  # it never had a journal
    assert not is_latched(account, Latch.KILLED)


def test_a_kill_that_is_not_done_says_what_is_left(monkeypatch, capsys, account):
    monkeypatch.setattr(FileBroker, "cancel_all_orders", lambda self, symbol=None: _hang())
    message = fails(monkeypatch, capsys, "kill", "--timeout", "0.1")
    assert "not done in 0.1 s" in message
    assert "the latch is set" in message
    assert is_latched(account, Latch.KILLED)


def test_a_kill_that_cannot_be_noted_is_carried_out_and_told(monkeypatch, capsys, account):
    def refuse(*told, **how):
        raise JaxtradeError("cannot write KILLED: No space left on device")

    monkeypatch.setattr("jaxtrade.live.kill.set_latch", refuse)
    message = fails(monkeypatch, capsys, "kill", "--flatten")
    assert "No space left on device, so an engine that starts anew would trade" in message
    assert "last seen orders: none known; positions: nothing; the latch is not set" in message


async def _hang():
    await asyncio.sleep(3600)


def test_a_latch_needs_a_reason(monkeypatch, capsys, account):
    set_latch(account, Latch.HALTED, "crash loop")
    assert "give --reason" in fails(monkeypatch, capsys, "rearm", "--reason", "")
    assert is_latched(account, Latch.HALTED)


# Trading

QUICK = "import sys; print('stopped: the data are over')"
WRONG = "import sys; print('starting'); sys.exit('jaxtrade: cannot read model.onnx')"
PATIENT = """
import signal, sys, time
def end(*_):
    print('stopped: SIGTERM', flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open(sys.argv[1] + '/ready', 'w')
time.sleep(60)
"""


def stand_in(monkeypatch, code):
    monkeypatch.setattr(starting, "SUPERVISOR", ("-c", code))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_writes_its_settings_and_shows_how_it_ended(monkeypatch, capsys, home):
    stand_in(monkeypatch, QUICK)
    said = works(monkeypatch, capsys, "live", "broker=paper", "model=runs/a", "data=SPY.csv")
    assert "account paper" in said
    assert said.endswith("stopped: the data are over\n")
    settings = read("live-data/paper")
    assert settings.agents["main"].model == "runs/a"
    assert settings.broker.options["data"] == "SPY.csv"
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal, and on with the same account
    assert "the data are over" in works(monkeypatch, capsys, "live")


def test_what_goes_wrong_is_the_one_line(monkeypatch, capsys, home):
    stand_in(monkeypatch, WRONG)
    message = fails(monkeypatch, capsys, "live", "model=m")
    assert message.startswith("cannot read model.onnx (more in live-data/paper/logs)")
    assert "did you mean" in fails(monkeypatch, capsys, "live", "model=m", "guard.max_gros=1")
    assert "give model=RUN" in fails(monkeypatch, capsys, "live", "name=x")
    assert not (home / "live-data" / "x").exists()


def test_two_accounts_are_not_mixed(monkeypatch, capsys, home):
    stand_in(monkeypatch, QUICK)
    works(monkeypatch, capsys, "live", "model=m", "data=wrong.csv")
    works(monkeypatch, capsys, "live", "model=m", "data=a.csv")  # nothing had begun
    (home / "live-data" / "paper" / "paper.db").touch()
    assert "--fresh" in fails(monkeypatch, capsys, "live", "model=m", "data=b.csv")
    works(monkeypatch, capsys, "live", "model=m", "data=a.csv", "guard.max_gross=2")
    assert read("live-data/paper").guard.max_gross == 2.0
    works(monkeypatch, capsys, "live", "model=m", "data=b.csv", "--fresh")
    (old,) = (home / "live-data").glob("paper.2*")
    assert read(old).broker.options["data"] == "a.csv"
    assert read("live-data/paper").broker.options["data"] == "b.csv"


def test_an_account_that_trades_is_not_started_twice(monkeypatch, capsys, engine, account):
    before = (account / "settings.yaml").read_text()
    message = fails(monkeypatch, capsys, "live", "name=spy", "model=m")
    assert "an engine trades there already" in message
    assert (account / "settings.yaml").read_text() == before


def command_with(code, *arguments) -> list[str]:
    """The `jaxtrade` command with a stand-in for the supervisor. It hears SIGINT, to which what a
    shell has started in the background is deaf.
    """
    text = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from jaxtrade.live import starting\n"
        f"starting.SUPERVISOR = ('-c', {code!r})\n"
        "starting.START_S = 1.0\n"
        "from jaxtrade import cli\n"
        "cli.main()\n"
    )
    return [sys.executable, "-c", text, *arguments]


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_left_running_it_says_how_to_reach_it(home):
    command = command_with(PATIENT, "live", "model=m", "--detach")
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, check=True, timeout=60)
    pid = int(done.stdout.split("process ")[1].split(";")[0])
    wait_for(home / "live-data" / "paper" / "ready")
    os.kill(pid, signal.SIGTERM)
    log = home / "live-data" / "paper" / "logs" / "console.log"
    deadline = time.monotonic() + 20
    while "stopped: SIGTERM" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_a_closed_terminal_and_an_order_to_end_stop_in_order(home, name):
    command = command_with(PATIENT, "live", "model=m")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=home) as process:
        wait_for(home / "live-data" / "paper" / "ready")
        time.sleep(0.2)
        process.send_signal(getattr(signal, name))
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopping in order" in said
    assert "stopped: SIGTERM" in said


def test_help_names_every_subcommand(monkeypatch, capsys):
    said = works(monkeypatch, capsys, "--help")
    for name in ("live", "status", "pause", "resume", "set", "kill", "rearm", "swap", "rollback"):
        assert f"  {name} " in said


@pytest.mark.parametrize("command", ["logs", "train"])
def test_what_an_installation_that_only_trades_lacks_is_named(home, command):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('jax', 'pandas')))\n"
        f"sys.argv = ['jaxtrade', {command!r}, 'x=out.csv']\n"
        "from jaxtrade import cli; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=home)
    assert done.returncode == 1
    assert done.stderr.startswith(f"jaxtrade: {command} needs ")
    assert done.stderr.endswith("leaves out: install jaxtrade without --no-deps\n")
    assert done.stderr.count("\n") == 1


def test_the_kill_switch_starts_light():
    code = "import sys, jaxtrade.live.emergency; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jax", "hydra", "onnxruntime", "pandas", "numpy", "rich"} & set(done.stdout.split())
