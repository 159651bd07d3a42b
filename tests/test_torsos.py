import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.agents.networks import ActorCritic, dead_units
from jaxtrade.agents.torsos import GRU, TORSOS, Attention, Conv, LayerNorm, Torso, product, silu
from jaxtrade.specs import JaxtradeError
from tests import draws

BATCH, WINDOW, WIDTH, MEMORY = 3, 11, 4, 5


def made(module, *inputs):
    """A module's output on inputs, and its parameters as float64 by name."""
    params = draws.parameters(module, *inputs)
    out = jax.jit(module.apply)(params, *inputs)
    return out, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])


def dense(layer, x):
    return x @ layer["kernel_0"].T + layer["bias"]


@pytest.mark.parametrize("width", [2, 9])
def test_gradients_of_a_product_are_those_of_the_chain_rule(width):
    x, kernel = draws.normal(7, width), draws.normal(5, width, seed=1)
    gradient = draws.normal(7, 5, seed=2)
    out, back = jax.vjp(product, x, kernel)
    of_x, of_kernel = jax.jit(back)(gradient)
    exact_x, exact_kernel, exact = (np.asarray(a, np.float64) for a in (x, kernel, gradient))
    np.testing.assert_allclose(out, exact_x @ exact_kernel.T, atol=1e-5)
    np.testing.assert_allclose(of_x, exact @ exact_kernel, atol=1e-5)
    np.testing.assert_allclose(of_kernel, exact.T @ exact_x, atol=1e-5)


def test_convolutions_are_those_of_a_loop_and_end_at_the_newest_row():
    x = draws.normal(BATCH, WINDOW, WIDTH)
    out, params = made(Conv(jnp.tanh, (6, 5)), x)
    rows = np.asarray(x, np.float64)
    for number, count in ((0, 4), (1, 1)):  # 11 rows, of which 4 and then 1 see four below them
        ends = [rows.shape[1] - 2 * back for back in reversed(range(count))]
        seen = [rows[:, end - 4 : end].reshape(BATCH, -1) for end in ends]
        rows = np.stack([np.tanh(dense(params[f"layer_{number}"], one)) for one in seen], axis=1)
    assert out.shape == (BATCH, 5)
    np.testing.assert_allclose(out, rows.reshape(BATCH, -1), atol=1e-6)


@pytest.mark.parametrize(
    ("window", "numbers"),
    [(1, 1 * 4), (3, 3 * 4), (4, 1 * 6), (9, 3 * 6), (10, 1 * 7), (32, 6 * 7)],
)
def test_a_short_window_has_fewer_convolutions(window, numbers):
    x = draws.normal(BATCH, window, 4)
    out, _ = jax.eval_shape(Conv(jnp.tanh, (6, 7)).init_with_output, jax.random.key(0), x)
    assert out.shape == (BATCH, numbers)


def test_attention_is_that_of_a_loop():
    x = draws.normal(BATCH, WINDOW, WIDTH)
    out, params = made(Attention(size=6, num_heads=2), x)
    for row in range(BATCH):
        tokens = dense(params["embed"], np.asarray(x[row], np.float64)) + params["positions"]
        query = dense(params["query"], tokens[-1])
        key, value = dense(params["key"], tokens), dense(params["value"], tokens)
        found = []
        for head in (slice(0, 3), slice(3, 6)):
            score = np.exp(key[:, head] @ query[head] / np.sqrt(3.0))
            found.append(score @ value[:, head] / score.sum())
        expected = tokens[-1] + dense(params["found"], np.concatenate(found))
        np.testing.assert_allclose(out[row], expected, atol=1e-5)


def test_the_unit_is_that_of_the_equations():
    x, hidden = draws.normal(BATCH, WIDTH), jnp.tanh(draws.normal(BATCH, MEMORY, seed=1))
    (out, after), params = made(GRU(MEMORY), x, hidden, None)
    seen = np.split(dense(params["seen"], np.asarray(x, np.float64)), 3, axis=1)
    before = np.asarray(hidden, np.float64)
    reset, update, candidate = (
        before @ params[f"remembered_{gate}"] for gate in ("reset", "update", "candidate")
    )
    reset, update = (1 / (1 + np.exp(-both)) for both in (seen[0] + reset, seen[1] + update))
    expected = update * before + (1 - update) * np.tanh(seen[2] + reset * candidate)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_array_equal(out, after)


def test_its_matrices_are_orthogonal():
    inputs = draws.normal(BATCH, WIDTH), jnp.zeros((BATCH, MEMORY)), None
    params = jax.jit(GRU(MEMORY).init)(jax.random.key(1), *inputs)["params"]
    for gate in ("reset", "update", "candidate"):
        kernel = params[f"remembered_{gate}"]
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(MEMORY), atol=1e-6)


def test_a_sequence_is_its_steps_and_an_episode_begins_with_nothing():
    network = ActorCritic(
        torso=Torso(hidden_sizes=(6,), kind="gru", hidden_size=MEMORY), num_outputs=2
    )
    obs, hidden = (
        draws.normal(7, BATCH, WINDOW, WIDTH),
        jnp.tanh(draws.normal(BATCH, MEMORY, seed=1)),
    )
    begins = jnp.zeros((7, BATCH), bool).at[3, 0].set(True).at[jnp.array([1, 5]), 2].set(True)
    params = draws.parameters(network, obs[0], hidden)
    whole = jax.jit(network.apply)(params, obs.reshape(7 * BATCH, WINDOW, WIDTH), hidden, begins)

    apply = jax.jit(network.apply)
    steps, memory = [], hidden
    for row, new in zip(obs, begins, strict=True):
        memory = jnp.where(new[:, None], 0.0, memory)
        *seen, memory = apply(params, row, memory)
        steps.append(seen)
    for number in (0, 1):
        expected = jnp.concatenate([seen[number] for seen in steps])
        np.testing.assert_allclose(whole[number], expected, atol=1e-6)
    np.testing.assert_allclose(whole[2], memory, atol=1e-6)

    # Of environment 2 nothing that went before step 5 can reach step 5; of environment 1 all can.
    def late(obs):
        value = network.apply(params, obs.reshape(7 * BATCH, WINDOW, WIDTH), hidden, begins)[1]
        return value.reshape(7, BATCH)[5].sum()

    reached = np.abs(jax.jit(jax.grad(late))(obs)).max(axis=(2, 3)) > 0
    np.testing.assert_array_equal(reached[:, 2], np.arange(7) == 5)
    np.testing.assert_array_equal(reached[:, 1], np.arange(7) <= 5)


def test_a_row_is_normalised():
    x = jnp.asarray([[1.0, 3.0, 5.0], [2.0, 2.0, 2.0]])
    out, variables = LayerNorm().init_with_output(jax.random.key(0), x)
    step = np.sqrt(1.5)  # 2 over the deviation of 1, 3, 5
    np.testing.assert_allclose(out, [[-step, 0.0, step], [0.0, 0.0, 0.0]], atol=1e-5)
    assert sorted(variables["params"]) == ["bias", "scale"]


def torso(kind, **settings):
    size = MEMORY if kind == "gru" else 0
    return Torso(hidden_sizes=(8,), kind=kind, hidden_size=size, **settings), jnp.zeros((2, size))


@pytest.mark.parametrize("kind", TORSOS)
@pytest.mark.parametrize("assets", [(), (2,)])
def test_every_leaf_and_the_newest_row_reach_what_the_heads_see(kind, assets):
    module, hidden = torso(kind, layer_norm=True)
    obs = {"account": draws.normal(2, 3), "market": draws.normal(2, WINDOW, *assets, WIDTH, seed=1)}
    params = draws.parameters(module, obs, hidden)

    def total(obs):
        out, after = module.apply(params, obs, hidden)
        assert (out.shape, after.shape) == (
            (2, MEMORY or 8) if kind == "gru" else (2, 8),
            hidden.shape,
        )
        return jnp.square(out).sum()

    slopes = jax.jit(jax.grad(total))(obs)
    assert (slopes["account"] != 0).all()
    assert (slopes["market"][:, -1] != 0).all()


@pytest.mark.parametrize("kind", TORSOS)
def test_half_precision_works_on_parameters_and_results_in_float32(kind):
    obs = draws.normal(2, WINDOW, WIDTH)
    whole, hidden = torso(kind, layer_norm=True)
    half, _ = torso(kind, layer_norm=True, bfloat16=True)
    params = draws.parameters(whole, obs, hidden)
    out, rough = (jax.jit(module.apply)(params, obs, hidden) for module in (whole, half))
    kinds = {leaf.dtype for leaf in jax.tree.leaves((params, out, rough))}
    assert kinds == {jnp.dtype("float32")}
    np.testing.assert_allclose(out[0], rough[0], atol=0.05)
    assert (out[0] != rough[0]).any()


@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_what_sums_up_windows_is_refused_where_there_are_none(kind):
    module, hidden = torso(kind)
    with pytest.raises(JaxtradeError, match=f"^torso '{kind}' sums up windows, .* shows none"):
        jax.eval_shape(module.init, jax.random.key(0), {"x": jnp.zeros((2, 4))}, hidden)


@pytest.mark.parametrize(
    ("activation", "biases", "share"),
    [
        ("relu", [-5.0, 0.0, -0.9, 5.0], 0.25),
        ("tanh", [-5.0, 0.0, -0.9, 5.0], 0.5),
        ("silu", [-9.0, 0.0, -0.9, 9.0], 0.25),
    ],
)
def test_a_unit_is_dead_that_does_nothing_for_any_row(activation, biases, share):
    # A unit sees x = -1, 1 plus its bias.
    network = ActorCritic(torso=Torso(hidden_sizes=(4,), activation=activation), num_outputs=2)
    x, none = jnp.asarray([[-1.0], [1.0]]), jnp.zeros((2, 0))
    params = draws.parameters(network, x, none)
    layer = {"kernel_0": jnp.ones((4, 1)), "bias": jnp.asarray(biases)}
    params["params"]["torso"] = {"torso_0": layer}
    assert dead_units(network, params, x, none) == share


def test_silu_and_its_slope_are_those_of_jax():
    x = jnp.concatenate([jnp.linspace(-12.0, 12.0, 481), jnp.asarray([-100.0, 100.0])])
    np.testing.assert_allclose(silu(x), jax.nn.silu(x), rtol=1e-6, atol=2e-6)
    slopes = [jax.vmap(jax.grad(each))(x) for each in (silu, jax.nn.silu)]
    np.testing.assert_allclose(*slopes, rtol=1e-6, atol=2e-6)


def test_a_torso_without_layers_has_no_dead_unit():
    network = ActorCritic(torso=Torso(hidden_sizes=()), num_outputs=2)
    x, none = jnp.ones((2, 3)), jnp.zeros((2, 0))
    assert dead_units(network, draws.parameters(network, x, none), x, none) == 0
