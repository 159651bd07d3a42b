"""Who may trade, and how: the trading state, its latches, limits on the account, settings in force.

A latch is set on evidence and lifted by a person. KILLED lives in a file too, which any process can
write and which counts whether or not the journal does.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtrade.live import protections
from jaxtrade.live.account import Account
from jaxtrade.live.brokers.base import NotConnectedError
from jaxtrade.live.events import (
    Event,
    Rearmed,
    SettingsChanged,
    TradingState,
    TradingStateChanged,
)
from jaxtrade.live.latches import Latch, is_flattening, is_latched, latched, lift, set_latch
from jaxtrade.live.settings import LiveSettings, changed, write
from jaxtrade.live.state import SEVERITY
from jaxtrade.live.worth import Worth
from jaxtrade.specs import JaxtradeError

log = logging.getLogger("jaxtrade.governor")

CLOSE_NS = 3_000_000_000
"""How long closing orders are given before whatever is left is closed again."""

NEARLY = 1e-9
"""So near to a floor, relative, there is a thorough look."""


class Governor:
    """The trading state of one account."""

    def __init__(self, account: Account, folder: Path) -> None:
        self._account = account
        self._folder = folder
        self.is_flattening = False
        self._closed_ns = 0
        self._worth = Worth(account.state, account.closes)
        self._obeyed = TradingState.ACTIVE

    def begin(self) -> None:
        """Take up what a kill had begun; its latch is in the state already."""
        self.is_flattening = is_flattening(self._folder)
        state, settings = self._account.state, self._account.settings.protections
        if state.trading is TradingState.HALTED and settings.flatten:
            self.is_flattening |= state.trading_reason.startswith(protections.MAX_DRAWDOWN)

    async def look(self) -> None:
        """Measure the account by its limits, and act where one is passed."""
        account = self._account
        events = protections.evaluate(
            account.state,
            account.settings.protections,
            equity=account.equity,
            now_ns=account.clock.wall_ns(),
            time_zone=account.settings.time_zone,
        )
        account.books.observe(*events, durable=True)
        is_tripped = any(isinstance(event, TradingStateChanged) for event in events)
        if is_tripped and account.settings.protections.flatten:
            self.is_flattening = account.state.trading is not TradingState.ACTIVE
        await self.obey()

    async def look_at_price(self, symbol: str) -> None:
        """The same at a tick, where something is held that it concerns."""
        marks = self._account.state.marks
        if marks.day < 0:
            return
        equity = self._worth.at(symbol)
        if equity is None:
            return
        floor = protections.floor(marks, self._account.settings.protections)
        if equity <= floor + NEARLY * abs(floor):  # never where there is no floor: not-a-number
            await self.look()

    async def kill(self, reason: str, *, flatten: bool) -> None:
        """Trade no more until a person says so: cancel all and, where asked to, close all."""
        problem = None
        try:
            set_latch(self._folder, Latch.KILLED, reason, flatten=flatten)
        except JaxtradeError as error:  # a full disk does not keep orders working
            problem = error
        self.is_flattening |= flatten
        self._change(TradingState.KILLED, reason, is_latched=True)
        await self.obey()
        await self.flatten()
        if problem is not None:
            raise problem

    async def obey(self) -> None:
        """Take up a latch that another process has set, and do what goes with a state that is new,
        whoever brought it about: nothing that opens works on, and killed nothing at all.
        """
        account = self._account
        self._obey_files()
        state, reason = account.state.trading, account.state.trading_reason
        if state is self._obeyed or not account.is_connected:
            return
        is_worse = SEVERITY.index(state) > SEVERITY.index(self._obeyed)
        self._obeyed = state
        if not is_worse:
            return
        if state is TradingState.KILLED:
            await account.execution.cancel_all(reason)
        else:
            await account.execution.cancel_openings(reason, is_all=state is TradingState.HALTED)
        await self.flatten()

    def _obey_files(self) -> None:
        state = self._account.state.trading
        if state is not TradingState.KILLED and is_latched(self._folder, Latch.KILLED):
            found = latched(self._folder, Latch.KILLED)
            if found is None:  # lifted between the two looks
                return
            self.is_flattening |= found.flatten
            self._change(TradingState.KILLED, found.reason, is_latched=True)

    async def flatten(self) -> None:
        """Close whatever the broker holds, over and over until it holds nothing. What was sent is
        given some seconds: closing sooner could close a position twice, and so open another.
        """
        account = self._account
        if not self.is_flattening or not account.is_connected:
            return
        now = account.clock.steady_ns()
        if self._closed_ns and now - self._closed_ns < CLOSE_NS:
            return
        try:
            snapshot = await account.broker.snapshot()
            if snapshot.is_complete and not any(each.quantity for each in snapshot.positions):
                self.is_flattening = bool(snapshot.open_orders)
                self._closed_ns = 0
                if snapshot.open_orders:
                    await account.broker.cancel_all_orders()
                return
            self._closed_ns = now
            await account.broker.close_all_positions()
        except NotConnectedError:
            return

    def rearm(self, reason: str) -> None:
        """A person lifts what is latched, and says why.

        Raises:
            JaxtradeError: no reason, or a latch's file cannot be removed.
        """
        was_closed, now_ns = is_flattening(self._folder), self._account.clock.wall_ns()
        lift(self._folder, reason)
        self.is_flattening = False
        rearmed = Rearmed(at_ns=now_ns, reason=reason, was_closed=was_closed)
        self._account.books.observe(rearmed, durable=True)

    def propose(self, changes: Mapping[str, Any], by: str) -> int:
        """Check other settings and let them wait for the next bar; their version.

        Raises:
            JaxtradeError: a key that is unknown or needs a restart, or a value out of range.
        """
        account = self._account
        waiting = {**account.state.pending_settings, **changes}
        changed(account.settings, waiting)
        version = account.state.settings_version + 1
        account.books.observe(
            SettingsChanged(
                at_ns=account.clock.wall_ns(), version=version, settings=dict(changes), by=by
            ),
            durable=True,
        )
        return version

    def apply_pending(self) -> None:
        """Put into force what was proposed, between two bars."""
        account = self._account
        waiting = dict(account.state.pending_settings)
        if not waiting:
            return
        try:
            settings = changed(account.settings, waiting)
        except JaxtradeError:  # it was checked when it was proposed; so it is of another version
            settings = account.settings
        self._use(settings)
        account.books.observe(
            SettingsChanged(
                at_ns=account.clock.wall_ns(),
                version=account.state.settings_version,
                settings=waiting,
                by="engine",
                is_applied=True,
            ),
            durable=True,
        )
        try:
            write(settings)
        except (JaxtradeError, OSError) as error:
            log.error("the settings in force hold until the next start only: %s", error)

    def _use(self, settings: LiveSettings) -> None:
        account = self._account
        account.settings = settings
        account.rates.limits = account.quotes.limits = settings.guard
        for builder in account.builders.values():
            builder.limits = settings.guard
        for name, desk in account.desks.items():
            desk.change(settings.agents[name], settings.decisions)

    def _change(self, state: TradingState, reason: str, *, is_latched: bool) -> None:
        known = self._account.state
        if known.trading is state and known.is_latched:
            return
        now_ns = self._account.clock.wall_ns()
        event: Event = TradingStateChanged(
            at_ns=now_ns, state=state, reason=reason, is_latched=is_latched
        )
        self._account.books.observe(event, durable=True)
