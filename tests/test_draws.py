import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.agents import draws

COUNT = 2**16


@pytest.mark.parametrize("seed", range(4))
def test_every_bit_is_a_coin_that_knows_no_other(seed):
    words = np.asarray(jax.jit(draws.bits, static_argnums=1)(jax.random.key(seed), (COUNT,)))
    coins = 2.0 * (words[:, None] >> np.arange(32, dtype=np.uint32) & 1) - 1.0
    bound = 5.0 / np.sqrt(COUNT)
    assert np.abs(coins.mean(axis=0)).max() < bound
    within = coins.T @ coins / COUNT - np.eye(32)
    assert np.abs(within).max() < bound
    for apart in (1, 2, 64, 100, 256):
        assert np.abs(coins[apart:].T @ coins[:-apart] / (COUNT - apart)).max() < 1.1 * bound


def test_cells_fill_as_by_chance():
    words = np.asarray(draws.bits(jax.random.key(5), (64, 1024)))
    for shift in (0, 10, 22):
        cells = np.bincount((words.reshape(-1) >> shift) & 1023, minlength=1024)
        surprise = (np.square(cells - 64.0) / 64.0).sum()  # chi squared with 1023 degrees
        assert abs(surprise - 1023.0) < 5.0 * np.sqrt(2.0 * 1023.0)


def test_another_key_draws_other_numbers_under_vmap_too():
    keys = jax.random.split(jax.random.key(0), 8)
    each = jax.vmap(lambda key: draws.bits(key, (1000,)))(keys)
    np.testing.assert_array_equal(each[3], draws.bits(keys[3], (1000,)))
    assert jnp.unique(each).size > 7990
