"""Rewards as named terms: their weighted sum is the reward of a step.

A term sees the facts of one step and a memory of its own, a few numbers that start anew with each
episode. Which terms there are is static; weights and rates are traced, so that an experiment
varies them without a new program. A penalty is negative: a positive weight punishes.

    names, params = make_rewards({"log_return": 1.0, "turnover": 0.1})
    memory = init(names)                                    # with each episode
    memory, reward, terms = update(names, params, memory, facts)

To add one without memory: `REWARDS["name"] = plain(function)`, where the function maps `Facts` to
f32[]; one with a memory is a `Term` of its own. Do so before the environment is made.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.specs import JaxtradeError, unknown_name

_TINY = 1e-30
"""A variance below this is none."""

Memory = dict[str, tuple[jax.Array, ...]]
"""The memories f32[] of the terms that have one, by name; without such terms it has no leaves."""


@flax.struct.dataclass(kw_only=True)
class Facts:
    """What one step did; f32[], fractions of the equity at the last close, unless said otherwise.

    log_return, simple_return: of equity, after all costs, finite at ruin too; cost: trading costs
    paid; carry: interest, funding and swap paid, negative where received; turnover: sum of the
    absolute values traded; gross: sum of |weights| held at the end; drawdown, previous_drawdown:
    at the end and before the step, at least 0; is_ruined: bool[]; is_last: bool[], the episode
    ends with this step by clock or data; log_equity: since the episode's start.
    """

    log_return: jax.Array
    simple_return: jax.Array
    cost: jax.Array
    carry: jax.Array
    turnover: jax.Array
    gross: jax.Array
    drawdown: jax.Array
    previous_drawdown: jax.Array
    is_ruined: jax.Array
    is_last: jax.Array
    log_equity: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """A reward term.

    `init`: its memory before the first step, as numbers, none by default.
    `update(memory, facts, decay)` gives the next memory and the value f32[] of the step; decay:
    f32[] in (0, 1], the rate at which moving averages adapt.
    """

    update: Callable[
        [tuple[jax.Array, ...], Facts, jax.Array], tuple[tuple[jax.Array, ...], jax.Array]
    ]
    init: tuple[float, ...] = ()


@flax.struct.dataclass(kw_only=True)
class RewardParams:
    """Traced numbers of R terms. weights, decay: f32[R], in the order of the terms' names."""

    weights: jax.Array
    decay: jax.Array


def make_rewards(
    weights: Mapping[str, float], decay: float | Mapping[str, float] = 0.01
) -> tuple[tuple[str, ...], RewardParams]:
    """The names of the terms in order, and their parameters.

    `decay`: the adaptation rate of terms with a memory, about 1 / (bars remembered); one for all,
    or by name, 0.01 where a name is missing.

    Raises:
        JaxtradeError: no term, one that does not exist, a weight that is not finite, or a rate
            outside (0, 1].
    """
    if not weights:
        raise JaxtradeError(f"there is no reward term: give weights of {', '.join(REWARDS)}")
    for name, weight in weights.items():
        if name not in REWARDS:
            raise unknown_name("reward term", name, REWARDS)
        if not math.isfinite(weight):
            raise JaxtradeError(f"the weight of {name} is {weight}: give a finite number")
    rates = decay if isinstance(decay, Mapping) else dict.fromkeys(weights, decay)
    for name, rate in rates.items():
        if name not in weights:
            raise unknown_name("reward term with a decay", name, weights)
        if not 0 < rate <= 1:
            raise JaxtradeError(f"the decay of {name} is {rate}: give a rate above 0, at most 1")
    names = tuple(weights)
    params = RewardParams(
        weights=jnp.asarray([weights[name] for name in names], jnp.float32),
        decay=jnp.asarray([rates.get(name, 0.01) for name in names], jnp.float32),
    )
    return names, params


def init(names: Sequence[str]) -> Memory:
    """The memories before an episode's first step."""
    return {
        name: tuple(jnp.float32(number) for number in REWARDS[name].init)
        for name in names
        if REWARDS[name].init
    }


def update(
    names: Sequence[str], params: RewardParams, memory: Memory, facts: Facts
) -> tuple[Memory, jax.Array, dict[str, jax.Array]]:
    """One step: the next memory, the reward f32[], and each term's value f32[] before its weight.

    The reward is sum_i weights[i] * term_i. With finite facts everything is finite, gradients too.
    """
    after: Memory = {}
    terms: dict[str, jax.Array] = {}
    for i, name in enumerate(names):
        moved, terms[name] = REWARDS[name].update(memory.get(name, ()), facts, params.decay[i])
        if moved:
            after[name] = moved
    weighted = [params.weights[i] * terms[name] for i, name in enumerate(names)]
    return after, functools.reduce(operator.add, weighted), terms


def plain(value: Callable[[Facts], jax.Array]) -> Term:
    """A term without memory, from a function of the facts to f32[]."""
    return Term(update=lambda memory, facts, decay: (memory, value(facts)))


def differential_sharpe() -> Term:
    """How much a return moves the Sharpe ratio of moving averages (Moody & Saffell 2001, II).

    With A and B moving averages of R and R^2 at the rate eta, S = A / sqrt(B - A^2) and
    D = dS/deta = (B dA - A dB / 2) / (B - A^2)^(3/2), where dA = R - A, dB = R^2 - B are taken
    against the averages before the step: eta D is the change of S to first order. With the
    variance V = B - A^2, x = dA / sqrt(V) and m = A / sqrt(V) this is D = x + m (1 - x^2) / 2:
    so V itself is carried, and nothing cancels.

    Two departures keep D of order 1 from the first step on: until 1 / eta returns are known the
    averages are plain ones; and V counts as at least eta (dA^2 + A^2), beyond which, at a return of
    1 / sqrt(eta) deviations, the first order means nothing. While nothing has moved, D is 0.
    """

    def update(
        memory: tuple[jax.Array, ...], facts: Facts, decay: jax.Array
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        mean, variance, count = memory
        rate = jnp.maximum(decay, 1.0 / (count + 1.0))
        change = facts.simple_return - mean
        floor = rate * (change * change + mean * mean)
        x, m, is_known = _over_deviation(change, mean, jnp.maximum(variance, floor))
        value = jnp.where(is_known, x + 0.5 * m * (1.0 - x * x), 0.0)
        variance = (1.0 - rate) * (variance + rate * change * change)
        return (mean + rate * change, variance, count + 1.0), value

    return Term(init=(0.0, 0.0, 0.0), update=update)


def differential_sortino() -> Term:
    """How much a return moves the downside deviation ratio A / DD (Moody & Saffell 2001, II).

    DD^2 is the moving average of min(R, 0)^2 and D = (R - A / 2) / DD after a gain,
    (DD^2 (R - A / 2) - A R^2 / 2) / DD^3 after a loss; in units of DD both are
    D = x - m (1 + min(x, 0)^2) / 2. Start and bound are those of `differential_sharpe`: DD^2
    counts as at least eta (R^2 + A^2), so that gains count before there has been any loss.
    """

    def update(
        memory: tuple[jax.Array, ...], facts: Facts, decay: jax.Array
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        mean, downside, count = memory
        rate = jnp.maximum(decay, 1.0 / (count + 1.0))
        gain = facts.simple_return
        floor = rate * (gain * gain + mean * mean)
        x, m, is_known = _over_deviation(gain, mean, jnp.maximum(downside, floor))
        fall = jnp.minimum(x, 0.0)
        value = jnp.where(is_known, x - 0.5 * m * (1.0 + fall * fall), 0.0)
        loss = jnp.minimum(gain, 0.0)
        downside = downside + rate * (loss * loss - downside)
        return (mean + rate * (gain - mean), downside, count + 1.0), value

    return Term(init=(0.0, 0.0, 0.0), update=update)


def volatility() -> Term:
    """Minus (R - A)^2: R the simple return, A the moving average of those before (at first 0)."""

    def update(
        memory: tuple[jax.Array, ...], facts: Facts, decay: jax.Array
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        mean, count = memory
        change = facts.simple_return - mean
        rate = jnp.maximum(decay, 1.0 / (count + 1.0))
        return (mean + rate * change, count + 1.0), -change * change

    return Term(init=(0.0, 0.0), update=update)


def _over_deviation(
    change: jax.Array, mean: jax.Array, variance: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Both in units of the deviation, and whether there is one; finite, gradients too."""
    is_known = variance > _TINY
    deviation = jnp.sqrt(jnp.where(is_known, variance, 1.0))
    return change / deviation, mean / deviation, is_known


REWARDS: dict[str, Term] = {
    "log_return": plain(lambda facts: facts.log_return),
    "simple_return": plain(lambda facts: facts.simple_return),
    "differential_sharpe": differential_sharpe(),
    "differential_sortino": differential_sortino(),
    "drawdown": plain(lambda facts: -facts.drawdown),
    "drawdown_increase": plain(
        lambda facts: -jnp.maximum(facts.drawdown - facts.previous_drawdown, 0.0)
    ),
    "volatility": volatility(),
    "turnover": plain(lambda facts: -facts.turnover),
    "cost": plain(lambda facts: -facts.cost),
    "carry": plain(lambda facts: -facts.carry),
    "idle": plain(lambda facts: jnp.where(facts.gross > 0, 0.0, -1.0)),
    "terminal_log_equity": plain(
        lambda facts: jnp.where(facts.is_last | facts.is_ruined, facts.log_equity, 0.0)
    ),
    "ruin": plain(lambda facts: jnp.where(facts.is_ruined, -1.0, 0.0)),
}
"""The terms by name; see each, and `Facts` for what they are made of.

`drawdown` is minus its level, `drawdown_increase` minus what it grew by; `idle` is -1 while nothing
is held; `terminal_log_equity` pays once, at the last step or at ruin; `ruin` is -1 at ruin.
"""
