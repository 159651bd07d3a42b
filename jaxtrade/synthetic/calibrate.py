"""Parameters of a process from a real market, by the method usual for each.

| process | method |
| --- | --- |
| gbm | moments of the log return |
| garch, gjr | maximum likelihood |
| merton | maximum likelihood, from the jumps that stand out |
| heston | moments: variance, autocovariance of squares, covariance of return and later squares |
| regimes | expectation-maximisation with Hamilton's filter, two regimes |
| pair | least squares: levels for the hedge ratio, first-order autoregression of the spread |

Everything runs on the host in float64. The first bar has no bar before it and does not count.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic.bars import BarParams
from jaxtrade.synthetic.fit_garch import fit_garch, fit_gjr
from jaxtrade.synthetic.fit_merton import fit_merton
from jaxtrade.synthetic.fit_moments import fit_bars, fit_gbm, fit_heston, fit_pair
from jaxtrade.synthetic.fit_regimes import fit_regimes
from jaxtrade.synthetic.processes import Params, find_process

MIN_RETURNS = 250

_FITS: dict[str, Callable[[NDArray[np.float64], BarParams], Params]] = {
    "gbm": fit_gbm,
    "garch": fit_garch,
    "gjr": fit_gjr,
    "heston": fit_heston,
    "merton": fit_merton,
    "regimes": fit_regimes,
}


def calibrate(kind: str, market: Market) -> Params:
    """The parameters under which a process resembles a market; rates are per bar of it.

    Args:
        kind: a name of `PROCESSES`, not "embedded".
        market: one asset; two for "pair", the spread being the first asset's.

    Raises:
        JaxtradeError: an unknown kind, or one with nothing to calibrate; another number of assets;
            fewer than MIN_RETURNS returns, or returns that do not move; numbers that the process
            cannot have, such as a pair whose spread does not return.
    """
    process = find_process(kind)
    if kind == "embedded":
        raise JaxtradeError(
            f"calibrate: the embedded market is what it is: choose from {', '.join(_FITS)}, pair"
        )
    num_assets = len(process.symbols)
    if market.num_assets != num_assets:
        raise JaxtradeError(
            f"calibrate {kind}: {market.name()} holds {market.num_assets} assets: give {num_assets}"
        )
    if market.num_bars <= MIN_RETURNS:
        raise JaxtradeError(
            f"calibrate {kind}: {market.name()} has {market.num_bars} bars: "
            f"give more than {MIN_RETURNS}"
        )
    logs = np.log1p(market.bars[1:, :, [0, 3]].astype(np.float64))
    if not (np.isfinite(logs).all() and (logs[..., 1].std(axis=0) > 0).all()):
        raise JaxtradeError(
            f"calibrate {kind}: {market.name()} has prices that never move: give others"
        )
    bars = fit_bars(logs, market.volume[1:])
    try:
        if kind == "pair":
            return fit_pair(np.log(market.close_prices()), bars)
        return _FITS[kind](logs[:, 0, 1], bars)
    except JaxtradeError as error:
        raise JaxtradeError(f"calibrate {kind}: {market.name()}: {error}") from error
