import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.agents.networks import ActorCritic
from jaxtrade.agents.torsos import Dense, Torso
from jaxtrade.decision import Observation
from tests import draws

BATCH = 5
NETWORK = ActorCritic(torso=Torso(hidden_sizes=(16,)), num_outputs=3)
NOTHING = jnp.zeros((BATCH, 0))


def observation(seed=0):
    """A batch of two leaves, f32[5, 4, 3] and f32[5, 6]."""
    market, account = draws.normal(BATCH, 4, 3, seed=seed), draws.normal(BATCH, 6, seed=100 + seed)
    return Observation(market=market, account=account)


@pytest.fixture(scope="module")
def params():
    return jax.jit(NETWORK.init)(jax.random.key(0), observation(), NOTHING)


def test_several_inputs_are_one_layer_over_all_of_them():
    layer = Dense(7)
    obs = observation()
    variables = jax.jit(layer.init)(jax.random.key(1), obs)
    params = dict(variables["params"])
    params["bias"] = jnp.arange(7.0)
    out = layer.apply({"params": params}, obs)

    leaves = [np.asarray(leaf, np.float64).reshape(BATCH, -1) for leaf in jax.tree.leaves(obs)]
    kernels = [np.asarray(params[f"kernel_{number}"], np.float64) for number in range(2)]
    assert [kernel.shape for kernel in kernels] == [(7, 12), (7, 6)]
    expected = np.concatenate(leaves, axis=1) @ np.concatenate(kernels, axis=1).T + np.arange(7.0)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_initial_layers_are_orthogonal_and_scaled():
    one = jax.jit(Dense(3, scale=2.0).init)(jax.random.key(0), jnp.zeros((1, 10)))["params"]
    np.testing.assert_allclose(one["kernel_0"] @ one["kernel_0"].T, 4 * np.eye(3), atol=1e-5)
    np.testing.assert_array_equal(one["bias"], np.zeros(3))
    # Of two inputs each has half of the variance.
    both = jax.jit(Dense(3, scale=2.0).init)(
        jax.random.key(0), (jnp.zeros((1, 10)), jnp.zeros((1, 10)))
    )
    kernel = both["params"]["kernel_1"]
    np.testing.assert_allclose(kernel @ kernel.T, 2 * np.eye(3), atol=1e-5)


@pytest.mark.parametrize("hidden_sizes", [(64, 64), (16,), ()])
def test_shapes_and_types(hidden_sizes):
    network = ActorCritic(torso=Torso(hidden_sizes=hidden_sizes), num_outputs=3)
    params = jax.eval_shape(network.init, jax.random.key(0), observation(), NOTHING)
    logits, value, _ = jax.eval_shape(network.apply, params, observation(), NOTHING)
    assert (logits.shape, value.shape) == ((BATCH, 3), (BATCH,))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, logits, value))} == {
        jnp.dtype("float32")
    }
    assert sum(name.startswith("torso") for name in params["params"].get("torso", {})) == len(
        hidden_sizes
    )


def test_a_new_policy_is_nearly_uniform(params):
    logits = NETWORK.apply(params, observation(1), NOTHING)[0]
    assert 0 < np.abs(logits).max() < 0.05


def test_jit_and_single_rows_give_the_same(params):
    obs = observation()
    whole = NETWORK.apply(params, obs, NOTHING)
    jitted = jax.jit(NETWORK.apply)
    for plain, compiled in zip(whole, jitted(params, obs, NOTHING), strict=True):
        np.testing.assert_allclose(plain, compiled, atol=1e-6)
    for row in range(BATCH):
        one = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], (obs, NOTHING))
        alone = jitted(params, *one)
        for plain, single in zip(whole, alone, strict=True):
            np.testing.assert_allclose(plain[row : row + 1], single, atol=1e-6)


def test_both_leaves_reach_both_heads(params):
    for head in (0, 1):

        def total(obs, head=head):
            return NETWORK.apply(params, obs, NOTHING)[head].sum()

        gradient = jax.jit(jax.grad(total))(observation())
        assert all((np.abs(leaf) > 0).all() for leaf in jax.tree.leaves(gradient))
