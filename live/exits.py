"""Closing positions, and the stops and targets that guard them.

A guarded position has, for each leg that its agent wants, reduce-only orders of the other side that
cover it. They are sent with the order that opens it, at a distance from the price it was decided
at; what is added later is covered by a further order at the same price, so that there is never a
moment without. More cover than position is left to be: reduce-only orders take no more than is
there.
"""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from jaxtrade.live.events import Leg, OrderIntent, OrderKind, Side
from jaxtrade.live.executions import EXACT, NONE
from jaxtrade.live.orders import make_cid
from jaxtrade.live.scene import (
    EXITS,
    Flow,
    Name,
    Plan,
    Scene,
    Terms,
    Working,
    flow_of,
    is_price,
    market_order,
    signed,
    whole,
)


def close(
    terms: Terms,
    symbol: str,
    scene: Scene,
    *,
    start_s: int,
    attempt: int = 0,
    leg: Leg = Leg.CLOSE,
) -> Plan:
    """What closes a position at the market. It waits for nothing: orders that would add to it are
    cancelled, one that reduces it closes its part. The exits stay until the position is gone.

    leg: what the trade counts as: an exit that the engine saw `breached` keeps its own.
    """
    flow = flow_of(symbol, scene)
    away = flow.position.copy_negate()
    if not away:
        return Plan(cancels=(*flow.buys, *flow.sells))
    cancels = flow.against(away)
    if not cancels:
        away = reduction(flow.position, EXACT.subtract(away, flow.in_flight))
    instrument = scene.instruments.get(symbol)
    away = away if instrument is None else whole(away, instrument)
    if not away:
        return Plan(cancels=cancels)
    name = Name(agent=terms.agent, symbol=symbol, start_s=start_s, attempt=attempt)
    return Plan(cancels=cancels, intents=(market_order(terms, name, leg, flow, away, scene),))


def exits(
    terms: Terms,
    symbol: str,
    scene: Scene,
    *,
    start_s: int,
    attempt: int = 0,
    is_overdue: bool = False,
) -> Plan:
    """What gives a position the stop and the target that it is to have: cancels those that guard
    nothing, places those that are missing, closes it where the price is past its stop already.

    Stops that are sent and not answered count as there; is_overdue: it has been without a confirmed
    one for too long, and is closed.
    """
    flow = flow_of(symbol, scene)
    idle = [order for order in flow.exits if not (order.is_canceling or _guards(order, flow))]
    cancels = tuple(order.intent.cid for order in idle)
    stays = EXACT.add(flow.position, reduction(flow.position, flow.in_flight))
    if not (terms.holds_exits and stays):
        return Plan(cancels=cancels)
    closing = close(terms, symbol, scene, start_s=start_s, attempt=attempt)
    closing = Plan(cancels=(*cancels, *closing.cancels), intents=closing.intents)
    if is_overdue and terms.stop_loss:
        return closing
    name = Name(agent=terms.agent, symbol=symbol, start_s=start_s, attempt=attempt)
    parent = next((order.intent.parent for order in flow.exits), "")
    intents: list[OrderIntent] = []
    for leg in EXITS:
        known = [order for order in flow.exits if order.intent.leg is leg and _guards(order, flow)]
        missing = _uncovered(stays, known) if terms.distance(leg) else NONE
        missing = whole(missing, scene.instruments[symbol])
        level = _level(terms, leg, known, stays, scene, symbol)
        if not missing or level is None:
            continue
        if leg is Leg.STOP_LOSS and _is_past(leg, stays, level, scene.reference(symbol)):
            return closing
        intents.append(_exit(name, leg, missing, level, stays, scene, parent))
    return Plan(cancels=cancels, intents=tuple(intents))


def children(
    terms: Terms, name: Name, flow: Flow, entry: OrderIntent, scene: Scene
) -> list[OrderIntent]:
    """The stop and the target that go with an order that opens a position or adds to one."""
    if entry.reduce_only or not terms.holds_exits:
        return []
    quantity = signed(entry.side, entry.quantity)
    after = EXACT.add(flow.committed, quantity)
    is_added = flow.committed * quantity > 0
    found = []
    for leg in EXITS:
        if not terms.distance(leg):
            continue
        known = [order for order in flow.exits if order.intent.leg is leg] if is_added else []
        level = _level(terms, leg, known, after, scene, name.symbol)
        size = entry.quantity if is_added else after.copy_abs()
        size = whole(size, scene.instruments[name.symbol])
        if size and level is not None:
            found.append(_exit(name, leg, size, level, after, scene, entry.cid))
    return found


def breached(terms: Terms, position: Decimal, entry: float, price: float) -> Leg | None:
    """Which exit of a position a price has reached, for brokers that hold none; the stop first."""
    if not (position and is_price(entry) and is_price(price)):
        return None
    for leg in EXITS:
        distance = terms.distance(leg)
        level = entry * (1.0 + _direction(leg, position) * distance)
        if distance and _is_past(leg, position, level, price):
            return leg
    return None


def reduction(position: Decimal, quantity: Decimal) -> Decimal:
    """As much of a signed quantity as takes off a position."""
    if position * quantity >= 0:
        return NONE
    is_part = quantity.copy_abs() <= position.copy_abs()
    return quantity if is_part else position.copy_negate()


def _guards(order: Working, flow: Flow) -> bool:
    """Whether an exit is for the position, or for one that may be opened by what is under way."""
    if flow.is_doubtful or flow.is_canceling:
        return True
    sign = order.intent.side.sign
    return flow.position * sign < 0 or flow.committed * sign < 0


def _uncovered(position: Decimal, exits: list[Working]) -> Decimal:
    """Units of a position that exits do not close."""
    covered = NONE
    for order in exits:
        if order.intent.side.sign * position < 0 and not (order.is_canceling or order.is_doubtful):
            covered = EXACT.add(covered, order.remaining)
    return max(EXACT.subtract(position.copy_abs(), covered), NONE)


def _level(
    terms: Terms, leg: Leg, known: list[Working], position: Decimal, scene: Scene, symbol: str
) -> Decimal | None:
    """The price of an exit: that of the ones there are, else at its distance from the entry, or
    from the price now; None where no price is known. It is rounded away from the entry.
    """
    if known:
        return known[0].intent.price
    entry = scene.entries.get(symbol, math.nan)
    entry = entry if is_price(entry) else scene.reference(symbol)
    direction = _direction(leg, position)
    price = entry * (1.0 + direction * terms.distance(leg))
    if not is_price(price):
        return None
    level, step = Decimal(f"{price:.12g}"), scene.instruments[symbol].price_step
    if not step:
        return level
    rounding = ROUND_CEILING if direction > 0 else ROUND_FLOOR
    steps = EXACT.divide(level, step).to_integral_value(rounding)
    return EXACT.multiply(steps, step)


def _exit(
    name: Name,
    leg: Leg,
    size: Decimal,
    level: Decimal,
    position: Decimal,
    scene: Scene,
    parent: str,
) -> OrderIntent:
    reference = scene.reference(name.symbol)
    key = name.key(leg)
    return OrderIntent(
        cid=make_cid(key),
        decision_key=key,
        agent=name.agent,
        symbol=name.symbol,
        side=Side.SELL if position > 0 else Side.BUY,
        quantity=size,
        kind=OrderKind.STOP if leg is Leg.STOP_LOSS else OrderKind.LIMIT,
        price=level,
        leg=leg,
        parent=parent,
        reduce_only=True,
        reference_price=reference if is_price(reference) else 0.0,
        reference_ns=scene.now_ns,
    )


def _direction(leg: Leg, position: Decimal) -> float:
    """Where an exit is from the entry: 1 above, -1 below."""
    is_above = (position > 0) == (leg is Leg.TAKE_PROFIT)
    return 1.0 if is_above else -1.0


def _is_past(leg: Leg, position: Decimal, level: float | Decimal, price: float) -> bool:
    """Whether a price is at an exit or beyond; not where there is none."""
    return (price - float(level)) * _direction(leg, position) >= 0
