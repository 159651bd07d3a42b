"""Orders, instruments and scenes that tests of planning and guard are made from."""

import dataclasses
from decimal import Decimal

from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.events import Leg, OrderIntent, OrderKind, Side
from jaxtrade.live.scene import Scene, Terms

SECOND = 10**9


@dataclasses.dataclass
class Order:
    """What planning and guard know of an order that is not over."""

    intent: OrderIntent
    remaining: Decimal
    is_canceling: bool = False
    is_doubtful: bool = False


def intent_of(units, symbol="A", **fields):
    """An order of a signed quantity."""
    quantity = Decimal(units)
    cid = fields.pop("cid", f"{symbol}{quantity}{fields.get('leg', '')}")
    known = {
        "cid": cid,
        "decision_key": f"key {cid}",
        "agent": "a",
        "symbol": symbol,
        "side": Side.BUY if quantity > 0 else Side.SELL,
        "quantity": abs(quantity),
        "reference_price": 100.0,
    }
    return OrderIntent(**{**known, **fields})


def exit_of(quantity, price, leg=Leg.STOP_LOSS, **fields):
    """A stop or target of a signed quantity."""
    kind = OrderKind.STOP if leg is Leg.STOP_LOSS else OrderKind.LIMIT
    fields = {"kind": kind, "price": Decimal(str(price)), "reduce_only": True, **fields}
    return intent_of(quantity, leg=leg, **fields)


def order_of(intent, **fields):
    """The order of an intent, all of it working."""
    return Order(**{"intent": intent, "remaining": intent.quantity, **fields})


def instrument(symbol="A", step="1", **fields):
    """An instrument with a step of quantity."""
    return Instrument(symbol=symbol, quantity_step=Decimal(step), **fields)


def scene_of(position=0, *orders, step="1", **fields):
    """A scene of one symbol at 100, and equity of 1,000."""
    known = {
        "equity": 1_000.0,
        "prices": {"A": 100.0},
        "positions": {"A": Decimal(position)},
        "orders": orders,
        "instruments": {"A": instrument(step=step)},
        "now_ns": 5 * SECOND,
    }
    return Scene(**{**known, **fields})


def terms_of(**fields):
    """Terms of the agent a."""
    return Terms(**{"agent": "a", **fields})
