"""From target exposures and what the broker holds to orders.

    made = plan(terms, {"SPY": 0.5}, scene, start_s=start_s)
    made.cancels     # send these first; what waits for their confirmation is in made.waiting
    made.intents     # each goes through the guard, then the journal, then to the broker

The quantity is the one of the backtest (`envs.steps.order_for`, by the same `jaxtrade.sizing`):
sized at the bar's close and the equity then, nothing inside the no-trade band, a target of 0 closes
all. An order under way counts as filled. One that goes the other way is cancelled first, and its
replacement waits until that is confirmed, so that no two orders to trade a symbol oppose each
other. While it is not known how an order stands, nothing is opened in its symbol, and a reduction
is measured by the broker's position alone.

Stops and targets work on beside an order that closes: they are reduce-only, and protect until it is
filled. `exits` has what places, renews and clears them, and what closes for reasons that are not
the policy's.
"""

from collections.abc import Mapping
from decimal import Decimal

from jaxtrade.live.events import Leg, OrderIntent
from jaxtrade.live.executions import NONE
from jaxtrade.live.exits import children, reduction
from jaxtrade.live.quantities import quantities
from jaxtrade.live.scene import (
    Flow,
    Name,
    Plan,
    Scene,
    Terms,
    flow_of,
    is_price,
    market_order,
)


def plan(
    terms: Terms,
    targets: Mapping[str, float],
    scene: Scene,
    *,
    start_s: int,
    attempt: int = 0,
    is_reducing: bool = False,
) -> Plan:
    """Orders that lead to target exposures, fractions of the agent's equity, of some symbols.

    start_s, attempt: of the decision, which the ids of orders follow from: the same plan made twice
    has the same ids, a replacement takes the next attempt; is_reducing: nothing is opened,
    increased or turned round. A target or an equity that is not a number is no order; an equity
    of 0 or less closes everything.
    """
    flows = {symbol: flow_of(symbol, scene) for symbol in targets}
    orders, waiting = quantities(terms, targets, flows, scene, is_reducing=is_reducing)
    cancels: list[str] = []
    intents: list[OrderIntent] = []
    for symbol, wanted in orders.items():
        flow = flows[symbol]
        quantity, reason = _allowed(flow, wanted)
        if reason:
            waiting[symbol] = reason
            cancels += flow.against(wanted)
        if quantity:
            name = Name(agent=terms.agent, symbol=symbol, start_s=start_s, attempt=attempt)
            entry = market_order(terms, name, Leg.TARGET, flow, quantity, scene)
            intents += [entry, *children(terms, name, flow, entry, scene)]
    return Plan(cancels=tuple(cancels), intents=tuple(intents), waiting=waiting)


def is_stale_price(intent: OrderIntent, price: float, limit: float) -> bool:
    """Whether the price has moved by more than `limit`, a fraction, since an order was decided; not
    where either is unknown, or the limit is 0.
    """
    if limit <= 0 or not (is_price(price) and is_price(intent.reference_price)):
        return False
    return abs(price / intent.reference_price - 1.0) > limit


def _allowed(flow: Flow, wanted: Decimal) -> tuple[Decimal, str]:
    """What of a signed quantity may be sent now, and what the rest waits for."""
    if flow.is_canceling or flow.against(wanted):
        return NONE, "the cancellation of an order"
    if flow.is_doubtful:
        quantity = reduction(flow.position, wanted)
        return quantity, "" if quantity == wanted else "an order of which nothing is known"
    return wanted, ""
