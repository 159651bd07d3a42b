"""First floor: market environments that speak gymnax 1.x.

Each file is one family: a class whose docstring is its contract, and its `EnvParams`. `base.py`
holds what they share. To add one: subclass `Environment` as a frozen dataclass, add a maker to
`MAKERS` below, and run `tests/kit.py` on it.
"""

from collections.abc import Callable
from typing import Any

import gymnax

from jaxtrade.envs.base import Environment
from jaxtrade.envs.gym_trading import GymTrading, make_gym_trading
from jaxtrade.envs.trading import EnvParams, State, Trading, make_trading
from jaxtrade.market import Market
from jaxtrade.specs import unknown_name

__all__ = ["MAKERS", "EnvParams", "Environment", "GymTrading", "State", "Trading", "make"]

MAKERS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "GymTrading-v0": make_gym_trading,
    "Trading-v0": make_trading,
}
"""For each environment, the function from a market and options to (env, params)."""

gymnax.register("Trading-v0", Trading)
gymnax.register("GymTrading-v0", GymTrading)


def make(env_id: str, *, market: Market, **options: Any) -> tuple[Any, Any]:
    """An environment on a market, and its parameters.

    Raises:
        JaxtradeError: unknown name, or options that do not fit the market.
    """
    if env_id not in MAKERS:
        raise unknown_name("environment", env_id, MAKERS)
    return MAKERS[env_id](market, **options)
