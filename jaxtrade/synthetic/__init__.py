"""Synthetic markets: seeded, batched processes in pure JAX, and their calibration to real bars.

`embedded` is the market that training uses by default, with a weak trend to learn; the others are
the textbook processes of `PROCESSES`. Usage:

    market = make_market(kind="gjr", seed=0, num_bars=10_000)        # on the host
    params = calibrate("gjr", Market.load("SPY_1d.csv.gz"))
    path = sample_bars(PROCESSES["gjr"], key, 10_000, params)        # on the device
    rows = pool(PROCESSES["gjr"], key, 64, 4_096, params)            # 64 paths, concatenated
"""

from jaxtrade.synthetic.bars import BarParams, Path, make_bar_params
from jaxtrade.synthetic.calibrate import calibrate
from jaxtrade.synthetic.diffusions import (
    GBMParams,
    HestonParams,
    MertonParams,
    make_gbm,
    make_heston,
    make_merton,
)
from jaxtrade.synthetic.embedded import EmbeddedPath, SyntheticParams, make_params, sample
from jaxtrade.synthetic.garch import GARCHParams, make_garch, make_gjr
from jaxtrade.synthetic.pair import PairParams, make_pair
from jaxtrade.synthetic.processes import (
    PROCESSES,
    Process,
    find_process,
    make_market,
    pool,
    sample_bars,
)
from jaxtrade.synthetic.regimes import RegimeParams, make_regimes

__all__ = [
    "PROCESSES",
    "BarParams",
    "EmbeddedPath",
    "GARCHParams",
    "GBMParams",
    "HestonParams",
    "MertonParams",
    "PairParams",
    "Path",
    "Process",
    "RegimeParams",
    "SyntheticParams",
    "calibrate",
    "find_process",
    "make_bar_params",
    "make_garch",
    "make_gbm",
    "make_gjr",
    "make_heston",
    "make_market",
    "make_merton",
    "make_pair",
    "make_params",
    "make_regimes",
    "pool",
    "sample",
    "sample_bars",
]
