"""First floor: market environments that speak gymnax 1.x.

Each file is one family: a class whose docstring is its contract, and its `EnvParams`. `base.py`
holds what they share. To add one: subclass `Environment` as a frozen dataclass, add a maker to
`MAKERS` below, and run `tests/kit.py` on it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import gymnax

from jaxtrade.envs.actions import Exposure, Levels, PricedOrders, Weights
from jaxtrade.envs.base import Environment
from jaxtrade.envs.gym_trading import GymTrading, make_gym_trading
from jaxtrade.envs.making import make_trading
from jaxtrade.envs.params import EnvParams
from jaxtrade.envs.pool import make_pool
from jaxtrade.envs.presets import (
    Forex,
    LeveragedETF,
    Perpetual,
    Portfolio,
    StockTrading,
    make_forex,
    make_leveraged_etf,
    make_perpetual,
    make_portfolio,
    make_stock,
)
from jaxtrade.envs.trading import State, Trading
from jaxtrade.market import Market
from jaxtrade.specs import unknown_name

__all__ = [
    "MAKERS",
    "EnvParams",
    "Environment",
    "Exposure",
    "Forex",
    "GymTrading",
    "Levels",
    "LeveragedETF",
    "Perpetual",
    "Portfolio",
    "PricedOrders",
    "State",
    "StockTrading",
    "Trading",
    "Weights",
    "make",
    "make_pool",
]

MAKERS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "Trading-v0": make_trading,
    "StockTrading-v0": make_stock,
    "LeveragedETF-v0": make_leveraged_etf,
    "Forex-v0": make_forex,
    "Perpetual-v0": make_perpetual,
    "Portfolio-v0": make_portfolio,
    "GymTrading-v0": make_gym_trading,
}
"""For each environment, the function from a market and options to (env, params)."""

for _family in (Trading, StockTrading, LeveragedETF, Forex, Perpetual, Portfolio, GymTrading):
    gymnax.register(f"{_family.__name__}-v0", _family)


def make(env_id: str, *, market: Market | Sequence[Market], **options: Any) -> tuple[Any, Any]:
    """An environment on a market, and its parameters.

    Raises:
        JaxtradeError: unknown name, or options that do not fit the market.
    """
    if env_id not in MAKERS:
        raise unknown_name("environment", env_id, MAKERS)
    return MAKERS[env_id](market, **options)
