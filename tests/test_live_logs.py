"""Logs, secrets in them, and metrics: written aside, whole, and never waited for."""

import json
import logging
import math
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrade.live import recorder as module
from jaxtrade.live.events import Tick
from jaxtrade.live.logs import JsonLines, Logs, start_logging
from jaxtrade.live.meters import Meter
from jaxtrade.live.recorder import FILE, Recorder
from jaxtrade.live.redaction import HIDDEN, Redaction
from jaxtrade.live.sections import LogSettings
from jaxtrade.specs import JaxtradeError

log = logging.getLogger("jaxtrade.test")


def rows(folder, name="engine") -> list[dict]:
    text = (folder / "logs" / f"{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_record_is_a_line_of_json_with_its_fields(tmp_path):
    before = list(logging.getLogger().handlers), logging.getLogger().level
    with start_logging(tmp_path, "engine", LogSettings()):
        log.info("decided %s", "SPY", extra={"agent": "a", "target": [0.5, math.nan]})
        log.debug("not at this level")
        try:
            raise KeyError("x")
        except KeyError:
            log.exception("a defect")
        log.warning("%d does not fit", "text")
    first, second, third = rows(tmp_path)
    assert first.pop("at") == pytest.approx(time.time(), abs=60)
    assert first == {
        "level": "info",
        "logger": "jaxtrade.test",
        "text": "decided SPY",
        "agent": "a",
        "target": [0.5, None],
    }
    assert "KeyError: 'x'" in second["error"]
    assert third["text"].startswith("%d does not fit")
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before


def test_an_error_that_ends_the_process_is_the_last_line(tmp_path):
    with pytest.raises(KeyError), start_logging(tmp_path, "engine", LogSettings()):
        raise KeyError("the reason")
    assert rows(tmp_path)[-1]["level"] == "critical"
    assert "the reason" in rows(tmp_path)[-1]["error"]


def test_files_roll_and_old_ones_go(tmp_path):
    with start_logging(tmp_path, "engine", LogSettings(max_mb=0.001, keep=2)):
        for number in range(100):
            log.info("line %d", number)
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == ["engine.jsonl", "engine.jsonl.1", "engine.jsonl.2"]
    assert rows(tmp_path)[-1]["text"] == "line 99"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "logs").write_text("")
    with pytest.raises(JaxtradeError, match="cannot write"):
        start_logging(tmp_path, "engine", LogSettings())


class Slow(logging.Handler):
    """A disk that takes nothing until it is let, and fails at the first record."""

    def __init__(self):
        super().__init__()
        self.may_go = threading.Event()
        self.taken = []
        self.setFormatter(JsonLines(Redaction()))

    def emit(self, record):
        self.may_go.wait(5)
        self.taken.append(record.getMessage())
        if len(self.taken) == 1:
            raise OSError(28, "No space left on device")


def test_a_slow_or_full_disk_delays_nothing_and_what_is_lost_is_counted():
    disk = Slow()
    logs = Logs(disk, size=10)
    logs.attach("info")
    started = time.perf_counter()
    for number in range(1000):
        log.info("%d", number)
    assert time.perf_counter() - started < 0.5
    disk.may_go.set()
    logs.end()
    assert logs.dropped == 1000 - len(disk.taken)
    assert len(disk.taken) in (10, 11)
    assert logs.failed == 1


SECRETS = {
    "tgram://123456789:AAabcdefghijklmnopqrstuvwxyz012345/987654": "tgram://" + HIDDEN,
    "sent to mailto://me:pass@example.com?to=you ok": f"sent to mailto://{HIDDEN} ok",
    "https://user:pass@host/path": f"https://{HIDDEN}@host/path",
    "GET https://api.telegram.org/bot123456789:AAabcdefghijklmnopqrstuvwxyz012345/getMe": (
        f"GET https://api.telegram.org/bot{HIDDEN}/getMe"
    ),
    "Authorization: Bearer abcdefghijk": f"Authorization: Bearer {HIDDEN}",
    '{"password": "hunter2"}': f'{{"password": "{HIDDEN}"}}',
    "api_key=abc&x=1": f"api_key={HIDDEN}&x=1",
    "token: abc": f"token: {HIDDEN}",
    "file:///srv/x and https://example.com/path": "file:///srv/x and https://example.com/path",
    "tokens are counted": "tokens are counted",
}


@pytest.mark.parametrize("text", SECRETS, ids=range(len(SECRETS)))
def test_what_looks_like_a_secret_is_hidden(text):
    assert Redaction(environment={}).text(text) == SECRETS[text]


def test_known_secrets_are_hidden_wherever_they_stand():
    environment = {"PHONE_URL": "tgram://a b c", "IB_PASSWORD": "pa$$word+1", "HOME": "/home/me"}
    redaction = Redaction(["control-token"], environment=environment)
    for text in ("x control-token y", "pa$$word+1", "pa%24%24word%2B1", "to tgram://a b c ok"):
        found = redaction.text(text)
        assert HIDDEN in found
        assert not any(secret in found for secret in ("control-token", "word", "a b c"))
    assert redaction.text("/home/me main/SPY/1/target/0") == "/home/me main/SPY/1/target/0"
    redaction.hide("later-secret")
    assert redaction.text("later-secret") == HIDDEN


@given(st.text(max_size=20), st.text(min_size=6, max_size=20))
def test_a_line_of_json_stays_one_and_its_secrets_are_hidden(text, secret):
    redaction = Redaction([secret], environment={})
    row = {"text": text + secret.strip(), "password": secret, "decision_key": "a/SPY/1", "n": 1.5}
    found = json.loads(redaction.text(json.dumps(row)))
    assert found["password"] == HIDDEN
    assert (found["decision_key"], found["n"]) == ("a/SPY/1", 1.5)
    assert len(secret.strip()) < 6 or secret.strip() not in found["text"] or secret in text


def test_secrets_do_not_reach_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXTRADE_PHONE_URL", "tgram://very-secret/1")
    with start_logging(tmp_path, "engine", LogSettings()) as logs:
        logs.redaction.hide("told-later", "t0ken-of-control")
        log.info("%s", "told-later", extra={"url": "json://x.y/t0ken-of-control"})
        try:
            raise RuntimeError("cannot reach tgram://very-secret/1 with t0ken-of-control")
        except RuntimeError:
            log.exception("failed")
    content = (tmp_path / "logs" / "engine.jsonl").read_text()
    for secret in ("very-secret", "t0ken-of-control", "told-later"):
        assert secret not in content
    assert content.count(HIDDEN) >= 4


def quote(symbol, at_ns, bid=1.0):
    return Tick(at_ns=at_ns, symbol=symbol, bid=bid, ask=bid + 0.1)


def table(folder, query):
    with sqlite3.connect(folder / FILE) as db:
        found = db.execute(query).fetchall()
    db.close()
    return found


def test_quotes_are_conflated_and_numbers_are_kept(tmp_path):
    with Recorder(tmp_path, pause_s=60) as recorder:
        for number in range(1000):
            recorder.tick(quote("SPY", number, bid=float(number)))
        recorder.tick(quote("QQQ", 7))
        recorder.equity("a", 5, 1000.0, 0.5)
        recorder.metric("decision_us", 6, 31.5)
    found = table(tmp_path, "SELECT symbol, at_ns, bid, count FROM ticks ORDER BY symbol")
    assert found == [("QQQ", 7, 1.0, 1), ("SPY", 999, 999.0, 1000)]
    assert table(tmp_path, "SELECT * FROM equity") == [("a", 5, 1000.0, 0.5)]
    assert table(tmp_path, "SELECT * FROM metrics") == [("decision_us", 6, 31.5)]
    assert (recorder.dropped, recorder.failed) == (0, 0)


def test_it_writes_while_it_runs_and_its_file_may_go(tmp_path):
    with Recorder(tmp_path, pause_s=0.01) as recorder:
        for at_ns in (1, 2):
            recorder.tick(quote("SPY", time.time_ns() + at_ns))
            deadline = time.monotonic() + 5
            while not (tmp_path / FILE).exists() or not table_or_none(tmp_path):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            for path in tmp_path.glob(f"{FILE}*"):
                path.unlink()
    assert recorder.dropped == 0


def table_or_none(folder):
    try:
        return table(folder, "SELECT * FROM ticks")
    except sqlite3.OperationalError:
        return []


def test_what_does_not_fit_is_dropped_and_a_full_disk_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST", 10)
    (tmp_path / FILE).mkdir()  # no database can be there
    with Recorder(tmp_path, pause_s=60) as recorder:
        for number in range(25):
            recorder.metric("x", number, 1.0)
    assert (recorder.dropped, recorder.failed) == (15, 1)


def test_durations_keep_the_last_and_count_all():
    meter = Meter(size=100)
    assert math.isnan(meter.percentile(50))
    for microseconds in [1e9] * 50 + list(range(1, 101)):
        meter.add_ns(microseconds * 1000)
    assert meter.count == 150
    assert meter.percentile(50) == 50.0
    assert meter.percentile(99) == 99.0
    assert meter.percentile(100) == 100.0


def test_a_process_that_logs_starts_light():
    code = "import sys, jaxtrade.live.logs, jaxtrade.live.recorder; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"jax", "hydra", "omegaconf", "rich", "typer", "pandas", "onnxruntime", "numpy"}
    assert not heavy & set(done.stdout.split())
