"""An exported policy with a memory and continuous actions: its carry, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import decision
from jaxtrade.agents.distributions import TanhNormal
from jaxtrade.decision import Policy
from jaxtrade.envs import Exposure
from jaxtrade.live import export
from jaxtrade.live.export import bundle
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.specs import FeatureSpec, JaxtradeError
from tests.bundles import facts, metadata_of, normaliser

SPEC = FeatureSpec(names=("log_return",), window=2)


def assess(obs, hidden):
    """Remembers a mean of past returns, and in a second number how much was held: all too well."""
    seen = 50.0 * obs.market[:, -1] + obs.account[:, :1]
    mean = 0.8 * hidden[:, :1] + 0.2 * seen
    after = jnp.concatenate([mean, jnp.exp(100.0 * obs.account[:, :1])], axis=1)
    outputs = jnp.concatenate([mean + 0.1 * jnp.tanh(seen), 0.0 * seen - 1.0], axis=1)
    return outputs, hidden[:, 0], after


POLICY = Policy(
    features=SPEC,
    normaliser=normaliser(SPEC),
    actions=Exposure(-1.0, 2.0),
    head=TanhNormal((-1.0,), (2.0,)),
    assess=assess,
    hidden_size=2,
)


@pytest.fixture(scope="module")
def content():
    return bundle(POLICY, metadata_of(POLICY))


@pytest.fixture
def policy(content):
    return OnnxPolicy(content)


def told(r, held=0.0):
    return facts(bar=[[0.0, abs(r), -abs(r), r, 50.0]], account=[held, 0, 0, 0, 0, 0])


RETURNS = np.random.default_rng(0).normal(0.0, 0.02, 12)


def same(one, other) -> None:
    for mine, its in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_decisions_are_jaxs(policy):
    decide = jax.jit(lambda inputs, carry: decision.decide(POLICY, inputs, carry))
    carry = decision.init_carry(SPEC, 1, 2)
    for r in RETURNS:
        got = policy.decide(**told(r, 0.3))
        carry, wanted = decide(decision.Inputs(**told(r, 0.3)), carry)
        np.testing.assert_allclose(policy.carry().hidden, carry.hidden, rtol=1e-5, atol=1e-7)
        for name in ("requested", "target", "spread", "value", "confidence", "action"):
            np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), atol=1e-6)
        assert got.binding == int(wanted.binding)
    assert (got.action.dtype, got.action.shape) == (np.float32, (1,))
    assert got.probabilities.shape == (0,)
    assert isinstance(got.confidence, float)


def test_a_decision_keeps_its_numbers(policy):
    first = policy.decide(**told(0.01))
    kept = [np.copy(value) for value in first]
    for r in RETURNS[:3]:
        policy.decide(**told(r))
    same(first, kept)


def test_a_restored_memory_goes_on(content, policy):
    whole = [policy.decide(**told(r)) for r in RETURNS]
    policy.reset()
    assert not policy.carry().hidden.any()
    for r in RETURNS[:5]:
        policy.decide(**told(r))
    saved = policy.carry()
    assert saved.hidden[0] != 0
    other = OnnxPolicy(content)
    other.restore(saved)
    for r, wanted in zip(RETURNS[5:], whole[5:], strict=True):
        same(other.decide(**told(r)), wanted)


@pytest.mark.parametrize("hidden", [[0.0], [0.0, np.nan], [0.0, np.inf], [[0.0, 0.0]]])
def test_a_memory_of_something_else_is_refused(policy, hidden):
    with pytest.raises(
        JaxtradeError, match=r"carry: give hidden as finite numbers of shape \(2,\)"
    ):
        policy.restore(policy.carry()._replace(hidden=np.float32(hidden)))


def test_what_is_forgotten_is_the_memory_alone(content, policy):
    for r in RETURNS[:5]:
        policy.decide(**told(r))
    before = policy.carry()
    policy.forget()
    after = policy.carry()
    assert not after.hidden.any()
    same(before[:3], after[:3])
    fresh = OnnxPolicy(content)
    fresh.restore(before._replace(hidden=np.zeros(2, np.float32)))
    same(policy.decide(**told(0.02)), fresh.decide(**told(0.02)))


def test_a_memory_that_is_not_finite_is_refused_and_spoils_nothing(content, policy):
    twin = OnnxPolicy(content)
    for r in RETURNS[:4]:
        for each in (policy, twin):
            each.decide(**told(r))
        with pytest.raises(JaxtradeError, match="makes the carry or the target not finite"):
            policy.decide(**told(r, held=1.0))  # e to the 100th
        same(policy.carry(), twin.carry())
        assert policy.explain() == twin.explain()
    same(policy.decide(**told(0.01)), twin.decide(**told(0.01)))


def test_explaining_counts_from_the_memory_before_the_decision(policy):
    for r in RETURNS[:3]:
        before = policy.carry().hidden
        policy.decide(**told(r, 0.2))
    window = policy.carry().window
    account = jnp.float32(told(0, 0.2)["account"])
    wanted = decision.explain(POLICY, jnp.asarray(window), account, jnp.asarray(before))
    assert list(policy.explain().values()) == pytest.approx(np.asarray(wanted).tolist(), rel=1e-4)
    other = decision.explain(POLICY, jnp.asarray(window), account, jnp.zeros(2))
    assert not np.allclose(wanted, other, rtol=1e-2)


class Off(TanhNormal):
    """A head that is off by a little."""

    def mode(self, outputs):
        return super().mode(outputs) + 4e-5


def test_exposures_that_are_not_those_of_jax_are_not_written(monkeypatch):
    other = dataclasses.replace(POLICY, head=Off((-1.0,), (2.0,)))
    write = export._deciding
    monkeypatch.setattr(export, "_deciding", lambda policy, *rest: write(other, *rest))
    with pytest.raises(JaxtradeError, match=r"requested in ONNX and in JAX are .*e-05 apart"):
        bundle(POLICY, metadata_of(POLICY))
