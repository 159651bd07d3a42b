"""Where positions stand, and the round trips that they make."""

from decimal import Decimal

import pytest

from jaxtrade.live.events import (
    Leg,
    OrderAccepted,
    OrderCanceled,
    OrderPendingCancel,
    OrderUnknown,
    PositionAdjusted,
    Side,
)
from jaxtrade.live.limits import MOST_TRADES
from jaxtrade.live.positions import PositionStatus, is_covered, position_status
from jaxtrade.live.trades import Trades
from tests.live_events import (
    filled,
    initialized,
    intent,
    state_of,
    stop,
    submitted,
    told,
    traded_by_hand,
)

BUY = intent(1)
CLOSE = intent(2, side=Side.SELL, leg=Leg.CLOSE)
STOP = stop(3)
HELD = [initialized(BUY), filled(BUY)]
GUARDED = [*HELD, initialized(STOP), told(OrderAccepted, STOP)]


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], PositionStatus.FLAT),
        ([initialized(BUY)], PositionStatus.OPENING),
        ([initialized(BUY), told(OrderUnknown, BUY)], PositionStatus.OPENING),
        ([initialized(BUY), told(OrderCanceled, BUY)], PositionStatus.FLAT),
        ([initialized(STOP), told(OrderAccepted, STOP)], PositionStatus.FLAT),
        ([initialized(BUY), filled(BUY, "4")], PositionStatus.UNPROTECTED),
        (HELD, PositionStatus.UNPROTECTED),
        ([*HELD, initialized(STOP), submitted(STOP)], PositionStatus.UNPROTECTED),
        ([*HELD, initialized(STOP), told(OrderUnknown, STOP)], PositionStatus.UNPROTECTED),
        (GUARDED, PositionStatus.OPEN),
        ([*GUARDED, told(OrderPendingCancel, STOP)], PositionStatus.OPEN),
        ([*GUARDED, told(OrderCanceled, STOP)], PositionStatus.UNPROTECTED),
        ([*GUARDED, filled(STOP, "4")], PositionStatus.OPEN),
        ([*HELD, initialized(CLOSE)], PositionStatus.CLOSING),
        ([*GUARDED, filled(CLOSE)], PositionStatus.FLAT),
        ([traded_by_hand("3")], PositionStatus.ORPHAN),
        ([*HELD, traded_by_hand("3")], PositionStatus.UNPROTECTED),
    ],
)
def test_status_of_a_guarded_symbol(events, status):
    assert position_status(state_of(*events), "SPY", wants_stop=True) is status


def test_without_a_stop_wanted_nothing_is_unprotected():
    assert position_status(state_of(*HELD), "SPY") is PositionStatus.OPEN


def test_a_stop_must_cover_the_whole_position_from_the_right_side():
    small = stop(3, quantity="6")
    state = state_of(*HELD, initialized(small), told(OrderAccepted, small))
    assert not is_covered(state, "SPY")
    rest = stop(4, quantity="4")
    state.apply_all([initialized(rest), told(OrderAccepted, rest)])
    assert is_covered(state, "SPY")
    wrong = stop(3, side=Side.BUY)
    assert not is_covered(state_of(*HELD, initialized(wrong), told(OrderAccepted, wrong)), "SPY")
    short = intent(1, side=Side.SELL)
    state = state_of(
        initialized(short), filled(short), initialized(wrong), told(OrderAccepted, wrong)
    )
    assert is_covered(state, "SPY")


def test_a_partial_reduction_is_not_closing():
    part = intent(2, side=Side.SELL, quantity="4")
    state = state_of(*HELD, initialized(part))
    assert position_status(state, "SPY") is PositionStatus.OPEN
    more = intent(5, side=Side.SELL, quantity="8")  # with it the position turns around
    state.apply(initialized(more))
    assert position_status(state, "SPY") is PositionStatus.CLOSING


@pytest.mark.parametrize(
    ("held", "tolerance", "is_mismatch"),
    [
        ("10", "0", False),
        ("9", "0", True),
        ("0", "0", True),
        ("9", "1", False),
        ("11.1", "1", True),
    ],
)
def test_mismatch(held, tolerance, is_mismatch):
    status = position_status(
        state_of(*GUARDED),
        "SPY",
        wants_stop=True,
        broker_quantity=Decimal(held),
        tolerance=Decimal(tolerance),
    )
    assert (status is PositionStatus.MISMATCH) is is_mismatch


def test_an_orphan_that_is_adopted_has_an_owner():
    adjust = {"at_ns": 1, "symbol": "SPY", "price": Decimal(100), "reason": "adopted"}
    state = state_of(traded_by_hand("3"))
    state.apply(PositionAdjusted(owner="", quantity=Decimal(-3), **adjust))
    state.apply(PositionAdjusted(owner="ppo", quantity=Decimal(3), **adjust))
    assert position_status(state, "SPY") is PositionStatus.OPEN
    assert state.owner("SPY") == "ppo"
    assert state.books["ppo"].quantity("SPY") == 3
    assert state.books[""].quantity("SPY") == 0


# --- round trips -------------------------------------------------------------------------------


def trades_of(*rows):
    """Rows of (signed quantity, price), at one moment after another."""
    trades = Trades()
    for at_ns, (quantity, price) in enumerate(rows):
        trades.fill("ppo", "SPY", Decimal(quantity), Decimal(price), Leg.TARGET, at_ns)
    return trades


def told_of(trades):
    return [(trade.profit, trade.invested, trade.at_ns) for trade in trades.closed]


@pytest.mark.parametrize(
    ("rows", "closed", "held"),
    [
        ([(10, 100), (-10, 103)], [(30, 1000, 1)], None),
        ([(-10, 100), (10, 103)], [(-30, 1000, 1)], None),
        ([(4, 100), (6, 110), (-3, 105), (-7, 120)], [(95, 1060, 3)], None),
        ([(10, 100), (-15, 90)], [(-100, 1000, 1)], -5),
        ([(10, 100), (-15, 90), (5, 80)], [(-100, 1000, 1), (50, 450, 2)], None),
        ([(10, 100), (-4, 90)], [], 6),
    ],
)
def test_round_trips(rows, closed, held):
    trades = trades_of(*rows)
    assert told_of(trades) == closed
    trade = trades.open.get(("ppo", "SPY"))
    assert (None if trade is None else trade.quantity) == held


def test_fees_and_corrections_of_a_trade():
    trades = trades_of((10, 100), (-10, 103))
    trades.pay("ppo", "SPY", Decimal(2))
    assert told_of(trades) == [(28, 1000, 1)]
    trades.correct("ppo", "SPY", Decimal(0), Decimal(10), Leg.TARGET, 5)  # sold 1 cheaper
    assert told_of(trades) == [(18, 1000, 1)]
    trades.pay("sac", "SPY", Decimal(2))  # no trade of theirs is known: nothing to charge
    assert told_of(trades) == [(18, 1000, 1)]
    trades.fill("ppo", "SPY", Decimal(5), Decimal(50), Leg.TARGET, 6)
    trades.pay("ppo", "SPY", Decimal(1))
    trades.correct("ppo", "SPY", Decimal(-5), Decimal(-250), Leg.TARGET, 7)  # it never was
    assert told_of(trades)[1:] == [(-1, 250, 7)]


def test_entry_prices():
    trades = trades_of((10, 100), (-4, 130), (5, 103), (-3, 90))
    assert trades.entries() == {"SPY": 101.0}
    trades.fill("", "SPY", Decimal(1), Decimal(500), Leg.CLOSE, 9)  # someone's by hand
    trades.fill("ppo", "TLT", Decimal(-2), Decimal(95), Leg.TARGET, 9)
    assert trades.entries() == {"SPY": 101.0, "TLT": 95.0}


def test_only_the_newest_trades_are_kept():
    trades = trades_of(*[(1, 100), (-1, 101)] * (MOST_TRADES + 5))
    assert len(trades.closed) == MOST_TRADES
    assert trades.closed[-1].at_ns == 2 * (MOST_TRADES + 5) - 1
    assert Trades.from_json(trades.to_json()) == trades
