"""What a broker, a market, a disk or a policy may do to an engine, and what must hold then."""

from decimal import Decimal

import numpy as np

from jaxtrade.live.brokers.paper_faults import Faults
from jaxtrade.live.events import (
    AgentPaused,
    BarDecided,
    BrokerConnected,
    OrderAccepted,
    OrderCanceled,
    OrderDenied,
    OrderFilled,
    OrderInitialized,
    OrderLost,
    OrderUnknown,
    PositionAdjusted,
    TradingState,
    TradingStateChanged,
)
from jaxtrade.live.journal import JournalError
from tests.live_runs import BARS, FIRST, after, assert_the_books_agree


def test_nothing_wrong(trade):
    ran = trade()
    assert len(ran.decisions) == BARS - FIRST
    assert {event.verdict for event in ran.decisions} <= {"traded", "held"}
    assert_the_books_agree(ran)


def test_an_acknowledgement_that_is_lost_leaves_an_order_unknown_until_it_is_found(trade):
    ran = trade(Faults(drop_acks=3, fill_share=0.5))
    orders = ran.engine.account.state.orders
    sent, told = ran.of(OrderInitialized)[:3], {event.cid for event in ran.of(OrderAccepted)}
    assert not {event.cid for event in sent} <= told  # answers really were lost
    assert all(orders[event.cid].filled for event in sent)
    assert not [order for order in orders.values() if order.status == "unknown"]
    assert_the_books_agree(ran)


def test_an_order_that_never_arrived_is_lost_only_once_it_is_proved(trade):
    ran = trade(Faults(drop_orders=2))
    lost = ran.of(OrderLost)
    assert len(lost) == 2
    for event in lost:  # doubted first, and its symbol was blocked meanwhile
        (unknown,) = [each for each in ran.of(OrderUnknown) if each.cid == event.cid][:1]
        assert event.at_ns - unknown.at_ns >= 5 * 10**9
    later = [each for each in ran.of(OrderFilled) if each.at_ns > lost[-1].at_ns]
    assert later  # the symbol is free again
    assert_the_books_agree(ran)


def test_fills_told_many_times_late_and_out_of_order_count_once(trade):
    plain = trade()
    noisy = trade(Faults(duplicates=4, latency_ns=10**6, jitter_ns=10**9, seed=3))
    assert_the_books_agree(noisy, rel=1e-4)  # interest is booked once nothing is under way
    assert len(noisy.decisions) == len(plain.decisions)


def test_a_corrected_execution_is_replaced(trade):
    ran = trade(Faults(corrections=5))
    revised = [event for event in ran.of(OrderFilled) if event.revision]
    assert len(revised) == 5
    assert_the_books_agree(ran)


def test_partial_fills_count_for_what_they_are(trade):
    ran = trade(Faults(fill_share=0.3))
    parts = [event.cid for event in ran.of(OrderFilled)]
    assert len(parts) > len(set(parts))
    assert_the_books_agree(ran)


def test_a_fill_after_the_cancellation_is_booked(trade):
    ran = trade(Faults(fill_share=0.4, late_fills=4))
    late = [
        fill
        for fill in ran.of(OrderFilled)
        for end in ran.of(OrderCanceled)
        if end.cid == fill.cid and fill.at_ns >= end.at_ns
    ]
    assert late
    assert_the_books_agree(ran)


def test_fills_while_the_line_was_down_are_booked_before_the_next_decision(trade):
    def prepare(engine):
        def pull(event):
            engine.account.broker.break_connection(bars=1, reason="the plug was pulled")

        after(engine, 1, pull, OrderAccepted)

    ran = trade(prepare=prepare)
    assert len(ran.of(BrokerConnected)) == 2
    kinds = [type(event) for event in ran.events]
    again = len(kinds) - 1 - kinds[::-1].index(BrokerConnected)
    later = [kind for kind in kinds[again:] if kind in (OrderFilled, BarDecided)]
    assert later[0] is OrderFilled
    assert_the_books_agree(ran)


def test_what_others_trade_on_the_account_halts_it(trade):
    def prepare(engine):
        broker = engine.account.broker
        after(engine, 40, lambda event: broker.trade_outside("SYNTH", Decimal(5)))

    ran = trade(prepare=prepare)
    (halt,) = [e for e in ran.of(TradingStateChanged) if e.state is TradingState.HALTED]
    assert "outside" in halt.reason or "holds" in halt.reason
    assert_the_books_agree(ran)


def test_a_policy_that_says_what_is_no_number_is_held_and_then_paused(trade):
    def prepare(engine):
        desk = engine.account.desks["main"]
        decide = desk.decider.policy.decide
        count = [0]

        def broken(*told):
            count[0] += 1
            made = decide(*told)
            return made if count[0] < 20 else made._replace(target=np.full(1, np.nan, np.float32))

        desk.decider.policy.decide = broken

    ran = trade(prepare=prepare)
    (paused,) = ran.of(AgentPaused)
    assert "failed decisions" in paused.reason
    assert not [e for e in ran.of(OrderInitialized) if e.at_ns > paused.at_ns]
    assert len(ran.decisions) == BARS - FIRST  # it goes on seeing bars


def test_without_a_journal_nothing_is_sent_and_nothing_is_forgotten(trade):
    failing = range(30, 60)

    def prepare(engine):
        journal, count = engine.account.books.journal, [0]
        record, submit = journal.record, engine.account.broker.submit_order
        engine.sent_while_failing = []

        def recorded(events=(), **how):
            count[0] += 1
            if count[0] in failing:
                raise JournalError("journal.db: the disk is full")
            return record(events, **how)

        async def submitted(intent):
            if count[0] in failing:
                engine.sent_while_failing.append(intent.cid)
            await submit(intent)

        journal.record, engine.account.broker.submit_order = recorded, submitted

    ran = trade(prepare=prepare)
    assert ran.engine.sent_while_failing == []
    assert ran.engine.account.books.is_sound
    assert any("disk is full" in event.verdict for event in ran.decisions)
    assert_the_books_agree(ran)


def test_a_drawdown_halts_and_outlives_restarts(trade):
    limits = {"protections": {"max_drawdown": 0.005, "flatten": True}}
    ran = trade(folder="lost", **limits)
    (halt,) = [e for e in ran.of(TradingStateChanged) if e.is_latched]
    assert halt.state is TradingState.HALTED
    assert not [e for e in ran.of(OrderInitialized) if e.at_ns > halt.at_ns]
    assert not any(p.quantity for p in ran.engine.account.state.positions.values())
    again = trade(broker=ran.engine.account.broker, folder="lost", **limits)
    assert again.engine.account.state.trading is TradingState.HALTED


def test_a_wall_clock_that_jumps_changes_no_decision(trade):
    plain = trade()

    def prepare(engine):
        deal_with, count = engine.deal_with, [0]

        async def dealt_with(event):
            count[0] += 1
            if count[0] in (50, 120):
                engine.account.clock.jump(3_600_000_000_000 * (1 if count[0] == 50 else -1))
            await deal_with(event)

        engine.deal_with = dealt_with

    jumped = trade(prepare=prepare)
    assert [e.action for e in jumped.decisions] == [e.action for e in plain.decisions]
    assert [e.start_s for e in jumped.decisions] == [e.start_s for e in plain.decisions]


def test_orders_of_a_policy_gone_wild_are_refused_and_trading_halts(trade):
    ran = trade(guard={"orders_per_day": 3, "orders_per_minute": 1, "orders_per_minute_agent": 1})
    denied = ran.of(OrderDenied)
    assert denied
    assert {event.check for event in denied} <= {"rate", "trading"}
    assert ran.engine.account.state.trading is TradingState.HALTED
    assert not ran.of(PositionAdjusted)


def test_a_broker_that_falls_silent_is_noticed_and_connected_to_again(trade):
    def prepare(engine):
        broker = engine.account.broker
        connect = broker.connect

        def freeze(event):
            broker.freeze()
            engine.account.clock.advance(60 * 10**9)

        async def connected():
            broker.thaw()
            await connect()

        after(engine, 30, freeze)
        broker.connect = connected

    ran = trade(prepare=prepare)
    assert len(ran.of(BrokerConnected)) == 2
    assert len(ran.decisions) == BARS - FIRST
    assert_the_books_agree(ran)
