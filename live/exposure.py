"""What the account would hold if the orders under way were filled, in whichever way is worse.

Written to be quick: it is part of every order's way, over all symbols and orders of the account.
"""

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

from jaxtrade.live.brokers.base import Instrument
from jaxtrade.live.events import OrderIntent, Side
from jaxtrade.live.quotes import Quote
from jaxtrade.live.scene import is_price

Span = tuple[float, float]
"""Value of a symbol's position if only its sales are filled, and if only its purchases are."""

_FLAT = (0.0, 0.0)


class Exposure(NamedTuple):
    """Values in the worst case, account currency.

    symbol: absolute value in one symbol; gross: sum of the absolute values; net: absolute sum; own:
    gross of one agent's symbols; loss: gross times the distances of stops.
    """

    symbol: float
    gross: float
    net: float
    own: float
    loss: float


class Distances(NamedTuple):
    """How far positions may move against the account, a fraction of the price: the stops of agents,
    else what is assumed, else the average true ranges of symbols.
    """

    stops: Mapping[str, float]
    assumed: float
    ranges: Mapping[str, float]

    def of(self, symbol: str, agent: str) -> float:
        """Of a symbol that belongs to an agent."""
        return self.stops.get(agent) or self.assumed or self.ranges.get(symbol, 0.0)


class Prices(NamedTuple):
    """Where prices are found: of quotes, or else the last closes."""

    instruments: Mapping[str, Instrument]
    quotes: Mapping[str, Quote]
    closes: Mapping[str, float]

    def price(self, symbol: str) -> float:
        """The last sane price, however old; NaN where there is none."""
        quote = self.quotes.get(symbol)
        if quote is not None:
            middle = 0.5 * (quote.bid + quote.ask)
            if 0.0 < middle < math.inf:
                return middle
        close = self.closes.get(symbol, math.nan)
        return close if is_price(close) else math.nan

    def unit(self, symbol: str) -> float:
        """Value of one unit, account currency; NaN where a price or the instrument is missing, so
        that nothing is found to be within a limit.
        """
        return self.units((symbol,))[symbol]

    def units(self, symbols: Iterable[str]) -> dict[str, float]:
        """Of several symbols."""
        instruments, quotes = self.instruments, self.quotes
        units = {}
        for symbol in symbols:
            quote = quotes.get(symbol)
            price = math.nan if quote is None else 0.5 * (quote.bid + quote.ask)
            if not 0.0 < price < math.inf:
                price = self.price(symbol)
            instrument = instruments.get(symbol)
            units[symbol] = math.nan if instrument is None else price * instrument.unit_value
        return units


def spans_of(
    positions: Mapping[str, Decimal],
    orders: Iterable[tuple[OrderIntent, Decimal]],
    prices: Prices,
) -> tuple[dict[str, Span], float]:
    """The span of every symbol, and the gross value of the positions alone.

    positions: signed units; orders: with the units that they have left; reduce-only ones add
    nothing.
    """
    spans: dict[str, Span] = {}
    units = prices.units(symbol for symbol, quantity in positions.items() if quantity)
    held = 0.0
    for symbol, unit in units.items():
        value = float(positions[symbol]) * unit
        spans[symbol] = value, value
        held += abs(value)
    for intent, left in orders:
        if not intent.reduce_only:
            symbol = intent.symbol
            value = float(left) * (units[symbol] if symbol in units else prices.unit(symbol))
            low, high = spans.get(symbol, _FLAT)
            is_buy = intent.side is Side.BUY
            spans[symbol] = (low, high + value) if is_buy else (low - value, high)
    return spans, held


def exposures(
    spans: Mapping[str, Span],
    intent: OrderIntent,
    value: float,
    owners: Mapping[str, str],
    distances: Distances | None,
) -> tuple[Exposure, Exposure]:
    """Of the account without an order of a value, and with it.

    owners: agent of each symbol; distances: None where losses are not asked for.
    """
    gross = lowest = highest = own = loss = 0.0
    agent, own_symbol = intent.agent, intent.symbol
    for symbol, (low, high) in spans.items():
        if symbol == own_symbol:
            continue
        size = abs(low) if low == high else _worst(low, high)
        gross += size
        lowest += low
        highest += high
        owner = owners.get(symbol, "")
        if owner == agent:
            own += size
        if distances is not None:
            loss += size * distances.of(symbol, owner)
    before = low, high = spans.get(own_symbol, _FLAT)
    is_buy = intent.side is Side.BUY
    after = (low, high + value) if is_buy else (low - value, high)
    stop = 0.0 if distances is None else distances.of(own_symbol, agent)
    found = []
    for low, high in (before, after):
        size, net = _worst(low, high), _worst(lowest + low, highest + high)
        found.append(Exposure(size, gross + size, net, own + size, loss + size * stop))
    return found[0], found[1]


def _worst(low: float, high: float) -> float:
    """The largest absolute value; NaN where one of them is."""
    low, high = abs(low), abs(high)
    return high if low <= high else low if high <= low else math.nan
