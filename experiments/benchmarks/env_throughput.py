"""Environment steps a second: Trading-v0 beside gymnax CartPole-v1 in the same process.

Random actions, automatic reset, a scan over steps of a vmap over environments. Every number of
every observation is materialised and consumed (summed), as a policy would. Also reports how the
compiled program grows with the data: it must not.

    python -m jaxtrade.experiments.benchmarks.env_throughput [--envs 4096] [--repeats 7]
"""

import argparse
import functools
import statistics
import time
from typing import Any

import gymnax
import jax
import jax.numpy as jnp

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


@functools.partial(jax.jit, static_argnames=("env", "num_steps"))
def roll(env: Any, env_params: Any, state: Any, key: jax.Array, num_steps: int) -> Any:
    """`num_steps` random steps of N environments; the last state and a sum over all seen."""
    num_envs = jax.tree.leaves(state)[0].shape[0]
    step = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def body(carry: Any, key: jax.Array) -> tuple[Any, None]:
        state, total = carry
        action_key, step_key = jax.random.split(key)
        actions = jax.random.randint(action_key, (num_envs,), 0, env.num_actions)
        keys = jax.random.split(step_key, num_envs)
        obs, state, reward, _, _, _ = step(keys, state, actions, env_params)
        obs = jax.lax.optimization_barrier(obs)  # materialised, as for a network
        seen = sum(leaf.sum() for leaf in jax.tree.leaves(obs))
        return (state, total + seen + reward.sum()), None

    return jax.lax.scan(body, (state, jnp.float32(0)), jax.random.split(key, num_steps))[0]


def measure(env: Any, env_params: Any, *, num_envs: int, num_steps: int) -> Any:
    """Compiles, warms up, and gives a function that runs once and returns steps a second."""
    keys = jax.random.split(jax.random.key(0), num_envs)
    _, state = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, env_params)
    started = time.perf_counter()
    run = roll.lower(env, env_params, state, jax.random.key(1), num_steps).compile()
    compile_seconds = time.perf_counter() - started
    jax.block_until_ready(run(env_params, state, jax.random.key(1)))

    def once() -> float:
        started = time.perf_counter()
        jax.block_until_ready(run(env_params, state, jax.random.key(1)))
        return num_envs * num_steps / (time.perf_counter() - started)

    return once, compile_seconds, len(run.as_text())


def main() -> None:
    """Measure in turns, so that both see the same machine, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()

    market = make_market(num_bars=50_000)
    sizes = {"num_envs": args.envs, "num_steps": args.steps}
    ours = jaxtrade.make("Trading-v0", market=market, window=args.window, features=FEATURES)
    peer = gymnax.make("CartPole-v1")
    runs = {"jaxtrade": measure(*ours, **sizes), "gymnax": measure(*peer, **sizes)}
    config = {**sizes, "window": args.window, "features": ours[1].table.shape[1]}
    case = {"jaxtrade": "Trading-v0", "gymnax": "CartPole-v1"}
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, (once, _, _) in runs.items():
            rates[name].append(once())
    for name, (_, compile_seconds, _) in runs.items():
        common = {"bench": "env_throughput", "impl": name, "case": case[name], "config": config}
        print_result(**common, metric="steps", values=rates[name], unit="1/s")
        print_result(**common, metric="compile", values=[compile_seconds], unit="s")
    ratios = [a / b for a, b in zip(rates["jaxtrade"], rates["gymnax"], strict=True)]

    small = jaxtrade.make(
        "Trading-v0",
        market=make_market(num_bars=5_000),
        window=args.window,
        features=FEATURES,
    )
    size_ratio = runs["jaxtrade"][2] / measure(*small, **sizes)[2]
    common = {"bench": "env_throughput", "config": config}
    print_result(
        **common,
        impl="jaxtrade",
        case="program size at 50,000 bars over that at 5,000",
        metric="ratio",
        values=[size_ratio],
        unit="1",
    )
    print_result(
        **common,
        impl="ratio",
        case="Trading-v0 over CartPole-v1",
        metric="steps",
        values=[statistics.median(ratios)],
        unit="1",
    )


if __name__ == "__main__":
    main()
