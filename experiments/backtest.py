"""Backtests: policies, learned or by rule, walked over a span of a market."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxtrade import agents, ledger
from jaxtrade.agents import BuyAndHold, Flat, Momentum, Random, SMACross, VolatilityTarget
from jaxtrade.agents.rules import COLUMN, Rule
from jaxtrade.decision import Policy, choose
from jaxtrade.envs import EnvParams, Levels, Trading
from jaxtrade.experiments.results import Backtest
from jaxtrade.features import fit, normalise, raw_table
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec

BASELINES = ("buy and hold", "flat", "random", "SMA cross", "momentum", "volatility target")
BASELINE_WINDOW, CLIP = 32, 100.0
"""Bars that the baselines see, and deviations within which they see them."""


def backtest(policy: Policy, market: Market, **options: Any) -> Backtest:
    """What a policy does on a market, one episode from the first row with a full lookback.

    `options` are those of `Trading.params`: first, last, costs, rules, limits, no_trade_band.

    Raises:
        JaxtradeError: the market lacks a column, or has too few rows.
    """
    env = Trading(features=policy.features, actions=policy.actions)  # type: ignore[arg-type]
    env_params = env.params(market, normaliser=policy.normaliser, episode_steps=None, **options)
    num_steps = int(env_params.last - env_params.first)
    steps = jax.jit(lambda env_params: _walk(env, env_params, [policy], num_steps))(env_params)
    return record(_one(steps, 0), market, env_params, name="agent", span="all")


def agent_backtest(
    agent: Any, actor: Any, env: Trading, env_params: EnvParams, market: Market, *, span: str
) -> Backtest:
    """What an actor's greedy policy does; compiled once for all actors of a run."""
    num_steps = int(env_params.last - env_params.first)
    steps = walk((agent,), (actor,), env, env_params, num_steps)
    return record(_one(steps, 0), market, env_params, name="agent", span=span)


def baselines(
    env: Trading, env_params: EnvParams, market: Market, *, span: str, seed: int
) -> list[Backtest]:
    """What the rules of `baseline_agents` do, under the same rules and costs.

    They see log returns of their own, whatever the environment shows; those that look further back
    than there are bars are left out.
    """
    first, last = int(env_params.first), int(env_params.last)
    spec = FeatureSpec(names=(COLUMN,), window=min(BASELINE_WINDOW, first + 1), clip=CLIP)
    raw = raw_table(spec, market)
    scale = fit(raw, first, last)
    table = normalise(scale, raw, spec.clip).reshape(len(raw), -1)
    env = dataclasses.replace(env, features=spec)
    env_params = env_params.replace(table=table, normaliser=scale)
    rules = {
        name: rule for name, rule in baseline_agents(env).items() if rule.num_bars <= spec.window
    }
    key = jax.random.key(seed)
    actors = tuple(rule.init(key, env, env_params).actor for rule in rules.values())
    steps = walk(tuple(rules.values()), actors, env, env_params, last - first)
    return [
        record(_one(steps, number), market, env_params, name=name, span=span)
        for number, name in enumerate(rules)
    ]


def baseline_agents(env: Trading) -> dict[str, Rule]:
    """Rules to compare with, named as in `BASELINES`.

    All that are not flat hold an exposure of 1, or what of the environment's is the nearest.
    """
    position = 1.0
    if isinstance(env.actions, Levels):
        longs = [level for level in env.levels if level > 0]
        position = min(longs, key=lambda level: abs(level - 1.0), default=1.0)
    held = np.float32(position)
    rules = (
        BuyAndHold(position=held),
        Flat(),
        Random(),
        SMACross(position=held),
        Momentum(position=held),
        VolatilityTarget(max_position=held),
    )
    return dict(zip(BASELINES, rules, strict=True))


@functools.partial(jax.jit, static_argnames=("env", "num_steps"))
def walk(
    several: tuple[Any, ...],
    actors: tuple[Any, ...],
    env: Trading,
    env_params: EnvParams,
    num_steps: int,
) -> Any:
    """`_walk` with the greedy policies of agents."""
    pairs = zip(several, actors, strict=True)
    policies = [agents.greedy_policy(agent, actor, env, env_params) for agent, actor in pairs]
    return _walk(env, env_params, policies, num_steps)


def _walk(env: Trading, env_params: EnvParams, policies: Sequence[Policy], num_steps: int) -> Any:
    """An episode of each policy from the first row: (move, action, is_ruined), leaves [T, B, ...],
    of the actions a list. Once ruined nothing is traded any more.
    """

    def step(carry: Any, _: Any) -> tuple[Any, Any]:
        states, memories = carry
        seen = jax.vmap(env.observation, in_axes=(0, None))(states, env_params)
        choices = [
            choose(policy, _at(seen, row), memory)
            for row, (policy, memory) in enumerate(zip(policies, memories, strict=True))
        ]
        requested = jnp.stack([choice.requested for choice in choices])
        requested = jnp.where(states.account.is_ruined[:, None], 0.0, requested)
        advance = jax.vmap(env.advance_to, in_axes=(0, 0, None))
        states, _, _, info = advance(states, requested, env_params)
        done = (info["move"], [each.action for each in choices], states.account.is_ruined)
        return (states, [choice.hidden for choice in choices]), done

    start = env.reset_state(jax.random.key(0), env_params)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(policies)), start)
    memories = [jnp.zeros(policy.hidden_size, jnp.float32) for policy in policies]
    return jax.lax.scan(step, (states, memories), None, length=num_steps)[1]


def _at(tree: Any, row: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[row], tree)


def _one(steps: Any, number: int) -> Any:
    """The walk of one policy: (move, action, is_ruined), leaves [T, ...]."""
    move, actions, is_ruined = steps
    return jax.tree.map(lambda leaf: leaf[:, number], move), actions[number], is_ruined[:, number]


def record(steps: Any, market: Market, env_params: EnvParams, *, name: str, span: str) -> Backtest:
    """The record of a walk (move, action, is_ruined) of one asset, in float64."""
    move, action, is_ruined = jax.tree.map(np.asarray, steps)
    move = jax.tree.map(lambda leaf: leaf.astype(np.float64), move)
    first, last = int(env_params.first), int(env_params.last)
    bars = slice(first + 1, last + 1)
    is_last = is_ruined & ~np.concatenate([[False], is_ruined[:-1]])
    at_trade = np.where(is_last, 1.0, 1.0 + move.gap)
    traded = np.where(is_last, 1.0, at_trade - move.cost)

    return Backtest(
        name=name,
        span=span,
        timestamps=market.timestamps[bars],
        gap_growth=np.where(is_last, 1.0, at_trade),
        cost_growth=np.where(is_last, 1.0, traded / at_trade),
        bar_growth=np.where(is_last, ledger.MIN_GROWTH, (1.0 + move.gain) / traded),
        weights_before=move.weights_before[:, 0],
        exposure=move.weights_after[:, 0],
        turnover=np.abs(move.traded[:, 0]),
        interest=move.carry,
        action=action.reshape(len(action)),
        open_price=market.open_prices()[bars, 0],
        close_price=market.close_prices()[bars, 0],
        risk_free=_idle_return(env_params, bars),
        bars_per_year=market.spec.bars_per_year,
        ruined=bool(is_ruined.any()),
        exit_price=np.where(
            move.exit_code[:, 0] != 0,
            market.close_prices()[first:last, 0] * (1.0 + move.exit_price[:, 0]),
            np.nan,
        ),
    )


def _idle_return(env_params: EnvParams, bars: slice) -> NDArray[np.float64] | None:
    """What idle cash earns in each bar; multiplied in float32, as the ledger does."""
    rate, tape = env_params.rules.costs.idle_rate, env_params.tape
    if rate is None:
        return None
    years = np.asarray(tape.rows)[bars, 0, tape.names.index("years")]
    return (np.asarray(rate) * years).astype(np.float64)
