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
    """What equity is measured from; `day` is of `day_start_equity`, -1 before the first mark."""

    equity: float
    peak_equity: float
    day: int
    day_start_equity: float


class Trade(Protocol):
    """A trade that is over, as `trades.ClosedTrade` is one."""

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


class Trades(Protocol):
    """Closed trades, oldest first."""

    @property
    def closed(self) -> Sequence[Trade]:
        """The newest of them."""


class Watched(Protocol):
    """What of `state.State` protections look at."""

    @property
    def marks(self) -> Marks:
        """Equity at the last mark, its peak, its start of the day."""

    @property
    def trades(self) -> Trades:
        """What was traded."""

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


def evaluate(
    state: Watched, protections: Protections, *, equity: float, now_ns: int, time_zone: str
) -> list[Event]:
    """What the equity now, the day and the last closed trade lead to; nothing where that is so
    already, so it may be asked at every occasion.
    """
    zone = zoneinfo.ZoneInfo(time_zone)
    events = [*_after_trade(state, protections, now_ns)]
    if not math.isfinite(equity) or state.marks.day < 0:
        return events
    drawdown = _drawdown(state, protections, equity, now_ns)
    return events + (drawdown or _daily_loss(state, protections, equity, now_ns, zone))


def floor(marks: Marks, protections: Protections) -> float:
    """Equity at which a limit is reached, the highest; NaN where none is on."""
    floors = []
    if protections.max_drawdown < 1:
        floors.append(marks.peak_equity * (1.0 - protections.max_drawdown))
    if protections.max_daily_loss < 1:
        start = max(marks.day_start_equity, marks.equity)  # the next day may have begun
        floors.append(start * (1.0 - protections.max_daily_loss))
    return max(floors, default=math.nan)


def day_of(at_ns: int, zone: zoneinfo.ZoneInfo) -> int:
    """The account's day, days since 1970."""
    return _local(at_ns, zone).toordinal() - _EPOCH


def next_day_ns(at_ns: int, zone: zoneinfo.ZoneInfo) -> int:
    """When the account's next day begins, UTC."""
    day = _local(at_ns, zone).date() + dt.timedelta(days=1)
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 10**9


def _drawdown(state: Watched, protections: Protections, equity: float, now_ns: int) -> list[Event]:
    peak = max(state.marks.peak_equity, equity)
    is_stopped = state.trading in (TradingState.HALTED, TradingState.KILLED) and state.is_latched
    if is_stopped or not _is_lost(equity, peak, protections.max_drawdown):
        return []
    reason = f"{MAX_DRAWDOWN}: equity of {equity:.10g} is {1 - equity / peak:.2%} below its peak"
    halted = TradingStateChanged(
        at_ns=now_ns, state=TradingState.HALTED, reason=reason, is_latched=True
    )
    return [_tripped(MAX_DRAWDOWN, "", now_ns, now_ns, reason), halted]


def _daily_loss(
    state: Watched,
    protections: Protections,
    equity: float,
    now_ns: int,
    zone: zoneinfo.ZoneInfo,
) -> list[Event]:
    marks = state.marks
    start = marks.day_start_equity if day_of(now_ns, zone) == marks.day else marks.equity
    if state.locks.get((DAILY_LOSS, ""), 0) > now_ns:
        return []
    if _is_lost(equity, start, protections.max_daily_loss):
        loss = f"{1 - equity / start:.2%}"
        reason = f"{DAILY_LOSS}: equity of {equity:.10g} is {loss} below the day's start"
        tripped = _tripped(DAILY_LOSS, "", now_ns, next_day_ns(now_ns, zone), reason)
        is_active = state.trading is TradingState.ACTIVE
        return [tripped, *([_changed(now_ns, TradingState.REDUCING, reason)] if is_active else [])]
    is_reducing = state.trading is TradingState.REDUCING and not state.is_latched
    if is_reducing and state.trading_reason.startswith(DAILY_LOSS):
        return [_changed(now_ns, TradingState.ACTIVE, f"{DAILY_LOSS}: a new day")]
    return []


def _is_lost(equity: float, start: float, limit: float) -> bool:
    """Whether no more than 1 - limit is left; a limit of 1 is off."""
    return limit < 1 and start > 0 and equity <= start * (1.0 - limit)


def _after_trade(state: Watched, protections: Protections, now_ns: int) -> list[Event]:
    """Locks that follow from the newest of the closed trades."""
    closed = state.trades.closed
    if not closed:
        return []
    last = closed[-1]
    events: list[Event] = []

    def lock(protection: str, symbol: str, seconds: float, reason: str) -> None:
        until_ns = last.at_ns + round(seconds * 1e9)
        if seconds and until_ns > max(now_ns, state.locks.get((protection, symbol), 0)):
            events.append(_tripped(protection, symbol, now_ns, until_ns, reason))

    lock(COOLDOWN, last.symbol, protections.cooldown_s, "a trade was closed")
    if last.leg is not Leg.STOP_LOSS:
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


def _local(at_ns: int, zone: zoneinfo.ZoneInfo) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_ns // 10**9, zone)


def _tripped(
    protection: str, symbol: str, at_ns: int, until_ns: int, reason: str
) -> ProtectionTripped:
    return ProtectionTripped(
        at_ns=at_ns, protection=protection, symbol=symbol, until_ns=until_ns, reason=reason
    )


def _changed(at_ns: int, state: TradingState, reason: str) -> TradingStateChanged:
    return TradingStateChanged(at_ns=at_ns, state=state, reason=reason)
