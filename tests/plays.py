"""Trading-v0 played on small markets: what its tests share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import jaxtrade
from jaxtrade import features
from jaxtrade.costs import make_costs
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec, RiskLimits

KEY = jax.random.key(0)
FREE = {"commission_rate": 0.0, "half_spread": 0.0, "borrow_rate": 0.0, "margin_rate": 0.0}
DEAR = {"commission_rate": 1e-3, "half_spread": 5e-4, "borrow_rate": 0.3, "margin_rate": 0.2}
WIDE = {"max_exposure": 9.0, "max_gross": 9.0, "max_net": 9.0}
RETURNS = FeatureSpec(names=("log_return",), window=2)
AS_IT_IS = features.Normaliser(mean=jnp.zeros(1), inverse_scale=jnp.ones(1))
SHORT, FLAT, LONG = 0, 1, 2


def market_of(opens, closes, *, freq="D"):
    """Bars at these prices; high and low enclose open and close."""
    opens, closes = np.asarray(opens, float), np.asarray(closes, float)
    columns = {
        "timestamp": pd.date_range("2020-01-06", periods=len(opens), freq=freq, tz="UTC"),
        "open": opens,
        "high": np.maximum(opens, closes),
        "low": np.minimum(opens, closes),
        "close": closes,
        "volume": 1.0,
    }
    return Market.from_frame(pd.DataFrame(columns))


def make(market, *, levels=(-1.0, 0.0, 1.0), rates=FREE, limits=None, **options):
    """One episode over the whole market, with a window of two log returns as they are."""
    options = {"first": 1, "episode_steps": None, "no_trade_band": 0.0, **options}
    return jaxtrade.make(
        "Trading-v0",
        market=market,
        levels=levels,
        features=RETURNS,
        normaliser=AS_IT_IS,
        costs=make_costs(**rates),
        limits=RiskLimits(**(limits or {})),
        **options,
    )


def make_still(*closes, freq="D", **options):
    """`make` on rows 0 to 2 that close at 100, then `closes`; each bar opens at the last close.

    The market goes on at the last of them up to row 15, so that all share their shapes.
    """
    last = 2 + len(closes)
    closes = np.concatenate([[100.0] * 3, closes, [closes[-1]] * (15 - last)])
    opens = np.concatenate([[100.0], closes[:-1]])
    return make(market_of(opens, closes, freq=freq), last=last, **options)


def play(env, params, actions, key=KEY):
    """The first obs and state, and all that the steps give for actions i32[T]."""
    steps = len(actions)
    padded = jnp.pad(actions, (0, -steps % 8))  # few lengths, few compilations
    start, played = jax.tree.map(np.asarray, rollout(env, params, padded, key))
    return start, jax.tree.map(lambda leaf: leaf[:steps], played)


@functools.partial(jax.jit, static_argnames="env")
def rollout(env, params, actions, key=KEY):
    """`play` as one compiled function."""
    start = env.reset(key, params)

    def step(state, action):
        obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
        outcome = {"obs": obs, "state": state, "reward": reward, "info": info}
        return state, {**outcome, "terminated": terminated, "truncated": truncated}

    return start, jax.lax.scan(step, start[1], actions)[1]


def random_actions(env, steps, seed=0):
    drawn = np.random.default_rng(seed).integers(0, env.num_actions, steps)
    return jnp.asarray(np.repeat(drawn, 3)[:steps], jnp.int32)
