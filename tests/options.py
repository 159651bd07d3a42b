"""Trading under many sets of options on one small market: what its tests share."""

import functools

import jax
import numpy as np

import jaxtrade
from jaxtrade.assemble import combine
from jaxtrade.brackets import make_brackets
from jaxtrade.costs import make_costs
from jaxtrade.envs import Exposure, PricedOrders
from jaxtrade.impact import make_impact
from jaxtrade.margin import make_margin
from jaxtrade.rules import make_rules
from jaxtrade.specs import FeatureSpec, RiskLimits
from tests.markets import random_frame
from tests.plays import KEY, WIDE
from tests.steps import RATES

RETURNS = FeatureSpec(names=("log_return",), window=2)
CONTEXT = {
    "half_spread_open": 2e-4,
    "half_spread_close": 3e-4,
    "dividend": 0.05,
    "funding": 1e-4,
}


def market_of(num_bars=96, seed=0, *, freq="h", deviation=0.01, columns=True, assets=1):
    """Bars with every context column, or none."""
    markets = []
    for number in range(assets):
        frame = random_frame(num_bars, seed=seed + number, freq=freq, deviation=deviation)
        frame["volume"] += 500
        generator = np.random.default_rng([seed, 9])
        if columns:
            for name, size in CONTEXT.items():
                frame[name] = size * generator.random(num_bars)
        markets.append(jaxtrade.Market.from_frame(frame, symbol=f"M{number}"))
    return markets[0] if assets == 1 else combine(markets)


def full_rules(**options):
    return make_rules(
        costs=make_costs(**RATES),
        margin=make_margin(max_leverage=4.0, liquidation_fee=0.01),
        brackets=make_brackets(stop_loss=0.01, take_profit=0.03, trailing=0.02),
        **options,
    )


FULL_LIMITS = RiskLimits(
    **WIDE,
    max_drawdown=0.2,
    max_daily_loss=0.1,
    target_volatility=0.8,
    risk_per_trade=0.02,
    drawdown_resume=0.1,
    drawdown_scale=0.5,
    cooldown_bars=2,
)
REWARDS = dict.fromkeys(jaxtrade.rewards.REWARDS, 0.1)

OPTIONS = {
    "plain": {},
    "lots": {
        "rules": full_rules(lot_size=3.0, tick_size=0.01, latency=2, participation=0.5, delay=0.4),
        "limits": FULL_LIMITS,
        "rewards": REWARDS,
        "history": 3,
        "spread_from_data": True,
        "flat_at_session_end": True,
    },
    "next_close": {
        "rules": full_rules(
            fill="next_close", latency=1, participation=0.3, impact=make_impact("obizhaeva_wang")
        ),
        "actions": Exposure(-3.0, 3.0),
        "spread_from_data": True,
        "history": 2,
        "caps": [1.2],
        "minimum_order": 0.01,
    },
    "close": {
        "rules": full_rules(fill="close", impact=make_impact("square_root", permanent=0.1)),
        "limits": FULL_LIMITS,
        "actions": Exposure(-3.0, 3.0),
        "flat_at_session_end": True,
    },
    "limit orders": {
        "rules": full_rules(tick_size=0.01, participation=0.5),
        "actions": PricedOrders(),
        "limits": RiskLimits(**WIDE),
    },
    "stop orders": {"rules": full_rules(), "actions": PricedOrders(stop=True)},
}


def make(market, *, kind="Trading-v0", **options):
    options = {"first": 4, "episode_steps": None, "features": RETURNS, **options}
    if "actions" not in options:
        options.setdefault("levels", (-2.0, -1.0, 0.0, 1.0, 2.0))
    return jaxtrade.make(kind, market=market, **options)


@functools.partial(jax.jit, static_argnums=0)
def play(env, params, actions, key=KEY):
    """Everything that the steps give for actions [T, ...]; `action` after it as well."""

    def step(state, action):
        obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
        outcome = {"obs": obs, "state": state, "reward": reward, "info": info}
        return state, {**outcome, "terminated": terminated, "truncated": truncated}

    return jax.lax.scan(step, env.reset(key, params)[1], actions)[1]


def random_actions(env, params, steps, seed=0):
    keys = jax.random.split(jax.random.key(seed), steps)
    return jax.vmap(env.action_space(params).sample)(keys)


def walk(name, steps=80, **changes):
    env, params = make(market_of(), **{**OPTIONS[name], **changes})
    actions = random_actions(env, params, steps)
    return env, params, actions, jax.tree.map(np.asarray, play(env, params, actions))
