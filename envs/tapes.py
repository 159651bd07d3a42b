"""From a market to the tape that its rules read; on the host, in float64."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jaxtrade.bars import DAY_SECONDS
from jaxtrade.market import Market
from jaxtrade.rules import Rules
from jaxtrade.specs import JaxtradeError
from jaxtrade.tags import session_ends
from jaxtrade.tape import Tape, make_tape

Array = NDArray[np.float64]

MEMORY_BARS = 32
"""Span of the moving averages of volatility and traded value, as known before a bar."""

ROLLOVER = ("America/New_York", 17)
"""Where and at which hour a position is rolled to the next day; Wednesday's counts three nights."""


def market_tape(
    markets: Sequence[Market],
    rules: Rules,
    *,
    has_spread: bool = False,
    has_sessions: bool = False,
    has_volatility: bool = False,
) -> Tape:
    """One tape of the rows of all markets, one after the other.

    has_spread: the columns `half_spread_open` and `half_spread_close`, or `spread`, are paid on
    top of the fixed spread; has_sessions: mark the bars after which a session ends;
    has_volatility: also where no rule reads it. The columns `dividend` (quote currency per unit,
    on the bar that goes without it) and `funding` are paid wherever a market has them.

    Raises:
        JaxtradeError: a column or volume that the rules need is missing.
    """
    names = set(rules.columns())
    if has_volatility:
        names.add("volatility")
    parts = [_columns(market, rules, names, has_spread, has_sessions) for market in markets]
    first = parts[0]
    for market, part in zip(markets, parts, strict=True):
        if part.keys() != first.keys():
            missing = sorted(first.keys() ^ part.keys())
            raise JaxtradeError(
                f"{market.name()}: {', '.join(missing)} is in some of the markets only: "
                "give it to all or none"
            )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in first}
    return make_tape(columns, markets[0].num_assets)


def _columns(
    market: Market, rules: Rules, names: set[str], has_spread: bool, has_sessions: bool
) -> dict[str, Array]:
    """The columns of one market, [T] or [T, A]."""
    bars = market.bars.astype(np.float64)
    columns = {name: bars[:, :, i] for i, name in enumerate(("open", "high", "low", "close"))}
    columns["years"] = market.clock[:, 2].astype(np.float64)
    columns["new_day"] = (np.diff(market.day, prepend=market.day[:1] - 1) != 0).astype(np.float64)
    before = market.previous_closes()
    if has_spread:
        columns |= _spreads(market)
    if "dividend" in market.spec.context:
        columns["dividend"] = _context(market, "dividend") / before
    if "funding" in market.spec.context:
        columns["funding"] = _context(market, "funding")
    if "nights" in names:
        columns["nights"] = nights(market)
    if "price" in names:
        columns["price"] = before
    if {"volume_value", "average_value"} & names:
        traded = market.volume.astype(np.float64) * before
        if not (market.volume > 0).any():
            raise JaxtradeError(
                f"{market.name()}: impact and participation need a volume, here it is always 0"
            )
        columns |= {"volume_value": traded} if "volume_value" in names else {}
        if "average_value" in names:
            columns["average_value"] = _known_before(traded)
    if "volatility" in names:
        log_return = np.log1p(bars[:, :, 3])
        columns["volatility"] = np.sqrt(_known_before(log_return**2))
    if has_sessions:
        columns["session_end"] = _session_ends(market, rules)
    return columns


def _spreads(market: Market) -> dict[str, Array]:
    """Half of bid to ask over the middle, at open and close."""
    pair = ("half_spread_open", "half_spread_close")
    if set(pair) <= set(market.spec.context):
        halves = {name: _context(market, name) for name in pair}
    elif "spread" in market.spec.context:
        halves = dict.fromkeys(pair, _context(market, "spread") / 2.0)
    else:
        raise JaxtradeError(
            f"{market.name()}: no column spread, nor half_spread_open and half_spread_close: "
            "load one, or leave the spread fixed"
        )
    for name, half in halves.items():
        if not bool((half >= 0).all()):
            raise JaxtradeError(
                f"{market.name()}: row {int(np.argmin(half[:, 0]))}: {name} is {half.min():g}: "
                "give 0 or more"
            )
    return halves


def _context(market: Market, name: str) -> Array:
    """A context column as [T, 1]."""
    return market.context[:, market.spec.context.index(name), None].astype(np.float64)


def _known_before(values: Array) -> Array:
    """Moving average of values [T, A] up to the row before; of the first row its own value, which
    no order can meet.
    """
    mean = pd.DataFrame(values).ewm(span=MEMORY_BARS).mean().to_numpy()
    return np.concatenate([mean[:1], mean[:-1]])


def nights(market: Market) -> Array:
    """f64[T]: rollovers between the end of the bar before and the end of each bar; 3 on Wednesday.

    Swap is charged at 17:00 New York time from Monday to Friday.
    """
    zone, hour = ROLLOVER
    ends = pd.DatetimeIndex(market.timestamps).tz_localize("UTC")
    ends = (ends + pd.Timedelta(seconds=market.spec.bar_seconds)).tz_convert(zone)
    days = pd.date_range(ends[0].normalize() - pd.Timedelta(days=1), ends[-1].normalize(), freq="D")
    charged = np.asarray([1, 1, 3, 1, 1, 0, 0])[days.day_of_week]
    moments = (days + pd.DateOffset(hours=hour)).tz_convert("UTC").asi8
    total = np.concatenate([[0], np.cumsum(charged)])
    upto = total[np.searchsorted(moments, ends.tz_convert("UTC").asi8, side="right")]
    return np.diff(upto, prepend=upto[:1]).astype(np.float64)


def _session_ends(market: Market, rules: Rules) -> Array:
    """f64[T]: 1 on the bars in which an order must close all positions.

    A session ends where more than an hour and three bars pass to the next bar, or with the data;
    daily bars and longer have none. Hours are known beforehand, from the exchange's calendar.
    """
    if market.spec.bar_seconds >= DAY_SECONDS:
        raise JaxtradeError(
            f"{market.name()}: bars of a day or more have no sessions to be flat after"
        )
    pause_bars = 3_600 / market.spec.bar_seconds + 2
    is_last = session_ends(market, pause_bars=pause_bars, time_zone=None).astype(np.float64)
    if rules.fill == "close":  # the order trades at the close just seen
        return np.concatenate([[0.0], is_last[:-1]])
    return is_last
