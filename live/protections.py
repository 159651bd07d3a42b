"""What stops trading after losses.

cooldown        a trade in a symbol is closed: nothing is opened in it for `cooldown_s` from then
stop_cooldown   the same for `stop_cooldown_s`, where a stop closed it
stop_guard      a trade was closed by its stop at a loss, and so were, in the last
                `stop_guard_window_s` (in its symbol, or anywhere), `stop_guard_trades` in all:
                nothing is opened for `stop_guard_lock_s` (in the symbol, or anywhere)
daily_loss      equity is `max_daily_loss` or more below the start of the account's day: only
                reductions, until the next day begins in the account's time zone; nothing else ends
                it, neither a gain nor a restart nor a person
max_drawdown    equity is `max_drawdown` or more below its peak: HALTED, latched, until a person
                rearms; no day and no gain ends it

Equity is the whole account's with what is open, and is looked at with every mark of it. What was
decided is in the events given, and these in the state: so it outlives restarts.
"""

import datetime as dt
import math
import zoneinfo
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from jaxtrade.live.events import Event, Leg, ProtectionTripped, TradingState, TradingStateChanged
from jaxtrade.live.limits import Protections

COOLDOWN, STOP_COOLDOWN, STOP_GUARD = "cooldown", "stop_cooldown", "stop_guard"
DAILY_LOSS, MAX_DRAWDOWN = "daily_loss", "max_drawdown"

_EPOCH = dt.date(1970, 1, 1).toordinal()


class Marks(Protocol):
    """Equity now, at its peak and at the start of the day."""

    equity: float
    peak_equity: float
    day_start_equity: float


class Watched(Protocol):
    """What of the state protections look at."""

    @property
    def marks(self) -> Marks:
        """Equity, its peak, its start of the day."""

    @property
    def trading(self) -> TradingState:
        """Now."""

    @property
    def trading_reason(self) -> str:
        """Why it is so."""

    @property
    def is_latched(self) -> bool:
        """Only a person changes it."""

    @property
    def locks(self) -> Mapping[tuple[str, str], int]:
        """(protection, symbol) to UTC ns."""


class Trade(Protocol):
    """A trade that is over."""

    @property
    def symbol(self) -> str:
        """What was traded."""

    @property
    def leg(self) -> Leg:
        """Of the order that closed it."""

    @property
    def profit(self) -> Decimal:
        """Fees paid."""

    @property
    def at_ns(self) -> int:
        """When it was closed, UTC."""


def watch_equity(
    protections: Protections, state: Watched, *, at_ns: int, zone: zoneinfo.ZoneInfo
) -> list[Event]:
    """What a new mark of the equity, or a new day, leads to; nothing where that is so already."""
    events: list[Event] = []
    marks = state.marks
    peak, start = marks.peak_equity, marks.day_start_equity
    if not (math.isfinite(marks.equity) and peak > 0):
        return events
    is_stopped = state.trading in (TradingState.HALTED, TradingState.KILLED) and state.is_latched
    loss = 1.0 - marks.equity / peak
    if protections.max_drawdown < 1 and loss >= protections.max_drawdown and not is_stopped:
        reason = f"{MAX_DRAWDOWN}: equity is {loss:.2%} below its peak"
        events.append(_tripped(MAX_DRAWDOWN, "", at_ns, at_ns, reason))
        events.append(
            TradingStateChanged(
                at_ns=at_ns, state=TradingState.HALTED, reason=reason, is_latched=True
            )
        )
        return events

    is_locked = state.locks.get((DAILY_LOSS, ""), 0) > at_ns
    loss = 1.0 - marks.equity / start if start > 0 else 0.0
    if protections.max_daily_loss < 1 and loss >= protections.max_daily_loss and not is_locked:
        reason = f"{DAILY_LOSS}: equity is {loss:.2%} below the day's start"
        until_ns = next_day_ns(at_ns, zone)
        events.append(_tripped(DAILY_LOSS, "", at_ns, until_ns, reason))
        if state.trading is TradingState.ACTIVE:
            events.append(_changed(at_ns, TradingState.REDUCING, reason))
    elif not is_locked and _is_of_the_day(state):
        events.append(_changed(at_ns, TradingState.ACTIVE, f"{DAILY_LOSS}: a new day"))
    return events


def after_trade(
    protections: Protections, closed: Sequence[Trade], locks: Mapping[tuple[str, str], int]
) -> list[Event]:
    """What the newest of the closed trades leads to, the oldest first in `closed`."""
    events: list[Event] = []
    last = closed[-1]
    is_stop = last.leg is Leg.STOP_LOSS

    def lock(protection: str, symbol: str, seconds: float, reason: str) -> None:
        until_ns = last.at_ns + round(seconds * 1e9)
        if until_ns > max(last.at_ns, locks.get((protection, symbol), 0)):
            events.append(_tripped(protection, symbol, last.at_ns, until_ns, reason))

    lock(COOLDOWN, last.symbol, protections.cooldown_s, "a trade was closed")
    if not is_stop:
        return events
    lock(STOP_COOLDOWN, last.symbol, protections.stop_cooldown_s, "a stop closed a trade")
    symbol = last.symbol if protections.stop_guard_per_symbol else ""
    since_ns = last.at_ns - round(protections.stop_guard_window_s * 1e9)
    losses = sum(
        trade.leg is Leg.STOP_LOSS and trade.profit < 0 and trade.at_ns >= since_ns
        for trade in closed
        if symbol in ("", trade.symbol)
    )
    if last.profit < 0 and 0 < protections.stop_guard_trades <= losses:
        reason = f"{losses} trades were stopped at a loss"
        lock(STOP_GUARD, symbol, protections.stop_guard_lock_s, reason)
    return events


def day_of(at_ns: int, zone: zoneinfo.ZoneInfo) -> int:
    """The account's day, days since 1970."""
    return _local(at_ns, zone).toordinal() - _EPOCH


def next_day_ns(at_ns: int, zone: zoneinfo.ZoneInfo) -> int:
    """When the account's next day begins, UTC."""
    day = _local(at_ns, zone).date() + dt.timedelta(days=1)
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 10**9


def _local(at_ns: int, zone: zoneinfo.ZoneInfo) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_ns // 10**9, zone)


def _is_of_the_day(state: Watched) -> bool:
    """Whether trading is reduced for the loss of a day, and for nothing else."""
    is_reducing = state.trading is TradingState.REDUCING and not state.is_latched
    return is_reducing and state.trading_reason.startswith(DAILY_LOSS)


def _tripped(
    protection: str, symbol: str, at_ns: int, until_ns: int, reason: str
) -> ProtectionTripped:
    return ProtectionTripped(
        at_ns=at_ns, protection=protection, symbol=symbol, until_ns=until_ns, reason=reason
    )


def _changed(at_ns: int, state: TradingState, reason: str) -> TradingStateChanged:
    return TradingStateChanged(at_ns=at_ns, state=state, reason=reason)
