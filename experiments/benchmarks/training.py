"""Environment steps a second with learning, and what was learnt, beside rejax and SBX.

    python -m jaxtrade.experiments.benchmarks.training [--cases ppo,dqn] [--seeds 5]

Each case is one task with the same networks, batches and number of updates on both sides, trained
in turns in this process, so that both see the same machine; compile time is a result of its own.
All run on one XLA thread, for two are bimodal; NPROC=2 is heeded. What is not installed is left out
(see `peers`). SBX trains on Python environments and, being much
slower, for fewer steps: its returns are printed but not compared.
"""

import argparse
import dataclasses
import functools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("NPROC", "1")  # read when JAX starts

import gymnax
import jax
import jax.numpy as jnp
import numpy as np

import jaxtrade
from jaxtrade import agents
from jaxtrade.agents import loop
from jaxtrade.agents.evaluate import evaluate
from jaxtrade.experiments.benchmarks import peers
from jaxtrade.experiments.benchmarks.peers import CARTPOLE, EVALUATION_ENVS, PENDULUM, Trainer
from jaxtrade.experiments.benchmarks.result import print_result
from jaxtrade.synthetic import make_market

BENCH = "training"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is compared: makers of trainers, ours first, and the ratio of steps/s that is wanted."""

    trainers: tuple[Callable[[], Trainer | None], ...]
    wanted: dict[str, float]


def ours(name: str, env: Any, env_params: Any, steps: int, **settings: Any) -> Trainer:
    """Our trainer, compiled."""
    agent = jax.device_put(agents.make(name, **settings))
    count = jnp.int32(loop.count_iterations(agent, steps))
    started = time.perf_counter()
    state = loop.init(agent, env, env_params, jax.random.key(0), total_steps=steps)
    compiled = loop.train_chunk.lower(agent, env, env_params, state, count).compile()
    compile_seconds = time.perf_counter() - started
    is_endless = not hasattr(env_params, "max_steps_in_episode")
    episode = 500 if is_endless else int(env_params.max_steps_in_episode)

    def train(seed: int) -> tuple[float, float]:
        started = time.perf_counter()
        state = loop.init(agent, env, env_params, jax.random.key(seed), total_steps=steps)
        state, _ = jax.block_until_ready(compiled(agent, env_params, state, count))
        seconds = time.perf_counter() - started
        key = jax.random.key(1000 + seed)
        actor = state.learner.actor
        sizes = {"num_envs": EVALUATION_ENVS, "num_steps": episode}
        found = evaluate(agent, actor, env, env_params, key, **sizes)
        return seconds, float(found["episode_return"])

    return Trainer(impl="jaxtrade", steps=steps, compile_seconds=compile_seconds, train=train)


def ppo_case() -> Case:
    """CartPole, 64 environments of 128 steps, 4 epochs of 4 minibatches, two layers of 64 tanh."""
    env, params = gymnax.make(CARTPOLE)
    shared = {"num_envs": 64, "num_epochs": 4, "num_minibatches": 4, "gae_lambda": 0.95}
    rates = {"learning_rate": 1e-3, "gamma": 0.99, "max_grad_norm": 0.5}
    steps = 507_904  # a whole number of iterations
    return Case(
        trainers=(
            lambda: ours(
                "ppo",
                env,
                params,
                steps,
                rollout_steps=128,
                clip_ratio=0.2,
                entropy_coefficient=0.01,
                anneal_learning_rate=False,
                **shared,
                **rates,
            ),
            lambda: peers.rejax_trainer(
                "ppo",
                env,
                params,
                steps,
                num_steps=128,
                agent_kwargs={"activation": "tanh"},
                **shared,
                **rates,
            ),
            lambda: peers.sbx_trainer(
                "PPO", CARTPOLE, 64, 65_536, 8_192, n_steps=128, batch_size=2_048, n_epochs=4
            ),
        ),
        wanted={"rejax": 1.3},
    )


def dqn_case() -> Case:
    """CartPole by rejax's own settings: 10 environments, 5 updates of 100 rows after each step of
    all, drawn from the last 50,000.
    """
    env, params = gymnax.make(CARTPOLE)
    shared = {"num_envs": 10, "batch_size": 100, "learning_rate": 1e-3, "gamma": 0.99}
    shared |= {"max_grad_norm": 10.0}
    steps = 100_000
    return Case(
        trainers=(
            lambda: ours(
                "dqn",
                env,
                params,
                steps,
                rollout_steps=1,
                num_updates=5,
                replay_size=50_000,
                learning_starts=5_000,
                target_period=5,
                tau=0.02,
                n_step=1,
                epsilon_fraction=0.5,
                activation="silu",
                **shared,
            ),
            lambda: peers.rejax_trainer(
                "dqn",
                env,
                params,
                steps,
                agent="DuelingQNetwork",
                num_epochs=5,
                buffer_size=50_000,
                fill_buffer=5_000,
                polyak=0.98,
                exploration_fraction=0.5,
                **shared,
            ),
            lambda: peers.sbx_trainer(
                "DQN", CARTPOLE, 1, 10_000, 2_000, batch_size=100, learning_starts=1_000
            ),
        ),
        wanted={"rejax": 5.0},
    )


def sac_case() -> Case:
    """Pendulum, two layers of 64, batches of 256, one update for each environment step."""
    env, params = gymnax.make(PENDULUM)
    shared = {"num_envs": 1, "batch_size": 256, "learning_rate": 1e-3, "gamma": 0.99}
    steps = 20_000
    return Case(
        trainers=(
            lambda: ours(
                "sac",
                env,
                params,
                steps,
                rollout_steps=1,
                num_updates=1,
                replay_size=20_000,
                learning_starts=1_000,
                activation="silu",
                **shared,
            ),
            lambda: peers.rejax_trainer(
                "sac",
                env,
                params,
                steps,
                num_epochs=1,
                buffer_size=20_000,
                fill_buffer=1_000,
                polyak=0.995,
                agent_kwargs={"activation": "swish"},
                **shared,
            ),
            lambda: peers.sbx_trainer(
                "SAC",
                PENDULUM,
                1,
                2_000,
                500,
                batch_size=256,
                learning_starts=100,
                policy_kwargs={"net_arch": [64, 64]},
            ),
        ),
        wanted={"rejax": 1.5},
    )


def trading_case() -> Case:
    """Trading-v0 with its 32 bars, beside eight Python copies of gym-trading-env under SBX."""
    env, params = jaxtrade.make("Trading-v0", market=make_market(num_bars=20_000), window=32)
    sizes = {"num_epochs": 4, "num_minibatches": 8}
    return Case(
        trainers=(
            lambda: ours("ppo", env, params, 1_048_576, num_envs=256, rollout_steps=32, **sizes),
            lambda: ours("ppo", env, params, 262_144, num_envs=8, rollout_steps=256, **sizes),
            lambda: peers.sbx_trainer(
                "PPO",
                peers.TRADING,
                8,
                32_768,
                4_096,
                n_steps=256,
                batch_size=512,
                n_epochs=4,
                policy_kwargs={"net_arch": [64, 64]},
            ),
        ),
        wanted={"SBX": 15.0},
    )


CASES: dict[str, Callable[[], Case]] = {
    "ppo": ppo_case,
    "dqn": dqn_case,
    "sac": sac_case,
    "trading": trading_case,
}


def main() -> None:
    """Train every case over the seeds and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    for name in args.cases.split(","):
        run_case(name, CASES[name](), args.seeds)


def run_case(name: str, case: Case, num_seeds: int) -> None:
    """All trainers of a case in turns, one seed after the other, and ours over each peer."""
    made = (make() for make in case.trainers)
    trainers = [trainer for trainer in made if trainer is not None]
    results: list[list[tuple[float, float]]] = [[] for _ in trainers]
    for seed in range(num_seeds):
        for trainer, found in zip(trainers, results, strict=True):
            found.append(trainer.train(seed))
    rates, returns = [], []
    for trainer, found in zip(trainers, results, strict=True):
        rates.append([trainer.steps / seconds for seconds, _ in found])
        returns.append([final for _, final in found])
        show(trainer, name, rates[-1], returns[-1])
    for position, trainer in enumerate(trainers):
        if trainer.impl in case.wanted:
            ratio = statistics.median(rates[0]) / statistics.median(rates[position])
            print_result(
                bench=BENCH,
                impl="ratio",
                case=f"{name} over {trainer.impl}",
                metric="training",
                values=[ratio],
                unit="1",
                config={"wanted": case.wanted[trainer.impl]},
            )
        if trainer.impl == "rejax":
            low, high = bootstrap_interval(returns[0], returns[position])
            print_result(
                bench=BENCH,
                impl="difference",
                case=f"{name} over {trainer.impl}",
                metric="final return, 95 % bootstrap interval",
                values=[statistics.mean(returns[0]) - statistics.mean(returns[position])],
                unit="1",
                config={"low": round(low, 3), "high": round(high, 3)},
            )


def show(trainer: Trainer, case: str, rates: list[float], returns: list[float]) -> None:
    """Print what one trainer did."""
    config = {"steps": trainer.steps, "seeds": len(rates)}
    each = {"each": [round(final, 3) for final in returns]}
    line = functools.partial(print_result, bench=BENCH, impl=trainer.impl, case=case)
    line(metric="training", values=rates, unit="steps/s", config=config)
    line(metric="compile", values=[trainer.compile_seconds], unit="s", config=config)
    if np.isfinite(returns).all():
        line(metric="final return", values=returns, unit="1", config=config | each)


def bootstrap_interval(
    mine: Sequence[float], other: Sequence[float], *, draws: int = 10_000
) -> tuple[float, float]:
    """95 % percentile interval of the difference of two means; seeds drawn anew on both sides."""
    rng = np.random.default_rng(0)
    one, two = np.asarray(mine), np.asarray(other)
    means = [rng.choice(each, (draws, len(each))).mean(axis=1) for each in (one, two)]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
