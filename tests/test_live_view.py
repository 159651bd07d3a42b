"""The terminal's picture: what a person must see at once, and nothing that breaks it."""

import io
import json
import sqlite3
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from jaxtrade.live import events as e
from jaxtrade.live.journal import Journal
from jaxtrade.live.journal_db import digest_of
from jaxtrade.live.journal_status import from_journal, status
from jaxtrade.live.latches import Latch, set_latch
from jaxtrade.live.state import State
from jaxtrade.live.view import line, picture
from jaxtrade.specs import JaxtradeError

STATUS = {
    "name": "paper",
    "run_id": "ab12",
    "state": "reducing",
    "reason": "three decisions were held",
    "latched": True,
    "broker": {
        "kind": "paper",
        "connected": True,
        "epoch": 2,
        "age_s": 75.0,
        "refused": {"late": 8, "quote": 1},
        "clock_jumps": 2,
    },
    "equity": 10_123.4,
    "day_return": -0.0123,
    "drawdown": 0.05,
    "agents": [
        {
            "name": "spy",
            "paused": "earnings",
            "failures": 2,
            "last_bar": 1_800_014_400,
            "last_decision": {"action": [2], "confidence": 0.75, "held": ""},
            "symbols": [
                {
                    "symbol": "SPY",
                    "position": "12.50",
                    "exposure": 0.5,
                    "target": 0.6,
                    "price": 401.25,
                },
                {"symbol": "QQQ", "position": "-3", "status": "unprotected"},
            ],
            "notes": ["v3 watches for 5 bars"],
        }
    ],
    "orders": [
        {"cid": f"c{n}", "side": "buy", "quantity": "2.0", "symbol": "SPY", "leg": "stop_loss"}
        for n in range(12)
    ],
    "latency_us": {"decision_p50": 25.2, "decision_p99": 90.0, "order_p50": None},
    "settings_version": 3,
    "pending_settings": {"guard.max_gross": 1.5},
    "mismatches": ["SPY: broker 12, books 13"],
    "is_journal_sound": False,
}


def drawn(status, width=140) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(picture(status))
    return console.file.getvalue()


@pytest.mark.parametrize(
    "shown",
    [
        "REDUCING latched three decisions were held",
        "paper connected data 75.0 s old not taken: late 8, quote 1, its clock jumped 2 times",
        "equity 10,123.40 today -1.23% drawdown 5.00%",
        "spy paused: earnings 2 failures",
        "SPY 12.5 +50.00% +60.00% 401.25",
        "unprotected",
        "spy: bar 2027-01-15 12:00, action 2 (75%)",
        "buy 2 SPY (stop_loss)",
        "and 2 more",
        "differs from the broker: SPY: broker 12, books 13",
        "the journal cannot be written",
        "from the next bar on: guard.max_gross=1.5",
        "spy: v3 watches for 5 bars",
        "decision 25/90 µs",
        "settings 3",
    ],
)
def test_what_a_person_must_see_is_there(shown):
    assert shown in " ".join(drawn(STATUS).split())


def test_it_fits_a_narrow_terminal_and_survives_a_status_that_says_little():
    assert max(map(len, drawn(STATUS, width=80).splitlines())) <= 80
    assert "?" in drawn({})
    assert line(STATUS) == "paper: REDUCING equity 10,123.40 SPY 12.5 QQQ -3"


ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@settings(max_examples=50)
@given(st.lists(ANY, min_size=12, max_size=12))
def test_no_value_breaks_the_picture(values):
    a, b, c, d, f, g, h, i, j, k, m, n = values
    symbol = {"symbol": a, "position": b, "exposure": c, "target": d, "price": f, "status": g}
    made = {"action": [0.5], "confidence": h, "held": ""}
    agent = {"name": i, "last_bar": 1.0, "last_decision": made, "symbols": [symbol]}
    broker = {"age_s": m}
    drawn({"agents": [agent], "equity": j, "drawdown": k, "broker": broker, "state": n})


# What the journal says


@pytest.fixture
def folder(tmp_path):
    """An account with a position and a working order, and a snapshot on the way."""
    state = State()
    intent = e.OrderIntent(
        cid="c1", decision_key="d", agent="a", symbol="SPY", side=e.Side.BUY, quantity=Decimal(3)
    )
    filled = e.OrderFilled(
        at_ns=4,
        cid="c1",
        execution_id="x",
        symbol="SPY",
        side=e.Side.BUY,
        quantity=Decimal(2),
        price=Decimal(100),
    )
    events = [
        e.CashMoved(at_ns=1, agent="a", amount=Decimal(1000), reason="deposit"),
        e.EquityMarked(at_ns=1, equity=1000.0, day=1),
        e.OrderInitialized(at_ns=2, cid="c1", intent=intent),
        e.AgentPaused(at_ns=3, agent="a", reason="earnings"),
        filled,
        e.EquityMarked(at_ns=5, equity=900.0, day=1),
    ]
    with Journal(tmp_path / "journal.db", now=lambda: 1) as journal:
        for event in events:
            journal.record([event], durable=False)
            state.apply(event)
            if isinstance(event, e.AgentPaused):
                journal.save_snapshot(state)
    return tmp_path


def test_without_an_engine_the_journal_is_asked_and_nothing_is_changed(folder):
    before = (folder / "journal.db").read_bytes()
    found = status(folder)
    assert "no engine runs there" in found["note"]
    assert found["equity"] == 900.0
    assert found["drawdown"] == pytest.approx(0.1)
    (agent,) = found["agents"]
    assert (agent["name"], agent["paused"]) == ("a", "earnings")
    assert agent["symbols"] == [{"symbol": "SPY", "position": "2"}]
    (order,) = found["orders"]
    assert (order["cid"], order["filled"], order["status"]) == ("c1", "2", "partially_filled")
    assert "this is what the journal says" in drawn(json.loads(json.dumps(found)))
    assert (folder / "journal.db").read_bytes() == before


def test_a_snapshot_of_another_version_is_passed_over(folder):
    wanted = from_journal(folder)
    with sqlite3.connect(folder / "journal.db") as db:
        old = '{"version":0}'
        db.execute("UPDATE snapshots SET state = ?, digest = ?", (old, digest_of(old)))
    db.close()
    assert from_journal(folder) == wanted


def test_a_latch_is_seen_without_an_engine(folder):
    assert not from_journal(folder)["latched"]
    set_latch(folder, Latch.HALTED, "crash loop")
    found = from_journal(folder)
    assert (found["latched"], found["reason"]) == (True, "crash loop")


def test_no_account_and_a_broken_journal_are_one_line(tmp_path):
    with pytest.raises(JaxtradeError, match="no account has traded there yet"):
        status(tmp_path)
    (tmp_path / "journal.db").write_bytes(b"no database at all " * 100)
    with pytest.raises(JaxtradeError, match=r"journal\.db"):
        status(tmp_path)
