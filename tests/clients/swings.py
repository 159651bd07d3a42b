"""A market that any learner masters within seconds: what the tests of clients share."""

import numpy as np

import jaxtrade
from jaxtrade.costs import make_costs
from jaxtrade.specs import FeatureSpec
from tests.plays import FREE, market_of

STEPS = 16
BEST = STEPS * np.log(1.01)
"""What an episode would pay if the turns could be seen coming; without, three quarters of it."""


def swinging():
    """Trading-v0, free of costs, on eight bars of 1 % up, eight down, and so on.

    The last return tells the next, seven times of eight.
    """
    rises = np.where(np.arange(512) // 8 % 2 == 0, 1.01, 1 / 1.01)
    closes = 100.0 * np.cumprod(rises)
    return jaxtrade.make(
        "Trading-v0",
        market=market_of(np.concatenate([[100.0], closes[:-1]]), closes),
        features=FeatureSpec(names=("log_return",), window=2),
        costs=make_costs(**FREE),
        episode_steps=STEPS,
    )
