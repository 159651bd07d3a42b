"""What a population costs beside as many separate runs: PPO on CartPole-v1, one seed each.

Every measurement is a process of its own, so that it compiles anew; importing is not counted.
Metric `seconds`, from the first key to the last parameters, of

population   all members together
separate     the sum over one process for each seed, as runs started one after the other
one process  the seeds one after the other in one process, which compiles once

and two lines `ratio`: population over either.

    python -m jaxtrade.experiments.benchmarks.population [--members 16] [--steps 50000]
"""

import argparse
import functools
import subprocess
import sys
import time

from jaxtrade.experiments.benchmarks.result import print_result

MODULE = "jaxtrade.experiments.benchmarks.population"
SETTINGS = {"num_envs": 64, "rollout_steps": 128, "num_minibatches": 4}


def work(kind: str, members: int, steps: int) -> float:
    """Seconds that this process takes for the seeds up to `members`, or for one of them."""
    import gymnax
    import jax

    from jaxtrade import agents
    from jaxtrade.agents import loop
    from jaxtrade.agents.population import train_population

    agent = agents.make("ppo", **SETTINGS)
    env, env_params = gymnax.make("CartPole-v1")
    started = time.perf_counter()
    keys = jax.random.split(jax.random.key(0), members)
    if kind == "population":
        jax.block_until_ready(
            train_population(agent, env, env_params, keys, total_steps=steps).states
        )
    else:
        for key in keys:
            state, _ = loop.train(agent, env, env_params, key, total_steps=steps)
            jax.block_until_ready(state)
    return time.perf_counter() - started


def seconds(kind: str, members: int, steps: int) -> float:
    """`work` in a process of its own."""
    arguments = ["--worker", kind, "--members", str(members), "--steps", str(steps)]
    done = subprocess.run(
        [sys.executable, "-m", MODULE, *arguments], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(work(args.worker, args.members, args.steps))
        return

    members, steps = args.members, args.steps
    taken = {
        "population": seconds("population", members, steps),
        "one process": seconds("one process", members, steps),
        "separate": sum(seconds("separate", 1, steps) for _ in range(members)),
    }
    show = functools.partial(
        print_result,
        bench="population",
        config={"members": members, "steps_each": steps, "env": "CartPole-v1", **SETTINGS},
    )
    case = f"{members} seeds"
    for impl, value in taken.items():
        show(impl=impl, case=case, metric="seconds", values=[value], unit="s")
    for peer in ("separate", "one process"):
        ratio = taken["population"] / taken[peer]
        show(impl="ratio", case=case, metric=f"seconds over {peer}", values=[ratio], unit="1")


if __name__ == "__main__":
    main()
