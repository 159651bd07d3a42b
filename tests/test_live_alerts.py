"""Alerts: who is told what and how often, at least once, whatever the channels do."""

import dataclasses
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import typing
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrade.live import events as e
from jaxtrade.live.alerts import outbox as outboxes
from jaxtrade.live.alerts import worker as module
from jaxtrade.live.alerts.channels import AppriseChannel, ChannelError, address
from jaxtrade.live.alerts.outbox import JOURNAL, Outbox, post
from jaxtrade.live.alerts.rules import LATE_FILL, RULES, alerts_for
from jaxtrade.live.alerts.worker import Worker, open_channels
from jaxtrade.live.journal import Alert, Journal
from jaxtrade.live.orders import advance, begin
from jaxtrade.live.sections import LEVELS, AlertSettings
from jaxtrade.live.settings import from_tree, write
from jaxtrade.specs import JaxtradeError

ROOT = pathlib.Path(__file__).parent.parent
SECOND = 10**9
NOON = 1_800_014_400 * SECOND  # 2027-01-15 12:00 UTC

ALL = AlertSettings(level="info", repeat_s=300.0)


class Phone:
    """A channel that keeps what it is sent; `faults` are what it does instead, in turn."""

    def __init__(self, *faults):
        self.faults = list(faults)
        self.got = []
        self.may_go = threading.Event()

    def send(self, title, text, level):
        fault = self.faults.pop(0) if self.faults else None
        if fault == "hang":
            self.may_go.wait(10)
        elif fault is not None:
            raise fault
        self.got.append(text)


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / JOURNAL, now=lambda: NOON) as made:
        yield made


@pytest.fixture
def outbox(tmp_path):
    with Outbox(tmp_path, ALL, ["phone"]) as made:
        yield made


def texts(outbox, now_ns=NOON):
    return [text for _, text in outbox.collect(now_ns)]


def tell(journal, text="disk full", level="warning", key="k", count=1):
    journal.record(durable=False, alerts=[Alert(level, text, key)] * count)


# What is an alert


def order():
    intent = e.OrderIntent(
        cid="c1", decision_key="d", agent="a", symbol="SPY", side=e.Side.BUY, quantity=Decimal(2)
    )
    return begin(e.OrderInitialized(at_ns=1, cid="c1", intent=intent))


def fill(execution_id, revision=0):
    return e.OrderFilled(
        at_ns=3,
        cid="c1",
        execution_id=execution_id,
        symbol="SPY",
        side=e.Side.BUY,
        quantity=Decimal(1),
        price=Decimal(100),
        revision=revision,
    )


def test_a_late_fill_and_a_correction_are_told_as_what_they_are():
    working = advance(order(), fill("x1"))
    over = advance(working, e.OrderCanceled(at_ns=2, cid="c1"))
    (alert,) = alerts_for(fill("x2"), {"c1": working})
    assert alert == Alert("info", "filled SPY: buy 1 at 100", "OrderFilled:x2")
    (alert,) = alerts_for(fill("x2"), {"c1": over})
    assert (alert.level, alert.key) == ("error", "LateFill:x2")
    (alert,) = alerts_for(fill("x1"), {"c1": over})  # the same execution told again
    assert alert.level == "info"
    (alert,) = alerts_for(fill("x1", revision=1))
    assert (alert.level, "corrected" in alert.text) == ("error", True)


def test_what_needs_a_person_is_critical_and_what_is_well_is_not_told():
    for state, level in (("active", "info"), ("halted", "critical"), ("killed", "critical")):
        event = e.TradingStateChanged(at_ns=1, state=e.TradingState(state), reason="r")
        assert alerts_for(event)[0].level == level
    assert alerts_for(e.Reconciled(at_ns=1)) == ()
    (alert,) = alerts_for(e.Reconciled(at_ns=1, mismatches=("SPY 1, not 2", "QQQ")))
    assert alert.text == "broker and books differ: SPY 1, not 2; QQQ"
    assert alerts_for(e.EquityMarked(at_ns=1, equity=1.0, day=1)) == ()


EXAMPLES = {
    str: "t",
    int: 1,
    bool: True,
    float: 1.0,
    Decimal: Decimal(1),
    e.Side: e.Side.BUY,
    e.TradingState: e.TradingState.REDUCING,
    tuple[str, ...]: ("m",),
    dict[str, Any]: {"guard.max_gross": 1.0},
}


def example(kind):
    """An event with anything in its fields."""
    hints = typing.get_type_hints(kind)
    return kind(**{field.name: EXAMPLES[hints[field.name]] for field in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.__name__)
def test_every_rule_makes_one_line_that_a_setting_can_name(kind):
    (alert,) = alerts_for(example(kind))
    assert alert.level in LEVELS
    assert alert.text and "\n" not in alert.text
    assert alert.key.startswith(f"{kind.__name__}:")


# How often


def test_a_hundred_of_the_same_are_one_and_a_summary(journal, outbox):
    tell(journal, count=100)
    assert texts(outbox) == ["disk full"]
    assert texts(outbox, NOON + 299 * SECOND) == []
    assert texts(outbox, NOON + 300 * SECOND) == ["disk full (99 more)"]
    tell(journal)
    assert texts(outbox, NOON + 400 * SECOND) == []
    assert texts(outbox, NOON + 600 * SECOND) == ["disk full (1 more)"]
    assert texts(outbox, NOON + 900 * SECOND) == []
    tell(journal)
    assert texts(outbox, NOON + 901 * SECOND) == ["disk full"]


def test_levels_and_rules_of_the_settings(journal, tmp_path):
    told = AlertSettings(level="warning", rules={"OrderFilled": "error", "OrderRejected": "off"})
    with Outbox(tmp_path, told) as outbox:
        for level, key in (
            ("info", "EngineStarted:1"),
            ("warning", "AgentPaused:a"),
            ("info", "OrderFilled:x"),
            ("warning", "OrderRejected:y"),
        ):
            tell(journal, text=key, level=level, key=key)
        assert outbox.collect(NOON) == [
            ("warning", "AgentPaused:a"),
            ("error", "OrderFilled:x"),
        ]


def test_a_rule_about_nothing_is_refused():
    with pytest.raises(JaxtradeError, match="'OrderRejcted': did you mean 'OrderRejected'"):
        AlertSettings(rules={"OrderRejcted": "off"})
    assert AlertSettings(rules={LATE_FILL: "critical"}).rules == {"LateFill": "critical"}


def test_too_many_in_an_hour_are_told_together_and_what_is_critical_at_once(journal, tmp_path):
    told = AlertSettings(level="info", max_per_hour=2, repeat_s=0.0)
    with Outbox(tmp_path, told) as outbox:
        for number in range(25):
            tell(journal, text=f"t{number}", key=str(number))
        assert texts(outbox) == ["t0", "t1"]
        tell(journal, text="halted", level="critical", key="c")
        assert texts(outbox, NOON + SECOND) == ["halted"]
        (held,) = texts(outbox, NOON + 3602 * SECOND)
    assert held.startswith("23 alerts were held\nwarning: t2\n")
    assert held.endswith("and 3 more, see the log")


def test_nights_are_quiet_but_for_what_is_critical(journal, tmp_path):
    told = AlertSettings(quiet="22:00-07:00", time_zone="Europe/Berlin", repeat_s=0.0)
    evening = NOON + 9 * 3600 * SECOND  # 21:00 UTC is 22:00 in Berlin
    with Outbox(tmp_path, told) as outbox:
        tell(journal, text="before", key="1")
        assert texts(outbox, evening - SECOND) == ["before"]
        tell(journal, text="rejected", key="2")
        tell(journal, text="killed", level="critical", key="3")
        assert texts(outbox, evening) == ["killed"]
        assert texts(outbox, evening + 9 * 3600 * SECOND - SECOND) == []
        assert texts(outbox, evening + 9 * 3600 * SECOND) == ["rejected"]


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4000),
            st.sampled_from(["a", "b"]),
            st.sampled_from(["error", "critical"]),
        ),
        max_size=12,
    )
)
def test_no_alert_is_ever_lost(tmp_path_factory, alerts):
    """Whatever the rate, hours and repetitions: in the end the counts in the messages add up."""
    folder = tmp_path_factory.mktemp("outbox")
    told = AlertSettings(max_per_hour=1, quiet="12:10-12:30", repeat_s=100.0)
    said, now = [], NOON
    with Outbox(folder, told) as outbox:
        for wait, key, level in alerts:
            now += wait * SECOND
            assert post(folder, level, key, key)
            said += texts(outbox, now)
        for _ in range(4):
            now += 7200 * SECOND
            said += texts(outbox, now)
    lines = [line.rpartition(": ")[2] for text in said for line in text.splitlines()]
    counts = dict.fromkeys("ab", 0)
    for line in lines:
        if line[0] in counts and not line[1:2].isalpha():
            counts[line[0]] += 1 if line[1:] == "" else int(line.split("(")[1].split()[0])
    wanted = {key: sum(each == key for _, each, _ in alerts) for key in "ab"}
    assert counts == wanted


# At least once


def test_the_outbox_survives_a_restart_and_forgets_only_what_was_taken(journal, tmp_path):
    tell(journal, text="one", key="1")
    with Outbox(tmp_path, ALL, ["phone", "mail"]) as outbox:
        assert texts(outbox) == ["one"]
        message = outbox.next_message("phone", NOON)
        assert message is not None
        assert outbox.failed("phone", message, NOON) == 2.0
    with Outbox(tmp_path, ALL, ["phone", "mail"]) as outbox:
        assert texts(outbox) == []  # what was read is not read again
        assert outbox.next_message("phone", NOON + SECOND) is None
        message = outbox.next_message("phone", NOON + 2 * SECOND)
        assert message is not None
        assert (message.text, message.tries) == ("one", 1)
        assert outbox.failed("phone", message, NOON, retry_s=60.0) == 60.0
        outbox.delivered("phone", message)
        assert outbox.next_message("phone", NOON + 3600 * SECOND) is None
        assert outbox.next_message("mail", NOON) is not None


def test_a_journal_that_was_restored_from_a_backup_is_read_on(tmp_path):
    now = [NOON]

    def write_journal(*some):
        for path in tmp_path.glob("journal*"):
            path.unlink()
        with Journal(tmp_path / JOURNAL, now=lambda: now[0]) as made:
            for text, at_ns in some:
                now[0] = at_ns
                tell(made, text=text, key=text)

    old = [("a", NOON), ("b", NOON + 1)]
    with Outbox(tmp_path, ALL) as outbox:
        write_journal(*old, ("c", NOON + 2), ("d", NOON + 3))
        assert texts(outbox) == ["a", "b", "c", "d"]
        write_journal(*old)
        assert texts(outbox) == []
        write_journal(*old, ("e", NOON + 9))
        assert texts(outbox) == ["e"]
        (tmp_path / JOURNAL).write_bytes(b"not a database" * 100)
        assert texts(outbox) == []


def test_others_than_the_engine_leave_alerts_too(tmp_path, outbox):
    assert post(tmp_path, "critical", "crash loop", "k")
    assert texts(outbox) == ["crash loop"]
    assert not post(tmp_path / "nowhere", "critical", "crash loop", "k")


# Delivery


@pytest.fixture
def run_worker(tmp_path):
    """A worker in a thread; it is ended with the test."""
    running = []

    def run(channels, **options):
        worker = Worker(tmp_path, ALL, channels, pause_s=0.01, **options)
        thread = threading.Thread(target=worker.run)
        thread.start()
        running.append((worker, thread))
        return worker

    yield run
    for worker, thread in running:
        worker.stop()
        thread.join(10)


def shorten_pauses(monkeypatch):
    for name in ("FIRST_PAUSE_S", "LAST_PAUSE_S"):
        monkeypatch.setattr(f"jaxtrade.live.alerts.outbox.{name}", 0.02)


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_channels_that_fail_or_hang_hold_up_nobody_and_get_it_later(
    tmp_path, run_worker, monkeypatch
):
    """F30: 429, 500 and a hang; once they are over, each message was delivered once."""
    shorten_pauses(monkeypatch)
    well, slow = Phone(), Phone("hang")
    refusing = Phone(ChannelError("429", retry_s=0.02), ChannelError("500"), ValueError("defect"))
    run_worker({"well": well, "slow": slow, "refusing": refusing})
    post(tmp_path, "error", "one", "1")
    post(tmp_path, "error", "two", "2")
    until(lambda: well.got == refusing.got == ["one", "two"])
    assert slow.got == []
    slow.may_go.set()
    until(lambda: slow.got == ["one", "two"])
    time.sleep(0.05)
    assert well.got == refusing.got == slow.got


def test_what_waits_is_delivered_by_the_next_worker(tmp_path, run_worker, monkeypatch):
    shorten_pauses(monkeypatch)
    dead = Phone(*[ChannelError("down")] * 10_000)
    worker = run_worker({"phone": dead})
    post(tmp_path, "error", "one", "1")
    until(lambda: len(dead.faults) < 10_000)
    worker.stop()
    phone = Phone()
    run_worker({"phone": phone})
    until(lambda: phone.got == ["one"])


def test_a_text_that_leaves_has_no_secrets(tmp_path, run_worker):
    phone = Phone()
    run_worker({"phone": phone}, clean=lambda text: text.replace("hunter2", "***"))
    post(tmp_path, "error", "login with hunter2 failed", "1")
    until(lambda: phone.got == ["login with *** failed"])


def test_who_opens_the_file_at_the_same_moment_waits_for_the_others(tmp_path, monkeypatch):
    """SQLite refuses, without waiting, a second connection that switches to WAL."""
    monkeypatch.setattr(outboxes, "POST_S", 10.0)  # for as long as a busy disk may take
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        barrier = threading.Barrier(8)

        def leave(name, folder=folder, barrier=barrier, done=(done := [])):
            barrier.wait()
            done.append(post(folder, "info", name, name))

        threads = [threading.Thread(target=leave, args=(str(n),)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [True] * 8


# Addresses


def test_an_address_comes_from_the_environment_or_a_file(tmp_path):
    file = tmp_path / "mail.url"
    file.write_text("mailto://x\n")
    assert address("mail", f"file:{file}", {}) == "mailto://x"
    assert address("phone", "env:URL", {"URL": " tgram://x "}) == "tgram://x"
    file.write_text("")
    for source, said in (
        (f"file:{file}", "is empty"),
        ("file:/nowhere", "cannot be read"),
        ("env:URL", "channels.phone: URL is not set"),
    ):
        with pytest.raises(JaxtradeError, match=said):
            address("phone", source, {})


def test_a_channel_that_cannot_be_had_is_reported_and_the_others_stay(monkeypatch, caplog):
    monkeypatch.setenv("GOOD", "json://user:hunter22@x")
    monkeypatch.setattr(module, "AppriseChannel", lambda name, place: Phone())
    hidden = []
    told = AlertSettings(channels={"good": "env:GOOD", "bad": "env:NOT_THERE"})
    assert set(open_channels(told, hidden.append)) == {"good"}
    assert hidden == ["json://user:hunter22@x"]
    assert (
        caplog.records[-1].why
        == "alerts.channels.bad: NOT_THERE is not set: give the environment variable"
    )


def test_without_apprise_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(JaxtradeError, match=r"pip install 'jaxtrade\[notify\]'"):
        AppriseChannel("phone", "json://x")


class Hook(http.server.BaseHTTPRequestHandler):
    """A web hook that refuses the first message."""

    got: typing.ClassVar[list[dict]] = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200 if self.got else 500)
        self.end_headers()
        self.got.append(body)

    def log_message(self, *_):
        pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own imports
def test_apprise_delivers_to_an_address():
    pytest.importorskip("apprise")
    AppriseChannel("phone", "tgram://123456789:AAabcdefghijklmnopqrstuvwxyz012345678/1")
    with pytest.raises(JaxtradeError, match="apprise cannot make anything") as error:
        AppriseChannel("phone", "nonsense://secret")
    assert "secret" not in str(error.value)
    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        channel = AppriseChannel("hook", f"json://user:hunter22@127.0.0.1:{server.server_port}/")
        with pytest.raises(ChannelError, match="did not take it"):
            channel.send("title", "text", "critical")
        channel.send("title", "text", "info")
        server.shutdown()
        thread.join()
    assert [each["message"] for each in Hook.got] == ["text", "text"]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGTERM")
def test_the_process_serves_an_account_and_ends_when_told(tmp_path):
    tree = {"name": "a", "folder": str(tmp_path), "broker": {}, "agents": {"a": {"model": "m"}}}
    write(from_tree({**tree, "alerts": {"channels": {"phone": "env:NOT_THERE"}}}))
    post(tmp_path, "critical", "crash loop", "k")
    command = [sys.executable, "-m", "jaxtrade.live.alerts.worker", str(tmp_path)]
    log = tmp_path / "logs" / "alerts.jsonl"
    with subprocess.Popen(command) as process:
        until(lambda: log.exists() and "crash loop" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert "NOT_THERE is not set" in log.read_text()
