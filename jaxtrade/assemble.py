"""Markets made of markets, on the host: several assets, slower bars, mid prices, leveraged funds.

Prices are formed in float64 and become bars through `bars.relative_bars`, as a file's do. Nothing
is filled in: what does not fit is an error of one line.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jaxtrade.barfile import Source
from jaxtrade.bars import DAY_SECONDS, bars_per_year, clock_rows, relative_bars
from jaxtrade.frames import check_frame
from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError, MarketSpec

F64 = NDArray[np.float64]

MIN_SHARED = 2
HALF_SPREADS = ("half_spread_open", "half_spread_close")


def combine(markets: Sequence[Market]) -> Market:
    """One market of the assets of several, at the stamps that all of them have.

    A bar at another stamp is left out with its high and low; returns are formed anew over the rows
    that stay, so that each asset's prices there are those of its own market. Context columns of a
    market of one asset get its symbol as a prefix, `spy_vix`.

    Raises:
        JaxtradeError: fewer than two markets, a symbol that is there twice or empty, bars of
            different lengths, or fewer than two stamps in common.
    """
    names, symbols = _together(markets)
    stamps = functools.reduce(np.intersect1d, [market.timestamps for market in markets])
    if len(stamps) < MIN_SHARED:
        spans = ", ".join(f"{m.name()} {m.timestamps[0]}Z .. {m.timestamps[-1]}Z" for m in markets)
        raise JaxtradeError(
            f"{spans}: have {len(stamps)} stamps in common: give markets that share {MIN_SHARED}"
        )
    rows = [np.searchsorted(market.timestamps, stamps) for market in markets]
    pairs = list(zip(markets, rows, strict=True))
    context = tuple(name for market in markets for name in _prefixed(market))
    if len(set(context)) < len(context):
        raise JaxtradeError(f"{names}: the context columns {', '.join(context)} are not unique")
    return _build(
        stamps,
        prices=np.concatenate([_prices(market)[index] for market, index in pairs], axis=1),
        base_price=np.concatenate([market.previous_closes()[index[0]] for market, index in pairs]),
        volume=np.concatenate([market.volume[index] for market, index in pairs], axis=1),
        context=np.concatenate([market.context[index] for market, index in pairs], axis=1),
        spec=dataclasses.replace(
            markets[0].spec, symbols=symbols, context=context, source=f"combined ({names})"
        ),
    )


def resample(market: Market, bar_seconds: int) -> Market:
    """The market in slower bars, aligned to midnight UTC, weeks to Monday.

    A slow bar holds the bars that start within it and is stamped with its own start. Its volume is
    the sum, its context the last row's. A last one that is not over by the end of the last bar is
    dropped; a stretch without bars makes none.

    Raises:
        JaxtradeError: a length that the market's bars do not make up (see `frames.check_frame`),
            or no slow bar is over.
    """
    try:
        check_frame(bar_seconds, market.spec.bar_seconds)
    except JaxtradeError as error:
        raise JaxtradeError(f"{market.name()}: {error}") from error
    seconds = market.timestamps.astype(np.int64)
    starts = seconds - (seconds + 3 * DAY_SECONDS) % bar_seconds  # 1970-01-01 was a Thursday
    first = np.flatnonzero(np.diff(starts, prepend=starts[0] - 1))
    last = np.append(first[1:], len(seconds)) - 1
    if seconds[-1] + market.spec.bar_seconds < starts[-1] + bar_seconds:
        first, last = first[:-1], last[:-1]
    if not len(first):
        raise JaxtradeError(
            f"{market.name()}: {market.num_bars} bars of {market.spec.bar_seconds} s complete none "
            f"of {bar_seconds} s: give a longer market"
        )
    end = last[-1] + 1
    prices, volume = _prices(market)[:end], market.volume[:end].astype(np.float64)
    slow = (
        prices[first, :, 0],
        np.maximum.reduceat(prices[:, :, 1], first),
        np.minimum.reduceat(prices[:, :, 2], first),
        prices[last, :, 3],
    )
    return _build(
        starts[first].astype("datetime64[s]"),
        prices=np.stack(slow, axis=-1),
        base_price=np.asarray(market.spec.base_price),
        volume=np.add.reduceat(volume, first),
        context=market.context[last],
        spec=dataclasses.replace(market.spec, bar_seconds=bar_seconds),
    )


def with_ask(bid: Market, ask: Market) -> Market:
    """Bars of the mid price, from bid and ask bars of one asset at the same stamps.

    Open and close are exact; high and low are the means of the two highs and lows, which the mid
    price itself may not quite have reached. Two context columns are added to the bid's,
    `half_spread_open` and `half_spread_close`: fractions of the mid price, 0 or more. Volume, and
    symbol, are the bid's; the ask's context is left.

    Raises:
        JaxtradeError: markets of several assets, other stamps, or an ask below the bid at an open
            or a close (a crossed market is a fault of the data, and no cost).
    """
    names = f"{bid.name()} and {ask.name()}"
    if bid.num_assets != 1 or ask.num_assets != 1:
        raise JaxtradeError(f"{names}: hold {bid.num_assets} and {ask.num_assets} assets: give one")
    if not np.array_equal(bid.timestamps, ask.timestamps):
        apart = np.setxor1d(bid.timestamps, ask.timestamps)
        raise JaxtradeError(
            f"{names}: {len(apart):,} stamps are in one of them only, {apart[0]}Z the first: "
            "give files with the same stamps"
        )
    if bid.spec.bar_seconds != ask.spec.bar_seconds:
        raise JaxtradeError(f"{names}: have bars of different lengths: give bars of one length")
    doubled = sorted(set(HALF_SPREADS) & set(bid.spec.context))
    if doubled:
        raise JaxtradeError(f"{bid.name()}: has a column {doubled[0]} already: give the bid alone")
    low, high = _prices(bid), _prices(ask)
    mid = (low + high) / 2
    halves = ((high - low) / 2 / mid)[:, 0, [0, 3]]
    halves[np.abs(halves) < 1e-7] = 0.0  # what float32 returns cannot tell from none
    Source(name=names).reject(
        np.any(halves < 0, axis=1),
        lambda row: (
            f"{bid.timestamps[row]}Z: half the spread is {halves[row, 0]:.3g} of the price at the "
            f"open, {halves[row, 1]:.3g} at the close: give an ask that is not below the bid"
        ),
    )
    base = (np.asarray(bid.spec.base_price) + np.asarray(ask.spec.base_price)) / 2
    return _build(
        bid.timestamps,
        prices=mid,
        base_price=base,
        volume=bid.volume,
        context=np.concatenate([bid.context, halves], axis=1),
        spec=dataclasses.replace(
            bid.spec, context=bid.spec.context + HALF_SPREADS, source=f"mid ({names})"
        ),
    )


def leveraged(market: Market, leverage: float, *, yearly_fee: float = 0.0) -> Market:
    """What a fund with a daily reset multiple of each asset would have done, the decay included.

    From the last close of one UTC day to any price of the next, the fund moves `leverage` times as
    far as the asset; bars of a day or longer each are a day of their own. A negative leverage
    makes the asset's low the fund's high. The fee is taken evenly over the time that passes.
    Volume and context stay the asset's; the symbol QQQ becomes `QQQx3`.

    Args:
        market: the underlying.
        leverage: of a fund like TQQQ 3, of one like SQQQ -3; not 0.
        yearly_fee: what the fund costs, financing included, as a fraction of its value.

    Raises:
        JaxtradeError: a leverage of 0 or not finite, a fee not in [0, 1), or a day that ruins the
            fund: a price of 0 or less.
    """
    if not math.isfinite(leverage) or leverage == 0:
        raise JaxtradeError(f"{market.name()}: leverage is {leverage}: give a number other than 0")
    if not 0 <= yearly_fee < 1:
        raise JaxtradeError(
            f"{market.name()}: yearly_fee is {yearly_fee}: give a fraction of 0 or more, below 1"
        )
    is_new_day = np.diff(market.day, prepend=market.day[0] - 1) != 0
    is_new_day |= market.spec.bar_seconds >= DAY_SECONDS
    day = np.cumsum(is_new_day) - 1
    day_start = np.flatnonzero(is_new_day)

    anchor = market.previous_closes()[day_start][day]  # the close that each bar's day begins with
    growth = 1 + leverage * (_prices(market) / anchor[..., None] - 1)
    Source(name=market.name()).reject(
        np.any(growth <= 0, axis=(1, 2)),
        lambda row: (
            f"{market.timestamps[row]}Z: {leverage:g} times the day's move takes all of the fund's "
            "value: give a leverage nearer to 0"
        ),
    )
    if leverage < 0:
        growth = growth[..., [0, 2, 1, 3]]
    day_end = np.append(day_start[1:], market.num_bars) - 1
    base = np.asarray(market.spec.base_price)
    value = base * np.cumprod(np.concatenate([np.ones((1, len(base))), growth[day_end, :, 3]]), 0)
    paid = (1 - yearly_fee) ** np.cumsum(market.clock[:, 2].astype(np.float64))
    return _build(
        market.timestamps,
        prices=value[:-1][day][..., None] * growth * paid[:, None, None],
        base_price=base,
        volume=market.volume,
        context=market.context,
        spec=dataclasses.replace(
            market.spec,
            symbols=tuple(f"{symbol}x{leverage:g}" for symbol in market.spec.symbols),
            source=f"{leverage:g} x {market.name()}",
        ),
    )


def _together(markets: Sequence[Market]) -> tuple[str, tuple[str, ...]]:
    """The names for messages and the symbols of markets that go together, else JaxtradeError."""
    names = ", ".join(market.name() for market in markets)
    if len(markets) < 2:
        raise JaxtradeError(f"{len(markets)} markets to combine: give at least 2")
    symbols = tuple(symbol for market in markets for symbol in market.spec.symbols)
    if len(set(symbols)) < len(symbols) or not all(symbols):
        raise JaxtradeError(
            f"{names}: the symbols are {', '.join(map(repr, symbols))}: give each market its own"
        )
    lengths = [market.spec.bar_seconds for market in markets]
    if len(set(lengths)) > 1:
        raise JaxtradeError(
            f"{names}: bars of {', '.join(map(str, lengths))} s: give bars of one length, "
            "see resample"
        )
    return names, symbols


def _prices(market: Market) -> F64:
    """f64[T, A, 4], open, high, low and close in quote currency."""
    return market.previous_closes()[..., None] * (1 + market.bars.astype(np.float64))


def _prefixed(market: Market) -> tuple[str, ...]:
    """The context columns' names, after the symbol where there is one."""
    if market.num_assets > 1:
        return market.spec.context
    return tuple(f"{market.spec.symbols[0]}_{name}".lower() for name in market.spec.context)


def _build(
    stamps: NDArray[np.datetime64],
    *,
    prices: F64,
    base_price: F64,
    volume: NDArray[np.floating],
    context: NDArray[np.floating],
    spec: MarketSpec,
) -> Market:
    """A market of prices f64[T, A, 4], the first bar relative to base_price f64[A].

    Raises:
        JaxtradeError: a step that float32 returns cannot hold.
    """
    before = np.concatenate([base_price[None], prices[:-1, :, 3]])
    assets = range(prices.shape[1])
    bars = np.stack([relative_bars(prices[:, a], before[:, a]) for a in assets], axis=1)
    Source(name=spec.source or "market").reject(
        np.any(~np.isfinite(bars) | (bars <= -1), axis=(1, 2)),
        lambda row: f"{stamps[row]}Z: give prices whose steps float32 returns can hold",
    )
    seconds = stamps.astype(np.int64)
    return Market(
        bars=bars,
        volume=volume.astype(np.float32),
        context=context.astype(np.float32),
        clock=clock_rows(stamps, bar_seconds=spec.bar_seconds),
        day=(seconds // DAY_SECONDS).astype(np.int32),
        second=(seconds % DAY_SECONDS).astype(np.int32),
        spec=dataclasses.replace(
            spec,
            bars_per_year=bars_per_year(stamps, bar_seconds=spec.bar_seconds),
            base_price=tuple(base_price.tolist()),
        ),
    )
