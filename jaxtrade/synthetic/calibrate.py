"""Parameters of a process from a real market, by the method usual for each.

| process | method |
| --- | --- |
| gbm | moments of the log return |
| garch, gjr | maximum likelihood |
| merton | maximum likelihood, from the jumps that stand out |
| heston | moments: variance, autocovariance of squares, covariance of return and later squares |
| regimes | expectation-maximisation with Hamilton's filter |
| pair | least squares: levels for the hedge ratio, first-order autoregression of the spread |

Everything runs on the host in float64. The first bar has no bar before it and does not count.
"""

import numpy as np

from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic.fit_garch import fit_garch, fit_gjr
from jaxtrade.synthetic.fit_merton import fit_merton
from jaxtrade.synthetic.fit_moments import fit_bars, fit_gbm, fit_heston, fit_pair
from jaxtrade.synthetic.fit_regimes import fit_regimes
from jaxtrade.synthetic.processes import Params, find_process

MIN_RETURNS = 250


def calibrate(
    kind: str, market: Market, *, target_variance: bool = False, num_regimes: int = 2
) -> Params:
    """The parameters under which a process resembles a market; rates are per bar of it.

    Args:
        kind: a name of `PROCESSES`, not "embedded".
        market: one asset; two for "pair", the spread being the first asset's.
        target_variance: of garch and gjr, hold the long-run variance at the market's own. Where
            the persistence is close to 1 the likelihood hardly knows the long run, and paths drawn
            from its optimum may be several times as volatile as the market ever was: for
            training, target the variance.
        num_regimes: K of regimes.

    Raises:
        JaxtradeError: an unknown kind, or one with nothing to calibrate; another number of assets;
            fewer than MIN_RETURNS returns, or returns that do not move; numbers that the process
            cannot have, such as a pair whose spread does not return.
    """
    process = find_process(kind)
    if kind == "embedded":
        raise JaxtradeError("calibrate: the embedded market is what it is: choose another")
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
    returns = logs[:, 0, 1]
    try:
        match kind:
            case "gbm":
                return fit_gbm(returns, bars)
            case "garch":
                return fit_garch(returns, bars, target_variance=target_variance)
            case "gjr":
                return fit_gjr(returns, bars, target_variance=target_variance)
            case "heston":
                return fit_heston(returns, bars)
            case "merton":
                return fit_merton(returns, bars)
            case "regimes":
                return fit_regimes(returns, bars, num_regimes=num_regimes)
            case _:
                return fit_pair(np.log(market.close_prices()), bars)
    except JaxtradeError as error:
        raise JaxtradeError(f"calibrate {kind}: {market.name()}: {error}") from error
