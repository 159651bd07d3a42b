"""Backtests: a policy, or a fixed rule, walked over a span of a market."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade import agents, ledger
from jaxtrade.decision import Policy, choose
from jaxtrade.envs import EnvParams, Trading
from jaxtrade.experiments.results import Backtest
from jaxtrade.market import Market

BASELINES = ("buy and hold", "flat", "random")

Choose = Callable[[Any, Any], tuple[jax.Array, jax.Array]]
"""From an observation and this step's extra input to an action i32[] and an exposure f32[]."""


def backtest(policy: Policy, market: Market, **options: Any) -> Backtest:
    """What a policy does on a market, one episode from the first row with a full lookback.

    `options` are those of `Trading.params`: first, last, costs, limits, no_trade_band.

    Raises:
        JaxtradeError: the market lacks a column, or has too few rows.
    """
    env = Trading(features=policy.features, actions=policy.actions)
    env_params = env.params(market, normaliser=policy.normaliser, episode_steps=None, **options)

    @jax.jit
    def run(env_params: EnvParams) -> Any:
        return _walk(env, env_params, _greedy(policy), steps)

    steps = jnp.arange(int(env_params.last - env_params.first))
    return record(run(env_params), market, env_params, name="agent", span="all")


def agent_backtest(
    agent: Any, actor: Any, env: Trading, env_params: EnvParams, market: Market, *, span: str
) -> Backtest:
    """What an actor's greedy policy does; compiled once for all actors of a run."""
    num_steps = int(env_params.last - env_params.first)
    steps = walk_agent(agent, actor, env, env_params, num_steps)
    return record(steps, market, env_params, name="agent", span=span)


def baselines(
    env: Trading, env_params: EnvParams, market: Market, *, span: str, seed: int
) -> list[Backtest]:
    """Buy and hold, flat, and a level drawn at random at each bar, under the same costs."""
    num_steps = int(env_params.last - env_params.first)
    random = np.random.default_rng(seed).choice(np.asarray(env.levels), num_steps)
    exposures = (np.ones(num_steps), np.zeros(num_steps), random)
    results = []
    for name, values in zip(BASELINES, exposures, strict=True):
        steps = walk_exposures(env, env_params, jnp.asarray(values, jnp.float32))
        results.append(record(steps, market, env_params, name=name, span=span))
    return results


@functools.partial(jax.jit, static_argnames=("env", "num_steps"))
def walk_agent(agent: Any, actor: Any, env: Trading, env_params: EnvParams, num_steps: int) -> Any:
    """`_walk` with an agent's most probable action."""
    policy = agents.greedy_policy(agent, actor, env, env_params)
    return _walk(env, env_params, _greedy(policy), jnp.arange(num_steps))


@functools.partial(jax.jit, static_argnames="env")
def walk_exposures(env: Trading, env_params: EnvParams, exposures: jax.Array) -> Any:
    """`_walk` with given exposures f32[T]; the action recorded is -1."""
    return _walk(env, env_params, lambda _, exposure: (jnp.int32(-1), exposure), exposures)


def _greedy(policy: Policy) -> Choose:
    def greedy(obs: Any, _: Any) -> tuple[jax.Array, jax.Array]:
        choice = choose(policy, obs, jnp.zeros(policy.hidden_size))
        return choice.action, choice.requested[0]

    return greedy


def _walk(env: Trading, env_params: EnvParams, choose: Choose, inputs: Any) -> Any:
    """One episode from the first row: (move, action, is_ruined), leaves [T, ...].

    Once ruined nothing is traded any more.
    """

    def step(state: Any, extra: Any) -> tuple[Any, Any]:
        action, exposure = choose(env.observation(state, env_params), extra)
        requested = jnp.where(state.account.is_ruined, 0.0, exposure)[None]
        state, _, _, info = env.advance_to(state, requested, env_params)
        return state, (info["move"], action, state.account.is_ruined)

    start = env.reset_state(jax.random.key(0), env_params)
    return jax.lax.scan(step, start, inputs)[1]


def record(steps: Any, market: Market, env_params: EnvParams, *, name: str, span: str) -> Backtest:
    """The record of a walk (move, action, is_ruined), in float64."""
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
        action=action,
        open_price=market.open_prices()[bars, 0],
        close_price=market.close_prices()[bars, 0],
        bars_per_year=market.spec.bars_per_year,
        ruined=bool(is_ruined.any()),
        exit_price=np.where(
            move.exit_code[:, 0] != 0,
            market.close_prices()[first:last, 0] * (1.0 + move.exit_price[:, 0]),
            np.nan,
        ),
    )
