"""Trading-v0 with episodes that end soon, in either way: what tests of adapters share."""

import jaxtrade
from jaxtrade.market import Market
from jaxtrade.specs import RiskLimits
from tests.markets import random_frame
from tests.plays import WIDE

STEPS = 7


def short_and_wild():
    """Episodes of 7 steps, some of which end in ruin before."""
    return jaxtrade.make(
        "Trading-v0",
        market=Market.from_frame(random_frame(400, deviation=0.03)),
        window=2,
        levels=(-25.0, 0.0, 25.0),
        features={"macd": False, "ema_50": False},
        episode_steps=STEPS,
        limits=RiskLimits(**dict.fromkeys(WIDE, 99.0)),
    )
