"""The main job: from a configuration to a trained, tested and exported policy in a directory."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from jaxtrade.agents import TrainState, devices, loop
from jaxtrade.experiments.backtest import agent_backtest
from jaxtrade.experiments.checkpoint import Checkpoints, Progress
from jaxtrade.experiments.config import Config
from jaxtrade.experiments.display import Display, StopRequest, Stopwatch
from jaxtrade.experiments.health import require_healthy
from jaxtrade.experiments.outcome import write_outcome
from jaxtrade.experiments.results import Backtest
from jaxtrade.experiments.rundir import RunDirectory
from jaxtrade.experiments.setup import Setup, build_setup
from jaxtrade.experiments.trackers import Trackers, require_packages
from jaxtrade.specs import JaxtradeError

NUM_CHUNKS = 24
MAX_CHUNK_ITERATIONS = 64
"""A run is cut into about NUM_CHUNKS chunks, none longer than this: Ctrl-C waits for its end."""


class Stopped(KeyboardInterrupt):
    """Training was asked to stop and left a checkpoint; `run` can be resumed."""

    def __init__(self, run: RunDirectory, step: int) -> None:
        super().__init__(f"stopped after {step:,} steps")
        self.run = run


def train(config: Config, console: Console) -> tuple[RunDirectory, list[Backtest]]:
    """A new run, to its end; its directory, and the test span's results, the agent's first.

    Raises:
        JaxtradeError: bad input, or training diverged.
        Stopped: on Ctrl-C, with a checkpoint written.
    """
    devices.use_device(config.device)
    require_packages(config)
    setup = build_setup(config)
    symbols = "-".join(setup.market.spec.symbols).lower()
    name = f"{config.agent.name}-{symbols}"
    made = RunDirectory.create(config, name).folder if devices.is_main() else ""
    run = RunDirectory(devices.agreed(str(made)))
    console.print(
        f"[bold]{run.folder}[/]: {setup.market.describe()}", highlight=False, soft_wrap=True
    )
    return run, _train(run, setup, console)


def resume(folder: str | Path, console: Console) -> tuple[RunDirectory, list[Backtest]]:
    """Go on with a run that was stopped, to the end that it would have had; see `train`."""
    run = RunDirectory.open(folder)
    config = run.read_config()
    devices.use_device(config.device)
    setup = build_setup(config)
    console.print(
        f"[bold]{run.folder}[/]: {setup.market.describe()}", highlight=False, soft_wrap=True
    )
    return run, _train(run, setup, console)


def restore(run: RunDirectory, setup: Setup) -> tuple[TrainState, Any, Progress]:
    """The newest checkpoint of a run: (state, best actor, progress).

    Raises:
        JaxtradeError: there is none, or the market is not the one trained on.
    """
    fingerprint = setup.market.fingerprint()
    with Checkpoints(run.checkpoints) as checkpoints:
        state, best, progress = checkpoints.restore(_fresh(setup))
    if progress.fingerprint != fingerprint:
        raise JaxtradeError(
            f"{run.folder}: was trained on other bars than {setup.market.spec.source} now holds "
            f"(fingerprint {progress.fingerprint}, now {fingerprint}): give the same file"
        )
    return state, best, progress


def _fresh(setup: Setup) -> TrainState:
    key = jax.random.key(setup.config.seed)
    steps = setup.config.total_steps
    return loop.init(setup.agent, setup.env, setup.train, key, total_steps=steps)


def _train(run: RunDirectory, setup: Setup, console: Console) -> list[Backtest]:
    """Train from the start or the newest checkpoint, then test and write the results."""
    with devices.divided(devices.ENVS, setup.agent.num_envs):
        best, progress = _learn(run, setup, console)
    return write_outcome(run, setup, devices.local(best), progress)


def _learn(run: RunDirectory, setup: Setup, console: Console) -> tuple[Any, Progress]:
    """Train from the start or the newest checkpoint to the end: (best actor, progress).

    All hosts compute the same, and the main one writes and says when to stop.
    """
    state, best, progress = _begin(run, setup)
    agent = setup.agent
    per_iteration = agent.num_envs * agent.rollout_steps
    done, planned = int(state.iteration), int(state.num_iterations)
    size = min(math.ceil(planned / NUM_CHUNKS), MAX_CHUNK_ITERATIONS)
    display = Display(console, total_steps=planned * per_iteration, done_steps=done * per_iteration)
    told = setup.config if devices.is_main() else dataclasses.replace(setup.config, tracker="none")
    with (
        Trackers(told, run, console) as trackers,
        Checkpoints(run.checkpoints, keep=setup.config.keep_checkpoints) as checkpoints,
        StopRequest(console) as stop,
        display,
    ):
        watch = Stopwatch()
        for latest, means in loop.chunks(
            agent, setup.env, setup.train, state, chunk_iterations=size
        ):
            seconds = watch.lap()
            before, done = done, int(latest.iteration)
            require_healthy(means, latest, first=before + 1, last=done)
            best, progress, validation = _judge(setup, latest, best, progress)
            progress = dataclasses.replace(progress, seconds=progress.seconds + seconds)
            row = {
                "iteration": done,
                "step": done * per_iteration,
                "steps_per_second": (done - before) * per_iteration / seconds,
                **validation,
                **means,
            }
            if devices.is_main():
                run.append_metrics(row)
            trackers.log(row)
            checkpoints.save(done, latest, best, progress)
            display.update(row)
            if devices.agreed("stop" if stop.requested else "") and done < planned:
                raise Stopped(run, done * per_iteration)
            watch.lap()
    return best, progress


def _begin(run: RunDirectory, setup: Setup) -> tuple[TrainState, Any, Progress]:
    """Where training goes on: the newest checkpoint, or the start."""
    with Checkpoints(run.checkpoints) as checkpoints:
        is_new = checkpoints.latest is None
    if is_new:
        start = _fresh(setup), None, Progress(fingerprint=setup.market.fingerprint())
    else:
        start = restore(run, setup)
    if devices.is_main():
        run.keep_metrics(int(start[0].iteration))
    return start


def _judge(
    setup: Setup, state: TrainState, best: Any, progress: Progress
) -> tuple[Any, Progress, dict[str, float]]:
    """The best actor so far by its Sharpe on the validation span, and that span's figures."""
    actor = devices.local(state.learner.actor)
    with devices.alone():
        result = agent_backtest(
            setup.agent, actor, setup.env, setup.validation, setup.market, span="validation"
        )
    if progress.best_sharpe is None or result.sharpe > progress.best_sharpe:
        best = jax.tree.map(jnp.copy, state.learner.actor)
        progress = dataclasses.replace(
            progress, best_sharpe=result.sharpe, best_iteration=int(state.iteration)
        )
    growth = float(result.equity[-1] - 1.0)
    return best, progress, {"validation_sharpe": result.sharpe, "validation_return": growth}
