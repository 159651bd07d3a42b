"""Facts of each bar that a market's own returns and stamps tell, to group or end episodes by."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError

REGIMES = ("calm, down", "calm, up", "volatile, down", "volatile, up")


def regimes(market: Market, *, lookback_bars: int = 100) -> NDArray[np.int32]:
    """i32[T], the number in `REGIMES` of the regime each bar is in, -1 where none is known yet.

    Volatile: the root mean square log return of the last `lookback_bars` bars is above the median
    of all that were so far. Up: their sum is above 0. Both are known at the end of the bar. The
    first `lookback_bars` - 1 bars are in none. Of several assets, the mean return counts.

    Raises:
        JaxtradeError: a lookback below 2 or of more bars than there are.
    """
    if not 2 <= lookback_bars <= market.num_bars:
        raise JaxtradeError(
            f"{market.name()}: lookback_bars is {lookback_bars}: give 2 to {market.num_bars}"
        )
    returns = np.log1p(market.bars[:, :, 3].astype(np.float64)).mean(axis=1)
    square = pd.Series(returns**2).rolling(lookback_bars).mean()
    is_volatile = (square > square.expanding().median()).to_numpy()
    is_up = (pd.Series(returns).rolling(lookback_bars).sum() > 0).to_numpy()
    tags = 2 * is_volatile.astype(np.int32) + is_up.astype(np.int32)
    return np.where(square.isna().to_numpy(), np.int32(-1), tags)


def session_ends(
    market: Market, *, pause_bars: float = 30, time_zone: str | None = "UTC"
) -> NDArray[np.bool_]:
    """bool[T], whether a bar is the last of its session.

    A session ends where the next bar starts on another date of `time_zone` (None: dates do not
    count), or more than `pause_bars` bar lengths after this one's end; the market's last bar ends
    one, too. That is read off the stamps of what came next, yet it is no look-ahead where a
    calendar says it beforehand, as an exchange's hours do; a pause that nobody announced is such a
    look-ahead, so leave `pause_bars` well above the minutes that go without a trade.

    Raises:
        JaxtradeError: a negative pause, or no such time zone.
    """
    if not pause_bars >= 0:
        raise JaxtradeError(f"{market.name()}: pause_bars is {pause_bars}: give 0 or more")
    length = market.spec.bar_seconds
    pause = np.diff(market.timestamps.astype(np.float64)) - length
    ends = pause > pause_bars * length
    if time_zone is not None:
        ends |= _is_other_date(market, time_zone)
    return np.append(ends, True)


def _is_other_date(market: Market, time_zone: str) -> NDArray[np.bool_]:
    """bool[T - 1], whether the next bar starts on another date."""
    stamps = pd.DatetimeIndex(market.timestamps, tz="UTC")
    try:
        date = stamps.tz_convert(time_zone).tz_localize(None).normalize()
    except (KeyError, ValueError, OSError) as error:
        raise JaxtradeError(
            f"{market.name()}: no time zone {time_zone!r}: give one like America/New_York"
        ) from error
    return np.asarray(date[1:] != date[:-1])
