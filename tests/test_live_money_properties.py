"""What must hold of planning and guard, whatever the targets, the orders and the fills."""

import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrade.live.events import Leg
from jaxtrade.live.exits import close, exits
from jaxtrade.live.guard import check
from jaxtrade.live.limits import GuardLimits
from jaxtrade.live.planning import plan
from jaxtrade.live.scene import rests, signed
from tests.guard_cases import view_of
from tests.live_orders import exit_of, instrument, intent_of, order_of, scene_of, terms_of

STEPS = ("1", "0.5", "0.01", "1e-10")
WIDE = GuardLimits(max_exposure=9, max_gross=9, max_net=9, max_order=9, margin_rate=0.01)


@st.composite
def scenes(draw):
    """A scene of A at 100 with an equity of 1,000, in steps, with orders under way."""
    step = Decimal(draw(st.sampled_from(STEPS)))

    def units(least, most):
        return draw(st.integers(int(least / step), int(most / step))) * step

    position = draw(st.sampled_from([Decimal(0), Decimal(5), units(-15, 15)]))
    orders = []
    side = draw(st.sampled_from([1, -1]))
    for number in range(draw(st.integers(0, 2))):
        quantity = side * units(1, 6)
        orders.append(
            order_of(
                intent_of(quantity, cid=f"trade {number}"),
                remaining=min(abs(quantity), units(1, 6)),
                is_canceling=draw(st.booleans()) and draw(st.booleans()),
                is_doubtful=draw(st.booleans()) and draw(st.booleans()),
            )
        )
    if position and draw(st.booleans()):
        size = -position if draw(st.booleans()) else -position / 2 // step * step
        if size:
            price = 90 if position > 0 else 110
            orders.append(order_of(exit_of(size, price, cid="stop")))
    return scene_of(
        position,
        *orders,
        step=str(step),
        instruments={"A": instrument(step=str(step), price_step=Decimal("0.01"))},
    )


targets = st.one_of(st.sampled_from([0.0, 0.5, -0.5, 1.0]), st.floats(-1.5, 1.5, width=32))
terms = st.builds(
    terms_of,
    no_trade_band=st.sampled_from([0.0, 0.05]),
    stop_loss=st.sampled_from([0.0, 0.07]),
    take_profit=st.sampled_from([0.0, 0.2]),
)


def committed(scene):
    """Units once all is filled that may fill, signed."""
    total = scene.positions["A"]
    for order in scene.orders:
        if not (rests(order.intent) or order.is_doubtful):
            total += signed(order.intent.side, order.remaining)
    return total


def trades(intents):
    """Signed units of the orders to trade now."""
    return [signed(one.side, one.quantity) for one in intents if not rests(one)]


@given(scenes(), terms, targets, st.booleans())
@settings(max_examples=200, deadline=None)
def test_plans_keep_to_their_rules(scene, terms, target, is_reducing):
    made = plan(terms, {"A": target}, scene, start_s=60, is_reducing=is_reducing)
    wanted = trades(made.intents)
    known = [
        order
        for order in scene.orders
        if not (rests(order.intent) or order.is_canceling or order.is_doubtful)
    ]
    sides = {order.intent.side for order in known}
    sides |= {one.side for one in made.intents if not rests(one)}
    assert len(sides) <= 1  # nothing opposes anything
    assert not (made.cancels and wanted)
    assert set(made.cancels) <= {order.intent.cid for order in known}
    assert len({one.cid for one in made.intents}) == len(made.intents)

    step = scene.instruments["A"].quantity_step
    before, after = committed(scene), committed(scene) + sum(wanted)
    assert all(units % step == 0 for units in wanted)
    is_settled = len(known) == sum(not rests(order.intent) for order in scene.orders)
    if is_reducing:
        assert abs(after) <= abs(before)
        assert after * before >= 0
    elif is_settled and not made.cancels and not made.waiting:
        miss = abs(float(after) * 100.0 / 1_000.0 - target)
        assert miss <= max(terms.no_trade_band, 1e-5) * 1.001 + float(step) * 0.1 + 1e-9
        assert target != 0 or after == 0


@given(scenes(), terms, targets)
@settings(max_examples=200, deadline=None)
def test_the_guard_has_nothing_against_what_is_planned(scene, terms, target):
    """And what one calls reduce-only the other finds to be so."""
    plans = [
        plan(terms, {"A": target}, scene, start_s=60),
        close(terms, "A", scene, start_s=61),
        exits(terms, "A", scene, start_s=62),
        exits(terms, "A", scene, start_s=63, is_overdue=True),
    ]
    for made in plans:
        view = view_of(
            limits=WIDE,
            positions=scene.positions,
            orders=[order for order in scene.orders if order.intent.cid not in made.cancels],
            instruments=scene.instruments,
            agents={"a": 1_000.0},
        )
        batch = []
        for intent in made.intents:
            assert check(intent, view, batch) is None
            batch.append(intent)


@given(scenes(), terms)
@settings(max_examples=100, deadline=None)
def test_exits_cover_what_is_held(scene, terms):
    made = exits(terms, "A", scene, start_s=60)
    kept = [order for order in scene.orders if order.intent.cid not in made.cancels]
    left = scene.positions["A"]
    for order in scene.orders:
        reduces = signed(order.intent.side, order.remaining)
        is_known = not (rests(order.intent) or order.is_canceling or order.is_doubtful)
        if is_known and reduces * scene.positions["A"] < 0:
            left += reduces
    if not terms.stop_loss or left * scene.positions["A"] <= 0:
        return
    cover = sum(
        (signed(one.side, one.quantity) for one in made.intents if one.leg is Leg.STOP_LOSS),
        Decimal(0),
    )
    for order in kept:
        if order.intent.leg is Leg.STOP_LOSS:
            cover += signed(order.intent.side, order.remaining)
    assert cover * left < 0
    assert abs(cover) >= abs(left)


def wild(seed, num_orders):
    """Two agents send whatever comes to mind; fills, cancels and lost answers come as they like.

    Prices and equity stand still. Gives the gross exposure after each event, as a fraction.
    """
    draw = random.Random(seed)
    limits = GuardLimits(
        max_exposure=0.6, orders_per_minute=10**6, orders_per_minute_agent=10**6,
        orders_per_minute_symbol=10**6, orders_per_day=10**6, turnover_per_day=10.0**6,
    )  # fmt: skip
    positions = dict.fromkeys("ABC", Decimal(0))
    orders, owners = [], {"A": "a", "B": "a", "C": "b"}
    view = view_of(
        limits=limits, positions=positions, orders=orders, agents={"a": 700.0, "b": 700.0}
    )
    sent = refused = 0
    for number in range(num_orders):
        symbol = draw.choice("ABC")
        intent = intent_of(
            draw.choice([-1, 1]) * draw.randint(1, 8),
            symbol,
            agent=owners[symbol],
            cid=str(number),
            reduce_only=draw.random() < 0.3,
        )
        if check(intent, view) is None:
            orders.append(order_of(intent))
            sent += 1
        else:
            refused += 1
        for order in draw.sample(orders, len(orders) // 2):
            part = min(Decimal(draw.randint(0, 8)), order.remaining)
            order.is_doubtful = draw.random() < 0.1
            if draw.random() < 0.1 or (order.intent.reduce_only and _would_turn(order, positions)):
                orders.remove(order)  # cancelled, or not reducing any more
                continue
            symbol = order.intent.symbol
            held = positions[symbol]
            if order.intent.reduce_only:
                part = min(part, abs(held))
            positions[symbol] = held + signed(order.intent.side, part)
            order.remaining -= part
            if not order.remaining:
                orders.remove(order)
        yield positions
    assert min(sent, refused) > num_orders // 10


def _would_turn(order, positions):
    """A broker lets no reduce-only order open anything."""
    return positions[order.intent.symbol] * order.intent.side.sign >= 0


@pytest.mark.parametrize("seed", range(3))
def test_no_orders_of_any_agents_exceed_the_limits_however_they_fill(seed):
    most = 0.0
    for positions in wild(seed, 400):
        values = {symbol: float(units) * 0.1 for symbol, units in positions.items()}
        gross = sum(map(abs, values.values()))
        assert gross <= 1.25 + 1e-9
        assert abs(sum(values.values())) <= 1.25 + 1e-9
        assert max(map(abs, values.values())) <= 0.6 + 1e-9
        assert abs(values["A"]) + abs(values["B"]) <= 1.25 * 0.7 + 1e-9
        assert abs(values["C"]) <= 1.25 * 0.7
        most = max(most, gross)
    assert most > 1.0  # it was tried
