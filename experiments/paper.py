"""Runs on paper: the venue of a run's own market, rules and rows, for the paper broker."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxtrade.envs import EnvParams
from jaxtrade.experiments.config import apply
from jaxtrade.experiments.rundir import RunDirectory
from jaxtrade.experiments.setup import build_setup, other_market
from jaxtrade.live.brokers.paper_venue import Venue
from jaxtrade.market import Market


def run_market(run: str | Path, data_overrides: Sequence[str] = ()) -> tuple[Market, EnvParams]:
    """A run's market, and its environment's parameters on the rows to trade: its test span, or all
    of the data that the overrides name.

    Raises:
        JaxtradeError: no run, or a setting that the policy is bound to was changed.
    """
    config = RunDirectory.open(run).read_config()
    setup = build_setup(config)
    if data_overrides:
        return other_market(setup, apply(config, data_overrides))
    return setup.market, setup.test


def venue(market: Market, env_params: EnvParams) -> Venue:
    """The venue of a market under the rules, and on the rows, of an environment.

    Brackets are left out: live, stops and targets are orders.
    """
    before = market.previous_closes()
    prices = before[:, :, None] * (1.0 + market.bars.astype(np.float64))
    prices[:, :, 3] = market.close_prices()
    context = (market.spec.context, market.context)
    return Venue(
        symbols=market.spec.symbols,
        tape=env_params.tape,
        rules=dataclasses.replace(env_params.rules, brackets=None),
        prices=prices,
        volume=market.volume.astype(np.float64),
        is_there=np.ones(market.volume.shape, bool),
        context=(context,) * market.num_assets,
        starts_s=market.timestamps.astype(np.int64),
        bar_seconds=market.spec.bar_seconds,
        first=int(env_params.first),
        last=int(env_params.last),
    )
