"""Policies to export, what they are told, and both ways of deciding side by side."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade import decision, features
from jaxtrade.agents.distributions import Categorical
from jaxtrade.agents.networks import ActorCritic
from jaxtrade.agents.torsos import Torso
from jaxtrade.decision import Inputs, Observation, Policy
from jaxtrade.envs import Levels
from jaxtrade.features import Normaliser
from jaxtrade.live.export import bundle
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.specs import BundleMetadata, FeatureSpec, RiskLimits

LEVELS = (-1.0, 0.0, 1.0)


def normaliser(spec: FeatureSpec, *, mean=0.0, inverse_scale=1.0) -> Normaliser:
    ones = jnp.ones(len(features.columns(spec)), jnp.float32)
    return Normaliser(mean=mean * ones, inverse_scale=inverse_scale * ones)


def fitted(spec: FeatureSpec, market, first=100) -> Normaliser:
    return features.fit(features.raw_table(spec, market), first, market.num_bars - 1)


def network_policy(spec: FeatureSpec, scaling: Normaliser, *, seed=0, hidden=(64, 64)) -> Policy:
    """The agents' own network, its actor strong enough to have opinions."""
    network = ActorCritic(torso=Torso(hidden_sizes=hidden), num_outputs=len(LEVELS))
    seen = Observation(
        market=jnp.zeros((1, spec.window, len(features.columns(spec)))), account=jnp.zeros((1, 6))
    )
    params = network.init(jax.random.key(seed), seen, jnp.zeros((1, 0)))["params"]
    params["actor"] = jax.tree.map(lambda leaf: 200 * leaf, params["actor"])
    return of_levels(spec, scaling, lambda *seen: network.apply({"params": params}, *seen))


def of_levels(spec: FeatureSpec, scaling: Normaliser, assess) -> Policy:
    return Policy(
        features=spec,
        normaliser=scaling,
        actions=Levels(LEVELS),
        head=Categorical(len(LEVELS)),
        assess=assess,
    )


def linear_policy(spec: FeatureSpec, market_weights, account_weights, bias, **scaling) -> Policy:
    """Logits linear in the newest feature row [F, 3] and in the account [6, 3]; value 7."""
    market_weights = np.asarray(market_weights, np.float32)
    account_weights = np.asarray(account_weights, np.float32)
    bias = np.asarray([bias], np.float32)

    def assess(obs: Observation, hidden):
        logits = obs.market[:, -1] @ market_weights + obs.account @ account_weights + bias
        return logits, jnp.full(obs.account.shape[0], 7.0), hidden

    return of_levels(spec, normaliser(spec, **scaling), assess)


def metadata_of(policy: Policy, **changes) -> BundleMetadata:
    fields = {
        "agent": "ppo",
        "features": policy.features,
        "actions": policy.actions.spec,
        "symbols": ("X",),
        "bar_seconds": 60,
        "warmup_bars": features.warmup_bars(policy.features),
        "limits": RiskLimits(),
        "no_trade_band": 0.05,
        "spans": {"train": ("2001-01-01", "2010-01-01")},
        "fingerprint": "f" * 12,
        "commit": "c" * 40,
        "metrics": {"sharpe": 0.5},
    }
    return BundleMetadata(**{**fields, **changes})


def exported(policy: Policy, **changes) -> OnnxPolicy:
    return OnnxPolicy(bundle(policy, metadata_of(policy, **changes)))


def facts(**changes) -> dict[str, np.ndarray]:
    """What a policy is told at a bar, by default of a flat account and wide limits."""
    known = {
        "bar": [[0.0, 0.01, -0.01, 0.005, 100.0]],
        "context": [],
        "clock": [0.25, 0.5, 1e-4],
        "mask": [1.0],
        "account": [0.0] * 6,
        "limits": [1.0, 1.0, 1.0, 1.0, 1.0],
    }
    return {name: np.asarray(value, np.float32) for name, value in {**known, **changes}.items()}


def rows_of(market, spec: FeatureSpec) -> list[dict[str, np.ndarray]]:
    """Each bar of a market, with some account, closed market and tight limits now and then."""
    rng = np.random.default_rng(3)
    bars = np.concatenate([market.bars, market.volume[..., None]], axis=-1)
    context = features.context_rows(spec, market)
    return [
        facts(
            bar=bars[t],
            context=context[t],
            clock=market.clock[t],
            mask=[float(rng.random() > 0.05)],
            account=rng.normal(0.0, [0.5, 0.02, 30.0, 0.05, 0.02, 0.01]),
            limits=rng.choice([0.15, 0.6, 1.0], 5),
        )
        for t in range(market.num_bars)
    ]


def assert_decide_alike(policy: Policy, live: OnnxPolicy, rows) -> dict[str, float]:
    """JAX and ONNX over the same bars, each with its own carry; the largest differences."""
    decide = jax.jit(lambda inputs, carry: decision.decide(policy, inputs, carry))
    carry = decision.init_carry(policy.features)
    gaps, ties, actions = {}, 0, set()
    for row in rows:
        carry, wanted = decide(Inputs(**row), carry)
        wanted, got = jax.device_get(wanted), live.decide(**row)
        mine = live.carry()
        pairs = {
            "indicators": (mine.indicators, np.asarray(carry.indicators)),
            "row": (mine.window[-1], np.asarray(carry.window[-1])),
            "value": (got.value, wanted.value),
            "probabilities": (got.probabilities, wanted.probabilities),
        }
        for name, (one, other) in pairs.items():
            gap = np.abs(one - other) / np.maximum(1.0, np.abs(other))  # volumes are large
            gaps[name] = max(gaps.get(name, 0.0), float(gap.max(initial=0.0)))
        best, second = np.sort(np.log(wanted.probabilities))[:-3:-1]
        if best - second <= 1e-4:
            ties += 1
            continue
        actions.add(got.action)
        assert got.action == wanted.action
        assert got.binding == wanted.binding
        np.testing.assert_array_equal(got.requested, wanted.requested)
        np.testing.assert_allclose(got.target, wanted.target, rtol=1e-6, atol=1e-7)
        assert got.confidence == got.probabilities.max()
    assert max(gaps["indicators"], gaps["row"]) < 1e-5, gaps
    assert max(gaps["value"], gaps["probabilities"]) < 1e-4, gaps
    assert ties < 0.01 * len(rows)
    assert len(actions) == len(LEVELS)
    return gaps
