"""Any permutation, duplication or delay of what is heard ends in the same state: exactly."""

import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrade.live.events import (
    FeeReported,
    OrderAccepted,
    OrderCanceled,
    OrderCancelRejected,
    OrderExpired,
    OrderFilled,
    OrderLost,
    OrderPendingCancel,
    OrderRejected,
    OrderSubmitted,
    OrderUnknown,
    Side,
)
from jaxtrade.live.executions import EXACT, NONE, effective_fee, signed
from jaxtrade.live.state import State
from tests.live_events import START_NS, initialized, intent

INTENTS = (
    intent(1),
    intent(2, side=Side.SELL, quantity="7.5"),
    intent(3, agent="sac", symbol="TLT", quantity="0.0000000001"),
)
CIDS = [made.cid for made in INTENTS] + ["", "SOMEONEELSES"]
SYMBOLS = {made.cid: made.symbol for made in INTENTS}
SIDES = {made.cid: made.side for made in INTENTS}

KINDS = (
    OrderSubmitted,
    OrderAccepted,
    OrderExpired,
    OrderUnknown,
    OrderRejected,
    OrderCanceled,
    OrderLost,
    OrderPendingCancel,
    OrderCancelRejected,
)

moments = st.integers(START_NS, START_NS + 6)
amounts = st.integers(0, 10**19).map(lambda units: Decimal(units).scaleb(-10))
reasons = st.sampled_from(["", "a", "b"])


@st.composite
def statements(draw):
    kind = draw(st.sampled_from(KINDS))
    fields = {"at_ns": draw(moments), "cid": draw(st.sampled_from(CIDS[:3]))}
    if kind is OrderAccepted:
        fields["broker_id"] = draw(st.sampled_from(["", "7", "8"]))
    elif kind not in (OrderSubmitted, OrderExpired):
        fields["reason"] = draw(reasons)
    return kind(**fields)


@st.composite
def executions(draw):
    """What is told of one execution: its fill in some revisions, even two of one, and fees."""
    cid = draw(st.sampled_from(CIDS))
    name = f"x{draw(st.integers(1, 4))}-{cid}"
    told = []
    for revision in draw(st.lists(st.integers(0, 2), min_size=1, max_size=3)):
        told.append(
            OrderFilled(
                at_ns=draw(moments),
                cid=draw(st.sampled_from([cid, cid, ""])),
                execution_id=name,
                symbol=SYMBOLS.get(cid, "SPY"),
                side=SIDES.get(cid, Side.BUY),
                quantity=draw(amounts),
                price=draw(amounts),
                fee=draw(st.sampled_from([NONE, Decimal("0.35")])),
                revision=revision,
                middle=draw(st.sampled_from([0.0, 100.0])),
            )
        )
    for revision in draw(st.lists(st.integers(0, 2), max_size=2)):
        told.append(
            FeeReported(
                at_ns=draw(moments),
                cid=draw(st.sampled_from([cid, cid, ""])),
                execution_id=name,
                fee=draw(amounts),
                revision=revision,
            )
        )
    return told


@st.composite
def told_twice(draw):
    """Two tales of the same: the second in another order, with some of it told again."""
    first = draw(st.lists(statements(), max_size=8))
    for some in draw(st.lists(executions(), max_size=4)):
        first += some
    chance = random.Random(draw(st.integers(0, 2**32)))
    second = first + chance.choices(first, k=chance.randrange(7) if first else 0)
    chance.shuffle(second)
    return first, second


def heard(events):
    state = State()
    state.apply_all(map(initialized, INTENTS))
    state.apply_all(events)
    return state


def check_that_both_end_alike(tales):
    first, second = map(heard, tales)
    assert first.orders == second.orders
    assert first.register.outside == second.register.outside
    assert first.positions == second.positions
    assert {order.cid for order in first.working_orders()} == {
        order.cid for order in second.working_orders()
    }
    for agent in {*first.books, *second.books}:
        one, other = first.books[agent], second.books[agent]
        assert one.cash == other.cash
        assert {symbol: held.quantity for symbol, held in one.holdings.items()} == {
            symbol: held.quantity for symbol, held in other.holdings.items()
        }
    check_against_sums(first)
    read = State.from_json(first.to_json())
    assert read.orders == first.orders and read.digest() == first.digest()


def check_against_sums(state):
    """Positions and cash are what the executions say, added up."""
    quantities = dict.fromkeys(("SPY", "TLT"), NONE)
    cash = NONE
    pairs = [(fill, order.fees) for order in state.orders.values() for fill in order.fills.values()]
    pairs += [
        (told.fill, {name: told.reported})
        for name, told in state.register.outside.items()
        if told.fill is not None
    ]
    for fill, fees in pairs:
        quantities[fill.symbol] = EXACT.add(quantities[fill.symbol], signed(fill))
        cash = EXACT.subtract(cash, EXACT.multiply(signed(fill), fill.price))
        cash = EXACT.subtract(cash, effective_fee(fill, fees.get(fill.execution_id)))
    assert {symbol: state.quantity(symbol) for symbol in quantities} == quantities
    total = NONE
    for book in state.books.values():
        total = EXACT.add(total, book.cash)
    assert total == cash
    open_trades = {key: trade.quantity for key, trade in state.trades.open.items()}
    assert open_trades == {
        (agent, symbol): held.quantity
        for agent, book in state.books.items()
        for symbol, held in book.holdings.items()
    }


@settings(max_examples=200, deadline=None)
@given(told_twice())
def test_the_order_of_events_does_not_matter(tales):
    check_that_both_end_alike(tales)


@pytest.mark.slow
@settings(max_examples=5_000, deadline=None)
@given(told_twice())
def test_the_order_of_events_does_not_matter_at_all(tales):
    check_that_both_end_alike(tales)
