"""GymTrading-v0 on small markets: what its tests share."""

import dataclasses
import functools

import numpy as np

import jaxtrade
from jaxtrade.market import Market
from tests.markets import random_frame
from tests.plays import market_of

POSITIONS = (0, 1, -1, 2)
FLAT, LONG, SHORT, DOUBLE = range(4)


def with_features(market, *, count=2):
    columns = np.random.default_rng(0).standard_normal((market.num_bars, count))
    names = tuple(f"feature_{letter}" for letter in "abcdefgh"[:count])
    return market.replace(
        context=columns.astype(np.float32), spec=dataclasses.replace(market.spec, context=names)
    )


@functools.cache
def random_market(num_bars=700, *, deviation=0.01) -> Market:
    return with_features(Market.from_frame(random_frame(num_bars, deviation=deviation)))


def make(closes, **options):
    """One episode on these closes, from a flat position unless told otherwise."""
    closes = np.concatenate([closes, np.full(12 - len(closes), closes[-1], float)])
    options = {"positions": POSITIONS, "initial_position": 0, **options}
    market = with_features(market_of(closes, closes))
    return jaxtrade.make("GymTrading-v0", market=market, **options)


def make_random(market=None, **options):
    return jaxtrade.make("GymTrading-v0", market=market or random_market(), **options)
