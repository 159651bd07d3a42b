"""Bars of a market as a broker would send them."""

import numpy as np

from jaxtrade.bars import DAY_SECONDS
from jaxtrade.live.events import Bar
from jaxtrade.live.rows import Row
from jaxtrade.market import Market


def bar(start_s=0, close=100.0, *, symbol="X", seconds=60, **changes) -> Bar:
    """A bar that opened where it closed, two apart from high and low."""
    known = {
        "at_ns": (start_s + seconds) * 1_000_000_000,
        "symbol": symbol,
        "start_s": start_s,
        "seconds": seconds,
        "open": close,
        "high": close + 2,
        "low": close - 2,
        "close": close,
        "volume": 5.0,
    }
    return Bar(**{**known, **changes})


def market_rows(market: Market) -> list[Row]:
    """Every row of a market, with its context columns at the first symbol's bar."""
    before = market.previous_closes()
    prices = before[..., None] * (1 + market.bars.astype(np.float64))
    starts = market.day.astype(np.int64) * DAY_SECONDS + market.second
    seconds, symbols = market.spec.bar_seconds, market.spec.symbols
    rows = []
    for t, start in enumerate(starts.tolist()):
        context = tuple(zip(market.spec.context, market.context[t].tolist(), strict=True))
        rows.append(
            tuple(
                Bar(
                    at_ns=(start + seconds) * 1_000_000_000,
                    symbol=symbol,
                    start_s=start,
                    seconds=seconds,
                    **dict(
                        zip(("open", "high", "low", "close"), prices[t, a].tolist(), strict=True)
                    ),
                    volume=float(market.volume[t, a]),
                    context=() if a else context,
                )
                for a, symbol in enumerate(symbols)
            )
        )
    return rows
