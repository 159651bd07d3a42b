"""The processes by name, and what works the same on each of them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxtrade.bars import DAY_SECONDS, bars_per_year, clock_rows
from jaxtrade.lengths import common_length
from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError, MarketSpec, unknown_name
from jaxtrade.synthetic.bars import Path
from jaxtrade.synthetic.checks import whole_number
from jaxtrade.synthetic.diffusions import (
    GBMParams,
    HestonParams,
    MertonParams,
    make_gbm,
    make_heston,
    make_merton,
    sample_gbm,
    sample_heston,
    sample_merton,
)
from jaxtrade.synthetic.embedded import SyntheticParams, make_params, sample_embedded
from jaxtrade.synthetic.garch import GARCHParams, make_garch, make_gjr, sample_garch
from jaxtrade.synthetic.pair import PairParams, make_pair, sample_pair
from jaxtrade.synthetic.regimes import RegimeParams, make_regimes, sample_regimes

BAR_SECONDS = 3_600
FIRST_BAR = "2000-01-03T00:00:00"  # a Monday
FIRST_PRICE = 100.0
MIN_BARS, MAX_BARS = 100, 10_000_000

Params = Any
"""The params pytree of a process."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Process:
    """A law that bars are drawn from; static, hashed by value.

    sample: the path of a key, pure; make_params: its parameters from plain numbers, by default a
    liquid asset's hourly bars; params_type: what make_params returns; symbols: of its assets.
    """

    name: str
    sample: Callable[[Params, jax.Array, int], Path]
    make_params: Callable[..., Params]
    params_type: type
    symbols: tuple[str, ...] = ("SYNTH",)


PROCESSES: dict[str, Process] = {
    process.name: process
    for process in (
        Process(
            name="embedded",
            sample=sample_embedded,
            make_params=make_params,
            params_type=SyntheticParams,
        ),
        Process(name="gbm", sample=sample_gbm, make_params=make_gbm, params_type=GBMParams),
        Process(name="garch", sample=sample_garch, make_params=make_garch, params_type=GARCHParams),
        Process(name="gjr", sample=sample_garch, make_params=make_gjr, params_type=GARCHParams),
        Process(
            name="heston", sample=sample_heston, make_params=make_heston, params_type=HestonParams
        ),
        Process(
            name="merton", sample=sample_merton, make_params=make_merton, params_type=MertonParams
        ),
        Process(
            name="pair",
            sample=sample_pair,
            make_params=make_pair,
            params_type=PairParams,
            symbols=("SYNTH1", "SYNTH2"),
        ),
        Process(
            name="regimes",
            sample=sample_regimes,
            make_params=make_regimes,
            params_type=RegimeParams,
        ),
    )
}


def find_process(kind: str) -> Process:
    """The process of that name.

    Raises:
        JaxtradeError: there is none.
    """
    if kind not in PROCESSES:
        raise unknown_name("synthetic market", kind, PROCESSES)
    return PROCESSES[kind]


@functools.partial(jax.jit, static_argnames=("process", "num_bars"))
def sample_bars(process: Process, key: jax.Array, num_bars: int, params: Params) -> Path:
    """Draw a path. Pure: map it over keys, over params or over both.

    A longer path of the same key begins with the shorter one.
    """
    return process.sample(params, key, num_bars)


@functools.partial(jax.jit, static_argnames=("process", "num_paths", "num_bars", "per_path"))
def pool(
    process: Process,
    key: jax.Array,
    num_paths: int,
    num_bars: int,
    params: Params,
    *,
    per_path: bool = False,
) -> Path:
    """P paths of T bars as concatenated rows [P * T, A, ...], path after path.

    per_path: the leaves of params have a leading axis [P], one for each path.
    """
    keys = jax.random.split(key, num_paths)
    draw = jax.vmap(process.sample, in_axes=(0 if per_path else None, 0, None))
    paths = draw(params, keys, num_bars)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), paths)


def make_market(
    *,
    kind: str = "embedded",
    seed: int = 0,
    num_bars: int = 50_000,
    params: Params | None = None,
    bar_seconds: int = BAR_SECONDS,
) -> Market:
    """The path of `seed` as a market, round the clock from 2000-01-03, every price from 100.

    One asset, "SYNTH"; two, "SYNTH1" and "SYNTH2", of the pair.

    Args:
        kind: a name of `PROCESSES`.
        seed: of everything random.
        num_bars: rows.
        params: of that process, by default its own.
        bar_seconds: length of a bar on the clock; it scales nothing.

    Raises:
        JaxtradeError: an unknown kind; a number out of bounds; `params` of another process, or
            that give no finite bars.
    """
    process = find_process(kind)
    seed = whole_number("seed", seed, 0, 2**32 - 1)
    num_bars = whole_number("num_bars", num_bars, MIN_BARS, MAX_BARS)
    bar_seconds = whole_number("bar_seconds", bar_seconds, 1, 31 * DAY_SECONDS)
    if params is None:
        params = process.make_params()
    elif not isinstance(params, process.params_type):
        raise JaxtradeError(
            f"synthetic market: params of {kind} are {type(params).__name__}: "
            f"give {process.params_type.__name__}, from {process.make_params.__name__}"
        )
    key = jax.random.key(seed, impl="threefry2x32")
    path = sample_bars(process, key, common_length(num_bars), params)
    bars, volume = (np.asarray(rows)[:num_bars].copy() for rows in (path.bars, path.volume))
    if not (np.isfinite(bars).all() and np.isfinite(volume).all()):
        raise JaxtradeError(
            "synthetic market: params give bars that are not finite: "
            f"build them with {process.make_params.__name__}"
        )
    seconds = np.datetime64(FIRST_BAR, "s").astype(np.int64) + bar_seconds * np.arange(num_bars)
    stamps = seconds.astype("datetime64[s]")
    return Market(
        bars=bars,
        volume=volume,
        context=np.zeros((num_bars, 0), np.float32),
        clock=clock_rows(stamps, bar_seconds=bar_seconds),
        day=(seconds // DAY_SECONDS).astype(np.int32),
        second=(seconds % DAY_SECONDS).astype(np.int32),
        spec=MarketSpec(
            symbols=process.symbols,
            bar_seconds=bar_seconds,
            bars_per_year=bars_per_year(stamps, bar_seconds=bar_seconds),
            base_price=(FIRST_PRICE,) * len(process.symbols),
            source=f"synthetic{'' if kind == 'embedded' else f' {kind}'} (seed {seed})",
        ),
    )
