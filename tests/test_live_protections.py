import dataclasses
import datetime as dt
import math
import zoneinfo
from decimal import Decimal

import pytest

from jaxtrade.live.events import (
    EquityMarked,
    Leg,
    ProtectionTripped,
    Rearmed,
    TradingState,
    TradingStateChanged,
)
from jaxtrade.live.limits import Protections
from jaxtrade.live.protections import day_of, evaluate, floor, next_day_ns
from jaxtrade.live.state import State
from jaxtrade.live.trades import ClosedTrade
from jaxtrade.specs import JaxtradeError

SECOND = 10**9
HOUR = 3_600 * SECOND
NEW_YORK = "America/New_York"
LIMITED = Protections(max_drawdown=0.2, max_daily_loss=0.05)


def at(text):
    """UTC ns of a time of day in New York."""
    stamp = dt.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(NEW_YORK))
    return int(stamp.timestamp()) * SECOND


MORNING = at("2026-03-05 09:30")


def marked(state, equity, now_ns=MORNING):
    day = day_of(now_ns, zoneinfo.ZoneInfo(NEW_YORK))
    state.apply(EquityMarked(at_ns=now_ns, equity=equity, day=day))


def started(equity=1_000.0):
    state = State()
    marked(state, equity)
    return state


def look(state, equity, now_ns=MORNING, protections=LIMITED):
    """What protections say of an equity; it is applied to the state."""
    events = evaluate(state, protections, equity=equity, now_ns=now_ns, time_zone=NEW_YORK)
    for event in events:
        state.apply(event)
    return events


def restarted(state):
    return State.from_json(state.to_json())


# --- equity ------------------------------------------------------------------------------------


def test_a_drawdown_halts_and_only_a_person_lifts_it():
    """P18, F23: latched over a restart and over the next day."""
    state = started()
    marked(state, 1_250.0)
    falling = Protections(max_drawdown=0.2)
    assert look(state, 1_001.0, protections=falling) == []
    tripped, changed = look(state, 1_000.0, protections=falling)
    assert (tripped.protection, tripped.symbol) == ("max_drawdown", "")
    assert (changed.state, changed.is_latched) == (TradingState.HALTED, True)
    assert "20.00% below its peak" in changed.reason

    assert look(state, 900.0, protections=falling) == []  # said once
    state = restarted(state)
    later = MORNING + 24 * HOUR
    marked(state, 990.0, later)
    assert look(state, 1_300.0, later, falling) == []
    assert (state.trading, state.is_latched) == (TradingState.HALTED, True)

    state.apply(Rearmed(at_ns=later, reason="looked at it"))
    assert look(state, 985.0, later, falling) == []
    assert state.trading is TradingState.ACTIVE


def test_a_loss_of_the_day_reduces_until_the_accounts_next_day():
    """P18, F23: equity counts with what is open; only the calendar ends it."""
    state = started()
    assert look(state, 951.0) == []
    tripped, changed = look(state, 950.0)
    assert (tripped.protection, tripped.until_ns) == ("daily_loss", at("2026-03-06 00:00"))
    assert (changed.state, changed.is_latched) == (TradingState.REDUCING, False)

    state = restarted(state)
    for now_ns, equity in ((MORNING + HOUR, 900.0), (at("2026-03-05 23:59"), 1_200.0)):
        assert look(state, equity, now_ns) == []
        assert state.trading is TradingState.REDUCING
    state.apply(Rearmed(at_ns=MORNING + HOUR, reason="a person wants to"))
    assert state.locks["daily_loss", ""] > at("2026-03-05 23:59")

    state = restarted(state)
    state.apply(TradingStateChanged(at_ns=0, state=TradingState.REDUCING, reason=changed.reason))
    midnight = at("2026-03-06 00:00")
    (changed,) = look(state, 990.0, midnight)
    assert (changed.state, changed.reason) == (TradingState.ACTIVE, "daily_loss: a new day")


def test_a_new_day_starts_from_the_last_mark_of_the_old_one():
    state = started(1_000.0)
    marked(state, 960.0, at("2026-03-05 16:00"))
    next_day = at("2026-03-06 00:01")
    assert look(state, 940.0, next_day) == []  # 6 % below yesterday's start, 2 % below today's
    tripped, _ = look(state, 912.0, next_day)
    assert tripped.protection == "daily_loss"


def test_nothing_is_lifted_that_something_else_has_set():
    state = started()
    state.apply(TradingStateChanged(at_ns=0, state=TradingState.REDUCING, reason="a bad policy"))
    assert look(state, 1_000.0) == []
    tripped, *others = look(state, 940.0)
    assert (tripped.protection, others) == ("daily_loss", [])
    state = started()
    state.apply(
        TradingStateChanged(at_ns=0, state=TradingState.KILLED, reason="x", is_latched=True)
    )
    assert [type(event) for event in look(state, 500.0)] == [ProtectionTripped]
    assert state.trading is TradingState.KILLED


def test_a_halt_that_is_not_latched_becomes_so():
    state = started()
    state.apply(TradingStateChanged(at_ns=0, state=TradingState.HALTED, reason="a person"))
    _, changed = look(state, 700.0)
    assert changed.is_latched


def test_off_is_off_and_an_equity_that_is_no_number_says_nothing():
    off = Protections()
    assert look(started(), 1.0, protections=off) == []
    assert math.isnan(floor(started().marks, off))
    for equity in (math.nan, math.inf):
        assert look(started(), equity) == []
    assert look(State(), 5.0) == []  # before the first mark


def test_the_floor_is_where_a_limit_is_reached():
    state = started()
    marked(state, 1_010.0)
    assert floor(state.marks, Protections(max_drawdown=0.2)) == pytest.approx(808.0)
    assert floor(state.marks, LIMITED) == pytest.approx(1_010 * 0.95)
    assert look(state, 1_010 * 0.95 + 1) == []
    assert look(state, 949.0) != []


@pytest.mark.parametrize(
    ("now", "following"),
    [
        ("2026-03-07 12:00", "2026-03-08 00:00"),
        ("2026-03-08 12:00", "2026-03-09 00:00"),  # the clock goes forward that night
        ("2026-11-01 00:30", "2026-11-02 00:00"),  # and back: a day of 25 hours
    ],
)
def test_the_day_is_the_accounts_through_summer_time(now, following):
    zone = zoneinfo.ZoneInfo(NEW_YORK)
    begins = next_day_ns(at(now), zone)
    assert begins == at(following)
    assert day_of(begins, zone) == day_of(begins - SECOND, zone) + 1
    assert day_of(at("1970-01-01 12:00"), zone) == 0


# --- closed trades -----------------------------------------------------------------------------


def closed(state, hours, *, symbol="A", leg=Leg.STOP_LOSS, profit=-1):
    """A trade that was closed some hours after the morning."""
    state.trades.closed.append(
        ClosedTrade(
            agent="a",
            symbol=symbol,
            leg=leg,
            profit=Decimal(profit),
            invested=Decimal(100),
            at_ns=MORNING + round(hours * HOUR),
        )
    )


def locked(state, protections, hours):
    """Locks that follow, (protection, symbol) to hours after the morning."""
    events = look(state, 1_000.0, MORNING + round(hours * HOUR), protections)
    assert all(isinstance(event, ProtectionTripped) for event in events)
    return {(event.protection, event.symbol): (event.until_ns - MORNING) / HOUR for event in events}


def test_a_closed_trade_cools_its_symbol_down():
    state = started()
    protections = Protections(cooldown_s=7_200)
    assert locked(state, protections, 0) == {}
    closed(state, 1, leg=Leg.TARGET, profit=5)
    assert locked(state, protections, 1) == {("cooldown", "A"): 3}
    assert locked(state, protections, 2) == {}  # said once
    closed(state, 2, leg=Leg.TARGET)
    assert locked(state, protections, 2) == {("cooldown", "A"): 4}
    assert locked(state, protections, 5) == {}  # it is over, and the trade is not new


def test_a_stop_cools_its_symbol_down_for_longer():
    state = started()
    protections = Protections(stop_cooldown_s=14_400)
    closed(state, 1, leg=Leg.TAKE_PROFIT, profit=5)
    assert locked(state, protections, 1) == {}
    closed(state, 2, symbol="B")
    assert locked(state, protections, 2) == {("stop_cooldown", "B"): 6}


GUARDED = Protections(
    stop_guard_trades=3, stop_guard_window_s=10 * 3_600, stop_guard_lock_s=5 * 3_600
)


def test_the_stop_guard_counts_stops_at_a_loss_in_its_window():
    state = started()
    closed(state, 0)  # will be out of the window
    closed(state, 5, symbol="B")
    closed(state, 6, leg=Leg.TARGET)  # no stop
    closed(state, 7, profit=1)  # no loss
    closed(state, 11, symbol="C")
    assert locked(state, GUARDED, 11) == {}
    closed(state, 12)
    assert locked(state, GUARDED, 12) == {("stop_guard", ""): 17}
    assert locked(restarted(state), GUARDED, 12) == {}


def test_the_stop_guard_may_be_of_the_symbol():
    protections = dataclasses.replace(GUARDED, stop_guard_per_symbol=True)
    state = started()
    for hour, symbol in enumerate("AABB"):
        closed(state, hour, symbol=symbol)
        assert locked(state, protections, hour) == {}
    closed(state, 5)
    assert locked(state, protections, 5) == {("stop_guard", "A"): 10}


def test_a_stop_with_a_profit_trips_no_guard():
    state = started()
    for hour in range(3):
        closed(state, hour)
    closed(state, 3, profit=2)
    assert locked(state, GUARDED, 3) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_drawdown", 0.0),
        ("max_drawdown", 1.5),
        ("max_daily_loss", math.nan),
        ("cooldown_s", -1.0),
        ("stop_guard_lock_s", math.inf),
        ("stop_guard_trades", 201),
    ],
)
def test_protections_are_checked_when_made(name, value):
    with pytest.raises(JaxtradeError, match=rf"^{name} is .*: give "):
        Protections(**{name: value})
