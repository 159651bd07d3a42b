"""Environment steps a second: Trading-v0 beside gymnax CartPole-v1, in turns in one process.

Both are rolled out alike: a scan over steps of a vmap over environments, automatic reset, and a
policy of one linear layer that turns each observation into the next action. So every number of
every observation is written and read once, as for a network. The policy's other input, random
actions, is drawn beforehand: drawing is no work of an environment.

An observation of 32 rows of 8 columns is 1 KiB, that of CartPole 16 B: writing and reading it is
most of a step, and costs what the memory costs that holds it. So there are two arrangements, for
both alike: `together`, all environments in each step, where the observations of 4,096 take 4 MiB;
and `in blocks`, one block of environments after the other, where they stay in the cache. Lines to
judge by: Trading-v0 with a window of one row; with observations that nobody asks for, which the
compiler then leaves out; and numpy copying as many bytes once and multiplying them with a vector.
The last line compares each at its better arrangement. Compile times are reported, and that the
program does not grow with the data.

    python -m jaxtrade.experiments.benchmarks.env_throughput [--envs 4096] [--block 512]
"""

import argparse
import dataclasses
import functools
import math
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np

import jaxtrade
from jaxtrade.experiments.benchmarks.result import print_result
from jaxtrade.synthetic import make_market

FEATURES = {
    "log_return": True,
    "rsi": True,
    "macd": True,
    "ema_10": True,
    "ema_50": True,
    "volatility": True,
    "relative_volume": False,
    "time_of_day": False,
}
BARS = 50_000
BENCH = "env_throughput"
ONE_ROW = "Trading-v0 together, window 1"
UNSEEN = "Trading-v0 together, observations not asked for"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A compiled rollout: `once` runs it and gives steps a second."""

    once: Callable[[], float]
    compile_seconds: float
    program: str


@functools.partial(jax.jit, static_argnames=("env", "sees"))
def roll(env: Any, env_params: Any, states: Any, actions: jax.Array, layer: Any, sees: bool) -> Any:
    """Blocks of environments [blocks, num_envs], each through all steps; last states, rewards.

    actions: i32[blocks, steps, num_envs]; a positive score of an observation takes the opposite.
    """
    num_envs = actions.shape[2]
    step = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def body(carry: Any, inputs: Any) -> tuple[Any, None]:
        state, score, total = carry
        drawn, key = inputs
        action = jnp.where(score > 0, env.num_actions - 1 - drawn, drawn)
        keys = jax.random.split(key, num_envs)
        obs, state, reward, *_ = step(keys, state, action, env_params)
        if sees:
            parts = zip(jax.tree.leaves(obs), jax.tree.leaves(layer), strict=True)
            score = sum(leaf.reshape(num_envs, -1) @ weights for leaf, weights in parts)
        return (state, score, total + reward), None

    def block(inputs: Any) -> Any:
        state, drawn, key = inputs
        zero = jnp.zeros(num_envs)
        keys = jax.random.split(key, drawn.shape[0])
        (state, _, total), _ = jax.lax.scan(body, (state, zero, zero), (drawn, keys))
        return state, total

    keys = jax.random.split(jax.random.key(2), actions.shape[0])
    return jax.lax.map(block, (states, actions, keys))


def prepare(
    env: Any, env_params: Any, *, num_envs: int, num_steps: int, block: int, sees: bool = True
) -> Run:
    """Compile a rollout of `num_envs` environments, `block` at a time, and run it once."""
    shape = (num_envs // block, block)
    keys = jax.random.split(jax.random.key(0), shape)
    obs, states = jax.jit(jax.vmap(jax.vmap(env.reset, (0, None)), (0, None)))(keys, env_params)
    actions = jax.random.randint(
        jax.random.key(1), (shape[0], num_steps, block), 0, env.num_actions
    )
    layer = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(math.prod(leaf.shape[2:]))), obs)
    started = time.perf_counter()
    lowered = roll.lower(env, env_params, states, actions, layer, sees)
    run = lowered.compile()
    compile_seconds = time.perf_counter() - started
    program = run.as_text() or ""
    numbers = max(leaf.size for leaf in jax.tree.leaves(obs)) // shape[0]
    if sees and not materialises(program, numbers):
        raise SystemExit(f"{env.name}: the compiler left the observations out")
    jax.block_until_ready(run(env_params, states, actions, layer))

    def once() -> float:
        started = time.perf_counter()
        jax.block_until_ready(run(env_params, states, actions, layer))
        return num_envs * num_steps / (time.perf_counter() - started)

    return Run(once=once, compile_seconds=compile_seconds, program=program)


def materialises(program: str, numbers: int) -> bool:
    """Whether a compiled program writes an array of so many numbers, outside of a fused loop."""
    written = re.findall(r"= f32\[([\d,]+)\]\S* (?:fusion|gather|concatenate)\(", program)
    return any(math.prod(map(int, shape.split(","))) == numbers for shape in written)


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

    return Run(once=once, compile_seconds=0.0, program="")


def make_env(num_bars: int, window: int) -> tuple[Any, Any]:
    """Trading-v0 on a synthetic market."""
    market = make_market(num_bars=num_bars)
    return jaxtrade.make("Trading-v0", market=market, window=window, features=FEATURES)


def main() -> None:
    """Measure in turns, so that all see the same machine, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=21)
    args = parser.parse_args()
    ours, peer = make_env(BARS, args.window), gymnax.make("CartPole-v1")
    numbers = args.window * ours[1].table.shape[1]
    config = {**vars(args), "features": ours[1].table.shape[1], "bars": BARS}

    sizes = {"num_envs": args.envs, "num_steps": args.steps}
    arrangements = {"together": args.envs, f"in blocks of {args.block}": args.block}
    runs = {
        (impl, f"{name} {how}"): prepare(*env, **sizes, block=block)
        for how, block in arrangements.items()
        for impl, name, env in (("jaxtrade", "Trading-v0", ours), ("gymnax", "CartPole-v1", peer))
    }
    together: dict[str, Any] = {**sizes, "block": args.envs}
    runs["jaxtrade", ONE_ROW] = prepare(*make_env(BARS, 1), **together)
    runs["jaxtrade", UNSEEN] = prepare(*ours, **together, sees=False)
    runs["numpy", "copy and product of the observations, together"] = copy_once(args.envs, numbers)
    runs["numpy", "copy and product of the observations, one block"] = copy_once(
        args.block, numbers
    )

    rates: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for _ in range(args.repeats):
        for key, run in runs.items():
            rates[key].append(run.once())
    report(runs, rates, config)
    small = prepare(*make_env(BARS // 10, args.window), **together)
    report_size(runs["jaxtrade", "Trading-v0 together"], small, config)
    report_ratios(rates, list(arrangements), config)


def report(runs: dict[Any, Run], rates: dict[Any, list[float]], config: dict[str, Any]) -> None:
    """Steps a second, and what was compiled how long."""
    for (impl, case), run in runs.items():
        common = {"bench": BENCH, "impl": impl, "case": case, "config": config}
        print_result(**common, metric="steps", values=rates[impl, case], unit="1/s")
        if run.program:
            print_result(**common, metric="compile", values=[run.compile_seconds], unit="s")


def report_size(run: Run, small: Run, config: dict[str, Any]) -> None:
    """The compiled program's length over that with a tenth of the data."""
    print_result(
        bench=BENCH,
        impl="jaxtrade",
        case=f"program size at {BARS:,} bars over that at {BARS // 10:,}",
        metric="ratio",
        values=[len(run.program) / len(small.program)],
        unit="1",
        config=config,
    )


def report_ratios(
    rates: dict[Any, list[float]], arrangements: list[str], config: dict[str, Any]
) -> None:
    """Ours over the peer's, in each turn: arranged alike, then each at its better arrangement."""
    ours = {how: rates["jaxtrade", f"Trading-v0 {how}"] for how in arrangements}
    peer = {how: rates["gymnax", f"CartPole-v1 {how}"] for how in arrangements}
    pairs = {"both together, window 1": (rates["jaxtrade", ONE_ROW], peer["together"])}
    pairs |= {f"both {how}": (ours[how], peer[how]) for how in arrangements}
    pairs["each at its better arrangement"] = (
        max(ours.values(), key=statistics.median),
        max(peer.values(), key=statistics.median),
    )
    for case, (first, second) in pairs.items():
        print_result(
            bench=BENCH,
            impl="ratio",
            case=f"Trading-v0 over CartPole-v1, {case}",
            metric="steps",
            values=[a / b for a, b in zip(first, second, strict=True)],
            unit="1",
            config=config,
        )


if __name__ == "__main__":
    main()
