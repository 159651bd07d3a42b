"""Other people's trainers behind one interface, for `training`; absent ones are None.

The extra `clients` brings rejax and SBX; gym-trading-env is `pip install --no-deps
gym-trading-env==0.3.5`.
"""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.envs.adapters.five_value import FiveValue
from jaxtrade.synthetic import make_market

EVALUATION_ENVS = 128

CARTPOLE, PENDULUM, TRADING = "CartPole-v1", "Pendulum-v1", "Trading"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """A trainer ready to run: train(seed) gives the seconds it took, and the final mean return."""

    impl: str
    steps: int
    compile_seconds: float
    train: Callable[[int], tuple[float, float]]


def rejax_trainer(algorithm: str, env: Any, env_params: Any, steps: int, **settings: Any) -> Any:
    """rejax, whose evaluation is left out of the time; its own `evaluate` judges the end, of the
    most probable action with PPO, of what the trained policy does with the others.
    """
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore")
        import rejax
        from rejax.evaluate import evaluate

        adapted = FiveValue(env, info_keys=())
        algo = rejax.get_algo(algorithm).create(
            env=adapted,
            env_params=env_params,
            total_timesteps=steps,
            eval_freq=steps,
            skip_initial_evaluation=True,
            **settings,
        )
        # The evaluation at the end would count as training.
        algo = algo.replace(eval_callback=lambda algo, state, key: jnp.float32(0))
        started = time.perf_counter()
        compiled = jax.jit(lambda key: algo.train(key)[0]).lower(jax.random.key(0)).compile()
        compile_seconds = time.perf_counter() - started

        @jax.jit
        def judge(state: Any, key: jax.Array) -> jax.Array:
            # Their `evaluate` jits over `act` as a static argument: one that is a pure closure.
            max_steps = env_params.max_steps_in_episode
            act = algo.make_act(state)
            if algorithm == "ppo":

                def act(obs: jax.Array, key: jax.Array) -> jax.Array:
                    rows = obs[None]
                    found = algo.actor.apply(state.actor_ts.params, rows, method="_action_dist")
                    return found.mode()[0]

            returns = evaluate.__wrapped__(
                act, key, adapted, env_params, EVALUATION_ENVS, max_steps
            )
            return returns[1].mean()

        def train(seed: int) -> tuple[float, float]:
            started = time.perf_counter()
            state = jax.block_until_ready(compiled(jax.random.key(seed)))
            seconds = time.perf_counter() - started
            return seconds, float(judge(state, jax.random.key(1000 + seed)))

        return Trainer(impl="rejax", steps=steps, compile_seconds=compile_seconds, train=train)
    return None


def sbx_trainer(
    algorithm: str, task: str, num_envs: int, steps: int, warm_up: int, **settings: Any
) -> Any:
    """SBX on Python environments; a first short training compiles, and is timed apart."""
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore")
        import sbx
        from stable_baselines3.common.evaluation import evaluate_policy
        from stable_baselines3.common.vec_env import DummyVecEnv

        warnings.simplefilter("ignore")  # gym-trading-env turns them into errors

        def make(seed: int) -> Any:
            make_env = _gym_trading if task == TRADING else lambda: _gymnasium(task)
            envs = DummyVecEnv([make_env] * num_envs)
            return getattr(sbx, algorithm)("MlpPolicy", envs, seed=seed, **settings)

        model = make(0)
        started = time.perf_counter()
        model.learn(warm_up)
        compile_seconds = time.perf_counter() - started

        def train(seed: int) -> tuple[float, float]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = make(seed)
                model.learn(warm_up)
                started = time.perf_counter()
                model.learn(steps)
                seconds = time.perf_counter() - started
                if task == TRADING:
                    return seconds, float("nan")
                rewards, _ = evaluate_policy(model, model.get_env(), 10, warn=False)
                return seconds, float(rewards)

        return Trainer(impl="SBX", steps=steps, compile_seconds=compile_seconds, train=train)
    return None


def _gymnasium(task: str) -> Any:
    import gymnasium
    from stable_baselines3.common.monitor import Monitor

    return Monitor(gymnasium.make(task))


def _gym_trading() -> Any:
    """gym-trading-env on 20,000 rows of eight columns, 32 of them seen at once."""
    import pandas as pd
    from gym_trading_env.environments import TradingEnv

    market = make_market(num_bars=20_000)
    close = market.close_prices()[:, 0]
    columns = {f"feature_{number}": np.cos(close * number) for number in range(8)}
    frame = pd.DataFrame({"close": close, **columns}, index=pd.DatetimeIndex(market.timestamps))
    return TradingEnv(
        frame,
        positions=[-1, 0, 1],
        windows=32,
        trading_fees=2e-4,
        borrow_interest_rate=3e-6,
        max_episode_duration=1_000,
        verbose=0,
    )
