"""The journal: whole transactions or none, what others read of it, and what breaks under it."""

import contextlib
import dataclasses
import json
import os
import shutil
import sqlite3
import threading
import time
from decimal import Decimal

import pytest

from jaxtrade.live import journal_db, journal_files
from jaxtrade.live.events import (
    BrokerConnected,
    EngineStarted,
    OrderCanceled,
    OrderInitialized,
    OrderSubmitted,
)
from jaxtrade.live.journal import (
    Alert,
    Carry,
    DuplicateDecisionError,
    Journal,
    JournalError,
    open_readonly,
)
from jaxtrade.live.state import State
from jaxtrade.specs import JaxtradeError
from tests.live_events import (
    START_NS,
    accepted,
    decided,
    fee,
    filled,
    initialized,
    intent,
    submitted,
    told,
    traded_by_hand,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
def opened(path):
    with contextlib.ExitStack() as stack:

        def make(**options):
            return stack.enter_context(Journal(path, now=lambda: START_NS, **options))

        yield make


def some_life():
    one, two = intent(1), intent(2, agent="sac", symbol="TLT")
    return [
        EngineStarted(at_ns=START_NS, run_id="r1", version="1"),
        initialized(one),
        submitted(one),
        accepted(one, broker_id="77"),
        decided(),
        initialized(two),
        fee(one, "0.35", execution_id="a"),
        filled(one, "4", "100.5", execution_id="a"),
        filled(one, "6", "101", execution_id="b", fee=Decimal("0.2")),
        filled(one, "5", "101", execution_id="b", revision=1),
        told(OrderCanceled, one, reason="by hand"),
        traded_by_hand("3", symbol="QQQ", execution_id="c"),
    ]


def live(journal, events):
    """Record events and apply them, as an engine does."""
    state = State()
    journal.orders = state.orders
    for event in events:
        journal.record([event], durable=False)
        state.apply(event)
    return state


def rows(path, query):
    with contextlib.closing(open_readonly(path)) as db:
        return [tuple(row) for row in db.execute(query)]


def everything(path):
    tables = ("events", "orders", "fills", "alerts", "carries", "kv")
    return {table: rows(path, f"SELECT * FROM {table}") for table in tables}


# --- what is written ---------------------------------------------------------------------------


def test_events_read_back_in_order(opened):
    journal = opened()
    events = some_life()
    assert journal.record(events[:5], durable=True) == 5
    assert journal.record(events[5:], durable=False) == len(events) == journal.last_seq
    assert list(journal.read()) == list(enumerate(events, 1))
    assert list(journal.read(10)) == list(enumerate(events, 1))[10:]
    assert rows(journal.path, "SELECT DISTINCT run_id FROM events") == [("r1",)]
    journal.close()
    again = opened()
    assert (again.last_seq, again.lost) == (len(events), "")
    assert list(again.read()) == list(enumerate(events, 1))


@pytest.mark.parametrize("is_ahead", [False, True])
def test_orders_and_fills_are_what_the_state_says(opened, path, is_ahead):
    journal, events = opened(), some_life()
    if is_ahead:  # what could not be written when it happened is written after it was applied
        state = State()
        journal.orders = state.orders
        for event in events:
            if isinstance(event, OrderInitialized):
                journal.record([event], durable=True)
            state.apply(event)
        later = [event for event in events if not isinstance(event, OrderInitialized)]
        journal.record(later, durable=True)
    else:
        state = live(journal, events)
    query = "SELECT cid, status, filled, average_price, fee, broker_id, reason FROM orders"
    assert sorted(rows(path, query)) == sorted(
        (
            order.cid,
            order.status,
            str(order.filled),
            None if order.average_price is None else str(order.average_price),
            str(order.fee),
            order.broker_id,
            order.reason,
        )
        for order in state.orders.values()
    )
    told_of = rows(path, "SELECT execution_id, revision, quantity, price, fee FROM fills")
    assert told_of == [
        ("a", 0, "4", "100.5", "0.35"),
        ("b", 1, "5", "101", "0"),
        ("c", 0, "3", "100", "0"),
    ]


def test_alerts_carries_and_values(opened, path):
    journal = opened()
    journal.record(
        [decided()],
        durable=False,
        alerts=[Alert("warning", "late", "data"), Alert("info", "up")],
        carries={"ppo": Carry(3_600, b"\x00\x01")},
        kv={"phase": {"a": [1, None]}},
    )
    assert journal.carry("ppo") == Carry(3_600, b"\x00\x01")
    assert journal.carry("sac") is None
    assert journal.value("phase") == {"a": [1, None]}
    assert journal.value("nothing", 7) == 7
    assert rows(path, "SELECT seq, at_ns, level, text, key FROM alerts") == [
        (1, START_NS, "warning", "late", "data"),
        (2, START_NS, "info", "up", ""),
    ]
    journal.record(durable=True, carries={"ppo": Carry(7_200, b"x")}, kv={"phase": 2})
    assert (journal.carry("ppo"), journal.value("phase")) == (Carry(7_200, b"x"), 2)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE carries SET blob = ?", (b"y",))
    db.close()
    assert journal.carry("ppo") is None  # damaged: the policy warms up anew


def test_a_decision_is_recorded_once_and_what_came_with_a_second_one_is_not(opened, path):
    journal = opened()
    made = intent()
    journal.record([initialized(made)], durable=True)
    before = everything(path)

    def again(journal):
        with pytest.raises(DuplicateDecisionError, match="was recorded before"):
            journal.record(
                [OrderSubmitted(at_ns=1, cid=made.cid), initialized(made), decided()],
                durable=True,
                alerts=[Alert("info", "sent")],
                carries={"ppo": Carry(1, b"")},
                kv={"a": 1},
            )
        assert everything(path) == before
        assert journal.last_seq == 1

    again(journal)
    journal.close()
    journal = opened()
    again(journal)
    state = State()
    journal.orders = state.orders
    state.apply_all(event for _, event in journal.read())
    again(journal)
    with pytest.raises(DuplicateDecisionError):
        journal.record([initialized(intent(2))] * 2, durable=True)
    other = dataclasses.replace(made, decision_key="another decision, by the same id")
    with pytest.raises(DuplicateDecisionError, match=f"{made.cid} was recorded before"):
        journal.record([initialized(other)], durable=True)
    journal.record([initialized(intent(2))], durable=True)


def test_a_durable_transaction_is_flushed_and_another_is_not(opened):
    journal = opened()
    levels = []
    for durable in (True, False, False, True):
        journal.record([decided()], durable=durable)
        levels.append(journal._db.execute("PRAGMA synchronous").fetchone()[0])
    assert levels == [2, 1, 1, 2]  # FULL flushes the log at each commit, NORMAL does not


# --- snapshots ---------------------------------------------------------------------------------


def test_snapshots_are_kept_at_their_event(opened, path):
    journal = opened()
    state = live(journal, some_life())
    assert journal.latest_snapshot() is None
    digests = []
    for _ in range(5):
        journal.save_snapshot(state)
        digests.append(state.digest())
        journal.record([decided()], durable=False)
        state.apply(decided())
    with pytest.raises(JournalError, match="the state is at event 3, the journal at 17"):
        behind = State()
        behind.apply_all([decided()] * 3)
        journal.save_snapshot(behind)
    assert journal.latest_snapshot().digest() == digests[-1]
    assert len(rows(path, "SELECT seq FROM snapshots")) == 3
    with sqlite3.connect(path) as db:
        db.execute("UPDATE snapshots SET state = replace(state, '0.35', '0.36') WHERE seq = 16")
    db.close()
    assert journal.latest_snapshot().digest() == digests[-2]  # the one before is whole
    tree = json.dumps({**state.to_json(), "version": 0})
    with sqlite3.connect(path) as db:
        db.execute("UPDATE snapshots SET state = ?, digest = ?", (tree, journal_db.digest_of(tree)))
    db.close()
    assert journal.latest_snapshot() is None  # of another version: events are folded anew


# --- others ------------------------------------------------------------------------------------


def test_a_reader_sees_commits_holds_up_none_and_writes_nothing(opened, path):
    journal = opened()
    journal.record([decided()], durable=True)
    with contextlib.closing(open_readonly(path)) as db:
        db.execute("BEGIN")
        assert db.execute("SELECT count(*) FROM events").fetchone()[0] == 1
        journal.record([decided()], durable=True)
        assert db.execute("SELECT count(*) FROM events").fetchone()[0] == 1  # its moment
        db.execute("COMMIT")
        assert db.execute("SELECT kind FROM events WHERE seq = 2").fetchone()["kind"] == (
            "BarDecided"
        )
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM events")
    journal.close()
    assert len(rows(path, "SELECT * FROM events")) == 2


def test_a_lock_of_another_process_stops_nothing_for_long(opened, path):
    journal = opened(busy_seconds=0.2)
    journal.record([decided()], durable=True)
    before = everything(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        for number in range(20):  # it is waited for once
            with pytest.raises(JournalError, match=r"^cannot use the journal .*: .*locked$"):
                journal.record([decided()], durable=number % 2 == 0, kv={"a": 1})
        assert 0.2 <= time.monotonic() - began < 2.0
        assert journal.last_seq == 1 and everything(path) == before
        other.execute("ROLLBACK")
        assert journal.record([decided()], durable=True) == 2
        assert journal.record([decided()], durable=True) == 3
        began = time.monotonic()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError):
            journal.record([decided()], durable=True)
        assert time.monotonic() - began >= 0.2


def test_what_is_no_journal_is_refused(path):
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(JournalError, match="file is not a database"):
        Journal(path, now=lambda: 1)
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="has schema version 99, this jaxtrade writes 1"):
        Journal(path, now=lambda: 1)
    with pytest.raises(JournalError, match="has schema version 99"):
        open_readonly(path)
    with pytest.raises(JournalError, match="unable to open"):
        open_readonly(path.with_name("nothing.db"))
    with pytest.raises(JournalError, match="unable to open"):
        Journal(path.parent / "nowhere" / "journal.db", now=lambda: 1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE events SET body = replace(body, '100', '200') WHERE seq = 2", "2 is damaged"),
        ("UPDATE events SET kind = 'OrderRejected' WHERE seq = 3", "3 is damaged"),
        ("DELETE FROM events WHERE seq = 2", "2 is missing"),
    ],
)
def test_a_damaged_event_is_found(opened, path, change, problem):
    journal = opened()
    journal.record([initialized(intent()), traded_by_hand("1"), submitted(intent())], durable=True)
    with sqlite3.connect(path) as db:
        db.execute(change)
    db.close()
    with pytest.raises(JournalError, match=f"event {problem}"):
        list(journal.read())


# --- the disk ----------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(num_bytes=journal_db.LOG_BYTES):
    """No file can grow beyond this; by default what the log is laid out to."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill_up(journal):
    """Record until it fails; how many events the journal took."""
    blob = os.urandom(500_000)
    for number in range(1_000):
        try:
            carries = {str(number): Carry(0, blob)}
            journal.record([decided(start_s=number)], durable=number % 2 == 0, carries=carries)
        except JournalError as error:
            assert "\n" not in str(error)
            return number
    raise AssertionError("the disk never filled up")


def test_a_full_disk_refuses_whole_transactions(opened, path):
    journal = opened()
    with full_disk():
        count = fill_up(journal)
        assert count > 5 and journal.last_seq == count
        with pytest.raises(JournalError):
            journal.record([decided()], durable=True, carries={"a": Carry(0, bytes(9_000_000))})
    assert [seq for seq, _ in journal.read()] == list(range(1, count + 1))
    assert journal.record([decided()], durable=True) == count + 1  # there is room again
    journal.close()
    again = opened()
    assert (again.last_seq, again.lost) == (count + 1, "")
    assert journal_files.damage(path) == ""


def test_a_disk_that_is_full_at_the_start_refuses_it(opened):
    with full_disk(1_000_000), pytest.raises(JournalError, match=r"File too large$"):
        opened()
    assert opened().record([decided()], durable=True) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount")
def test_a_full_file_system_refuses_whole_transactions(tmp_path):
    if os.system(f"mount -t tmpfs -o size=14m tmpfs {tmp_path} 2>/dev/null"):
        pytest.skip("nothing can be mounted here")
    try:
        path = tmp_path / "journal.db"
        with Journal(path, now=lambda: START_NS) as journal:
            (tmp_path / "other").write_bytes(bytes(4_000_000))
            count = fill_up(journal)
            (tmp_path / "other").unlink()
            assert journal.record([decided()], durable=True) == count + 1
        with Journal(path, now=lambda: START_NS) as journal:
            assert journal.last_seq == count + 1
    finally:
        assert os.system(f"umount {tmp_path}") == 0


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_file_taken_away_is_noticed(opened, path, suffix):
    journal = opened()
    journal.record([decided()], durable=True)
    os.rename(f"{path}{suffix}", f"{path}{suffix}.away")
    with pytest.raises(JournalError, match="taken out of its folder while in use"):
        journal.record([decided()], durable=True)
    os.rename(f"{path}{suffix}.away", f"{path}{suffix}")
    assert journal.record([decided()], durable=True) == 2


def test_a_log_that_was_deleted_is_saved_by_closing(opened, path):
    journal = opened()
    journal.record(some_life(), durable=True)
    os.unlink(f"{path}-wal")
    with pytest.raises(JournalError, match="stop the engine, which saves what can be saved"):
        journal.record([decided()], durable=True)
    journal.close()
    again = opened()
    assert (again.last_seq, again.lost) == (len(some_life()), "")
    assert [event for _, event in again.read()] == some_life()


def test_a_log_that_was_deleted_after_a_crash_is_missed(opened, path, tmp_path):
    journal = opened()
    journal.record(some_life(), durable=True)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    journal_files.checkpoint(path)
    journal.record([decided()] * 3, durable=True)
    for suffix in ("", "-seq"):  # as they lie there when the process is killed
        shutil.copy(f"{path}{suffix}", crashed)
    with Journal(crashed / "journal.db", now=lambda: START_NS) as again:
        assert again.last_seq == len(some_life())
        assert again.lost == f"its events {len(some_life()) + 1} to {len(some_life()) + 3} are gone"


# --- upkeep ------------------------------------------------------------------------------------


def frames_in_the_log(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]


def test_the_log_starts_again_after_a_checkpoint_beside(opened, path):
    journal = opened()
    blob = os.urandom(100_000)
    while not journal._is_asked:
        journal.record([decided()], durable=True, carries={"a": Carry(0, blob)})
    deadline = time.monotonic() + 20
    while not journal._checkpoints.has_run and time.monotonic() < deadline:
        time.sleep(0.01)
    journal.record([decided()], durable=False)
    assert 0 < frames_in_the_log(path) < 50  # of some 1,000


def test_the_log_starts_again_without_anyone_beside(opened, path, monkeypatch):
    monkeypatch.setattr(journal_files.Checkpoints, "wake", lambda _: None)
    journal = opened()
    blob = os.urandom(100_000)
    for number in range(200):  # 20 MB
        journal.record([decided()], durable=False, carries={"a": Carry(number, blob)})
    assert os.path.getsize(f"{path}-wal") < 1.1 * journal_db.LOG_BYTES
    with contextlib.closing(open_readonly(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM events").fetchone()
        for number in range(100):  # a reader that holds on to it makes it grow
            journal.record([decided()], durable=False, carries={"a": Carry(number, blob)})
        reader.execute("COMMIT")
    for number in range(100):
        journal.record([decided()], durable=False, carries={"a": Carry(number, blob)})
    assert frames_in_the_log(path) * 4096 < journal_db.LOG_BYTES


def test_backups_are_whole_and_the_oldest_go(path, tmp_path):
    moments = iter(range(START_NS, 0, -(10**12)))  # the clock is put back again and again
    with Journal(path, now=lambda: next(moments)) as journal:
        made = []
        for number in range(4):
            journal.record([decided(start_s=number)], durable=True)
            made.append(journal.backup(kept=3))
        assert journal_files.backups(tmp_path / "backups") == made[:0:-1]
        assert made[0].name.startswith("journal-000001-20231209T")
        assert not list((tmp_path / "backups").glob(".*"))
    for number, one in enumerate(made[1:], 2):
        assert journal_files.damage(one) == ""
        with contextlib.closing(sqlite3.connect(one)) as db:
            events = list(journal_db.read_events(db, 0, name=str(one)))
        assert [event.start_s for _, event in events] == list(range(number))


def test_a_backup_is_made_while_others_write(opened):
    journal = opened()
    journal.record([decided()] * 500, durable=True)
    done = threading.Event()
    made = []

    def back_up():
        made.append(journal.backup())
        done.set()

    thread = threading.Thread(target=back_up)
    thread.start()
    while not done.is_set():
        journal.record([BrokerConnected(at_ns=1, epoch=1)], durable=False)
    thread.join()
    with contextlib.closing(sqlite3.connect(made[0])) as db:
        assert len(list(journal_db.read_events(db, 0, name=""))) >= 500


def test_upkeep_of_what_is_not_there(tmp_path):
    with pytest.raises(JournalError, match="unable to open"):
        journal_files.checkpoint(tmp_path / "nothing.db")
    with pytest.raises(JournalError, match="unable to open"):
        journal_files.back_up(tmp_path / "nothing.db", tmp_path, at_ns=1)
    with pytest.raises(JournalError, match="unable to open"):
        journal_files.damage(tmp_path / "nothing.db")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with Journal(tmp_path / "journal.db", now=lambda: 1), pytest.raises(JaxtradeError):
        journal_files.back_up(tmp_path / "journal.db", tmp_path / "file", at_ns=1)
