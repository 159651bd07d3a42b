"""Events of one small account, to test what folds, keeps and compares them."""

from decimal import Decimal

from jaxtrade.live import orders
from jaxtrade.live.events import (
    BarDecided,
    FeeReported,
    Leg,
    OrderAccepted,
    OrderFilled,
    OrderInitialized,
    OrderIntent,
    OrderKind,
    OrderSubmitted,
    Side,
)
from jaxtrade.live.state import State

DAY_NS = 86_400 * 10**9
START_NS = 19_700 * DAY_NS
"""A moment in December 2023."""


def intent(number=1, *, agent="ppo", symbol="SPY", side=Side.BUY, quantity="10", **fields):
    leg = fields.setdefault("leg", Leg.TARGET)
    key = orders.decision_key(agent, symbol, number, leg)
    return OrderIntent(
        cid=orders.make_cid(key),
        decision_key=key,
        agent=agent,
        symbol=symbol,
        side=side,
        quantity=Decimal(quantity),
        **fields,
    )


def stop(number=1, *, side=Side.SELL, **fields):
    return intent(
        number,
        side=side,
        leg=Leg.STOP_LOSS,
        kind=OrderKind.STOP,
        price=Decimal(90),
        reduce_only=True,
        **fields,
    )


def initialized(made, at_ns=START_NS):
    return OrderInitialized(at_ns=at_ns, cid=made.cid, intent=made)


def submitted(made, at_ns=START_NS + 1):
    return OrderSubmitted(at_ns=at_ns, cid=made.cid)


def accepted(made, at_ns=START_NS + 2, broker_id=""):
    return OrderAccepted(at_ns=at_ns, cid=made.cid, broker_id=broker_id)


def told(kind, made, at_ns=START_NS + 4, **fields):
    return kind(at_ns=at_ns, cid=made.cid, **fields)


def filled(made, quantity=None, price="100", execution_id="", at_ns=START_NS + 3, **fields):
    fields.setdefault("side", made.side)
    return OrderFilled(
        at_ns=at_ns,
        cid=made.cid,
        execution_id=execution_id or f"x-{made.cid}",
        symbol=made.symbol,
        quantity=made.quantity if quantity is None else Decimal(quantity),
        price=Decimal(price),
        **fields,
    )


def traded_by_hand(quantity, price="100", *, execution_id="hand", side=Side.BUY, **fields):
    fields = {"at_ns": START_NS + 3, "cid": "", "symbol": "SPY", **fields}
    return OrderFilled(
        execution_id=execution_id,
        side=side,
        quantity=Decimal(quantity),
        price=Decimal(price),
        **fields,
    )


def fee(made, amount, execution_id="", at_ns=START_NS + 5, **fields):
    return FeeReported(
        at_ns=at_ns,
        cid=made.cid,
        execution_id=execution_id or f"x-{made.cid}",
        fee=Decimal(amount),
        **fields,
    )


def state_of(*events):
    """The state that events lead to."""
    state = State()
    state.apply_all(events)
    return state


def decided(start_s=3_600, *, agent="ppo", symbols=("SPY",), closes=(100.0,), equity=1e5, **fields):
    many = len(symbols)
    return BarDecided(
        at_ns=START_NS,
        agent=agent,
        start_s=start_s,
        symbols=symbols,
        closes=closes,
        equity=equity,
        **{
            "model": "m",
            "inputs_hash": "ab" * 16,
            "requested": (0.5,) * many,
            "target": (0.4,) * many,
            "action": (0.5,) * many,
            "probabilities": (0.1, 0.2, 0.7),
            "value": 0.1,
            "confidence": 0.7,
            "binding": 0,
            "reward": 0.001,
            "verdict": "traded",
            **fields,
        },
    )
