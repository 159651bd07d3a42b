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

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrade.costs import make_costs
from jaxtrade.envs import EnvParams, Trading, make_trading
from jaxtrade.envs.actions import Actions
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec
from jaxtrade.synthetic import PROCESSES, make_market, make_regimes, sample_bars

COST = 1e-3
"""Of the value traded: half a spread and a commission. A round trip is two."""

FEATURES = FeatureSpec(names=("log_return", "ema_10"), window=4)
FIRST = 64
TRAIN_SEED, TEST_SEED = 0, 1
TRAIN_BARS, TEST_BARS = 20_000, 4_000

DRIFT, VOLATILITY, REGIME_BARS = 4e-3, 1e-2, 50.0


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment to train in, the whole test path, and each row's regime there, 1 or -1."""

    env: Trading
    train: EnvParams
    test: EnvParams
    regimes: jax.Array


@functools.cache
def make_task(name: str, actions: Actions) -> Task:
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
        rewards["volatility"] = 20.0

    def market(seed: int, num_bars: int) -> Market:
        return make_market(kind="regimes", seed=seed, num_bars=num_bars, params=params)

    options = {
        "actions": actions,
        "features": FEATURES,
        "costs": make_costs(commission_rate=0.5 * COST, half_spread=0.5 * COST),
        "rewards": rewards,
        "first": FIRST,
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
    return _walk(env, params, lambda state, hidden: (regimes[state.index][None], hidden), None)


def _walk(env: Trading, params: EnvParams, choose: Any, hidden: Any) -> jax.Array:
    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], jax.Array]:
        state, hidden = carry
        exposure, hidden = choose(state, hidden)
        state, _, _, info = env.advance_to(state, exposure, params)
        return (state, hidden), jnp.abs(info["move"].traded).sum()

    start = env.reset_state(jax.random.key(0), params)
    (state, _), traded = jax.lax.scan(step, (start, hidden), length=TEST_BARS - FIRST - 1)
    return jnp.stack([state.account.log_equity, traded.sum()])
