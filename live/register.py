"""All orders and executions of an account, each booked once, in bounded memory."""

import dataclasses

from jaxtrade.bars import DAY_SECONDS
from jaxtrade.live.clock import SECOND_NS
from jaxtrade.live.events import FeeReported, Leg, OrderEvent, OrderFilled, OrderInitialized
from jaxtrade.live.executions import UNHEARD, Execution, is_newer, is_sane
from jaxtrade.live.holdings import Holdings, execution_of
from jaxtrade.live.orders import Order, advance, begin

KEPT_ORDERS = 1_000
KEPT_NS = 7 * DAY_SECONDS * SECOND_NS
SWEEP_EVERY = 256
"""New orders between two looks for old ones."""


class Register:
    """Orders by cid, oldest first, and what executions of theirs and of others have moved.

    outside: executions of orders not ours, by id; forgotten_ns: UTC up to which executions of
    orders not known are not booked; seen: orders ever; texts: terminal orders as `state_text` wrote
    them, which is no part of the state.
    """

    def __init__(self, holdings: Holdings) -> None:
        self.holdings = holdings
        self.orders: dict[str, Order] = {}
        self.outside: dict[str, Execution] = {}
        self.forgotten_ns = 0
        self.seen = 0
        self.texts: dict[str, tuple[Order, str]] = {}
        self._working: dict[str, Order] = {}
        self._cids: dict[str, str] = {}

    def working(self, symbol: str | None, agent: str | None) -> list[Order]:
        """Orders that are not terminal, of a symbol or an agent where one is given."""
        return [
            order
            for order in self._working.values()
            if (symbol is None or order.intent.symbol == symbol)
            and (agent is None or order.intent.agent == agent)
        ]

    def initialize(self, event: OrderInitialized) -> None:
        """Take an order that was journalled; once."""
        intent = event.intent
        if intent.cid in self.orders:
            return
        self._keep(begin(event))
        self.holdings.own(intent.symbol, intent.agent)
        self.seen += 1
        if self.seen % SWEEP_EVERY == 0:
            self._forget(event.at_ns)

    def advance(self, event: OrderEvent) -> None:
        """Take what is told of one of our orders."""
        order = self.orders.get(event.cid)
        if order is None:
            return
        after = advance(order, event)
        if after is not order:
            self._keep(after)

    def order_of(self, event: OrderFilled | FeeReported) -> Order | None:
        """The order that an execution belongs to: it stays with the first that it was told of, and
        is found by its own id where it is told without ours.
        """
        cid = self._cids.get(event.execution_id, event.cid)
        return self.orders.get(cid)

    def execution(self, event: OrderFilled | FeeReported) -> None:
        """Take what is told of an execution, ours or not, and book what is new in it."""
        if not is_sane(event):  # of an adapter that is wrong; the position will not agree
            return
        order = self.order_of(event)
        if order is None:
            self._execution_outside(event)
            return
        outside = self.outside.pop(event.execution_id, None)
        if outside is not None:  # it was told before without our id
            self.holdings.change(outside.agent, Leg.CLOSE, outside, UNHEARD)
            for told in (outside.fill, outside.reported):
                if told is not None:
                    self._execution_of(order.cid, told)
        self._execution_of(order.cid, event)

    def _execution_of(self, cid: str, event: OrderFilled | FeeReported) -> None:
        if event.cid != cid:
            event = dataclasses.replace(event, cid=cid)
        order, name = self.orders[cid], event.execution_id
        after = advance(order, event)
        if after is not order:
            self._keep(after)
            self._cids[name] = cid
            before, now = execution_of(order, name), execution_of(after, name)
            self.holdings.change(order.intent.agent, order.intent.leg, before, now)

    def _execution_outside(self, event: OrderFilled | FeeReported) -> None:
        if event.at_ns <= self.forgotten_ns:
            return
        before = self.outside.get(event.execution_id, UNHEARD)
        if isinstance(event, FeeReported):
            if not is_newer(before.reported, event):
                return
            after = before._replace(reported=event)
        else:
            if not is_newer(before.fill, event):
                return
            after = before._replace(fill=event)
            if before.fill is None:
                self.holdings.own(event.symbol, "")
                after = after._replace(agent=self.holdings.owner(event.symbol))
        self.outside[event.execution_id] = after
        self.holdings.change(after.agent, Leg.CLOSE, before, after)

    def _keep(self, order: Order) -> None:
        """Put an order in its place."""
        self.orders[order.cid] = order
        if order.is_working:
            self._working[order.cid] = order
        else:
            self._working.pop(order.cid, None)

    def load(self, order: Order) -> None:
        """Take an order as it was written."""
        self._keep(order)
        for name in (*order.fills, *order.fees):
            self._cids[name] = order.cid

    def _forget(self, now_ns: int) -> None:
        """Drop what is terminal, old and beyond the newest."""
        limit = now_ns - KEPT_NS
        spare = len(self.orders) - KEPT_ORDERS
        old: list[Order] = []
        for order in self.orders.values():
            if len(old) >= spare or order.created_ns > limit:
                break
            if order.is_terminal and order.updated_ns <= limit:
                old.append(order)
        for order in old:
            self.forgotten_ns = max(self.forgotten_ns, order.updated_ns)
            del self.orders[order.cid]
            self.texts.pop(order.cid, None)
            for name in (*order.fills, *order.fees):
                del self._cids[name]
        for name, told in list(self.outside.items()):
            if told.at_ns <= self.forgotten_ns:
                del self.outside[name]
