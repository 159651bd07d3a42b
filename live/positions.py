"""Where the position of a symbol stands: a function of the state, and of what the broker holds."""

import enum
from decimal import Decimal

from jaxtrade.live.events import Leg
from jaxtrade.live.executions import EXACT, NONE
from jaxtrade.live.orders import Order, OrderStatus
from jaxtrade.live.scene import EXITS
from jaxtrade.live.state import State

_CONFIRMED = (OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED)


class PositionStatus(enum.StrEnum):
    """What a position is, the first of these that holds.

    MISMATCH: the broker holds another quantity; ORPHAN: held, and nobody's; OPENING: nothing held,
    and an order works that is not an exit; FLAT: nothing held; CLOSING: orders work that leave
    nothing, or turn it around; UNPROTECTED: its owner wants a stop, and none covers it at the
    broker; OPEN: the rest.
    """

    MISMATCH = "mismatch"
    ORPHAN = "orphan"
    OPENING = "opening"
    FLAT = "flat"
    CLOSING = "closing"
    UNPROTECTED = "unprotected"
    OPEN = "open"


def position_status(
    state: State,
    symbol: str,
    *,
    wants_stop: bool = False,
    broker_quantity: Decimal | None = None,
    tolerance: Decimal = NONE,
) -> PositionStatus:
    """Where the position of a symbol stands.

    wants_stop: whether its owner has it guarded by a stop-loss at the broker; broker_quantity:
    signed units that the broker holds, None where that was not asked; tolerance: units that the two
    may be apart.
    """
    quantity = state.quantity(symbol)
    if broker_quantity is not None and abs(EXACT.subtract(broker_quantity, quantity)) > tolerance:
        return PositionStatus.MISMATCH
    if quantity and not state.owner(symbol):
        return PositionStatus.ORPHAN
    orders = state.working_orders(symbol=symbol)
    trades = [order for order in orders if order.intent.leg not in EXITS]
    if not quantity:
        return PositionStatus.OPENING if trades else PositionStatus.FLAT
    if _against(quantity, trades) >= abs(quantity):
        return PositionStatus.CLOSING
    if wants_stop and not is_covered(state, symbol):
        return PositionStatus.UNPROTECTED
    return PositionStatus.OPEN


def is_covered(state: State, symbol: str) -> bool:
    """Whether stop-losses that the broker has confirmed would close the whole position."""
    quantity = state.quantity(symbol)
    stops = [
        order
        for order in state.working_orders(symbol=symbol)
        if order.intent.leg is Leg.STOP_LOSS and order.status in _CONFIRMED
    ]
    return _against(quantity, stops) >= abs(quantity)


def _against(quantity: Decimal, orders: list[Order]) -> Decimal:
    """Units that orders would still take off a position."""
    total = NONE
    for order in orders:
        if (order.intent.side.sign > 0) != (quantity > 0):
            total = EXACT.add(total, order.remaining)
    return total
