"""The state as a fold: what each event does, that its text reads back, that it stays small."""

import dataclasses
import itertools
import json
from decimal import Decimal

import pytest

from jaxtrade.live import register
from jaxtrade.live.events import (
    AgentPaused,
    AgentResumed,
    BrokerConnected,
    CashMoved,
    EngineStarted,
    EquityMarked,
    Leg,
    ModelSwapped,
    OrderAccepted,
    OrderCanceled,
    OrderDenied,
    OrderUnknown,
    PositionAdjusted,
    ProtectionTripped,
    Rearmed,
    Reconciled,
    SettingsChanged,
    Side,
    TradingState,
    TradingStateChanged,
)
from jaxtrade.live.orders import OrderStatus
from jaxtrade.live.register import KEPT_NS
from jaxtrade.live.state import DEPOSIT, State
from jaxtrade.specs import JaxtradeError
from tests.live_events import (
    DAY_NS,
    START_NS,
    decided,
    fee,
    filled,
    initialized,
    intent,
    state_of,
    submitted,
    told,
    traded_by_hand,
)


def every_kind():
    """A day with something of everything."""
    first, second = intent(1), intent(2, side=Side.SELL, quantity="4")
    return [
        EngineStarted(at_ns=START_NS - 9, run_id="r1", version="1"),
        BrokerConnected(at_ns=START_NS, epoch=3),
        CashMoved(at_ns=START_NS, agent="", amount=Decimal(100_000), reason=DEPOSIT),
        CashMoved(at_ns=START_NS, agent="ppo", amount=Decimal(60_000)),
        EquityMarked(at_ns=START_NS, equity=100_000.0, day=19_700),
        ModelSwapped(at_ns=START_NS, agent="ppo", model="v2", sha256="ab", reason="start"),
        decided(),
        initialized(first),
        submitted(first),
        filled(first, "6"),
        filled(first, "4", execution_id="x2"),
        fee(first, "0.35"),
        initialized(second),
        told(OrderUnknown, second, reason="no answer"),
        filled(second, "1.5", "101.25", fee=Decimal("0.1")),
        traded_by_hand("2", symbol="QQQ"),
        traded_by_hand("1", execution_id="h2"),
        fee(intent(9), "0.2", execution_id="h2"),
        PositionAdjusted(
            at_ns=START_NS,
            owner="sac",
            symbol="TLT",
            quantity=Decimal(-3),
            price=Decimal(95),
            reason="adopted",
        ),
        ProtectionTripped(
            at_ns=START_NS, protection="cooldown", symbol="SPY", until_ns=START_NS + 9, reason="x"
        ),
        AgentPaused(at_ns=START_NS, agent="sac", reason="by hand"),
        SettingsChanged(at_ns=START_NS, version=1, settings={"guard.max_gross": 1.5}, by="me"),
        OrderDenied(
            at_ns=START_NS, agent="ppo", symbol="SPY", decision_key="k", check="c", reason="r"
        ),
        TradingStateChanged(at_ns=START_NS, state=TradingState.REDUCING, reason="looked odd"),
        Reconciled(at_ns=START_NS, mismatches=("SPY: 1",)),
    ]


def test_executions_move_position_book_and_trade():
    buy, sell = intent(1), intent(2, side=Side.SELL, quantity="10", leg=Leg.CLOSE)
    state = state_of(
        CashMoved(at_ns=1, agent="ppo", amount=Decimal(5_000)),
        initialized(buy),
        filled(buy, "10", "100"),
        fee(buy, "1"),
    )
    assert (state.quantity("SPY"), state.owner("SPY")) == (10, "ppo")
    assert state.books["ppo"].cash == 5_000 - 1_000 - 1
    assert state.trades.closed == []
    state.apply_all([initialized(sell), filled(sell, "10", "103", fee=Decimal(2))])
    assert state.quantity("SPY") == 0
    assert state.books["ppo"].cash == 5_000 + 30 - 3
    (trade,) = state.trades.closed
    assert (trade.agent, trade.symbol, trade.leg) == ("ppo", "SPY", Leg.CLOSE)
    assert (trade.profit, trade.invested, trade.at_ns) == (27, 1_000, START_NS + 3)
    state.apply(fee(sell, "5", revision=1))  # instead of 2
    assert state.trades.closed[0].profit == 24
    assert state.books["ppo"].cash == 5_000 + 30 - 6


def test_the_same_execution_is_booked_once_and_a_correction_instead():
    made = intent()
    state = state_of(initialized(made), *[filled(made, "10", "100")] * 5)
    assert state.quantity("SPY") == 10
    state.apply(filled(made, "8", "101", revision=1))
    assert state.quantity("SPY") == 8
    assert state.books["ppo"].cash == -808
    assert state.books["ppo"].quantity("SPY") == 8
    state.apply(filled(made, "0", "0", revision=2))
    assert state.quantity("SPY") == state.books["ppo"].cash == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantity": Decimal("NaN")},
        {"quantity": Decimal(-1)},
        {"price": Decimal("Infinity")},
        {"fee": Decimal("NaN")},
    ],
)
def test_executions_that_are_no_numbers_are_not_booked(wrong):
    made = intent()
    state = state_of(initialized(made))
    digest = state.digest()
    for one in (filled(made), traded_by_hand("1")):
        state.apply(dataclasses.replace(one, **wrong))
    state.apply(fee(made, "NaN"))
    state.last_seq = 1
    assert state.digest() == digest


def test_a_late_fill_of_a_cancelled_order_is_booked():
    made = intent()
    state = state_of(initialized(made), told(OrderCanceled, made))
    assert state.working_orders() == []
    state.apply(filled(made, "4"))
    assert state.quantity("SPY") == 4
    assert state.orders[made.cid].status is OrderStatus.CANCELED


def test_fills_from_outside_are_booked_for_the_owner_or_for_nobody():
    made = intent()
    state = state_of(initialized(made), filled(made), traded_by_hand("4", side=Side.SELL))
    assert (state.quantity("SPY"), state.owner("SPY")) == (6, "ppo")
    assert state.books["ppo"].quantity("SPY") == 6
    state.apply(traded_by_hand("4", side=Side.SELL))
    assert state.quantity("SPY") == 6
    state.apply(traded_by_hand("3", symbol="QQQ", execution_id="other"))
    assert (state.quantity("QQQ"), state.owner("QQQ")) == (3, "")
    assert state.books[""].quantity("QQQ") == 3
    state.apply(fee(intent(7), "0.5", execution_id="other"))
    assert state.books[""].cash == Decimal("-300.5")


@pytest.mark.parametrize("order", range(6))
def test_an_execution_that_is_told_with_and_without_our_id_is_booked_once(order):
    made = intent()
    ours = filled(made, "10", "100", execution_id="e")
    bare = dataclasses.replace(ours, cid="")
    paid = dataclasses.replace(fee(made, "2", execution_id="e"), cid="")
    events = list(itertools.permutations([ours, bare, paid]))[order]
    state = state_of(initialized(made), *events)
    assert state.orders[made.cid].filled == 10 and state.register.outside == {}
    assert state.orders[made.cid].fee == 2
    assert state.quantity("SPY") == state.books["ppo"].quantity("SPY") == 10
    assert state.books["ppo"].cash == -1_002
    state.apply(dataclasses.replace(bare, revision=1, quantity=Decimal(9)))
    assert state.orders[made.cid].filled == state.quantity("SPY") == 9


def test_an_execution_stays_with_the_order_that_it_was_told_of_first():
    one, two = intent(1), intent(2)
    state = state_of(initialized(one), initialized(two), filled(one, "4", execution_id="e"))
    state.apply(filled(two, "4", execution_id="e"))
    assert state.quantity("SPY") == 4
    assert state.orders[two.cid].filled == 0
    read = State.from_json(state.to_json())
    read.apply(filled(two, "4", execution_id="e"))
    assert read.quantity("SPY") == 4


def test_what_nobody_owned_goes_to_whose_order_it_was():
    made = intent()
    ours = filled(made, "10", "100", execution_id="e", fee=Decimal(1))
    state = state_of(dataclasses.replace(ours, cid=""))
    assert state.books[""].quantity("SPY") == 10
    state.apply_all([initialized(made), ours])
    assert state.quantity("SPY") == state.books["ppo"].quantity("SPY") == 10
    assert (state.books[""].cash, state.books["ppo"].cash) == (0, -1_001)
    assert state.trades.entries() == {"SPY": 100.0}


def test_what_was_traded_before_the_first_start_is_in_the_first_snapshot():
    state = state_of(
        EngineStarted(at_ns=START_NS, run_id="r", version=""),
        traded_by_hand("4", at_ns=START_NS - 1),
    )
    assert state.quantity("SPY") == 0
    state.apply(traded_by_hand("4", at_ns=START_NS + 1))
    assert state.quantity("SPY") == 4


def test_a_position_is_adjusted_by_the_difference():
    made = intent()
    state = state_of(initialized(made), filled(made))
    adjust = {"at_ns": 1, "symbol": "SPY", "price": Decimal(100), "reason": "x"}
    state.apply(PositionAdjusted(owner="ppo", quantity=Decimal(-4), **adjust))
    assert (state.quantity("SPY"), state.books["ppo"].quantity("SPY")) == (6, 6)
    state.apply(PositionAdjusted(owner="", quantity=Decimal(1), **adjust))
    assert (state.quantity("SPY"), state.owner("SPY")) == (7, "ppo")
    assert state.books[""].quantity("SPY") == 1


def test_marks_follow_equity_and_leave_deposits_out():
    def mark(equity, day=1):
        return EquityMarked(at_ns=1, equity=equity, day=day)

    state = state_of(mark(100.0), mark(120.0), mark(110.0), mark(105.0, day=2))
    marks = state.marks
    assert (marks.equity, marks.peak_equity) == (105.0, 120.0)
    assert (marks.day, marks.day_start_equity) == (2, 110.0)
    state.apply(CashMoved(at_ns=1, agent="", amount=Decimal(-50), reason=DEPOSIT))
    state.apply(CashMoved(at_ns=1, agent="", amount=Decimal(7), reason="carry"))
    assert (marks.equity, marks.peak_equity, marks.day_start_equity) == (55.0, 70.0, 60.0)
    state.apply(Rearmed(at_ns=1, reason="looked at it"))
    assert (marks.peak_equity, marks.day_start_equity) == (55.0, 55.0)


def test_a_latch_is_left_only_upwards_or_by_a_person():
    def change(to, reason, latched=False):
        return TradingStateChanged(at_ns=1, state=to, reason=reason, is_latched=latched)

    state = state_of(change(TradingState.REDUCING, "a"), change(TradingState.ACTIVE, "b"))
    assert (state.trading, state.trading_reason) == (TradingState.ACTIVE, "b")
    state.apply(change(TradingState.HALTED, "drawdown", latched=True))
    state.apply(change(TradingState.ACTIVE, "reconciled"))
    state.apply(change(TradingState.HALTED, "again"))
    assert (state.trading, state.trading_reason) == (TradingState.HALTED, "drawdown")
    state.apply(change(TradingState.KILLED, "by hand"))
    state.apply(change(TradingState.HALTED, "weaker", latched=True))
    assert (state.trading, state.is_latched) == (TradingState.KILLED, True)
    state.apply(Rearmed(at_ns=1, reason="looked at it"))
    assert (state.trading, state.is_latched) == (TradingState.ACTIVE, False)
    assert state.trading_reason == "looked at it"


def test_locks_last_until_their_end():
    def trip(name, until, at_ns=0):
        return ProtectionTripped(
            at_ns=at_ns, protection=name, symbol="SPY", until_ns=until, reason=""
        )

    state = state_of(trip("cooldown", 10), trip("cooldown", 5), trip("guard", 20))
    assert state.locks == {("cooldown", "SPY"): 10, ("guard", "SPY"): 20}
    state.apply(trip("cooldown", 40, at_ns=30))
    assert state.locks == {("cooldown", "SPY"): 40}


def test_agents_and_settings():
    state = state_of(
        ModelSwapped(at_ns=1, agent="ppo", model="v2", sha256="ab", reason=""),
        AgentPaused(at_ns=1, agent="ppo", reason=""),
        decided(start_s=7_200),
        decided(start_s=3_600),
        SettingsChanged(at_ns=1, version=1, settings={"a": 1, "b": 2}, by="me"),
        SettingsChanged(at_ns=1, version=2, settings={"a": 1}, by="me", is_applied=True),
    )
    record = state.agents["ppo"]
    assert (record.paused, record.model, record.last_start_s) == ("paused", "v2", 7_200)
    assert (state.settings, state.pending_settings) == ({"a": 1}, {"b": 2})
    assert state.settings_version == 2
    state.apply(AgentResumed(at_ns=1, agent="ppo", reason=""))
    assert record.paused == ""


def test_orders_that_nobody_answered():
    sent, unsent, known, unknown = (intent(number) for number in range(4))
    state = state_of(
        *map(initialized, (sent, unsent, known, unknown)),
        submitted(sent),
        told(OrderAccepted, known),
        told(OrderUnknown, unknown),
    )
    assert [event.cid for event in state.unanswered(9, "why")] == [sent.cid, unsent.cid]
    state.apply_all(state.unanswered(9, "why"))
    assert {state.orders[made.cid].status for made in (sent, unsent)} == {OrderStatus.UNKNOWN}
    assert state.unanswered(9, "why") == []


def test_working_orders_by_symbol_and_agent():
    one, two = intent(1), intent(2, agent="sac", symbol="TLT")
    state = state_of(initialized(one), initialized(two))
    assert [order.cid for order in state.working_orders()] == [one.cid, two.cid]
    assert [order.cid for order in state.working_orders(symbol="TLT")] == [two.cid]
    assert [order.cid for order in state.working_orders(agent="ppo")] == [one.cid]
    assert state.working_orders(agent="ppo", symbol="TLT") == []


def test_the_text_reads_back_and_goes_on_alike():
    events = every_kind()
    whole = state_of(*events)
    assert whole.last_seq == len(events)
    for cut in range(len(events) + 1):
        lived = state_of(*events[:cut])
        digest = lived.digest()
        read = State.from_json(json.loads(json.dumps(lived.to_json())))
        assert read.digest() == digest
        for event in events[cut:]:
            read.apply(event)
        assert read.digest() == whole.digest()
        assert read.orders == whole.orders and read.positions == whole.positions


def test_a_digest_tells_states_apart():
    events = every_kind()
    digests = {state_of(*events[:cut]).digest() for cut in range(len(events) + 1)}
    assert len(digests) == len(events) + 1


def test_a_tree_that_is_no_state_is_refused():
    tree = state_of(*every_kind()).to_json()
    with pytest.raises(JaxtradeError, match="a state cannot be read"):
        State.from_json({**tree, "positions": 3})
    with pytest.raises(JaxtradeError, match="version"):
        State.from_json({**tree, "version": -1})


def rounds(count, *, gap_ns=KEPT_NS // 1_500):
    """Orders that are filled and followed by bars, over days."""
    for number in range(count):
        at_ns = START_NS + number * gap_ns
        made = intent(number, side=Side.SELL if number % 2 else Side.BUY)
        yield initialized(made, at_ns)
        yield filled(made, at_ns=at_ns)


def test_what_is_kept_stays_bounded_and_old_fills_are_not_booked_again():
    state = State()
    lasting = intent(10**6, symbol="TLT")
    state.apply(initialized(lasting, START_NS - DAY_NS))
    sizes = []
    for event in rounds(6_000):
        state.apply(event)
        sizes.append(len(state.orders))
    assert max(sizes) <= 1_500 + register.SWEEP_EVERY + 2
    assert state.orders[lasting.cid].is_working  # however old
    old = next(iter(rounds(1)))
    assert old.cid not in state.orders
    held = state.quantity("SPY")
    state.apply(filled(old.intent, at_ns=START_NS))
    assert state.quantity("SPY") == held and state.register.outside == {}
    read = State.from_json(state.to_json())
    for event in rounds(300):
        state.apply(event)
        read.apply(event)
    assert read.digest() == state.digest()


def test_the_newest_orders_are_kept_however_old():
    state = State()
    for event in rounds(1_024, gap_ns=DAY_NS):
        state.apply(event)
    assert len(state.orders) == 1_000
