"""The kill switch: latched first, then done over a connection of its own, or said not to be."""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxtrade.live import kill as module
from jaxtrade.live import latches
from jaxtrade.live.brokers.making import make_broker
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.control import FILE
from jaxtrade.live.kill import Answer, kill, sweep
from jaxtrade.live.latches import Latch, is_latched, latched, lift, set_latch
from jaxtrade.live.settings import BrokerSettings, LiveSettings, from_tree, write
from jaxtrade.specs import JaxtradeError
from tests.live_fakes import FileBroker

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def account(tmp_path) -> LiveSettings:
    """The folder of an account at a broker in a file, with an order and two positions."""
    broker = {"kind": "tests.live_fakes:make", "path": str(tmp_path / "broker.json")}
    tree = {"name": "a", "folder": str(tmp_path / "a"), "broker": broker}
    settings = from_tree({**tree, "agents": {"spy": {"model": "m"}}})
    write(settings)
    FileBroker(tmp_path / "broker.json").hold(["o1", "o2"], SPY="10", QQQ="-3")
    return settings


SILENT, HEARD = Answer(False, "no engine"), Answer(True, "told")


def swept(broker, *, flatten=True, timeout_s=30.0, clock=None, tell=lambda: SILENT):
    return asyncio.run(sweep(broker, tell, flatten=flatten, timeout_s=timeout_s, clock=clock))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(module, "PAUSES_S", (0.0,))


def test_orders_go_and_positions_stay_unless_they_are_to_be_closed(account):
    done = kill(account.folder, "a test")
    assert done.is_done
    assert done.orders == ()
    assert sorted(done.positions) == ["QQQ -3", "SPY 10"]
    assert "no engine runs there" in done.engine
    done = kill(account.folder, "a test", flatten=True)
    assert (done.is_done, done.positions) == (True, ())


def test_the_latch_is_first_and_stays(account):
    (account.path / "settings.yaml").write_text("name: [")
    with pytest.raises(JaxtradeError, match="not YAML"):
        kill(account.folder, "first", flatten=True)
    assert is_latched(account.folder, Latch.KILLED)
    write(account)
    kill(account.folder, "second")
    found = latched(account.folder, Latch.KILLED)
    assert found is not None
    assert (found.reason, found.flatten) == ("first", True)


def test_a_folder_that_is_not_there_is_a_slip(tmp_path):
    with pytest.raises(JaxtradeError, match="there is no such folder"):
        kill(tmp_path / "nowhere", "a test")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "faults",
    [
        ["not_connected", "not_connected"],
        ["", "not_connected", "", "", "not_connected"],
        ["", "error", "", "error"],
        ["", "", "incomplete", "incomplete", "", "incomplete"],
    ],
    ids=["down", "drops", "defects", "incomplete"],
)
def test_what_fails_is_tried_again_until_the_broker_has_proved_it(tmp_path, faults):
    clock = SimulatedClock()
    broker = FileBroker(tmp_path / "b.json", faults=faults, clock=clock)
    broker.hold(["o1"], SPY="10")
    done = swept(broker, clock=clock)
    assert (done.is_done, done.problem) == (True, "")
    assert broker.read() == {"orders": [], "positions": {}}
    assert not broker.is_up


def test_an_incomplete_answer_is_never_taken_for_flat(tmp_path):
    broker = FileBroker(tmp_path / "b.json", faults=["", *["", "incomplete"] * 1000])
    done = swept(broker, flatten=False, timeout_s=0.05)
    assert not done.is_done
    assert "incomplete" in done.problem


def test_a_closing_order_on_its_way_is_not_sent_twice(tmp_path):
    broker = FileBroker(tmp_path / "b.json")
    broker.slow_closes = 1
    broker.hold(SPY="10")
    clock = SimulatedClock()
    done = swept(broker, timeout_s=0.05, clock=clock)  # no time passes on the clock
    assert not done.is_done
    assert done.orders == ("SPY close-SPY",)
    assert broker.asked.count("close") == 1
    assert "cancel" not in broker.asked[broker.asked.index("close") :]
    done = swept(broker, timeout_s=5.0)
    assert done.is_done


def test_a_broker_that_hangs_is_given_up_and_said(tmp_path):
    broker = FileBroker(tmp_path / "b.json", faults=["hangs"])
    done = swept(broker, timeout_s=0.05)
    assert not done.is_done
    assert "not done in 0.05 s" in done.problem


def test_an_engine_that_was_told_closes_first_and_is_helped_when_it_does_not(tmp_path):
    clock = SimulatedClock()
    broker = FileBroker(tmp_path / "b.json")
    broker.hold(SPY="10")
    done = swept(broker, timeout_s=0.1, clock=clock, tell=lambda: HEARD)  # no time passes
    assert not done.is_done
    assert "close" not in broker.asked
    broker.clock = clock
    done = swept(broker, clock=clock, tell=lambda: HEARD)
    assert done.is_done
    assert broker.asked.count("close") == 1
    assert clock.steady_ns() >= 3e9


def test_what_the_engine_sent_before_it_was_told_goes_too(tmp_path):
    broker = FileBroker(tmp_path / "b.json")

    def tell():
        time.sleep(0.05)  # by now the first round is over
        broker.hold(["late"])
        return HEARD

    done = swept(broker, flatten=False, tell=tell)
    assert done.is_done
    assert done.engine == "told"
    assert broker.read()["orders"] == []


@pytest.mark.skipif(os.name != "posix", reason="needs SIGSTOP")
def test_it_works_beside_an_engine_that_hangs(account, tmp_path):
    """F27, P19: an engine that is stopped while it listens; its socket accepts and is silent."""
    code = (
        "import asyncio, sys\n"
        "from jaxtrade.live.control import ControlServer\n"
        "async def main():\n"
        "    await ControlServer(sys.argv[1], None).start()\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, account.folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "ready\n"
        engine.send_signal(signal.SIGSTOP)
        assert (account.path / FILE).exists()
        done = kill(account.folder, "it hangs", flatten=True)
        engine.kill()
    assert (done.is_done, done.positions) == (True, ())
    assert "does not answer" in done.engine
    assert done.seconds < 2


def test_a_latch_is_lifted_with_a_reason_that_is_kept(tmp_path):
    set_latch(tmp_path, Latch.KILLED, "drawdown")
    set_latch(tmp_path, Latch.HALTED, "crash loop")
    with pytest.raises(JaxtradeError, match="give --reason"):
        lift(tmp_path, " ")
    assert lift(tmp_path, "looked at it") == [Latch.KILLED, Latch.HALTED]
    assert not is_latched(tmp_path, Latch.KILLED)
    rows = [json.loads(line) for line in (tmp_path / latches.LIFTED).read_text().splitlines()]
    assert [row["was"]["reason"] for row in rows] == ["drawdown", "crash loop"]
    assert {row["reason"] for row in rows} == {"looked at it"}
    assert lift(tmp_path, "again") == []


def test_a_latch_that_cannot_be_read_is_set(tmp_path):
    (tmp_path / Latch.KILLED).write_text("")
    found = latched(tmp_path, Latch.KILLED)
    assert found is not None
    assert "cannot be read" in found.reason


def test_a_broker_that_is_not_there_is_named(account):
    for kind, said in (
        ("papr", "did you mean 'paper'"),
        ("tests.live_fakes:mke", "cannot be had"),
        ("tests.nowhere:make", "cannot be had"),
    ):
        tree = {"name": "a", "folder": "f", "agents": {"a": {"model": "m"}}}
        settings = from_tree({**tree, "broker": {"kind": kind}})
        assert settings.broker == BrokerSettings(kind=kind)
        with pytest.raises(JaxtradeError, match=said):
            make_broker(settings)
