"""From a bar to a risk-checked target: the one decision function.

`decide` is features, normaliser, network and risk review in a row. Training evaluates the same
parts in batch, the backtest scans them, and live trading runs this function itself, exported as
one graph. It is pure and keeps its memory in an explicit carry.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade import features, risk
from jaxtrade.features import Normaliser
from jaxtrade.specs import ActionSpec, FeatureSpec


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
    """indicators: f32[K, A], their recursions; window: f32[W, A * F], normalised rows; hidden:
    f32[H], what the network remembers, zeros where an episode starts.
    """

    indicators: jax.Array
    window: jax.Array
    hidden: jax.Array


@flax.struct.dataclass(kw_only=True)
class Decision:
    """requested, target: f32[A], the wanted exposure before and after the risk review; binding:
    i32[], bits of `specs.BINDING_FLAGS`; action: see `ActionSpec`; value: f32[], what the critic
    expects.

    probabilities: f32[A * n], of n levels, asset after asset: the softmax of the outputs, which an
    agent that learns action values has instead of logits; f32[0] where actions are not levels.
    spread: f32[k], how sure the numbers of such an action are: half the width of the central 68 %
    of what might have been drawn; f32[0] of levels. confidence: f32[], from 0 to 1: the largest
    probability, of the asset where it is least; else 1 less the widest spread over half of what
    an action ranges over.
    """

    requested: jax.Array
    target: jax.Array
    binding: jax.Array
    action: jax.Array
    probabilities: jax.Array
    spread: jax.Array
    value: jax.Array
    confidence: jax.Array


class Actions(Protocol):
    """What actions mean; the kinds are in `envs.actions`."""

    @property
    def spec(self) -> ActionSpec:
        """The same in plain numbers."""

    def exposure(self, action: jax.Array) -> jax.Array:
        """The exposures f32[A] that an action of the head asks for."""


class Head(Protocol):
    """How the outputs of a network are read; the families are in `agents.distributions`."""

    def mode(self, outputs: jax.Array) -> jax.Array:
        """The actions taken, of outputs f32[B, num_outputs]."""


@runtime_checkable
class Uncertain(Head, Protocol):
    """A head of continuous actions that are drawn."""

    def spread(self, outputs: jax.Array) -> jax.Array:
        """Half the width of the central 68 % of each number, f32[B, k]."""


Assess = Callable[[Observation, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
"""An observation with a batch axis, memories f32[B, H] -> outputs, values f32[B], memories."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """A trained policy: what it sees, what it makes of it, and what its actions mean.

    `head` reads the outputs f32[B, num_outputs] of `assess`; of levels they are the logits (or
    values) of each, asset after asset. `hidden_size` is H, 0 without a memory. With `masks`, for
    levels of one asset, it chooses among those that the risk review would leave as they are.
    """

    features: FeatureSpec
    normaliser: Normaliser
    actions: Actions
    head: Head
    assess: Assess
    hidden_size: int = 0
    masks: bool = False


class Choice(NamedTuple):
    """What a policy wants: requested f32[A], NaN where its network says nothing finite; action, see
    `ActionSpec`; outputs f32[num_outputs], masked; value f32[]; hidden f32[H], its memory after it.
    """

    requested: jax.Array
    action: jax.Array
    outputs: jax.Array
    value: jax.Array
    hidden: jax.Array


def init_carry(spec: FeatureSpec, num_assets: int = 1, hidden_size: int = 0) -> Carry:
    """The carry before the first bar."""
    width = num_assets * len(features.columns(spec))
    return Carry(
        indicators=features.init_carry(spec, num_assets),
        window=jnp.zeros((spec.window, width), jnp.float32),
        hidden=jnp.zeros(hidden_size, jnp.float32),
    )


def decide(policy: Policy, inputs: Inputs, carry: Carry) -> tuple[Carry, Decision]:
    """One bar: the next carry, and the decision at its close.

    Where the network's output is not finite nothing is requested: the position is held and
    `not_finite` binds.
    """
    carry = _see_bar(policy, inputs, carry)
    num_assets = inputs.bar.shape[0]
    weights = inputs.account[:num_assets]
    returns = inputs.account[3 * num_assets : 3 * num_assets + 2]
    review = functools.partial(
        risk.review, weights=weights, mask=inputs.mask, returns=returns, limits=inputs.limits
    )
    observation, allowed = observe(carry.window, inputs.account), None
    if policy.masks:
        levels = jnp.asarray(policy.actions.spec.numbers, jnp.float32)
        allowed = jax.vmap(review)(levels[:, None])[0][:, 0] == levels
    choice = choose(policy, observation, carry.hidden, allowed=allowed)
    target, binding = review(choice.requested)
    probabilities, spread, confidence = _certainty(policy, choice)
    return dataclasses.replace(carry, hidden=choice.hidden), Decision(
        requested=choice.requested,
        target=target,
        binding=binding,
        action=choice.action,
        probabilities=probabilities,
        spread=spread,
        value=choice.value,
        confidence=confidence,
    )


def choose(
    policy: Policy,
    observation: Observation,
    hidden: jax.Array,
    *,
    allowed: jax.Array | None = None,
) -> Choice:
    """The policy's action on one observation; hidden: f32[H], its memory before it; allowed:
    bool[n], the levels it may choose from where it masks, see `envs.Trading.action_mask`.
    """
    one = jax.tree.map(lambda leaf: leaf[None], observation)
    outputs, value, after = policy.assess(one, hidden[None])
    # 0 times what is not finite is NaN; as a product it costs the exported graph one node
    unless_finite = (outputs @ np.zeros((outputs.shape[1], 1), np.float32))[0]
    if allowed is not None:
        outputs = mask_outputs(outputs, allowed[None])
    action = policy.head.mode(outputs)[0]
    requested = policy.actions.exposure(action) + unless_finite
    return Choice(requested, action, outputs[0], value[0], after[0])


def mask_outputs(outputs: jax.Array, allowed: jax.Array | None) -> jax.Array:
    """Logits (or action values) f32[..., n] where `allowed` bool[..., n], elsewhere what is never
    chosen: -1e9, of which probabilities are 0, and gradients too, but nothing is NaN. None allows
    all.
    """
    return outputs if allowed is None else jnp.where(allowed, outputs, -1e9)


def _certainty(policy: Policy, choice: Choice) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Probabilities, spread and confidence of a choice, see `Decision`."""
    spec, nothing = policy.actions.spec, jnp.zeros(0, jnp.float32)
    if spec.is_discrete:
        probabilities = jax.nn.softmax(choice.outputs.reshape(-1, len(spec.numbers)))
        return probabilities.reshape(-1), nothing, probabilities.max(axis=1).min()
    spread = jnp.zeros_like(choice.action)
    if isinstance(policy.head, Uncertain):
        spread = policy.head.spread(choice.outputs[None])[0]
    low, high = spec.bounds
    return nothing, spread, 1.0 - spread.max() / (0.5 * (high - low))


def _see_bar(policy: Policy, inputs: Inputs, carry: Carry) -> Carry:
    """The carry with one bar more: recursions advanced, window shifted."""
    *prices, volume = (inputs.bar[:, column] for column in range(5))
    bar = features.make_bar(prices, volume, inputs.context, inputs.clock)
    indicators, raw = features.update(policy.features, carry.indicators, bar)
    row = features.normalise(policy.normaliser, raw, policy.features.clip).reshape(1, -1)
    window = jnp.concatenate([carry.window[1:], row])
    return dataclasses.replace(carry, indicators=indicators, window=window)


def observe(window: jax.Array, account: jax.Array) -> Observation:
    """The observation of a window f32[W, A * F] and an account vector f32[3A + 3]."""
    num_assets = (account.shape[0] - 3) // 3
    if num_assets > 1:
        window = window.reshape(window.shape[0], num_assets, -1)
    return Observation(market=window, account=features.account_features(account))


def explain(policy: Policy, window: jax.Array, account: jax.Array, hidden: jax.Array) -> jax.Array:
    """What each input adds to the choice made: f32[A * F + 3A + 3], the feature columns of each
    asset, then the account.

    Gradient times input (Shrikumar et al. 2017), summed over the window's rows: of levels, of the
    largest output's lead over the mean one, summed over assets; else of the exposure requested,
    absolute and summed over assets. Masks are left out: it is what would be chosen without them.
    hidden: f32[H], the memory before the decision.
    """
    observation = observe(window, account)
    spec = policy.actions.spec

    def size(observation: Observation) -> jax.Array:
        choice = choose(policy, observation, hidden)
        if not spec.is_discrete:
            return jnp.abs(choice.requested).sum()
        outputs = choice.outputs.reshape(-1, len(spec.numbers))
        return (outputs.max(axis=1) - outputs.mean(axis=1)).sum()

    gradient = jax.grad(size)(observation)
    market = (gradient.market * observation.market).sum(axis=0).reshape(-1)
    return jnp.concatenate([market, gradient.account * observation.account])
