"""Quotes as they come: which of them are sane, how old, how usual their spread.

    quotes = Quotes(limits)
    quotes.see(tick, steady_ns=now, epoch=epoch)   # every tick, or the last of each symbol
    quotes.close(bar, steady_ns=now, epoch=epoch)  # every bar: its close counts where no ticks come
    quotes.known["SPY"].middle                     # of the last sane one

A quote that is not a number, not above 0 or crossed is not taken, but noted as the fault of the
newest one until a sane one comes. Nor is one that is many deviations away from the last, until a
second one says the same: what nobody repeats was never a price.
"""

import dataclasses
import math

from jaxtrade.live.events import Bar, Tick
from jaxtrade.live.limits import GuardLimits

_RATE = 0.02
"""Of the moving deviation; the median of spreads goes this part of itself at a time."""

_SETTLED = 50
"""Up to this many quotes the deviation is a plain average."""

_LEARNT = 20
"""So many quotes before a deviation is known."""

_LEAST_SPIKE = 1e-3
"""A move of less than this is no spike, however still it was."""


@dataclasses.dataclass(slots=True)
class Quote:
    """The last sane quote of a symbol, and what was seen since.

    seen_ns, changed_ns: steady clock, when it came and when it last differed from the one before;
    epoch: of the connection; spread: about the median of bid to ask over the middle; fault: why
    the newest quote was not taken, "" while it was; variance: of the change from quote to quote, of
    `count` so far; suspect: middle of one that waits for a second, 0 for none; is_close: it is the
    close of a bar.
    """

    bid: float
    ask: float
    seen_ns: int
    changed_ns: int
    epoch: int
    spread: float = 0.0
    fault: str = ""
    variance: float = 0.0
    count: int = 0
    suspect: float = 0.0
    is_close: bool = False

    @property
    def middle(self) -> float:
        """Between bid and ask."""
        return 0.5 * (self.bid + self.ask)


class Quotes:
    """The last sane quote of every symbol.

    limits: of which `spike_deviations` counts here; known: by symbol; refused: how many were not
    taken.
    """

    def __init__(self, limits: GuardLimits) -> None:
        self.limits = limits
        self.known: dict[str, Quote] = {}
        self.refused = 0

    def see(self, tick: Tick, *, steady_ns: int, epoch: int) -> bool:
        """Note a quote; whether it was taken."""
        return self._note(tick.symbol, tick.bid, tick.ask, steady_ns, epoch)

    def close(self, bar: Bar, *, steady_ns: int, epoch: int) -> bool:
        """Note the close of a bar as a quote without a spread, where this connection has brought no
        quotes of the symbol; whether it was taken.
        """
        quote = self.known.get(bar.symbol)
        if quote is not None and quote.epoch == epoch and not quote.is_close:
            return False
        price = bar.close
        return self._note(bar.symbol, price, price, steady_ns, epoch, is_close=True)

    def _note(
        self,
        symbol: str,
        bid: float,
        ask: float,
        steady_ns: int,
        epoch: int,
        *,
        is_close: bool = False,
    ) -> bool:
        quote = self.known.get(symbol)
        is_sane = 0.0 < bid <= ask < math.inf
        if quote is None:
            if is_sane:
                spread = 2.0 * (ask - bid) / (ask + bid)
                self.known[symbol] = Quote(
                    bid, ask, steady_ns, steady_ns, epoch, spread, is_close=is_close
                )
            self.refused += not is_sane
            return is_sane
        if not is_sane:
            quote.fault = _fault(bid, ask)
        elif is_close or quote.is_close:
            quote.fault, quote.suspect = "", 0.0
        else:
            quote.fault = self._spike(quote, 0.5 * (bid + ask))
        if quote.fault:
            self.refused += 1
            return False
        if bid != quote.bid or ask != quote.ask:
            quote.changed_ns = steady_ns
            quote.bid, quote.ask = bid, ask
        quote.seen_ns, quote.epoch, quote.is_close = steady_ns, epoch, is_close
        spread, usual = 2.0 * (ask - bid) / (ask + bid), quote.spread
        if spread > usual:
            quote.spread = min(usual + (_RATE * usual or spread), spread)
        elif spread < usual:
            quote.spread = max(usual - _RATE * usual, spread)
        return True

    def _spike(self, quote: Quote, middle: float) -> str:
        """Why a middle is not believed yet, or ""; what is believed enters the deviation."""
        move = middle / (0.5 * (quote.bid + quote.ask)) - 1.0
        square, count = move * move, quote.count + 1
        bound = max(self.limits.spike_deviations**2 * quote.variance, _LEAST_SPIKE**2)
        if square > bound and count > _LEARNT:
            if not (quote.suspect > 0 and (middle / quote.suspect - 1.0) ** 2 <= bound):
                quote.suspect = middle
                return f"{move:+.2%} away, and nothing has confirmed it"
            square = bound
        quote.suspect, quote.count = 0.0, count
        quote.variance += (_RATE if count > _SETTLED else 1.0 / count) * (square - quote.variance)
        return ""


def _fault(bid: float, ask: float) -> str:
    """What is wrong with a quote."""
    if not (math.isfinite(bid) and math.isfinite(ask)):
        return "not a number"
    return "not above 0" if bid <= 0 or ask <= 0 else "crossed"
