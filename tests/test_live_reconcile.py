"""State beside broker: evidence settles, absence has to be proved, nothing is silent."""

import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrade.live.brokers.base import ClosedOrder, OpenOrder, Position, Snapshot
from jaxtrade.live.events import (
    EngineStarted,
    Leg,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderLost,
    OrderPendingCancel,
    OrderRejected,
    OrderUnknown,
    PositionAdjusted,
    Reconciled,
    Side,
    TradingState,
)
from jaxtrade.live.executions import EXACT, NONE, signed
from jaxtrade.live.orders import OrderStatus
from jaxtrade.live.reconcile import External, Memory, Terms, compare
from jaxtrade.live.state import State
from tests.live_events import (
    START_NS,
    accepted,
    filled,
    initialized,
    intent,
    state_of,
    submitted,
    told,
    traded_by_hand,
)

SECOND = 10**9


def seen(*, held=None, opened=(), closed=(), fills=(), complete=True):
    """A snapshot: quantities held by symbol, orders by intent, executions."""
    return Snapshot(
        at_ns=START_NS,
        equity=1.0,
        cash=1.0,
        positions=tuple(
            Position(symbol=symbol, quantity=Decimal(quantity), price=99.0)
            for symbol, quantity in (held or {}).items()
        ),
        open_orders=tuple(
            OpenOrder(cid=made.cid, broker_id="7", symbol=made.symbol, filled=Decimal(done))
            for made, done in opened
        ),
        closed_orders=tuple(
            ClosedOrder(
                cid=made.cid,
                broker_id="7",
                symbol=made.symbol,
                status=status,
                filled=Decimal(done),
            )
            for made, status, done in closed
        ),
        fills=tuple(fills),
        is_complete=complete,
    )


class Looks:
    """A state that is compared again and again, as an engine does it."""

    def __init__(self, state, **terms):
        self.state, self.memory, self.terms = state, Memory(), Terms(**terms)
        self.steady_ns = 0

    def look(self, snapshot, *, after_s=0.0):
        self.steady_ns += round(after_s * SECOND)
        findings = compare(
            self.state,
            snapshot,
            now_ns=START_NS + 100 + self.steady_ns,
            steady_ns=self.steady_ns,
            memory=self.memory,
            terms=self.terms,
        )
        assert isinstance(findings.events[-1], Reconciled)
        assert findings.events[-1].mismatches == findings.mismatches
        self.state.apply_all(findings.events)
        return findings

    def kinds(self, snapshot, **options):
        return [type(event) for event in self.look(snapshot, **options).events[:-1]]


BUY = intent()
SENT = [initialized(BUY), submitted(BUY)]
UNKNOWN = [*SENT, told(OrderUnknown, BUY)]


# --- executions --------------------------------------------------------------------------------


def test_nothing_is_said_where_all_agree():
    looks = Looks(state_of(*SENT, accepted(BUY), filled(BUY)))
    findings = looks.look(seen(held={"SPY": "10"}, fills=[filled(BUY)]))
    assert len(findings.events) == 1 and findings.again_s is None
    assert (findings.mismatches, findings.pending, findings.orphans) == ((), (), ())


def test_fills_that_were_missed_are_booked_once_and_corrections_too():
    looks = Looks(state_of(*SENT, accepted(BUY)))
    snapshot = seen(
        held={"SPY": "9"},
        closed=[(BUY, "filled", "9")],
        fills=[filled(BUY, "4", execution_id="a"), filled(BUY, "6", execution_id="b")],
    )
    corrected = seen(
        held={"SPY": "9"},
        closed=[(BUY, "filled", "9")],
        fills=[
            filled(BUY, "4", execution_id="a"),
            filled(BUY, "5", execution_id="b", revision=1),
        ],
    )
    findings = looks.look(snapshot)
    assert looks.state.orders[BUY.cid].status is OrderStatus.FILLED
    assert findings.pending == ("SPY: the broker holds 9, booked are 10",)  # not yet corrected
    findings = looks.look(corrected, after_s=1)
    assert findings.mismatches == () and findings.pending == ()
    assert looks.state.quantity("SPY") == 9
    # 9 of 10 are filled, and the broker says that this is all.
    assert looks.kinds(corrected, after_s=30) == [OrderCanceled]
    assert looks.kinds(corrected, after_s=30) == []


def test_incomplete_snapshots_book_what_they_show():
    looks = Looks(state_of(*SENT, accepted(BUY)))
    findings = looks.look(seen(fills=[filled(BUY)], complete=False))
    assert looks.state.quantity("SPY") == 10
    assert not findings.events[-1].is_complete


def test_trades_from_outside_are_booked_and_told():
    looks = Looks(state_of(*SENT, filled(BUY)))
    by_hand = traded_by_hand("4", "101", side=Side.SELL, at_ns=START_NS + 50)
    snapshot = seen(held={"SPY": "6"}, fills=[filled(BUY), by_hand])
    findings = looks.look(snapshot)
    assert findings.mismatches == ("SPY: sell 4 at 101 was traded from outside (execution hand)",)
    assert (looks.state.quantity("SPY"), looks.state.owner("SPY")) == (6, "ppo")
    assert looks.state.mismatches == findings.mismatches
    assert looks.look(snapshot, after_s=30).mismatches == ()


def test_what_was_traded_before_the_first_start_is_not_booked_twice():
    looks = Looks(state_of(EngineStarted(at_ns=START_NS, run_id="r", version="")))
    old = traded_by_hand("4", at_ns=START_NS - 1)
    snapshot = seen(held={"SPY": "4"}, fills=[old])
    assert looks.kinds(snapshot) == []
    assert looks.kinds(snapshot, after_s=1) == [PositionAdjusted]
    assert looks.state.quantity("SPY") == 4


# --- orders ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("snapshot", "kinds", "status"),
    [
        (seen(opened=[(BUY, "0")]), [OrderAccepted], OrderStatus.ACCEPTED),
        (seen(opened=[(BUY, "0")], complete=False), [OrderAccepted], OrderStatus.ACCEPTED),
        (seen(closed=[(BUY, "rejected", "0")]), [OrderRejected], OrderStatus.REJECTED),
        (seen(closed=[(BUY, "canceled", "0")]), [OrderCanceled], OrderStatus.CANCELED),
        (seen(closed=[(BUY, "expired", "0")]), [OrderExpired], OrderStatus.EXPIRED),
    ],
)
@pytest.mark.parametrize("events", [SENT, UNKNOWN])
def test_unknown_is_left_on_evidence(events, snapshot, kinds, status):
    looks = Looks(state_of(*events))
    assert looks.kinds(snapshot) == kinds
    assert looks.state.orders[BUY.cid].status is status
    assert looks.kinds(snapshot, after_s=30) == []


def test_an_order_that_was_filled_meanwhile():
    looks = Looks(state_of(*UNKNOWN))
    looks.look(seen(held={"SPY": "10"}, closed=[(BUY, "filled", "10")], fills=[filled(BUY)]))
    assert looks.state.orders[BUY.cid].status is OrderStatus.FILLED


def test_absence_is_proved_by_two_complete_snapshots_five_seconds_apart():
    looks = Looks(state_of(*UNKNOWN))
    assert looks.kinds(seen(complete=False)) == []
    findings = looks.look(seen(), after_s=10)
    assert findings.events[:-1] == () and findings.again_s == 5.0
    findings = looks.look(seen(), after_s=4.9)
    assert findings.events[:-1] == () and findings.again_s == pytest.approx(0.1)
    assert looks.kinds(seen(complete=False), after_s=1) == []  # proves nothing, breaks nothing
    assert looks.kinds(seen(), after_s=0.1) == [OrderLost]
    assert looks.state.orders[BUY.cid].status is OrderStatus.LOST


def test_an_order_that_shows_up_between_is_not_lost():
    looks = Looks(state_of(*UNKNOWN))
    looks.look(seen())
    assert looks.kinds(seen(opened=[(BUY, "0")]), after_s=6) == [OrderAccepted]
    assert looks.kinds(seen(), after_s=1) == []  # the count starts anew
    assert looks.kinds(seen(), after_s=4) == []


def test_an_order_is_not_lost_while_the_position_is_not_explained():
    looks = Looks(state_of(*UNKNOWN))
    held = seen(held={"SPY": "10"})  # as if its executions were not told
    assert looks.kinds(held) == []
    assert looks.kinds(held, after_s=4) == []
    findings = looks.look(held, after_s=2)
    assert [type(event) for event in findings.events[:-1]] == [PositionAdjusted]
    assert looks.state.orders[BUY.cid].status is OrderStatus.UNKNOWN
    assert looks.kinds(held, after_s=1) == [OrderLost]
    assert looks.state.quantity("SPY") == 10


def test_what_is_on_its_way_is_not_missed():
    looks = Looks(state_of(*SENT))
    for _ in range(3):
        assert looks.kinds(seen(), after_s=10) == []


def test_an_order_that_worked_and_is_gone_is_over_and_told():
    looks = Looks(state_of(*SENT, accepted(BUY)))
    assert looks.kinds(seen()) == []
    findings = looks.look(seen(), after_s=5)
    assert [type(event) for event in findings.events[:-1]] == [OrderCanceled]
    assert findings.mismatches == (f"SPY: order {BUY.cid} worked, and is gone",)


def test_a_lost_order_that_works_after_all_lives_again():
    looks = Looks(state_of(*UNKNOWN, told(OrderLost, BUY)))
    findings = looks.look(seen(opened=[(BUY, "0")]))
    assert looks.state.orders[BUY.cid].status is OrderStatus.ACCEPTED
    assert findings.mismatches == (f"SPY: order {BUY.cid} was LOST and works",)
    assert findings.orphans == ()


def test_a_cancel_that_nobody_answered():
    late = START_NS + 40
    doubtful = [
        *SENT,
        accepted(BUY),
        told(OrderPendingCancel, BUY, at_ns=late),
        told(OrderUnknown, BUY, at_ns=late),
    ]
    looks = Looks(state_of(*doubtful))
    assert looks.state.orders[BUY.cid].is_doubtful
    assert looks.kinds(seen(opened=[(BUY, "0")])) == [OrderAccepted]
    assert not looks.state.orders[BUY.cid].is_doubtful
    looks = Looks(state_of(*doubtful))
    assert looks.kinds(seen(closed=[(BUY, "canceled", "0")])) == [OrderCanceled]


def test_a_broker_that_tells_no_executions():
    looks = Looks(state_of(*SENT, accepted(BUY)))
    snapshot = seen(held={"SPY": "10"}, closed=[(BUY, "filled", "10")])
    line = f"SPY: order {BUY.cid} is filled by 10 at the broker, its executions tell 0"
    assert line in looks.look(snapshot).pending
    assert looks.state.working_orders()
    looks.look(snapshot, after_s=1)
    findings = looks.look(snapshot, after_s=5)
    assert line in findings.mismatches
    assert looks.state.working_orders() == []
    assert looks.state.quantity("SPY") == 10


# --- orders that are not ours ------------------------------------------------------------------


def test_strangers_are_named_for_cancellation():
    stranger = OpenOrder(cid="", broker_id="99", symbol="SPY", filled=NONE)
    snapshot = Snapshot(at_ns=1, equity=1.0, cash=1.0, open_orders=(stranger,))
    findings = Looks(State()).look(snapshot)
    assert findings.orphans == (stranger,)
    assert findings.mismatches == ("SPY: order 99 works at the broker and is not ours",)


def test_an_order_that_is_over_here_and_works_there_has_to_be_seen_twice():
    looks = Looks(state_of(*SENT, told(OrderCanceled, BUY)))
    snapshot = seen(opened=[(BUY, "0")])
    findings = looks.look(snapshot)  # taken before the cancellation, perhaps
    assert (findings.orphans, findings.mismatches, findings.again_s) == ((), (), 1.0)
    findings = looks.look(snapshot, after_s=1)
    assert [order.cid for order in findings.orphans] == [BUY.cid]
    assert "works at the broker and is canceled here" in findings.mismatches[0]


# --- positions ---------------------------------------------------------------------------------


def test_a_position_that_differs_is_adjusted_when_it_is_seen_twice():
    looks = Looks(state_of(*SENT, filled(BUY)), prices={"SPY": 104.5})
    findings = looks.look(seen(held={"SPY": "7"}))
    assert findings.pending == ("SPY: the broker holds 7, booked are 10",)
    assert findings.mismatches == () and findings.again_s == 1.0
    (event, _) = looks.look(seen(held={"SPY": "7"}), after_s=1).events
    assert (event.owner, event.symbol, event.quantity) == ("ppo", "SPY", -3)
    assert event.price == Decimal("104.5")
    assert looks.state.quantity("SPY") == looks.state.books["ppo"].quantity("SPY") == 7


def test_a_position_that_moves_is_not_adjusted():
    looks = Looks(state_of(*SENT, accepted(BUY)))
    opened = [(BUY, "0")]
    for number in range(1, 5):  # the broker fills faster than it tells
        held = {"SPY": str(number)}
        assert looks.kinds(seen(held=held, opened=opened), after_s=2) == []
    looks.state.apply(filled(BUY, "4"))
    findings = looks.look(seen(held={"SPY": "4"}, opened=opened), after_s=2)
    assert (findings.pending, findings.again_s) == ((), None)


def test_an_incomplete_snapshot_is_never_read_as_flat():
    looks = Looks(state_of(*SENT, filled(BUY)))
    for _ in range(5):
        assert looks.kinds(seen(complete=False), after_s=60) == []
    assert looks.state.quantity("SPY") == 10


def test_what_is_no_number_makes_a_snapshot_incomplete():
    looks = Looks(state_of(*UNKNOWN))
    strange = seen(held={"SPY": "NaN"}, opened=[(BUY, "NaN")], fills=[filled(BUY, "NaN")])
    for _ in range(3):
        findings = looks.look(strange, after_s=10)
        assert [type(event) for event in findings.events] == [Reconciled]
        assert not findings.events[0].is_complete
    assert looks.state.orders[BUY.cid].status is OrderStatus.UNKNOWN


def test_positions_of_one_symbol_are_added_up():
    looks = Looks(state_of(*SENT, filled(BUY)))
    parts = [Position(symbol="SPY", quantity=Decimal(part), price=1.0) for part in (14, -4)]
    snapshot = Snapshot(at_ns=1, equity=1.0, cash=1.0, positions=tuple(parts))
    assert looks.look(snapshot).pending == ()


def test_half_a_step_is_no_difference():
    looks = Looks(state_of(*SENT, filled(BUY)), steps={"SPY": Decimal("0.01")})
    for held in ("10.005", "9.995"):
        for _ in range(3):
            assert looks.kinds(seen(held={"SPY": held}), after_s=2) == []
    looks.look(seen(held={"SPY": "10.006"}))
    assert looks.kinds(seen(held={"SPY": "10.006"}), after_s=2) == [PositionAdjusted]


@pytest.mark.parametrize(
    ("external", "trading"),
    [
        (External.ADOPT, TradingState.ACTIVE),
        (External.FLATTEN, TradingState.ACTIVE),
        (External.HALT, TradingState.HALTED),
    ],
)
def test_what_becomes_of_a_position_from_outside(external, trading):
    looks = Looks(State(), external=external, owners={"SPY": "ppo"})
    looks.look(seen(held={"SPY": "5"}))
    assert looks.state.trading is TradingState.ACTIVE
    findings = looks.look(seen(held={"SPY": "5"}), after_s=1)
    assert (looks.state.owner("SPY"), findings.outside) == ("ppo", ("SPY",))
    assert looks.state.quantity("SPY") == 5
    assert (looks.state.trading, looks.state.is_latched) == (
        trading,
        trading is TradingState.HALTED,
    )
    assert len(findings.mismatches) == 1


# --- any history -------------------------------------------------------------------------------


class Account:
    """A broker that knows what really happened, and tells of it what chance lets through."""

    def __init__(self, chance):
        self.chance = chance
        self.intents = [
            intent(
                number,
                symbol=chance.choice(["SPY", "TLT"]),
                side=chance.choice(list(Side)),
                quantity=str(chance.randrange(1, 9)),
                leg=chance.choice(list(Leg)),
            )
            for number in range(chance.randrange(1, 5))
        ]
        self.fates = {}
        self.fills = []
        for made in self.intents:
            self._live(made)
        for number in range(chance.randrange(3)):
            self.fills.append(
                traded_by_hand(
                    str(chance.randrange(1, 5)),
                    execution_id=f"hand{number}",
                    side=chance.choice(list(Side)),
                )
            )

    def _live(self, made):
        fate = self.chance.choice(["never", "open", "filled", "canceled", "rejected", "expired"])
        self.fates[made.cid] = fate
        whole = int(made.quantity)
        done = {"filled": whole, "never": 0, "rejected": 0}.get(fate)
        if done is None:
            done = self.chance.randrange(whole)
        while done:
            part = self.chance.randrange(1, done + 1)
            done -= part
            fill = filled(made, str(part), execution_id=f"{made.cid}-{done}")
            if self.chance.random() < 0.2:  # told wrongly first
                fill = filled(made, str(part), "101", execution_id=f"{made.cid}-{done}", revision=1)
            self.fills.append(fill)

    def held(self):
        total = {}
        for fill in self.fills:
            total[fill.symbol] = EXACT.add(total.get(fill.symbol, NONE), signed(fill))
        return total

    def done(self, made):
        return sum((fill.quantity for fill in self.fills if fill.cid == made.cid), NONE)

    def told_meanwhile(self):
        """Some of what happened, in any order, some of it twice."""
        kinds = {"canceled": OrderCanceled, "rejected": OrderRejected, "expired": OrderExpired}
        events = list(self.fills)
        for made in self.intents:
            fate = self.fates[made.cid]
            events += [submitted(made)]
            if fate not in ("never", "rejected"):
                events.append(accepted(made))
            if fate in kinds:
                events.append(told(kinds[fate], made))
        events = [event for event in events if self.chance.random() < 0.5]
        events += self.chance.choices(events, k=2) if events else []
        self.chance.shuffle(events)
        return [*map(initialized, self.intents), *events]

    def snapshot(self):
        fates = self.fates
        return seen(
            held=self.held(),
            opened=[(made, self.done(made)) for made in self.intents if fates[made.cid] == "open"],
            closed=[
                (made, fates[made.cid], self.done(made))
                for made in self.intents
                if fates[made.cid] not in ("open", "never")
            ],
            fills=self.chance.sample(self.fills, len(self.fills)),
            complete=self.chance.random() < 0.8,
        )


FATES = {
    "never": OrderStatus.LOST,
    "canceled": OrderStatus.CANCELED,
    "rejected": OrderStatus.REJECTED,
    "expired": OrderStatus.EXPIRED,
    "filled": OrderStatus.FILLED,
}


def check_that_it_settles(seed):
    chance = random.Random(seed)
    account = Account(chance)
    looks = Looks(state_of(*account.told_meanwhile()))
    looks.state.apply_all(looks.state.unanswered(START_NS + 50, "crash"))
    for _ in range(40):
        looks.look(account.snapshot(), after_s=2.5)
    state = looks.state
    assert {symbol: state.quantity(symbol) for symbol in account.held()} == account.held()
    assert not any(order.is_doubtful for order in state.working_orders())
    for made in account.intents:
        order, fate = state.orders[made.cid], account.fates[made.cid]
        assert order.filled == account.done(made)
        if fate == "open":
            assert order.status is (
                OrderStatus.PARTIALLY_FILLED if order.filled else OrderStatus.ACCEPTED
            )
        else:
            assert order.status is FATES[fate]
    booked = dict.fromkeys(account.held(), NONE)
    for book in state.books.values():
        for symbol in booked:
            booked[symbol] = EXACT.add(booked[symbol], book.quantity(symbol))
    assert booked == account.held()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_was_missed_is_found(seed):
    check_that_it_settles(seed)


@pytest.mark.slow
@settings(max_examples=3_000, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_was_missed_is_found_always(seed):
    check_that_it_settles(seed)
