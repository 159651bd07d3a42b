"""How an engine starts: after a crash, with a damaged journal, beside another engine."""

import contextlib
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from decimal import Decimal

import pytest

from jaxtrade.live import latches, recovery
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import CashMoved, TradingState
from jaxtrade.live.journal import JournalError, open_readonly
from jaxtrade.live.journal_files import backups
from jaxtrade.live.lock import Lock
from jaxtrade.live.orders import OrderStatus
from jaxtrade.live.recovery import recover
from jaxtrade.live.state import State
from jaxtrade.specs import JaxtradeError
from tests.live_events import START_NS, accepted, filled, initialized, intent, submitted


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "account"


@pytest.fixture
def clock():
    return SimulatedClock(START_NS)


@pytest.fixture
def start(folder, clock):
    def begin(run_id="r", **fields):
        clock.advance(10**9)
        return recover(folder, clock=clock, run_id=run_id, **fields)

    return begin


def live(recovered, events, *, durable=True):
    for event in events:
        recovered.journal.record([event], durable=durable)
        recovered.state.apply(event)


def some_orders(count, first=0):
    for number in range(first, first + count):
        made = intent(number)
        yield from (initialized(made), submitted(made), accepted(made), filled(made))


def files(folder):
    return sorted(file.name for file in folder.iterdir())


# --- starting ----------------------------------------------------------------------------------


def test_the_first_start_and_the_next(start, folder):
    with start("r1", version="1") as first:
        assert (first.notes, first.state.last_seq) == ((), 1)
        assert first.state.trading is TradingState.ACTIVE
        assert first.state.run_id == first.journal.run_id == "r1"
        live(first, [CashMoved(at_ns=1, agent="ppo", amount=Decimal(100))])
        live(first, some_orders(3))
        digest = first.state.digest()
    with start("r2") as second:
        assert second.notes == ()
        replayed = State()
        replayed.apply_all(event for seq, event in second.journal.read() if seq <= 14)
        assert replayed.digest() == digest
        assert (second.state.last_seq, second.state.run_id) == (15, "r2")
        assert second.state.books["ppo"].cash == 100 - 3 * 1000
        assert second.journal.orders is second.state.orders
    assert files(folder) == ["engine.lock", "journal.db", "journal.db-seq"]


def test_what_was_not_answered_is_unknown(start):
    made = [intent(number) for number in range(3)]
    with start() as first:
        live(first, map(initialized, made))
        live(first, [submitted(made[1]), submitted(made[2]), accepted(made[2])])
    with start() as second:
        statuses = [second.state.orders[one.cid].status for one in made]
        assert statuses == [OrderStatus.UNKNOWN, OrderStatus.UNKNOWN, OrderStatus.ACCEPTED]
        last = second.state.last_seq
    with start() as third:
        assert third.state.last_seq == last + 1  # nothing that is known already is told again


def test_a_start_begins_with_the_newest_snapshot(start, monkeypatch):
    monkeypatch.setattr(recovery, "SNAPSHOT_AFTER", 10)
    with start() as first:
        live(first, some_orders(5))
        assert first.journal.latest_snapshot() is None
    with start() as second:
        assert second.journal.latest_snapshot().last_seq == 21
        live(second, some_orders(1, first=5))
        digest = second.state.digest()
    applied = []
    monkeypatch.setattr(
        State,
        "apply",
        lambda self, event, before=State.apply: (applied.append(event), before(self, event)),
    )
    with start() as third:
        assert len(applied) == 1 + 4 + 1  # start, order, and the start of now
        assert third.journal.latest_snapshot().last_seq == 21
    replayed = State()
    with start() as fourth:
        replayed.apply_all(event for seq, event in fourth.journal.read() if seq <= 26)
        assert replayed.digest() == digest


@pytest.mark.parametrize("latch", latches.Latch)
def test_a_latch_file_holds(start, folder, latch):
    with start():
        pass
    latches.set_latch(folder, latch, "looked wrong")
    with start() as second:
        assert second.state.trading == latch.lower()
        assert (second.state.trading_reason, second.state.is_latched) == ("looked wrong", True)
        last = second.state.last_seq
    with start() as third:
        assert third.state.last_seq == last + 1
        assert third.state.trading == latch.lower()
    (folder / latch).unlink()
    with start() as fourth:
        assert fourth.state.trading == latch.lower()  # the journal holds it too


def test_an_event_that_cannot_be_applied_does_not_end_every_start(start, monkeypatch):
    apply = State.apply

    def choke(state, event):
        apply(state, event)
        if event == submitted(intent(1)):
            raise ValueError("what now")

    with start() as first:
        live(first, some_orders(2))
        monkeypatch.setattr(State, "apply", choke)
        with pytest.raises(ValueError, match="what now"):
            recovery.fold(first.journal)
    with start() as second:
        check_reducing(second, "event 7, OrderSubmitted, cannot be applied: ValueError('what now')")
        assert second.state.quantity("SPY") == 20


# --- one engine per folder ---------------------------------------------------------------------

HOLDER = """
import sys, time
from jaxtrade.live.lock import Lock
lock = Lock(sys.argv[1])
lock.take()
print("taken", flush=True)
time.sleep(60)
"""


def test_a_second_engine_is_refused_and_told_who_is_first(start, folder):
    folder.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder / "engine.lock")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "taken\n"
        with pytest.raises(
            JaxtradeError, match=f"in use by the engine with process id {holder.pid}"
        ):
            start()
        assert files(folder) == ["engine.lock"]
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    # A lock does not outlive its process.
    with start(), pytest.raises(JaxtradeError, match="one engine per folder"):
        start()
    with start():
        pass


def test_a_start_that_fails_lets_go_of_the_lock(start, folder):
    folder.mkdir()
    with sqlite3.connect(folder / "journal.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for _ in range(2):
        with pytest.raises(JaxtradeError, match="schema version 99"):
            start()
    assert not (folder / "quarantine").exists()  # it may be good for a newer jaxtrade
    with Lock(folder / "engine.lock"):
        pass
    (folder.parent / "file").write_text("")
    with pytest.raises(JaxtradeError, match="cannot create"):
        recover(folder.parent / "file", clock=SimulatedClock(), run_id="r")
    with pytest.raises(JaxtradeError, match="cannot use"):
        Lock(folder.parent / "nowhere" / "engine.lock").take()


def test_a_journal_that_another_holds_is_not_taken_for_damaged(start, folder):
    with start() as first:
        live(first, some_orders(1))
    db = sqlite3.connect(folder / "journal.db", isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    with pytest.raises(JournalError, match="locked"):
        start()
    db.close()
    with start() as second:
        assert second.notes == () and second.state.quantity("SPY") == 10


# --- damage ------------------------------------------------------------------------------------


def damaged(folder, offset, length=4096):
    with open(folder / "journal.db", "r+b") as file:
        file.seek(offset)
        file.write(bytes(length))


def check_reducing(recovered, *lines):
    assert recovered.state.trading is TradingState.REDUCING
    assert recovered.state.is_latched
    told = "\n".join(recovered.notes)
    assert all(line in told for line in lines), told
    assert recovered.notes[0] in recovered.state.trading_reason


def test_a_damaged_journal_is_put_aside_and_the_backup_takes_its_place(start, folder):
    with start() as first:
        live(first, some_orders(20))
        first.journal.backup()
        live(first, some_orders(2, first=20))
    damaged(folder, 0)  # not even a database any more
    with start() as second:
        check_reducing(second, "not a database", "the backup journal-", "took its place")
        assert second.state.quantity("SPY") == 20 * 10
        assert second.journal.last_seq == second.state.last_seq
        live(second, some_orders(1, first=30))
    (aside,) = (folder / "quarantine").iterdir()
    assert files(aside) == ["journal.db"]
    with start() as third:
        assert third.notes == ()
        assert third.state.quantity("SPY") == 21 * 10
        assert third.state.is_latched  # until a person has looked


def test_what_can_still_be_read_is_saved(start, folder):
    with start() as first:
        live(first, some_orders(3))
        first.journal.backup()
        live(first, some_orders(5, first=3))
        last = first.state.last_seq
    with sqlite3.connect(folder / "journal.db") as db:
        db.execute("UPDATE events SET body = '{}' WHERE seq = ?", (last - 3,))
    db.close()
    with start() as second:
        check_reducing(second, f"event {last - 3} is damaged", "16 later events were read")
        assert second.state.quantity("SPY") == 7 * 10
        assert second.state.trading is TradingState.REDUCING


def cut_short(path):
    path.write_bytes(path.read_bytes()[:8192])


def break_a_table(path):
    """Every event can be read; the table of orders cannot."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'orders'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))


@pytest.mark.parametrize("damage_it", [cut_short, break_a_table])
def test_a_backup_that_is_damaged_is_passed_over(start, folder, clock, damage_it):
    with start() as first:
        live(first, some_orders(5))
        good = first.journal.backup()
        clock.advance(10**9)
        live(first, some_orders(5, first=5))
        bad = first.journal.backup()
    assert backups(folder / "backups") == [bad, good]
    damage_it(bad)
    break_a_table(folder / "journal.db")
    with start() as second:
        check_reducing(second, good.name, "20 later events were read")
        assert second.state.quantity("SPY") == 10 * 10


@pytest.mark.parametrize("has_backup", [True, False])
def test_a_journal_that_is_gone(start, folder, has_backup):
    with start() as first:
        live(first, some_orders(2))
        if has_backup:
            first.journal.backup()
    (folder / "journal.db").unlink()
    with start() as second:
        line = "took its place" if has_backup else "there is no backup"
        check_reducing(second, "journal.db is gone", line)
        assert second.state.quantity("SPY") == (20 if has_backup else 0)


def test_a_log_that_is_gone_after_a_crash(start, folder, tmp_path, clock):
    with start() as first:
        live(first, some_orders(5))
        recovery.fold(first.journal)
        first.journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        live(first, some_orders(2, first=5))
        for name in ("journal.db", "journal.db-seq"):
            (tmp_path / "crashed").mkdir(exist_ok=True)
            shutil.copy(folder / name, tmp_path / "crashed")
    with recover(tmp_path / "crashed", clock=clock, run_id="r") as second:
        check_reducing(second, "its events 22 to 29 are gone")
        assert second.state.quantity("SPY") == 50


def test_a_journal_cut_short(start, folder):
    with start() as first:
        live(first, some_orders(40))
        first.journal.backup()
    path = folder / "journal.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with start() as second:
        check_reducing(second, "took its place")
        assert second.state.quantity("SPY") == 400


def flip_a_bit(path, chance):
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def check_flips(folder, clock, seeds):
    """Whatever bit flips, the start ends in the old state, or in REDUCING with a true one."""
    with recover(folder, clock=clock, run_id="r") as first:
        live(first, some_orders(12), durable=False)
        first.journal.save_snapshot(first.state)
        first.journal.backup()
        live(first, some_orders(12, first=12), durable=False)
        events = [event for _, event in first.journal.read()]
    found = 0
    for seed in seeds:
        copy = folder.with_name(f"copy-{seed}")
        shutil.copytree(folder, copy)
        flip_a_bit(copy / "journal.db", random.Random(seed))
        with recover(copy, clock=clock, run_id="again") as again:
            with contextlib.closing(open_readonly(copy / "journal.db")) as db:
                query = "SELECT max(seq) FROM events WHERE kind = 'EngineStarted'"
                kept = db.execute(query).fetchone()[0] - 1
            assert 12 * 4 < kept <= len(events)
            state = State()
            state.apply_all(events[:kept])
            state.apply_all(event for _, event in again.journal.read(kept))
            assert state.digest() == again.state.digest()
            if again.notes:
                check_reducing(again)
                found += 1
            else:
                assert kept == len(events)
        shutil.rmtree(copy)
    return found


def test_a_flipped_bit(folder, clock):
    assert check_flips(folder, clock, range(12)) > 0


@pytest.mark.slow
def test_many_flipped_bits(folder, clock):
    assert check_flips(folder, clock, range(12, 150)) > 20


# --- killed ------------------------------------------------------------------------------------

WRITER = """
import itertools, sys
from jaxtrade.live.clock import SystemClock
from jaxtrade.live.recovery import recover
from tests.live_events import accepted, filled, initialized, intent, submitted
recovered = recover(sys.argv[1], clock=SystemClock(), run_id="w")
for number in itertools.count(int(sys.argv[2])):
    made = intent(number)
    for event in (initialized(made), submitted(made), accepted(made), filled(made)):
        recovered.journal.record([event], durable=event == initialized(made))
        recovered.state.apply(event)
        print(recovered.state.last_seq, flush=True)
    if number % 7 == 0:
        recovered.journal.save_snapshot(recovered.state)
"""


def kill_once(folder, clock, number, chance):
    """Kill a writer at some moment; what it was told was recorded is there."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(number * 10_000)],
        stdout=subprocess.PIPE,
        text=True,
    )
    last = 0
    for _ in range(chance.randrange(1, 120)):
        last = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    said = writer.communicate()[0].split("\n")
    last = max([last, *(int(line) for line in said[:-1] if line)])
    with recover(folder, clock=clock, run_id="after") as recovered:
        assert recovered.notes == ()
        events = [event for _, event in recovered.journal.read()]
        assert last <= len(events) - 1
        replayed = State()
        replayed.apply_all(events)
        assert replayed.digest() == recovered.state.digest()
        assert not recovered.state.unanswered(0, "")
        json.dumps(recovered.state.to_json())


def test_a_writer_that_is_killed_loses_nothing_it_was_told(folder, clock):
    chance = random.Random(0)
    for number in range(3):
        kill_once(folder, clock, number, chance)


@pytest.mark.slow
def test_a_writer_that_is_killed_often_loses_nothing(folder, clock):
    chance = random.Random(1)
    for number in range(20):
        kill_once(folder, clock, number, chance)
