"""What an algorithm makes of a market that can be learnt, and of one that cannot.

    python -m jaxtrade.experiments.benchmarks.markets [--seeds 3] [name ...]

- regimes: bars drift up or down by 0.4 of their deviation, for 50 bars in the mean. The score is
  the log return as a share of what the oracle earns that is told each bar's regime.
- random walk: nothing to learn but that trading costs and risk is not paid for. The scores are
  round trips per 100 bars and the return in round trips; flat has 0 of both.

Both are judged on another path than they were trained on, without exploration, after costs. In the
random walk the reward holds a charge for variance besides: in expectation, a position there costs
nothing once it is open.
"""

import argparse
import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrade import agents
from jaxtrade.costs import make_costs
from jaxtrade.envs import EnvParams, Exposure, Levels, Trading
from jaxtrade.envs.making import make_trading
from jaxtrade.experiments.benchmarks.result import print_result
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec
from jaxtrade.synthetic import PROCESSES, make_market, make_regimes, sample_bars

COST = 1e-3
"""Of the value traded: half a spread and a commission. A round trip is two."""

RISK = 100.0
"""Charge on the squared return of a bar in the random walk."""

FEATURES = FeatureSpec(names=("log_return", "ema_10"), window=1)
FIRST = 64
TRAIN_SEED, TEST_SEED = 0, 1
TRAIN_BARS, TEST_BARS = 20_000, 4_000

DRIFT, VOLATILITY, REGIME_BARS = 4e-3, 1e-2, 50.0


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """What it acts by, settings that differ from its own, and for how many steps it is trained."""

    actions: Any
    total_steps: int
    settings: dict[str, Any]


LEVELS, EXPOSURE = Levels((-1.0, 0.0, 1.0)), Exposure(-1.0, 1.0)
COMMON: dict[str, Any] = {"gamma": 0.95, "hidden_sizes": (32,)}
ALGORITHMS = {
    "ppo": Algorithm(
        LEVELS,
        100_000,
        {"num_envs": 64, "num_minibatches": 4, "learning_rate": 3e-3, "entropy_coefficient": 3e-3},
    ),
    "dqn": Algorithm(
        LEVELS,
        64_000,
        {"batch_size": 256, "replay_size": 32_768, "anneal_learning_rate": True},
    ),
    "pqn": Algorithm(LEVELS, 200_000, {"num_envs": 64}),
    "sac": Algorithm(
        EXPOSURE,
        64_000,
        {"rollout_steps": 4, "num_updates": 8, "anneal_learning_rate": True},
    ),
    "apg": Algorithm(EXPOSURE, 400_000, {"num_envs": 64}),
}


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment to train in, the whole test path, and each row's regime there, 1 or -1."""

    env: Trading
    train: EnvParams
    test: EnvParams
    regimes: jax.Array


@functools.cache
def make_task(name: str, actions: Any) -> Task:
    """`regimes` or `random walk`."""
    leave = 1.0 / REGIME_BARS
    drift = DRIFT if name == "regimes" else 0.0
    params = make_regimes(
        drift=(drift, -drift),
        volatility=(VOLATILITY, VOLATILITY),
        transition=((1.0 - leave, leave), (leave, 1.0 - leave)),
    )
    rewards = {"log_return": 1.0}
    if name != "regimes":
        rewards["volatility"] = RISK

    def market(seed: int, num_bars: int) -> Market:
        return make_market(kind="regimes", seed=seed, num_bars=num_bars, params=params)

    options: dict[str, Any] = {
        "actions": actions,
        "features": FEATURES,
        "costs": make_costs(commission_rate=0.5 * COST, half_spread=0.5 * COST),
        "rewards": rewards,
        "first": FIRST,
        "no_trade_band": 0.1,
    }
    env, train = make_trading(market(TRAIN_SEED, TRAIN_BARS), episode_steps=128, **options)
    _, test = make_trading(
        market(TEST_SEED, TEST_BARS), episode_steps=None, normaliser=train.normaliser, **options
    )
    key = jax.random.key(TEST_SEED, impl="threefry2x32")
    path = sample_bars(PROCESSES["regimes"], key, TEST_BARS, params)
    return Task(env=env, train=train, test=test, regimes=jnp.sign(path.drift[:, 0]))


@functools.partial(jax.jit, static_argnames="env")
def walk_actor(agent: Any, actor: Any, env: Trading, params: EnvParams) -> jax.Array:
    """Log return and value traded f32[2] of an actor's modes over the whole path."""

    def choose(state: Any, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        obs = jax.tree.map(lambda leaf: leaf[None], env.observation(state, params))
        outputs, _, hidden = agent.assess(actor, obs, hidden)
        (action,) = actor.head.mode(outputs)
        return env.actions.read(action, state.account.weights).exposure, hidden

    return _walk(env, params, choose, jnp.zeros((1, agent.hidden_size)))


@functools.partial(jax.jit, static_argnames="env")
def walk_oracle(env: Trading, params: EnvParams, regimes: jax.Array) -> jax.Array:
    """The same of who is long in each row whose regime is 1, and short where it is -1."""
    return _walk(
        env, params, lambda state, hidden: (regimes[state.index][None], hidden), jnp.zeros(0)
    )


def _walk(env: Trading, params: EnvParams, choose: Any, hidden: jax.Array) -> jax.Array:
    def step(carry: tuple[Any, Any], _: Any) -> tuple[tuple[Any, Any], jax.Array]:
        state, hidden = carry
        exposure, hidden = choose(state, hidden)
        state, _, _, info = env.advance_to(state, exposure, params)
        return (state, hidden), jnp.abs(info["move"].traded).sum()

    start = env.reset_state(jax.random.key(0), params)
    (state, _), traded = jax.lax.scan(step, (start, hidden), length=TEST_BARS - FIRST - 1)
    return jnp.stack([state.account.log_equity, traded.sum()])


def trained(name: str, task: Task, seed: int) -> tuple[Any, Any, float]:
    """The agent, the actor that it made of one seed, and the seconds that took."""
    algorithm = ALGORITHMS[name]
    agent = agents.make(name, **COMMON, **algorithm.settings)
    started = time.perf_counter()
    state, _ = agents.train(
        agent, task.env, task.train, jax.random.key(seed), total_steps=algorithm.total_steps
    )
    actor = jax.block_until_ready(state.learner.actor)
    return agent, actor, time.perf_counter() - started


def scores(name: str, case: str, seed: int) -> dict[str, float]:
    """What an algorithm reaches with one seed, and in how many seconds of training."""
    task = make_task(case, ALGORITHMS[name].actions)
    agent, actor, seconds = trained(name, task, seed)
    earned, traded = (float(x) for x in walk_actor(agent, actor, task.env, task.test))
    if case == "regimes":
        best = float(walk_oracle(task.env, task.test, task.regimes)[0])
        return {"share of the oracle's log return": earned / best, "seconds": seconds}
    bars = TEST_BARS - FIRST - 1
    return {
        "round trips per 100 bars": 0.5 * traded / bars * 100,
        "return in round trips": earned / (2 * COST),
        "seconds": seconds,
    }


def main() -> None:
    """Train each algorithm on both markets and print; the first seed's seconds hold compiling."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("names", nargs="*", default=list(ALGORITHMS))
    args = parser.parse_args()
    for name in args.names:
        algorithm = ALGORITHMS[name]
        for case in ("regimes", "random walk"):
            each = [scores(name, case, seed) for seed in range(args.seeds)]
            for metric in each[0]:
                values = [one[metric] for one in each]
                setting = {**COMMON, **algorithm.settings, "total_steps": algorithm.total_steps}
                print_result(
                    bench="markets",
                    impl=name,
                    case=case,
                    metric=metric,
                    values=values,
                    unit="s" if metric == "seconds" else "1",
                    config={**setting, "of_each_seed": [float(f"{x:.4g}") for x in values]},
                )


if __name__ == "__main__":
    main()
