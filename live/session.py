"""The connection to the broker: opened, compared, kept, and taken up again where it was lost.

There is one way to start, and it is the one after a crash: connect, compare with what the broker
says until nothing is UNKNOWN, see the bars that were missed, and only then trade.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from decimal import Decimal

from jaxtrade.live import reconcile
from jaxtrade.live.account import Account
from jaxtrade.live.allotment import allotments, hand_overs
from jaxtrade.live.book import CARRY, share_of_difference
from jaxtrade.live.brokers.base import NotConnectedError, Snapshot
from jaxtrade.live.clock import SECOND_NS
from jaxtrade.live.desk import Desk
from jaxtrade.live.events import (
    AccountState,
    AgentPaused,
    Bar,
    BrokerConnected,
    BrokerDisconnected,
    CashMoved,
)
from jaxtrade.live.executions import EXACT
from jaxtrade.live.orders import OrderStatus
from jaxtrade.live.rows import Row
from jaxtrade.live.scene import EXITS
from jaxtrade.live.state import DEPOSIT
from jaxtrade.specs import JaxtradeError

log = logging.getLogger("jaxtrade.session")

PASSES = 4
"""Comparisons at a start before the engine goes on with orders that are still UNKNOWN."""

PAUSE_S = 2.6
"""Between them: a second look that proves an order absent comes 5 seconds after the first."""

LOOKS, LOOK_S = 10, 0.5
"""At positions that are being closed at the end, and seconds between them."""

KEPT_BARS = 2_000
"""Of the history before, that are shown to who watches market data."""


class Session:
    """One account's connection; `beat` is called while it waits.

    compared_ns, again_ns: by the steady clock, when state and broker were compared last, and when
    that is to be done again before its time, 0 for not; outside: symbols in which the last
    comparison found that somebody else has traded; is_lost: set while there is no connection.
    """

    def __init__(self, account: Account, beat: Callable[[], object]) -> None:
        self._account = account
        self._beat = beat
        self._memory = reconcile.Memory()
        self._difference: Decimal | None = None
        self._is_closing = False
        self.compared_ns = 0
        self.again_ns = 0
        self.outside: tuple[str, ...] = ()
        self.is_lost = asyncio.Event()

    async def open(self) -> list[tuple[Desk, Row]]:
        """Connect, compare, and bring the agents up to date.

        Returns rows that are still to be decided: those that ended while nobody was there and are
        the newest there are.

        Raises:
            NotConnectedError: it has to be tried again.
            JaxtradeError: the broker does not know a symbol, or has too little history.
        """
        account = self._account
        account.is_reconciling = True
        await account.broker.connect()
        account.epoch = account.state.epoch + 1
        now_ns = account.clock.wall_ns()
        account.books.observe(BrokerConnected(at_ns=now_ns, epoch=account.epoch))
        account.is_connected = True
        self.is_lost.clear()
        await self._look_up()
        if not await self.settle():
            raise NotConnectedError("the broker does not say completely what is held")
        await self._allot()
        account.rates.restore(
            account.state.orders.values(),
            equity=account.equity,
            wall_ns=account.clock.wall_ns(),
        )
        rows = [(desk, row) for desk in account.desks.values() if (row := await self._begin(desk))]
        for seconds in sorted({desk.bar_seconds for desk in account.desks.values()}):
            symbols = [
                symbol for symbol, desk in account.owners.items() if desk.bar_seconds == seconds
            ]
            await account.broker.subscribe(tuple(symbols), bar_seconds=seconds)
        account.is_reconciling = False
        return rows

    async def pause(self) -> None:
        """Before the next try to connect."""
        await self._wait(self._account.settings.engine.connect_s)

    def lost(self, reason: str) -> None:
        """The connection is gone: nothing is known of what was not answered."""
        account = self._account
        if account.is_connected:
            now_ns = account.clock.wall_ns()
            account.books.observe(BrokerDisconnected(at_ns=now_ns, reason=reason))
        elif not self.is_lost.is_set():  # later tries say nothing new
            log.warning("no connection to the broker: %s", reason)
        account.is_connected = False
        account.is_reconciling = True
        self.is_lost.set()
        account.execution.lost_sight(f"the connection was lost: {reason}")

    async def settle(self) -> bool:
        """Compare until nothing is UNKNOWN, or it has taken too long; whether the broker said all
        that it holds at least once.
        """
        account = self._account
        was_complete = False
        for number in range(PASSES):
            if number:
                await self._wait(PAUSE_S)
            is_complete = await self.compare()
            if not account.is_connected:
                return False
            was_complete |= is_complete
            unknown = [
                order
                for order in account.state.working_orders()
                if order.status is OrderStatus.UNKNOWN or order.is_doubtful
            ]
            if is_complete and not unknown:
                return True
        return was_complete

    async def compare(self) -> bool:
        """Ask the broker what it knows, and book what follows from it; whether it said all."""
        account, books = self._account, self._account.books
        account.execution.needs_evidence = False
        try:
            snapshot = await account.broker.snapshot()
        except NotConnectedError as error:
            self.lost(str(error))
            return False
        self.compared_ns = account.clock.steady_ns()
        found = reconcile.compare(
            account.state,
            snapshot,
            now_ns=account.clock.wall_ns(),
            steady_ns=self.compared_ns,
            memory=self._memory,
            terms=self._terms(),
        )
        if len(found.events) > 1 or found.mismatches != account.state.mismatches:
            books.observe(*found.events, durable=True)
        self.outside = found.outside
        self.again_ns = 0
        if found.again_s is not None:
            self.again_ns = self.compared_ns + round(found.again_s * SECOND_NS)
        if snapshot.is_complete:
            held = reconcile.held_by(snapshot)
            symbols = {*held, *account.owners, *account.state.positions}
            account.reported = {symbol: held.get(symbol, Decimal(0)) for symbol in symbols}
            self.see_account(
                AccountState(at_ns=snapshot.at_ns, equity=snapshot.equity, cash=snapshot.cash)
            )
            self._book_cash(snapshot)
        await self._clean(found)
        return snapshot.is_complete

    def see_account(self, told: AccountState) -> None:
        """Keep what the broker says of the account; book what is neither fill nor fee."""
        if not (math.isfinite(told.equity) and math.isfinite(told.cash)):
            return  # what is no number is no news
        self._account.told = told
        if self._account.broker.capabilities.books_at_once and self._account.state.books:
            self._share(Decimal(repr(told.cash)))

    async def see_closed(self) -> None:
        """After everything was closed at the end: book what that led to, so that the next start is
        not surprised by it.
        """
        self._is_closing = True
        for number in range(LOOKS):
            if number:
                await self._wait(LOOK_S)
            await self.compare()
            if not (self._account.is_connected and any(self._account.reported.values())):
                return

    async def _clean(self, found: reconcile.Findings) -> None:
        """Cancel orders that are not ours to keep."""
        account = self._account
        try:
            for order in found.orphans:
                if order.cid:
                    await account.broker.cancel_order(order.cid)
                else:
                    await account.broker.cancel_all_orders(order.symbol)
        except NotConnectedError as error:
            self.lost(str(error))

    def _terms(self) -> reconcile.Terms:
        """How to compare. What is closed without an order of ours by the kill switch or a limit,
        while nothing is traded or no engine was there, is no surprise.
        """
        account = self._account
        external = reconcile.External(account.settings.engine.external)
        if self._is_closing or account.state.was_closed or not account.may_trade:
            external = reconcile.External.ADOPT
        return reconcile.Terms(
            external=external,
            steps={name: known.quantity_step for name, known in account.instruments.items()},
            owners={symbol: desk.name for symbol, desk in account.owners.items()},
            prices=account.closes,
        )

    def _book_cash(self, snapshot: Snapshot) -> None:
        """Book a difference of cash that two comparisons in a row have shown while nothing was
        under way; at the very first comparison the account's whole worth is one.
        """
        account = self._account
        cash = Decimal(repr(snapshot.cash))
        if not account.state.books:
            self._share(cash)
            return
        if account.broker.capabilities.books_at_once or account.state.working_orders():
            self._difference = None
            return
        difference = EXACT.subtract(cash, self._cash())
        if difference == self._difference:
            self._share(cash)
            difference = Decimal(0)
        self._difference = difference

    def _share(self, cash: Decimal) -> None:
        """Book what the broker has in cash beyond the books."""
        account = self._account
        difference = float(EXACT.subtract(cash, self._cash()))
        shares = share_of_difference(
            account.state.books, account.equity + difference, account.closes
        )
        now_ns = account.clock.wall_ns()
        account.books.observe(
            *(
                CashMoved(
                    at_ns=now_ns, agent=agent, amount=amount, reason=CARRY if agent else DEPOSIT
                )
                for agent, amount in shares.items()
            )
        )

    def _cash(self) -> Decimal:
        total = Decimal(0)
        for book in self._account.state.books.values():
            total = EXACT.add(total, book.cash)
        return total

    async def _allot(self) -> None:
        """See to it that every agent has its part, every symbol its owner, and no order of who is
        configured no more works on; a stop does, where nobody else has its position.
        """
        account = self._account
        books, now_ns = account.state.books, account.clock.wall_ns()
        owners = {symbol: desk.name for symbol, desk in account.owners.items()}
        budgets = {name: desk.settings.budget for name, desk in account.desks.items()}
        allotted = allotments(books, budgets, account.closes, now_ns=now_ns)
        account.books.observe(*allotted, durable=True)
        handed = hand_overs(books, owners, account.closes, now_ns=now_ns)
        account.books.observe(*handed, durable=True)
        for order in account.state.working_orders():
            intent = order.intent
            owner = owners.get(intent.symbol, "")
            is_left = not owner and intent.leg in EXITS
            if owner != intent.agent and not is_left:
                await account.execution.cancel(order, "its agent is not configured any more")

    async def _look_up(self) -> None:
        account = self._account
        symbols = tuple(account.owners)
        known = await account.broker.instruments(symbols)
        account.instruments = {instrument.symbol: instrument for instrument in known}
        missing = [symbol for symbol in symbols if symbol not in account.instruments]
        if missing:
            raise JaxtradeError(
                f"the broker does not know {', '.join(missing)}: give agents.NAME.symbols as it "
                "names them"
            )

    async def _begin(self, desk: Desk) -> Row | None:
        """Bring an agent up to date."""
        account = self._account
        histories = await account.histories(desk)
        for bars in histories:
            for bar in bars[-KEPT_BARS:]:
                account.watch(bar)
            if bars:
                account.closes.setdefault(bars[-1].symbol, bars[-1].close)
        try:
            return self._if_current(desk, self._taken_up(desk, histories))
        except Exception as error:  # a policy may fail in any way, and only its agent stops
            reason = f"its policy cannot take up work: {type(error).__name__}: {error}"[:300]
            now_ns = account.clock.wall_ns()
            account.books.observe(AgentPaused(at_ns=now_ns, agent=desk.name, reason=reason))
            return None

    def _taken_up(self, desk: Desk, histories: list[tuple[Bar, ...]]) -> Row | None:
        """A row that the agent has still to decide, see `Desk.begin`."""
        account = self._account
        if desk.decider.last_start_s is not None:
            return desk.catch_up(histories)
        record = account.state.agents.get(desk.name)
        decided_s = 0 if record is None else record.last_start_s
        carry = account.books.journal.carry(desk.name)
        return desk.begin(histories, None if carry is None else carry.blob, decided_s)

    def _if_current(self, desk: Desk, row: Row | None) -> Row | None:
        """A row that nobody decided on, where the one after it has not ended yet; else it is seen
        and nothing more.
        """
        if row is None:
            return None
        end_s = row[0].start_s + 2 * desk.bar_seconds
        if self._account.clock.wall_ns() < end_s * SECOND_NS:
            return row
        desk.slot.see([row])
        desk.rows.begin_after(desk.decider.last_start_s)
        return None

    async def _wait(self, seconds: float) -> None:
        """Wait in pieces, with signs of life between them."""
        while seconds > 0:
            self._beat()
            await self._account.clock.sleep(min(seconds, 0.5))
            seconds -= 0.5
