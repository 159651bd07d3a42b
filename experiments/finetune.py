"""Further training of a run's agent on what live trading has seen, as a process of its own.

    python -m jaxtrade.experiments.finetune RUN STEPS [--registry models] [--total-steps 100000]
        [--warmup 1000] [--activate]

STEPS is a file of `live.online`. The bars in it become a market, on which training goes on from the
run's last checkpoint, with its features and normaliser as they are. An agent that learns from a
replay finds the live decisions in it, with the account as it was and the returns as they were, if
its reward is just the return; what the environment adds are decisions on the same bars. The newest
fifth of the bars is left out, to judge the agent before and after. The result is registered as a
new version, and goes the way of any other: with `--activate` it becomes the active one, if it is no
worse on those bars.
"""

import argparse
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxtrade import features
from jaxtrade.agents import TrainState, loop, replay
from jaxtrade.agents.rollout import keeps_state
from jaxtrade.agents.types import Batch
from jaxtrade.assemble import combine
from jaxtrade.envs import EnvParams
from jaxtrade.experiments import train as job
from jaxtrade.experiments.backtest import agent_backtest
from jaxtrade.experiments.health import require_healthy
from jaxtrade.experiments.outcome import write_policy
from jaxtrade.experiments.rundir import RunDirectory
from jaxtrade.experiments.setup import Setup, build_setup, span_options
from jaxtrade.live.online import Step, read_steps
from jaxtrade.market import Market
from jaxtrade.registry import Registry, Version
from jaxtrade.spans import Span, require_rows
from jaxtrade.specs import JaxtradeError, MarketSpec

HELD_OUT = 0.2
"""Share of the bars, the newest, on which the agent is judged."""

RETURNS: dict[tuple[str, ...], Callable[..., Any]] = {
    ("log_return",): np.asarray,
    ("simple_return",): np.expm1,
}
"""Rewards that live trading knows, from the log return."""


class Finetuned(NamedTuple):
    """The new version, and Sharpe ratios on the bars left out, before and after."""

    version: Version
    before: float
    after: float


def finetune(
    folder: Path | str,
    steps_path: Path | str,
    *,
    registry: Path | str,
    total_steps: int,
    warmup: int,
    activate: bool = False,
) -> Finetuned:
    """Train on, export and register; see above.

    Raises:
        JaxtradeError: too few steps, bars of something else than the run's, or training diverged.
    """
    steps = read_steps(steps_path)
    if len(steps) < max(warmup, 1):
        raise JaxtradeError(f"{steps_path}: has {len(steps)} steps: wait for {max(warmup, 1)}")
    run = RunDirectory.open(folder)
    setup = build_setup(run.read_config())
    market = market_of(steps, setup.market.spec, setup.env.features.context)
    learning, held_out = _spans(setup, market)
    state, best, progress = job.restore(run, setup)
    before = _sharpe(setup, best, held_out, market)
    state = _begun(setup, state, learning, total_steps)
    state = _with_live(setup, state, steps, market, learning)
    for latest, means in loop.chunks(
        setup.agent, setup.env, learning, state, chunk_iterations=job.MAX_CHUNK_ITERATIONS
    ):
        last = int(latest.iteration)
        require_healthy(means, latest, first=last, last=last)
        state = latest
    actor = state.learner.actor
    after = _sharpe(setup, actor, held_out, market)
    path = run.folder / f"finetuned-{steps[-1].start_s}.onnx"
    figures = {"live_sharpe_before": before, "live_sharpe": after}
    progress = dataclasses.replace(progress, fingerprint=market.fingerprint())
    write_policy(path, setup, actor, progress, figures=figures)
    return _registered(Path(registry), run, path, figures, activate=activate)


def market_of(steps: list[Step], like: MarketSpec, context: tuple[str, ...] = ()) -> Market:
    """The bars of the steps, each once, as a market like another one, with these context columns.

    Raises:
        JaxtradeError: they are of another number of symbols, another length, or lack a column.
    """
    newest = {step.start_s: step for step in steps}
    rows = [newest[start] for start in sorted(newest)]
    if len(rows[0].symbols) != len(like.symbols) or rows[0].seconds != like.bar_seconds:
        raise JaxtradeError(
            f"the steps are of {', '.join(rows[0].symbols)} in bars of {rows[0].seconds} s, the "
            f"run's of {', '.join(like.symbols)} in bars of {like.bar_seconds} s: give its own"
        )
    stamps = pd.to_datetime([row.start_s for row in rows], unit="s", utc=True)
    markets = []
    for number, symbol in enumerate(like.symbols):
        table = np.asarray([row.bars[number] for row in rows], np.float64)
        frame = pd.DataFrame(table, columns=["open", "high", "low", "close", "volume"])
        markets.append(
            Market.from_frame(
                frame.assign(timestamp=stamps),
                symbol=symbol,
                source="live steps",
                bar_seconds=like.bar_seconds,
            )
        )
    market = combine(markets) if len(markets) > 1 else markets[0]
    known = [dict(row.context) for row in rows]
    missing = [name for name in context if any(name not in each for each in known)]
    if missing:
        raise JaxtradeError(f"live steps: the column {missing[0]!r} is not in all of them")
    values = np.asarray([[each[name] for name in context] for each in known], np.float32)
    return dataclasses.replace(
        market,
        context=values.reshape(len(rows), len(context)),
        spec=dataclasses.replace(market.spec, context=context),
    )


def _spans(setup: Setup, market: Market) -> tuple[EnvParams, EnvParams]:
    """The environment on the bars to learn from, and on those left out."""
    first, episode = features.lookback(setup.env.features), setup.config.env.episode_steps
    cut = round(market.num_bars * (1 - HELD_OUT))
    require_rows(
        market,
        math.ceil((first + episode + 2) / (1 - HELD_OUT)),
        f"a lookback of {first} rows and training episodes of {episode} steps",
    )
    normaliser = setup.train.normaliser
    options = span_options(setup.config, Span(first, cut - 1), normaliser=normaliser)
    learning = setup.env.params(market, **{**options, "episode_steps": episode})
    later = Span(max(cut, first), market.num_bars - 1)
    held_out = span_options(setup.config, later, normaliser=normaliser)
    return learning, setup.env.params(market, **held_out)


def _sharpe(setup: Setup, actor: Any, params: EnvParams, market: Market) -> float:
    return float(agent_backtest(setup.agent, actor, setup.env, params, market, span="live").sharpe)


def _begun(setup: Setup, state: TrainState, params: EnvParams, total_steps: int) -> TrainState:
    """The state at the start of new episodes, with more iterations planned and an empty replay."""
    more = loop.count_iterations(setup.agent, total_steps)
    learner = state.learner
    if _has_replay(learner):  # its rows are of other bars
        fresh = setup.agent.init(jax.random.key(0), setup.env, params).replay
        learner = dataclasses.replace(learner, replay=fresh)
    planned = dataclasses.replace(
        state, learner=learner, num_iterations=state.iteration + jnp.int32(more)
    )
    return loop.begin_anew(setup.agent, setup.env, params, planned)


def _has_replay(learner: Any) -> bool:
    return any(field.name == "replay" for field in dataclasses.fields(learner))


def _with_live(
    setup: Setup, state: TrainState, steps: list[Step], market: Market, params: EnvParams
) -> TrainState:
    """The state with the live decisions on the bars to learn from in its replay, if it has one."""
    reward_of = RETURNS.get(tuple(setup.env.terms))
    if not _has_replay(state.learner) or reward_of is None:
        return state
    kept = state.learner.replay
    rows = _decided(steps, market, int(params.last))
    length = _block_length(len(rows), kept.num_envs, kept.capacity)
    if not length:
        return state
    rows = rows[-length * kept.num_envs :]
    one_each = _batch(setup, state, rows, reward_of, params)

    def by_env(leaf: jax.Array) -> jax.Array:
        return jnp.swapaxes(leaf.reshape(kept.num_envs, length, *leaf.shape[1:]), 0, 1)

    batch = jax.tree.map(by_env, one_each)
    # the next row in the replay is another block, not the next bar
    truncated = batch.truncated.at[-1].set(True)
    batch = dataclasses.replace(batch, truncated=truncated)
    learner = dataclasses.replace(state.learner, replay=replay.add(kept, batch))
    return dataclasses.replace(state, learner=learner)


class Decided(NamedTuple):
    """A step, the next one, their rows in the market, and whether the one after is missing."""

    step: Step
    following: Step
    row: int
    is_last: bool


def _decided(steps: list[Step], market: Market, last: int) -> list[Decided]:
    """The steps with an action on rows up to `last`, whose next row has a step too."""
    newest = {step.start_s: step for step in steps}
    starts = market.timestamps.astype(np.int64).tolist()
    ordered = [newest[start] for start in starts]
    usable = [bool(step.action) for step in ordered]
    return [
        Decided(ordered[t], ordered[t + 1], t, not usable[t + 1] or t + 1 >= last)
        for t in range(min(last, len(ordered) - 1))
        if usable[t]
    ]


def _block_length(count: int, num_envs: int, capacity: int) -> int:
    """Steps of each environment that `count` steps fill, a divisor of the capacity; 0 for none."""
    most = min(count // num_envs, capacity)
    return next((length for length in range(most, 0, -1) if capacity % length == 0), 0)


def _batch(
    setup: Setup, state: TrainState, rows: list[Decided], reward_of: Any, params: EnvParams
) -> Batch:
    """One step after the other, leaves [M, ...], as a rollout of the environment has them."""
    env = setup.env
    template = jax.tree.map(lambda leaf: leaf[0], state.env_state)

    def seen(vectors: list[tuple[float, ...]], index: list[int]) -> Any:
        table = jnp.asarray(vectors, jnp.float32)
        states = jax.vmap(lambda vector, row: _state(template, vector, row))(
            table, jnp.asarray(index, jnp.int32)
        )
        if keeps_state(env, params):
            return states
        return jax.vmap(lambda each: env.observation(each, params))(states)

    head = state.learner.actor.head
    like = jax.eval_shape(lambda: head.mode(jnp.zeros(head.num_outputs)))
    actions = jnp.asarray([row.step.action for row in rows])
    rewards = reward_of(np.asarray([row.following.reward for row in rows]))
    return Batch(
        seen=seen([row.step.account for row in rows], [row.row for row in rows]),
        final=seen([row.following.account for row in rows], [row.row + 1 for row in rows]),
        last=None,
        hidden=jnp.zeros((len(rows), 0)),
        action=actions.reshape(len(rows), *like.shape).astype(like.dtype),
        extras=None,
        reward=jnp.asarray(rewards, jnp.float32),
        terminated=jnp.zeros(len(rows), bool),
        truncated=jnp.asarray([row.is_last for row in rows]),
        progress=jnp.zeros(len(rows)),
    )


def _state(template: Any, vector: jax.Array, row: jax.Array) -> Any:
    """A state of the environment at a row, with the account that `account_vector` says."""
    assets = (vector.shape[0] - 3) // 3
    drawdown, day_return, last_return = vector[3 * assets :]
    zero = jnp.zeros_like(template.account.log_equity)
    account = template.account.replace(
        weights=vector[:assets],
        open_return=vector[assets : 2 * assets],
        bars_held=vector[2 * assets : 3 * assets],
        log_equity=zero,
        log_equity_error=zero,
        peak_log_equity=-jnp.log1p(-drawdown),
        day_log_equity=-jnp.log1p(day_return),
        last_return=last_return,
    )
    return template.replace(index=row, account=account)


def _registered(
    registry: Path, run: RunDirectory, path: Path, figures: dict[str, float], *, activate: bool
) -> Finetuned:
    config = run.read_config()
    before, after = figures["live_sharpe_before"], figures["live_sharpe"]
    name = config.name or f"{config.agent.name}-finetuned"
    with Registry(registry) as models:
        version = models.register(
            path, agent=name, run=str(run.folder), metrics=figures, metadata={"finetuned": True}
        )
        if activate and after >= before:
            version = models.activate(version.number, reason="fine-tuned on live bars")
    return Finetuned(version, before, after)


def main() -> None:
    """Fine-tune, and print what became of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("steps")
    parser.add_argument("--registry", default="models")
    parser.add_argument("--total-steps", type=int, default=100_000)
    parser.add_argument("--warmup", type=int, default=1_000)
    parser.add_argument("--activate", action="store_true")
    args = parser.parse_args()
    done = finetune(
        args.run,
        args.steps,
        registry=args.registry,
        total_steps=args.total_steps,
        warmup=args.warmup,
        activate=args.activate,
    )
    print(
        f"{done.version.name} of {done.version.agent}: Sharpe on the newest live bars "
        f"{done.before:.2f} before, {done.after:.2f} after"
    )


if __name__ == "__main__":
    main()
