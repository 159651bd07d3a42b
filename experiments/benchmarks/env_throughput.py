"""Environment steps a second: Trading-v0 beside CartPole-v1, Pendulum-v1 and gym-trading-env.

All in one process, in turns, each as a scan over steps of a vmap over environments with automatic
reset. Metric `steps_per_s`, of three ways to use what a step gives:

materialised  every observation is written in full, and read by a linear layer that takes part in
              choosing the next action
stored        every observation is written into one donated buffer of all steps, as a rollout is
states        the state, reward and end of each step are stored, observations made later

A window of 32 rows of 8 columns is 1 KiB a step, CartPole's observation 16 bytes: `numpy` is what
copying and multiplying as many bytes takes without any environment. `everything` has each rule for
one asset switched on that goes together with the others. Random actions are drawn beforehand.
gym-trading-env runs alone, as it does best; without the package it is left out. One XLA thread on
both sides, as two are bimodal: set NPROC to change that.

    python -m jaxtrade.experiments.benchmarks.env_throughput [--envs 1024,4096,16384]
"""

import argparse
import contextlib
import dataclasses
import functools
import math
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("NPROC", "1")  # read when JAX starts

import gymnax
import jax
import jax.numpy as jnp
import numpy as np

import jaxtrade
from jaxtrade.brackets import make_brackets
from jaxtrade.costs import make_costs
from jaxtrade.experiments.benchmarks.result import print_result
from jaxtrade.impact import make_impact
from jaxtrade.margin import make_margin
from jaxtrade.rules import make_rules
from jaxtrade.specs import RiskLimits
from jaxtrade.synthetic import make_market

FEATURES = {
    "log_return": True,
    "rsi": True,
    "macd": True,
    "ema_10": True,
    "ema_50": True,
    "volatility": True,
    "relative_volume": False,
    "rsi@4h": True,
}
BENCH = "env_throughput"
WINDOW = 32
CASES = ("materialised", "stored", "states")
PEERS = ("CartPole-v1", "Pendulum-v1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A compiled rollout: `once` runs it and gives steps a second."""

    once: Callable[[], float]
    compile_seconds: float = 0.0


def make_env(num_bars: int = 50_000) -> tuple[Any, Any]:
    """Trading-v0 as it is by default, on a synthetic market."""
    market = make_market(num_bars=num_bars)
    return jaxtrade.make("Trading-v0", market=market, window=WINDOW, features=FEATURES)


def make_everything() -> tuple[Any, Any]:
    """Trading-v0 with every rule for one asset that goes together with the others."""
    costs = make_costs(
        maker_rate=-1e-5,
        commission_per_unit=0.001,
        minimum_ticket=0.1,
        slippage=1e-5,
        volatility_slippage=0.01,
        idle_rate=0.02,
        swap_long=-1e-4,
        swap_short=-1e-4,
    )
    rules = make_rules(
        costs=costs,
        latency=1,
        delay=0.1,
        participation=0.5,
        tick_size=0.01,
        impact=make_impact("obizhaeva_wang"),
        margin=make_margin(max_leverage=5.0),
        brackets=make_brackets(stop_loss=0.03, take_profit=0.05, trailing=0.04),
    )
    limits = RiskLimits(
        max_drawdown=0.5,
        drawdown_resume=0.4,
        drawdown_scale=0.5,
        max_daily_loss=0.2,
        target_volatility=0.5,
        risk_per_trade=0.02,
        cooldown_bars=5,
    )
    rewards = {"log_return": 1.0, "differential_sharpe": 0.01, "drawdown": 0.01, "turnover": 0.01}
    return jaxtrade.make(
        "Trading-v0",
        market=make_market(num_bars=50_000),
        window=WINDOW,
        features=FEATURES,
        rules=rules,
        limits=limits,
        rewards=rewards,
        history=4,
        minimum_order=0.01,
    )


@functools.partial(jax.jit, static_argnames=("env", "case"), donate_argnames="store")
def roll(
    env: Any, env_params: Any, state: Any, actions: jax.Array, layer: Any, store: Any, case: str
) -> Any:
    """All environments through all steps: last states, sum of rewards, and what was stored.

    actions: [steps, num_envs, ...]; a positive score of an observation turns an action round.
    """
    num_envs = actions.shape[1]
    step = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def body(carry: Any, inputs: Any) -> tuple[Any, None]:
        state, score, total, store = carry
        drawn, key, number = inputs
        away = -drawn if drawn.dtype == jnp.float32 else env.num_actions - 1 - drawn
        action = jnp.where((score > 0).reshape(-1, *[1] * (drawn.ndim - 1)), away, drawn)
        keys = jax.random.split(key, num_envs)
        obs, state, reward, terminated, truncated, _ = step(keys, state, action, env_params)
        kept = {"obs": obs, "states": (state, reward, terminated | truncated)}
        if case == "materialised":
            parts = zip(jax.tree.leaves(obs), jax.tree.leaves(layer), strict=True)
            score = sum(leaf.reshape(num_envs, -1) @ weights for leaf, weights in parts)
        else:
            kept_now = kept["obs" if case == "stored" else "states"]
            store = jax.tree.map(lambda all_, row: all_.at[number].set(row), store, kept_now)
        return (state, score, total + reward, store), None

    zero = jnp.zeros(num_envs)
    keys = jax.random.split(jax.random.key(2), len(actions))
    inputs = (actions, keys, jnp.arange(len(actions)))
    return jax.lax.scan(body, (state, zero, zero, store), inputs)[0]


def prepare(env: Any, env_params: Any, case: str, *, num_envs: int, num_steps: int) -> Run:
    """Compile a rollout and run it once."""
    keys = jax.random.split(jax.random.key(0), num_envs)
    obs, state = jax.jit(jax.vmap(env.reset, (0, None)))(keys, env_params)
    space = env.action_space(env_params)
    draws = jax.random.split(jax.random.key(1), (num_steps, num_envs))
    actions = jax.jit(jax.vmap(jax.vmap(space.sample)))(draws)
    layer = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(math.prod(leaf.shape[1:]))), obs)
    flags = jnp.zeros(num_envs), jnp.zeros(num_envs, bool)
    kept = {"materialised": None, "stored": obs, "states": (state, *flags)}[case]
    store = jax.tree.map(lambda leaf: jnp.zeros((num_steps, *leaf.shape), leaf.dtype), kept)
    started = time.perf_counter()
    run = roll.lower(env, env_params, state, actions, layer, store, case).compile()
    compile_seconds = time.perf_counter() - started
    held = [jax.block_until_ready(run(env_params, state, actions, layer, store))[3]]

    def once() -> float:
        started = time.perf_counter()
        outcome = run(env_params, state, actions, layer, held.pop())
        jax.block_until_ready(outcome)
        seconds = time.perf_counter() - started
        held.append(outcome[3])
        return num_envs * num_steps / seconds

    return Run(once=once, compile_seconds=compile_seconds)


def copy_once(num_envs: int, numbers: int) -> Run:
    """Numpy writing as many numbers as the observations of one step have, and reading them once."""
    source = np.ones((num_envs, numbers), np.float32)
    target, weights = np.empty_like(source), np.ones(numbers, np.float32)

    def once() -> float:
        started = time.perf_counter()
        for _ in range(10):
            np.copyto(target, source)
            target @ weights
        return 10 * num_envs / (time.perf_counter() - started)

    return Run(once=once)


def gym_trading_env(num_steps: int = 5_000) -> Run | None:
    """The Python package on 20,000 rows, one environment; None where it is not installed."""
    import pandas as pd

    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore")
        from gym_trading_env.environments import TradingEnv

        warnings.simplefilter("ignore")  # it has turned them into errors
        market = make_market(num_bars=20_000)
        close = market.close_prices()[:, 0]
        columns = {f"feature_{number}": np.cos(close * number) for number in range(8)}
        index = pd.DatetimeIndex(market.timestamps)
        frame = pd.DataFrame({"close": close, **columns}, index=index)
        env = TradingEnv(
            frame,
            positions=[-1, 0, 1],
            windows=WINDOW,
            trading_fees=2e-4,
            borrow_interest_rate=3e-6,
            max_episode_duration=1_000,
            verbose=0,
        )
        actions = np.random.default_rng(0).integers(0, 3, num_steps)

        def once() -> float:
            env.reset()
            started = time.perf_counter()
            for action in actions:
                if any(env.step(int(action))[2:4]):
                    env.reset()
            return num_steps / (time.perf_counter() - started)

        return Run(once=once)
    return None


def main() -> None:
    """Measure in turns, so that all see the same machine, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", default="4096", help="numbers of environments, with commas")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-large", action="store_true", help="leave out the 2,000,000 bars")
    args = parser.parse_args()
    python = gym_trading_env()
    for num_envs in map(int, args.envs.split(",")):
        compare(num_envs, args, python)
    if not args.no_large:
        compare_lengths(args)


def compare(num_envs: int, args: argparse.Namespace, python: Run | None) -> None:
    """All cases at one number of environments, and ours over the peers'."""
    ours = make_env()
    envs = {"Trading-v0": ours, "everything": make_everything()}
    envs |= {name: gymnax.make(name) for name in PEERS}
    sizes = {"num_envs": num_envs, "num_steps": args.steps}
    runs = {
        (name, case): prepare(*env, case, **sizes) for name, env in envs.items() for case in CASES
    }
    runs["numpy", "materialised"] = copy_once(num_envs, WINDOW * ours[1].table.shape[1])
    if python is not None:
        runs["gym-trading-env", "materialised"] = python
    rates = in_turns(runs, args.repeats)
    features = ours[1].table.shape[1]
    config = {"num_envs": num_envs, "steps": args.steps, "window": WINDOW, "features": features}
    config["NPROC"] = os.environ["NPROC"]
    impls = {"Trading-v0": "jaxtrade", "everything": "jaxtrade everything"}
    for (name, case), run in runs.items():
        common: dict[str, Any] = {"bench": BENCH, "impl": impls.get(name, name), "case": case}
        common["config"] = config
        print_result(**common, metric="steps_per_s", values=rates[name, case], unit="1/s")
        if run.compile_seconds:
            print_result(**common, metric="compile", values=[run.compile_seconds], unit="s")
    for name in impls:
        for peer, case in [key for key in runs if key[0] not in impls]:
            pairs = zip(rates[name, case], rates[peer, case], strict=True)
            print_result(
                bench=BENCH,
                impl="ratio",
                case=f"{case}: {name} over {peer}",
                metric="steps_per_s",
                values=[a / b for a, b in pairs],
                unit="1",
                config=config,
            )
        state = jax.eval_shape(envs[name][0].reset_state, jax.random.key(0), envs[name][1])
        size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        print_result(
            bench=BENCH,
            impl=impls[name],
            case="one environment beyond the shared table",
            metric="state_size",
            values=[size],
            unit="byte",
            config=config,
        )


def compare_lengths(args: argparse.Namespace) -> None:
    """What a table of 2,000,000 rows costs against one of 20,000."""
    sizes = {"num_envs": 4096, "num_steps": args.steps}
    runs = {bars: prepare(*make_env(bars), "materialised", **sizes) for bars in (20_000, 2_000_000)}
    rates = in_turns(runs, args.repeats)
    print_result(
        bench=BENCH,
        impl="ratio",
        case="materialised: time of a step at 2,000,000 bars over that at 20,000",
        metric="time",
        values=[a / b for a, b in zip(rates[20_000], rates[2_000_000], strict=True)],
        unit="1",
        config=sizes,
    )


def in_turns(runs: dict[Any, Run], repeats: int) -> dict[Any, list[float]]:
    """Each run's rates, one after the other in every round."""
    rates: dict[Any, list[float]] = {key: [] for key in runs}
    for _ in range(repeats):
        for key, run in runs.items():
            rates[key].append(run.once())
    return rates


if __name__ == "__main__":
    main()
