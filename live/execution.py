"""Orders on their way: written down, handed over, and never left alone until they have ended.

An order is durable before it is sent. What is not answered in time is UNKNOWN and stays so until
there is evidence; nothing is ever sent a second time. A cancellation that is not answered is asked
for again, then everything in the symbol is cancelled, then the order is UNKNOWN too.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from jaxtrade.live.bookkeeper import Bookkeeper
from jaxtrade.live.brokers.base import Broker, NotConnectedError
from jaxtrade.live.clock import SECOND_NS, Clock
from jaxtrade.live.events import (
    BrokerError,
    Event,
    Leg,
    OrderEvent,
    OrderInitialized,
    OrderIntent,
    OrderLost,
    OrderPendingCancel,
    OrderSubmitted,
    OrderUnknown,
)
from jaxtrade.live.journal import Carry
from jaxtrade.live.orders import Order, OrderStatus
from jaxtrade.live.sections import EngineSettings

CANCELS = 3
"""How often a cancellation is asked for before everything in the symbol is cancelled."""


@dataclasses.dataclass(slots=True)
class Watch:
    """Moments, by the steady clock, at which something is to be done about an order; 0 for none.

    answer_ns: it should have been answered; cancel_ns: its cancellation should have been;
    expire_ns: it is to be cancelled; cancels: how often that was asked for.
    """

    answer_ns: int = 0
    cancel_ns: int = 0
    expire_ns: int = 0
    cancels: int = 0

    def due_ns(self) -> int:
        """The earliest of them, 0 for none."""
        return min(filter(None, (self.answer_ns, self.cancel_ns, self.expire_ns)), default=0)


class Execution:
    """The orders of one account, from the guard to their end.

    is_killed: asked right before anything is sent that is not a closing order; needs_evidence: an
    order is UNKNOWN, and the broker should be asked what it knows.
    """

    def __init__(
        self,
        books: Bookkeeper,
        broker: Broker,
        clock: Clock,
        settings: EngineSettings,
        is_killed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._books, self._broker, self._clock = books, broker, clock
        self._settings = settings
        self._is_killed = is_killed
        self._watched: dict[str, Watch] = {}
        self.needs_evidence = False
        for order in books.state.working_orders():
            self._watch_expiry(order.intent)
            if order.is_canceling:  # asked for before a restart, and not answered
                watch = self._watched.setdefault(order.cid, Watch())
                watch.cancel_ns = self._in(settings.cancel_timeout_s)
        books.listeners.append(self._heard)

    async def submit(
        self,
        intents: Sequence[OrderIntent],
        *,
        before: Sequence[Event] = (),
        carries: Mapping[str, Carry] | None = None,
    ) -> None:
        """Write down what led to orders, and them, in one commit; then hand them over, and only
        then see to all else.

        Raises:
            JournalError: nothing was written, and nothing was sent.
        """
        now_ns = self._clock.wall_ns()
        started = [OrderInitialized(at_ns=now_ns, cid=each.cid, intent=each) for each in intents]
        self._books.intend([*before, *started], carries=carries)
        sent: list[Event] = []
        try:
            for intent in intents:
                sent += await self._hand_over(intent)
        finally:
            self._books.observe(*sent)
            self._books.tell()

    async def cancel(self, order: Order, reason: str) -> None:
        """Ask for the cancellation of an order, once; it is asked for again when it is not
        answered.
        """
        watch = self._watched.setdefault(order.cid, Watch())
        if not watch.cancel_ns:
            await self._ask_to_cancel(order, watch, reason)

    async def cancel_openings(self, reason: str, *, is_all: bool = False) -> None:
        """Cancel the orders of policies; what guards or closes a position works on; is_all: those
        too that reduce one.
        """
        for order in self._books.state.working_orders():
            if order.intent.leg is Leg.TARGET and (is_all or not order.intent.reduce_only):
                await self.cancel(order, reason)

    async def cancel_all(self, reason: str) -> None:
        """Cancel whatever works, ours or not, also where the journal takes nothing."""
        now_ns = self._clock.wall_ns()
        working = self._books.state.working_orders()
        self._books.observe(
            *(OrderPendingCancel(at_ns=now_ns, cid=each.cid, reason=reason) for each in working)
        )
        deadline = self._in(self._settings.cancel_timeout_s)
        for each in working:
            self._watched.setdefault(each.cid, Watch()).cancel_ns = deadline
        try:
            await self._broker.cancel_all_orders()
        except NotConnectedError as error:
            self._note(f"cancel all: {error}")

    @property
    def due_ns(self) -> int | None:
        """When, by the steady clock, `look_after` has something to do."""
        return min((due for each in self._watched.values() if (due := each.due_ns())), default=None)

    async def look_after(self) -> None:
        """Do what is due: orders not answered, cancellations not answered, orders too old."""
        now = self._clock.steady_ns()
        for cid, watch in list(self._watched.items()):
            if not 0 < watch.due_ns() <= now:
                continue
            order = self._books.state.orders.get(cid)
            if order is None or order.is_terminal:
                del self._watched[cid]
                continue
            if 0 < watch.answer_ns <= now:
                watch.answer_ns = 0
                seconds = self._settings.ack_timeout_s
                self._doubt([order], f"no answer of the broker in {seconds:g} s")
            if 0 < watch.expire_ns <= now:
                watch.expire_ns = 0
                await self.cancel(order, "not filled in time")
            if 0 < watch.cancel_ns <= now:
                await self._insist(order, watch)

    def lost_sight(self, reason: str) -> None:
        """The connection is gone: what was sent and not answered may or may not be there."""
        self._doubt(
            (
                each
                for each in self._books.state.working_orders()
                if not each.is_answered and each.status is not OrderStatus.UNKNOWN
            ),
            reason,
        )

    async def _hand_over(self, intent: OrderIntent) -> list[Event]:
        """Hand an order over; what is to be booked of that."""
        if intent.leg is not Leg.CLOSE and self._is_killed():  # looked at last, right before
            reason = "not handed over: killed"
            return [OrderLost(at_ns=self._clock.wall_ns(), cid=intent.cid, reason=reason)]
        watch = Watch(answer_ns=self._in(self._settings.ack_timeout_s))
        self._watched[intent.cid] = watch
        self._watch_expiry(intent)
        try:
            await self._broker.submit_order(intent)
        except NotConnectedError as error:  # which an adapter raises only where nothing went out
            reason = f"not handed over: {error}"
            return [OrderLost(at_ns=self._clock.wall_ns(), cid=intent.cid, reason=reason)]
        except Exception as error:  # an adapter that fails otherwise may have sent it
            self._doubt([self._books.state.orders[intent.cid]], f"submit failed: {error!r}"[:200])
            return []
        return [OrderSubmitted(at_ns=self._clock.wall_ns(), cid=intent.cid)]

    async def _ask_to_cancel(self, order: Order, watch: Watch, reason: str) -> None:
        watch.cancels += 1
        watch.cancel_ns = self._in(self._settings.cancel_timeout_s)
        now_ns = self._clock.wall_ns()
        self._books.observe(OrderPendingCancel(at_ns=now_ns, cid=order.cid, reason=reason))
        try:
            await self._broker.cancel_order(order.cid)
        except NotConnectedError as error:
            self._note(f"cancel: {error}", order.cid)

    async def _insist(self, order: Order, watch: Watch) -> None:
        if watch.cancels < CANCELS:
            await self._ask_to_cancel(order, watch, f"not answered, try {watch.cancels + 1}")
        elif watch.cancels == CANCELS:
            watch.cancels += 1
            watch.cancel_ns = self._in(self._settings.cancel_timeout_s)
            self._note("a cancellation is not answered: cancelling all of the symbol", order.cid)
            try:
                await self._broker.cancel_all_orders(order.intent.symbol)
            except NotConnectedError as error:
                self._note(f"cancel all: {error}", order.cid)
        else:
            watch.cancel_ns = 0
            self._doubt([order], "its cancellation is not answered")

    def _doubt(self, orders: Iterable[Order], reason: str) -> None:
        now_ns = self._clock.wall_ns()
        events = [OrderUnknown(at_ns=now_ns, cid=each.cid, reason=reason) for each in orders]
        if events:
            self._books.observe(*events, durable=True)
            self.needs_evidence = True

    def _heard(self, event: Event) -> None:
        """Follow what is heard of the orders that are watched."""
        if not isinstance(event, OrderEvent):
            return
        watch = self._watched.get(event.cid)
        order = self._books.state.orders.get(event.cid)
        if watch is None or order is None:
            return
        if order.is_terminal:
            del self._watched[event.cid]
        else:
            if order.is_answered:
                watch.answer_ns = 0
            if not order.is_canceling and order.status is not OrderStatus.UNKNOWN:
                watch.cancel_ns = watch.cancels = 0

    def _watch_expiry(self, intent: OrderIntent) -> None:
        if intent.expires_ns:
            left_ns = max(intent.expires_ns - self._clock.wall_ns(), 1)
            watch = self._watched.setdefault(intent.cid, Watch())
            watch.expire_ns = self._clock.steady_ns() + left_ns

    def _in(self, seconds: float) -> int:
        return self._clock.steady_ns() + round(seconds * SECOND_NS)

    def _note(self, text: str, cid: str = "") -> None:
        self._books.observe(
            BrokerError(at_ns=self._clock.wall_ns(), code=0, text=text[:300], cid=cid)
        )
