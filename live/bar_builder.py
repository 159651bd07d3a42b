"""Bars out of ticks: aligned to UTC, each of them once, whatever the clocks do.

Stamps of ticks say what belongs to a bar, and the steady clock says how far to believe them: since
the connection began both must have gone on alike. Ticks that are out by more than `TOLERANCE_NS`
are refused; where they stay out by the same for `JUMP_NS` the clock that stamps them has jumped,
and its stamps are put right from then on, so that no bar comes twice and none is left out. What is
counted and waited for is measured by the steady clock alone. `begin`, at every connection, trusts
the stamps anew: after a jump nothing here can say which of the two times was the right one.

Where there is no tick there is no bar, as in files. A bar ends with the first tick of the next one,
or at `due_ns`, when its time and some more for stragglers are over.
"""

import math

from jaxtrade.bars import DAY_SECONDS, WEEK_SECONDS
from jaxtrade.live.clock import SECOND_NS
from jaxtrade.live.events import Bar, Tick
from jaxtrade.live.limits import GuardLimits
from jaxtrade.specs import JaxtradeError, unknown_name

TOLERANCE_NS = 2 * SECOND_NS
"""How far a stamp may be from where the steady clock expects it."""

JUMP_NS, JUMP_TICKS = 5 * SECOND_NS, 3
"""Ticks that are out by the same for that long, so many at least: the clock has jumped."""

GRACE_NS = 2 * SECOND_NS
"""How long a bar waits for stragglers once its time is over."""

FIRST_VARIANCE, LEAST_VARIANCE = 1e-8, 1e-10
"""Of a tick's move, relative: before anything is known, and what it never falls below."""

FORGETTING = 1 / 128
"""Weight of a new tick in the deviation of moves."""


_WEIGHTS = {"bid": 0.0, "mid": 0.5, "ask": 1.0}


class _Making:
    """One symbol's bar in the making and what is known of its ticks; times in ns."""

    __slots__ = (
        "at", "close", "doubtful", "end", "high", "last_start", "low", "open", "spread", "start",
        "variance", "volume",
    )  # fmt: skip

    def __init__(self) -> None:
        self.start = self.end = 0  # of the bar; 0 where there is none
        self.last_start: int | None = None  # of the last bar that came out
        self.open = self.high = self.low = self.close = self.volume = self.spread = 0.0
        self.at = 0  # of the newest tick
        self.variance = FIRST_VARIANCE
        self.doubtful = 0.0  # a price that waits for a second tick


class BarBuilder:
    """Bars of `bar_seconds` of several symbols, from their ticks.

    limits: of which `spike_deviations` counts here; refused: how many ticks were not taken, by
    reason; jumps: how often the clock of the stamps jumped since the start; correction_ns: what is
    taken off its stamps now.

    Usage:
        builder = BarBuilder(("EURUSD",), bar_seconds=60)
        builder.begin(clock.wall_ns())
        bar = builder.add(tick, clock.steady_ns())
        late_bars = builder.close_due(clock.steady_ns())  # when builder.due_ns has come
    """

    def __init__(
        self,
        symbols: tuple[str, ...],
        *,
        bar_seconds: int,
        price: str = "mid",
        counts_ticks: bool = False,
        grace_ns: int = GRACE_NS,
        limits: GuardLimits | None = None,
    ) -> None:
        """price: "mid", "bid" or "ask", what bars are of; counts_ticks: the volume of a bar is its
        number of ticks instead of what they say.

        Raises:
            JaxtradeError: bars that do not divide a day or a week, or an unknown price.
        """
        if price not in _WEIGHTS:
            raise unknown_name("price of bars", price, _WEIGHTS)
        if bar_seconds < 1 or WEEK_SECONDS % bar_seconds:
            raise JaxtradeError(f"bar_seconds is {bar_seconds}: give a divisor of a day or a week")
        self.bar_seconds = bar_seconds
        self.limits = limits or GuardLimits()
        self.refused: dict[str, int] = {}
        self.jumps = 0
        self.correction_ns = 0
        self._weight = _WEIGHTS[price]
        self._counts_ticks, self._grace_ns = counts_ticks, grace_ns
        self._making = {symbol: _Making() for symbol in symbols}
        self._since_ns = 0
        self._offset: int | None = None
        self._jump = (0, 0, 0)  # skew, since when, ticks

    def begin(self, at_ns: int) -> None:
        """Ticks come without a gap from here on: a bar that started before never comes out."""
        self._since_ns, self._offset, self.correction_ns = at_ns, None, 0
        self._jump = (0, 0, 0)
        for making in self._making.values():
            making.start = making.end = 0
            making.doubtful = 0.0

    def add(self, tick: Tick, steady_ns: int) -> Bar | None:
        """Take a tick received at `steady_ns`; the bar that it ends, if it does."""
        making = self._making.get(tick.symbol)
        if making is None:
            return self._refuse("another symbol")
        bid, ask = tick.bid, tick.ask
        if not 0.0 < bid <= ask < math.inf or not 0.0 <= tick.volume < math.inf:
            return self._refuse("no quote")
        if self._offset is None:
            self._offset = tick.at_ns - steady_ns
        at = tick.at_ns - self.correction_ns
        skew = at - steady_ns - self._offset
        if not -TOLERANCE_NS < skew < TOLERANCE_NS:
            return self._out_of_time(skew, steady_ns)
        self._offset += skew >> 8  # clocks drift apart
        self._jump = (0, 0, 0)

        price = bid + (ask - bid) * self._weight
        last = making.close
        if last:
            move, variance = (price / last - 1.0) ** 2, making.variance
            spike = self.limits.spike_deviations
            limit = spike * spike * variance
            # a spike counts as a move at the limit: so what is normal is learnt from any start
            variance += FORGETTING * ((move if move < limit else limit) - variance)
            making.variance = variance if variance > LEAST_VARIANCE else LEAST_VARIANCE
            if move > limit:
                doubtful, making.doubtful = making.doubtful, price
                if not doubtful or (price / doubtful - 1.0) ** 2 > limit:
                    return self._refuse("unconfirmed")
            making.doubtful = 0.0
        return self._take(making, tick, at, price)

    @property
    def due_ns(self) -> int | None:
        """When, by the steady clock, `close_due` has something to do; None where no bar is open."""
        ends = [making.end for making in self._making.values() if making.end]
        if not ends or self._offset is None:
            return None
        return min(ends) + self._grace_ns - self._offset

    def close_due(self, steady_ns: int) -> tuple[Bar, ...]:
        """The bars whose time is over."""
        if self._offset is None:
            return ()
        limit = steady_ns + self._offset - self._grace_ns
        over = [(name, m) for name, m in self._making.items() if m.end and m.end <= limit]
        bars = [self._close(name, making, steady_ns + self._offset) for name, making in over]
        return tuple(bar for bar in bars if bar is not None)

    def _take(self, making: _Making, tick: Tick, at: int, price: float) -> Bar | None:
        """A tick that is believed, into the bar it belongs to."""
        ended = None
        if at >= making.end or not making.end:
            start = start_of(at // SECOND_NS, self.bar_seconds) * SECOND_NS
            if making.last_start is not None and start <= making.last_start:
                return self._refuse("late")
            if making.end:
                ended = self._close(tick.symbol, making, at)
            making.start, making.end = start, start + self.bar_seconds * SECOND_NS
            making.open = making.high = making.low = price
            making.volume, making.at = 0.0, at
        elif at < making.start:
            return self._refuse("late")
        elif price > making.high:
            making.high = price
        elif price < making.low:
            making.low = price
        if at >= making.at:  # else it came out of order
            making.close, making.at, making.spread = price, at, tick.ask - tick.bid
        making.volume += 1.0 if self._counts_ticks else tick.volume
        return ended

    def _close(self, symbol: str, making: _Making, at_ns: int) -> Bar | None:
        """The bar in the making, if it is whole."""
        start, making.end = making.start, 0
        if start < self._since_ns:
            return self._refuse("part of a bar")
        making.last_start = start
        return Bar(
            at_ns=at_ns,
            symbol=symbol,
            start_s=start // SECOND_NS,
            seconds=self.bar_seconds,
            open=making.open,
            high=making.high,
            low=making.low,
            close=making.close,
            volume=making.volume,
            context=(("spread", making.spread / making.close),),
        )

    def _out_of_time(self, skew: int, steady_ns: int) -> Bar | None:
        """A tick whose stamp is not where it should be: late, or the clock has jumped."""
        first, since, ticks = self._jump
        if not ticks or abs(skew - first) > TOLERANCE_NS:
            first, since, ticks = skew, steady_ns, 0
        self._jump = (first, since, ticks + 1)
        if ticks + 1 >= JUMP_TICKS and steady_ns - since >= JUMP_NS:
            self.correction_ns += skew
            self.jumps += 1
            self._jump = (0, 0, 0)
        return self._refuse("late" if skew < 0 else "from the future")

    def _refuse(self, reason: str) -> Bar | None:
        """Count a tick, or a bar, that is not taken; there is none then."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        return None


def start_of(second: int, bar_seconds: int) -> int:
    """Start of the bar that a second belongs to, UTC: from midnight, weeks from Monday."""
    shift = 3 * DAY_SECONDS if bar_seconds % WEEK_SECONDS == 0 else 0  # 1970 began on a Thursday
    return (second + shift) // bar_seconds * bar_seconds - shift
