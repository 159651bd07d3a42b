"""From a bar to a risk-checked target: the one decision function.

`decide` is features, normaliser, network and risk review in a row. Training evaluates the same
parts in batch, the backtest scans them, and live trading runs this function itself, exported as
one graph. It is pure and keeps its memory in an explicit carry.
"""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade import features, risk
from jaxtrade.features import Normaliser
from jaxtrade.specs import FeatureSpec


@flax.struct.dataclass(kw_only=True)
class Observation:
    """What a network sees, without or with a leading batch axis.

    market: f32[W, F], normalised feature rows, the newest last ([W, A, F] for several assets);
    account: f32[3A + 3], see `features.account_features`.
    """

    market: jax.Array
    account: jax.Array


@flax.struct.dataclass(kw_only=True)
class Inputs:
    """What has become known since the last decision.

    bar: f32[A, 5], open, high, low, close over the previous close minus one, and volume (0: none
    known); context: f32[C], the columns of `FeatureSpec.context`; clock: f32[3], see
    `specs.CLOCK_FIELDS`; mask: f32[A], 1 where the asset may be traded; account: f32[3A + 3], see
    `ledger.account_vector`; limits: f32[5], see `specs.HARD_LIMITS`.
    """

    bar: jax.Array
    context: jax.Array
    clock: jax.Array
    mask: jax.Array
    account: jax.Array
    limits: jax.Array


@flax.struct.dataclass(kw_only=True)
class Carry:
    """indicators: f32[K, A], their recursions; window: f32[W, A * F], normalised rows."""

    indicators: jax.Array
    window: jax.Array


@flax.struct.dataclass(kw_only=True)
class Decision:
    """requested, target: f32[A], the wanted exposure before and after the risk review; binding:
    i32[], bits of `specs.BINDING_FLAGS`; action: i32[], index into the levels; probabilities:
    f32[num_actions]; value: f32[], what the critic expects; confidence: f32[], the largest
    probability.
    """

    requested: jax.Array
    target: jax.Array
    binding: jax.Array
    action: jax.Array
    probabilities: jax.Array
    value: jax.Array
    confidence: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """A trained policy for one asset.

    `assess` maps an `Observation` with a batch axis to logits f32[B, len(levels)] and values
    f32[B]; an action is the index of the largest logit, `levels` are the exposures it stands for.
    """

    features: FeatureSpec
    levels: tuple[float, ...]
    normaliser: Normaliser
    assess: Callable[[Observation], tuple[jax.Array, jax.Array]]


def init_carry(spec: FeatureSpec, num_assets: int = 1) -> Carry:
    """The carry before the first bar."""
    width = num_assets * len(features.columns(spec))
    return Carry(
        indicators=features.init_carry(spec, num_assets),
        window=jnp.zeros((spec.window, width), jnp.float32),
    )


def decide(policy: Policy, inputs: Inputs, carry: Carry) -> tuple[Carry, Decision]:
    """One bar: the next carry, and the decision at its close.

    Where the network's output is not finite nothing is requested: the position is held and
    `not_finite` binds.
    """
    carry = _see_bar(policy, inputs, carry)
    observation = observe(carry.window, inputs.account)
    logits, value = policy.assess(jax.tree.map(lambda leaf: leaf[None], observation))
    action = jnp.argmax(logits, axis=1).astype(jnp.int32)
    levels = jnp.asarray(policy.levels, jnp.float32).at[action]
    level = levels.get(mode="promise_in_bounds", wrap_negative_indices=False)
    # 0 times what is not finite is NaN; as a product it costs the exported graph one node
    requested = level + (logits @ np.zeros((logits.shape[1], 1), np.float32))[:, 0]

    num_assets = inputs.bar.shape[0]
    weights = inputs.account[:num_assets]
    returns = inputs.account[3 * num_assets : 3 * num_assets + 2]
    target, binding = risk.review(requested, weights, inputs.mask, returns, inputs.limits)
    probabilities = jax.nn.softmax(logits)
    return carry, Decision(
        requested=requested,
        target=target,
        binding=binding,
        action=action[0],
        probabilities=probabilities[0],
        value=value[0],
        confidence=probabilities.max(),
    )


def _see_bar(policy: Policy, inputs: Inputs, carry: Carry) -> Carry:
    """The carry with one bar more: recursions advanced, window shifted."""
    *prices, volume = (inputs.bar[:, column] for column in range(5))
    bar = features.make_bar(prices, volume, inputs.context, inputs.clock)
    indicators, raw = features.update(policy.features, carry.indicators, bar)
    row = features.normalise(policy.normaliser, raw, policy.features.clip).reshape(1, -1)
    return Carry(indicators=indicators, window=jnp.concatenate([carry.window[1:], row]))


def observe(window: jax.Array, account: jax.Array) -> Observation:
    """The observation of a window f32[W, F] and an account vector f32[3A + 3]."""
    return Observation(market=window, account=features.account_features(account))


def explain(policy: Policy, window: jax.Array, account: jax.Array) -> jax.Array:
    """What each input adds to the choice made: f32[F + 3A + 3], feature columns, then account.

    Gradient times input (Shrikumar et al. 2017) of the largest logit's lead over the mean logit,
    summed over the window's rows.
    """
    observation = observe(window, account)

    def lead(observation: Observation) -> jax.Array:
        logits = policy.assess(jax.tree.map(lambda leaf: leaf[None], observation))[0][0]
        return logits.max() - logits.mean()

    gradient = jax.grad(lead)(observation)
    market = (gradient.market * observation.market).sum(axis=0)
    return jnp.concatenate([market, gradient.account * observation.account])
