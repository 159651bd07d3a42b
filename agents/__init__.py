"""Second floor: agents as values, and the one training loop.

An agent is a frozen record of hyperparameters with `init`, `assess`, `act` and `learn`
(`types.Agent`); floats in it are traced, so populations and sweeps share a program. What it learns
into has an `actor`: what decides, is evaluated, exported and traded. To add one: one file that
uses `settings`, `losses`, `returns`, `networks` and `rollout`, and a line in `AGENTS`.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxtrade.agents.apg import APG
from jaxtrade.agents.baselines import (
    BuyAndHold,
    Flat,
    Momentum,
    Random,
    SMACross,
    VolatilityTarget,
)
from jaxtrade.agents.dqn import DQN
from jaxtrade.agents.loop import train
from jaxtrade.agents.policy import greedy_policy, require_plain_account
from jaxtrade.agents.population import sweep, train_population
from jaxtrade.agents.ppo import PPO
from jaxtrade.agents.pqn import PQN
from jaxtrade.agents.sac import SAC
from jaxtrade.agents.types import Agent, TrainState
from jaxtrade.specs import JaxtradeError, unknown_name

__all__ = [
    "AGENTS",
    "APG",
    "DQN",
    "PPO",
    "PQN",
    "SAC",
    "Agent",
    "BuyAndHold",
    "Flat",
    "Momentum",
    "Random",
    "SMACross",
    "TrainState",
    "VolatilityTarget",
    "greedy_policy",
    "make",
    "require_plain_account",
    "sweep",
    "train",
    "train_population",
]

AGENTS: dict[str, type] = {
    "apg": APG,
    "dqn": DQN,
    "ppo": PPO,
    "pqn": PQN,
    "sac": SAC,
    "buy_and_hold": BuyAndHold,
    "flat": Flat,
    "momentum": Momentum,
    "random": Random,
    "sma_cross": SMACross,
    "volatility_target": VolatilityTarget,
}


def make(name: str, **hyperparameters: Any) -> Any:
    """An agent by name; hyperparameters not given keep their defaults.

    Raises:
        JaxtradeError: an unknown name, or a value of the wrong kind or out of range.
    """
    if name not in AGENTS:
        raise unknown_name("agent", name, AGENTS)
    fields = {field.name: field for field in dataclasses.fields(AGENTS[name])}
    for key in hyperparameters:
        if key not in fields:
            raise unknown_name(f"setting of {name}", key, fields)
    values = {
        key: _converted(key, field.default, hyperparameters.get(key, field.default))
        for key, field in fields.items()
    }
    agent = AGENTS[name](**values)
    agent.validate()
    return agent


def _converted(name: str, default: Any, value: Any) -> Any:
    """A value of the default's kind; floats become NumPy's, which a jitted function traces."""
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if isinstance(default, float) and is_number:
        return np.float32(value)
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        return tuple(value)
    if type(value) is not type(default):
        kind = type(default).__name__
        raise JaxtradeError(f"agent setting {name} is {value!r}: give a value of type {kind}")
    return value
