"""Each preset plays as its version always did: a change here is a change of behaviour, raise it."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import envs

pytestmark = pytest.mark.slow

STEPS = 200

PLAYED = {
    # sum of rewards; log equity at the end of the last episode and its mean size over all steps
    "StockTrading-v0": (-0.03534, -0.00822, 0.00783),
    "LeveragedETF-v0": (0.01451, 0.01836, 0.01064),
    "Forex-v0": (-0.05622, -0.05622, 0.06332),
    "Perpetual-v0": (-0.34502, -0.34502, 0.18312),
    "Portfolio-v0": (-0.04292, -0.04292, 0.02941),
}


def actions_of(space):
    """Fixed actions that go through the space."""
    wave = 0.5 + 0.49 * np.sin(0.61 * np.arange(STEPS) ** 1.2)
    if hasattr(space, "n"):
        return jnp.asarray(wave * space.n, jnp.int32)
    mixed = np.abs(np.sin(3 * wave[:, None] + np.arange(space.shape[0])))
    return jnp.asarray(space.low + (space.high - space.low) * mixed, jnp.float32)


@pytest.mark.parametrize("name", PLAYED)
def test_version_0_plays_as_it_always_did(name):
    assert name in envs.MAKERS
    env, params = gymnax.make(name)

    def step(state, action):
        _, state, reward, *_, info = env.step(jax.random.key(0), state, action, params)
        return state, (reward, info["final_state"].account.log_equity)

    start = env.reset(jax.random.key(7), params)[1]
    rewards, log_equity = jax.lax.scan(step, start, actions_of(env.action_space(params)))[1]
    seen = rewards.sum(), log_equity[-1], jnp.abs(log_equity).mean()
    np.testing.assert_allclose(seen, PLAYED[name], rtol=0, atol=1e-4)
