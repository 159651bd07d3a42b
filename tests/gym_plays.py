"""GymTrading-v0 on small markets: what its tests share."""

import dataclasses
import functools

import jax
import numpy as np

import jaxtrade
from jaxtrade.market import Market
from tests.markets import random_frame
from tests.plays import KEY, market_of

POSITIONS = (0, 1, -1, 2, -2, 0.5)
FLAT, LONG, SHORT, DOUBLE, DOUBLE_SHORT, HALF = range(6)


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
    """One episode of 8 steps on these closes and then the last of them, from a flat position."""
    closes = np.concatenate([closes, np.full(9 - len(closes), closes[-1], float)])
    options = {"positions": POSITIONS, "initial_position": 0, **options}
    market = with_features(market_of(closes, closes))
    return jaxtrade.make("GymTrading-v0", market=market, **options)


def make_random(market=None, **options):
    return jaxtrade.make("GymTrading-v0", market=market or random_market(), **options)


@functools.partial(jax.jit, static_argnames="env")
def one_step(env, state, action, params):
    """One step without reset."""
    return env.step_env(KEY, state, action, params)
