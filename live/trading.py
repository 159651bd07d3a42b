"""From a row of bars to orders: decide, plan, guard, write down, send; and exits of positions."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from jaxtrade.live import exits, planning
from jaxtrade.live.account import Account
from jaxtrade.live.brokers.base import NotConnectedError
from jaxtrade.live.clock import SECOND_NS
from jaxtrade.live.desk import Desk
from jaxtrade.live.events import (
    AgentPaused,
    BarDecided,
    EquityMarked,
    Event,
    Leg,
    OrderDenied,
    OrderIntent,
    TradingState,
    TradingStateChanged,
)
from jaxtrade.live.guard import check
from jaxtrade.live.journal import Carry, JournalError
from jaxtrade.live.orders import Order, OrderStatus, decision_key, make_cid
from jaxtrade.live.protections import day_of
from jaxtrade.live.reconcile import External
from jaxtrade.live.rows import Row
from jaxtrade.live.scene import Plan, Terms

DENIED_NS = 60 * SECOND_NS
"""Within which a refusal of the same kind is journalled once."""

REPAIR_NS = 250_000_000
"""Within which exits that a broker refuses are sent again once."""

STRAY_NS = 3 * SECOND_NS
"""Between two orders that are to close what nobody here has."""


class Trading:
    """What the agents of an account want, carried out.

    waiting: symbols in which more is wanted once an order has ended.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self.waiting: set[str] = set()
        self._told_ns: dict[tuple[str, str, str], int] = {}
        self._repaired_ns: dict[str, int] = {}
        self._strays_ns: dict[str, int] = {}

    async def decide(self, desk: Desk, row: Row) -> NDArray[np.float32]:
        """The one decision of an agent on a row of bars, and the orders that it leads to; the
        account f32[3A + 3] that it was told.
        """
        account, symbols = self._account, desk.symbols
        for bar in row:
            account.closes[bar.symbol] = bar.close
        closes = [bar.close for bar in row]
        marked = account.state.books[desk.name].preview(symbols, closes, row[0].start_s)
        now_ns = account.clock.wall_ns()
        made = desk.decide(row, marked.vector, at_ns=now_ns)
        self.waiting.difference_update(symbols)
        for order in account.state.working_orders(agent=desk.name):
            if desk.is_too_old(order.intent):
                await account.execution.cancel(order, "not filled in time")
        plan, verdict = Plan(), made.held
        if not made.held:
            targets = dict(zip(symbols, made.target, strict=True))
            plan = self._plan(desk, targets, 0.0 if marked.is_ruined else marked.equity)
            verdict = "" if plan.intents or plan.cancels or plan.waiting else "held"
        worth = account.worth()
        allowed, denied = self._review(plan.intents, worth)
        verdict = verdict or _verdict(plan, allowed, denied)
        events: list[Event] = [
            desk.event(
                made,
                at_ns=now_ns,
                equity=marked.equity,
                reward=marked.reward,
                verdict=verdict,
            ),
            *denied,
            self._mark(now_ns, math.fsum(worth.values())),
        ]
        if made.failures >= desk.decisions.max_failures:
            events.extend(self._pause(desk, f"{made.failures} failed decisions: {made.held}"))
        carries = {desk.name: Carry(made.start_s, desk.decider.to_bytes())}
        await self._carry_out(plan, allowed, events, carries)
        return marked.vector

    async def replan(self, desk: Desk, symbol: str) -> None:
        """Once more towards the last target of a symbol, after an order has made way."""
        target = desk.target(symbol)
        self.waiting.discard(symbol)
        if target is None or desk.made is None or desk.made.held:
            return
        number = desk.attempts[symbol] = desk.attempts.get(symbol, 0) + 1
        equity = self._account.worth_of(desk)
        await self.carry_out(self._plan(desk, {symbol: target}, equity, attempt=number))

    async def protect(self, desk: Desk, symbol: str, *, is_overdue: bool = False) -> None:
        """Give a position the stop and the target that it is to have, or close it."""
        account = self._account
        if not desk.has_exits:
            return
        if account.trading is TradingState.KILLED:  # what is held then, a person has left so
            return
        plan = exits.exits(
            account.terms(desk),
            symbol,
            account.scene(desk, account.worth_of(desk)),
            start_s=self._start_s(desk),
            attempt=self._attempt(desk, symbol),
            is_overdue=is_overdue,
        )
        if plan.intents:
            self._repaired_ns[symbol] = account.clock.steady_ns()
        await self.carry_out(plan)

    @property
    def _undoes(self) -> bool:
        """Whether what comes from outside is traded away."""
        is_asked = self._account.settings.engine.external == External.FLATTEN
        return is_asked and self._account.may_trade

    def may_repair(self, order: Order) -> bool:
        """Whether exits are looked at right after an order has ended: where a broker refuses one
        after the other, the next try is left to who keeps the house.
        """
        if order.status is not OrderStatus.REJECTED:
            return True
        since = self._repaired_ns.get(order.intent.symbol)
        return since is None or self._account.clock.steady_ns() - since >= REPAIR_NS

    async def watch(self, desk: Desk, symbol: str, price: float) -> None:
        """Close a position whose stop or target is watched here, where a price has reached it."""
        account = self._account
        quantity = account.state.quantity(symbol)
        if not quantity or account.broker.capabilities.holds_exits:
            return
        entry = account.state.trades.entry(symbol) or price
        leg = exits.breached(account.terms(desk), quantity, entry, price)
        if leg is not None:
            await self.close(desk, symbol, leg=leg)

    async def close(self, desk: Desk, symbol: str, *, leg: Leg = Leg.CLOSE) -> None:
        """Close a position at the market."""
        account = self._account
        plan = exits.close(
            account.terms(desk),
            symbol,
            account.scene(desk, account.worth_of(desk)),
            start_s=self._start_s(desk),
            attempt=self._attempt(desk, symbol),
            leg=leg,
        )
        await self.carry_out(plan)

    async def undo(self, symbols: Iterable[str]) -> None:
        """Where the settings say so, trade back to the last target what others have traded."""
        if not self._undoes or self._account.state.was_closed:
            return
        for symbol in symbols:
            desk = self._account.owners.get(symbol)
            if desk is not None:
                await self.replan(desk, symbol)

    async def close_strays(self) -> None:
        """Where the settings say so, close what is held in symbols that no agent has."""
        account, book = self._account, self._account.state.books.get("")
        if book is None or not self._undoes:
            return
        now = account.clock.steady_ns()
        for symbol, held in list(book.holdings.items()):
            since = self._strays_ns.get(symbol)
            if symbol in account.owners or (since is not None and now - since < STRAY_NS):
                continue
            self._strays_ns[symbol] = now
            account.closes.setdefault(symbol, held.price)
            if symbol not in account.instruments:
                try:
                    known = await account.broker.instruments((symbol,))
                except NotConnectedError:
                    return
                account.instruments |= {each.symbol: each for each in known}
            scene = account.scene_of((symbol,), account.equity)
            start_s = scene.now_ns // SECOND_NS
            await self.carry_out(exits.close(Terms(agent=""), symbol, scene, start_s=start_s))

    async def carry_out(self, plan: Plan) -> None:
        """Review a plan and carry out what is left of it."""
        allowed, denied = self._review(plan.intents, self._account.worth())
        await self._carry_out(plan, allowed, [each for each in denied if self._is_news(each)])

    def _is_news(self, event: Event) -> bool:
        """Not so a refusal that was told a moment ago: what guards a position is tried at every
        tick.
        """
        if not isinstance(event, OrderDenied):
            return True
        key, now = (event.agent, event.symbol, event.check), self._account.clock.steady_ns()
        since = self._told_ns.get(key)
        if since is not None and now - since < DENIED_NS:
            return False
        self._told_ns[key] = now
        return True

    async def compensate(self, symbol: str, price: float) -> None:
        """Take back an order whose price has moved away while it was under way, to decide anew."""
        limit = self._account.settings.decisions.max_move
        if not limit:
            return
        for order in self._account.state.working_orders(symbol=symbol):
            is_target = order.intent.leg is Leg.TARGET and not order.is_canceling
            if is_target and planning.is_stale_price(order.intent, price, limit):
                self.waiting.add(symbol)
                await self._account.execution.cancel(order, "the price has moved")

    def _plan(
        self, desk: Desk, targets: Mapping[str, float], equity: float, *, attempt: int = 0
    ) -> Plan:
        """What leads to targets, exposures by symbol, that were decided last."""
        account = self._account
        return planning.plan(
            account.terms(desk),
            targets,
            account.scene(desk, equity),
            start_s=self._start_s(desk),
            attempt=attempt,
            is_reducing=account.is_reducing(desk),
        )

    def _review(
        self, intents: Sequence[OrderIntent], worth: Mapping[str, float]
    ) -> tuple[list[OrderIntent], list[Event]]:
        """Those that the guard lets pass, and what is to be journalled of the others."""
        if not intents:
            return [], []
        account = self._account
        view = account.view((intent.symbol for intent in intents), worth)
        allowed: list[OrderIntent] = []
        denied: list[Event] = []
        for intent in intents:
            refusal = check(intent, view, allowed)
            if refusal is None:
                allowed.append(intent)
                continue
            now_ns = account.clock.wall_ns()
            denied.append(
                OrderDenied(
                    at_ns=now_ns,
                    agent=intent.agent,
                    symbol=intent.symbol,
                    decision_key=intent.decision_key,
                    check=refusal.check,
                    reason=refusal.reason,
                )
            )
            if refusal.halts and account.trading is TradingState.ACTIVE:
                reason = f"{refusal.check}: {refusal.reason}"
                state = TradingState.HALTED
                denied.append(
                    TradingStateChanged(at_ns=now_ns, state=state, reason=reason, is_latched=True)
                )
        return allowed, denied

    async def _carry_out(
        self,
        plan: Plan,
        allowed: Sequence[OrderIntent],
        events: Sequence[Event],
        carries: Mapping[str, Carry] | None = None,
    ) -> None:
        account = self._account
        self.waiting.update(plan.waiting)
        for cid in plan.cancels:
            order = account.state.orders.get(cid)
            if order is not None and order.is_working:
                await account.execution.cancel(order, "another target")
        if not allowed:
            if events:
                account.books.observe(*events, carries=carries)
            return
        try:
            await account.execution.submit(allowed, before=events, carries=carries)
        except JournalError as error:  # nothing of it was sent; that it was decided stays known
            told = [_not_sent(event, str(error)) for event in events]
            account.books.observe(*told, carries=carries)

    def _pause(self, desk: Desk, reason: str) -> list[Event]:
        record = self._account.state.agents.get(desk.name)
        if record is not None and record.paused:
            return []
        now_ns = self._account.clock.wall_ns()
        return [AgentPaused(at_ns=now_ns, agent=desk.name, reason=reason)]

    def _mark(self, now_ns: int, equity: float) -> EquityMarked:
        """The mark of the account at the close of a bar."""
        day = day_of(now_ns, self._account.time_zone)
        return EquityMarked(at_ns=now_ns, equity=equity, day=day)

    def _attempt(self, desk: Desk, symbol: str) -> int:
        """A number that no exit of this decision in this symbol has had, nor before a restart."""
        start_s, orders = self._start_s(desk), self._account.state.orders
        number = desk.attempts.get(symbol, 0) + 1
        while any(
            make_cid(decision_key(desk.name, symbol, start_s, leg, number)) in orders for leg in Leg
        ):
            number += 1
        desk.attempts[symbol] = number
        return number

    def _start_s(self, desk: Desk) -> int:
        """The decision that exits are counted from: the last, if need be of before a restart."""
        if desk.made is not None:
            return desk.made.start_s
        record = self._account.state.agents.get(desk.name)
        return 0 if record is None else record.last_start_s


def _not_sent(event: Event, why: str) -> Event:
    """A decision whose orders could not be journalled."""
    if not isinstance(event, BarDecided):
        return event
    return dataclasses.replace(event, verdict=f"not sent: {why}")


def _verdict(plan: Plan, allowed: Sequence[OrderIntent], denied: Sequence[Event]) -> str:
    """What becomes of a decision."""
    if allowed:
        return "traded"
    for event in denied:
        if isinstance(event, OrderDenied):
            return f"denied: {event.check}"
    if plan.waiting:
        return f"waits: {next(iter(plan.waiting.values()))}"
    return "cancels" if plan.cancels else "held"


def has_ended(order: Order) -> bool:
    """Whether an order made way for another."""
    return order.is_terminal and order.status is not OrderStatus.LOST
