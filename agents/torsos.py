"""What lies below the heads: dense layers, and before or after them what the `kind` says.

The forward pass is plain `jnp` on the parameters, so that the exported graph, its derivative and
training share one definition. Observations are pytrees with a leading batch axis; a window is a
leaf [B, W, ...] of rank 3 or more, its newest row last. What a network remembers is f32[B, H]; H
is 0 where it remembers nothing.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrade.specs import JaxtradeError


@jax.custom_vjp
def silu(x: jax.Array) -> jax.Array:
    """Each number times its sigmoid (Elfwing et al. 2018).

    The sigmoid is made of a tanh, at which processors are quicker than at an exponential, and the
    gradient of what is known by then.
    """
    return x * _sigmoid(x)


def _sigmoid(x: jax.Array) -> jax.Array:
    return 0.5 + 0.5 * jnp.tanh(0.5 * x)


def _silu_and_parts(x: jax.Array) -> tuple[jax.Array, Any]:
    share = _sigmoid(x)
    result = x * share
    return result, (share, result)


def _silu_gradient(parts: Any, gradient: jax.Array) -> tuple[jax.Array]:
    share, result = parts
    return (gradient * (share + result * (1.0 - share)),)


silu.defvjp(_silu_and_parts, _silu_gradient)

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "silu": silu,
}
IDLE: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": lambda x: jnp.abs(x) > 0.99,
    "relu": lambda x: x <= 0.0,
    "silu": lambda x: jnp.abs(x) < 0.01,
}
"""Where an activation's output passes (nearly) no gradient on, or is nothing."""

TORSOS = ("mlp", "conv", "gru", "attention")


class Dense(nn.Module):
    """Linear layers of several inputs [B, ...], one matrix each, added up: [B, features].

    Leaves are multiplied apart and never concatenated. Orthogonal initial weights times `scale`.
    Parameters are float32; the work is done, and the result given, in `dtype`. Matrices are
    [features, inputs].
    """

    features: int
    scale: float = math.sqrt(2)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Any) -> jax.Array:
        """Sum of W x over the leaves of `inputs`, plus a bias."""
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        out = bias[None].astype(self.dtype)
        leaves = jax.tree.leaves(inputs)
        orthogonal = nn.initializers.orthogonal(self.scale / math.sqrt(len(leaves)))
        for number, leaf in enumerate(leaves):
            flat = leaf.reshape(leaf.shape[0], -1).astype(self.dtype)
            shape = (self.features, flat.shape[1])
            kernel = self.param(f"kernel_{number}", orthogonal, shape, jnp.float32)
            out = out + product(flat, kernel.astype(self.dtype))
        return out


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Each row of x [B, inputs] times the rows of a matrix [features, inputs]: [B, features].

    XLA would write the matrix's gradient as a product of transposed arrays, which processors are
    half as quick at, and a tenth where one is narrow. So the narrower is first laid out anew.
    """
    return x @ kernel.T


def _product_and_inputs(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Any]:
    return product(x, kernel), (x, kernel)


def _product_gradients(inputs: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    # Barriers keep XLA from undoing it, or from making the transposed out of order.
    apart = jax.lax.optimization_barrier
    gradient = apart(gradient)
    if x.shape[1] < gradient.shape[1]:
        return gradient @ kernel, apart(apart(x.T) @ gradient).T
    return gradient @ kernel, apart(gradient.T) @ x


product.defvjp(_product_and_inputs, _product_gradients)


class LayerNorm(nn.Module):
    """Each row of [B, D] with mean 0 and deviation 1, then scaled and shifted (Ba et al. 2016)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The rows, normalised in float32."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        row = x.astype(jnp.float32)
        row = row - row.mean(axis=-1, keepdims=True)
        row = row / jnp.sqrt(jnp.square(row).mean(axis=-1, keepdims=True) + 1e-6)
        return (row * scale[None] + bias[None]).astype(x.dtype)


class Conv(nn.Module):
    """Convolutions over time, [B, W, F] to [B, rows * channels], of width 4 and stride 2: a row of
    a layer sees a pair of rows below it and the next pair, counted from the newest.

    There are as many layers as `channels` and rows allow.
    """

    activate: Callable[[jax.Array], jax.Array]
    channels: tuple[int, ...] = (32, 32)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """What the last layer sees, its rows side by side."""
        batch = x.shape[0]
        for number, channels in enumerate(self.channels):
            rows = x.shape[1] // 2 - 1
            if rows < 1:
                break
            # By reshaping: a slice with a stride has a derivative that ONNX has no word for.
            pairs = x[:, x.shape[1] % 2 :].reshape(batch, rows + 1, -1)
            seen = jnp.concatenate([pairs[:, :-1], pairs[:, 1:]], axis=2)
            layer = Dense(channels, dtype=self.dtype, name=f"layer_{number}")
            x = self.activate(layer(seen.reshape(batch * rows, -1))).reshape(batch, rows, channels)
        return x.reshape(batch, -1)


class Attention(nn.Module):
    """The newest row of a window asks all of its rows, [B, W, F] to [B, size].

    Vaswani et al. 2017, with one query and learnt positions.
    """

    size: int = 32
    num_heads: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The newest row, and what it has found."""
        batch, rows, width = x.shape
        positions = self.param(
            "positions", nn.initializers.normal(0.02), (rows, self.size), jnp.float32
        )
        embedded = self._dense("embed", self.size)(x.reshape(batch * rows, width))
        tokens = embedded.reshape(batch, rows, self.size) + positions[None].astype(self.dtype)
        newest = tokens[:, -1]
        flat = tokens.reshape(batch * rows, self.size)
        heads = (self.num_heads, self.size // self.num_heads)
        query = self._dense("query", self.size)(newest).reshape(batch, 1, *heads)
        key = self._dense("key", self.size)(flat).reshape(batch, rows, *heads)
        value = self._dense("value", self.size)(flat).reshape(batch, rows, *heads)
        score = (query * key).sum(axis=3, keepdims=True) / math.sqrt(heads[1])
        found = (jax.nn.softmax(score, axis=1) * value).sum(axis=1).reshape(batch, self.size)
        return newest + self._dense("found", self.size)(found)

    def _dense(self, name: str, features: int) -> Dense:
        return Dense(features, 1.0, self.dtype, name=name)


class GRU(nn.Module):
    """A gated recurrent unit (Cho et al. 2014, in the form of Chung et al. 2014)."""

    size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, hidden: jax.Array, begins: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The memory after each row of x, f32[rows, H], and after the last step, f32[B, H].

        x: [B, D], one step; or, with `begins` bool[T, B], [T * B, D], steps one after the other,
        some of which begin an episode, and with it an empty memory. What is seen is multiplied for
        all steps at once, only what is remembered step by step.
        """
        seen = Dense(3 * self.size, 1.0, self.dtype, name="seen")(x).astype(jnp.float32)
        shape, orthogonal = (self.size, self.size), nn.initializers.orthogonal()
        kernels = [
            self.param(f"remembered_{gate}", orthogonal, shape, jnp.float32)
            for gate in ("reset", "update", "candidate")
        ]
        kernel = jnp.concatenate(kernels, axis=1).astype(self.dtype)

        def step(hidden: jax.Array, seen: jax.Array) -> jax.Array:
            remembered = (hidden.astype(self.dtype) @ kernel).astype(jnp.float32)
            for_reset, for_update, for_candidate = jnp.split(seen, 3, axis=1)
            of_reset, of_update, of_candidate = jnp.split(remembered, 3, axis=1)
            reset = jax.nn.sigmoid(for_reset + of_reset)
            update = jax.nn.sigmoid(for_update + of_update)
            candidate = jnp.tanh(for_candidate + reset * of_candidate)
            return update * hidden + (1.0 - update) * candidate

        if begins is None:
            hidden = step(hidden, seen)
            return hidden, hidden

        def forward(hidden: jax.Array, now: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            seen, begins = now
            hidden = step(jnp.where(begins[:, None], 0.0, hidden), seen)
            return hidden, hidden

        seen = seen.reshape(*begins.shape, 3 * self.size)
        hidden, each = jax.lax.scan(forward, hidden, (seen, begins))
        return each.reshape(-1, self.size), hidden


class Torso(nn.Module):
    """Observations [B, ...] to f32[B, D], D the last of `hidden_sizes`, or `hidden_size` of a GRU.

    kind: "mlp", dense layers; "conv" and "attention", before them a summary of each window, of
    which other leaves stay beside; "gru", after them a memory. hidden_sizes, activation, layer_norm
    (before each activation): of the dense layers. bfloat16: work done in that type; parameters,
    memory and results are float32.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    kind: str = "mlp"
    hidden_size: int = 0
    layer_norm: bool = False
    bfloat16: bool = False

    @nn.compact
    def __call__(
        self, obs: Any, hidden: jax.Array, begins: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """What the heads see, and the memory after it.

        begins: bool[T, B] where the rows of `obs` are not of one step but T * B of a sequence, see
        `GRU`; `hidden` is then the memory before it.

        Raises:
            JaxtradeError: a kind that summarises windows, where there is none.
        """
        dtype = jnp.bfloat16 if self.bfloat16 else jnp.float32
        activate = ACTIVATIONS[self.activation]
        x: Any = self._summarise(obs, dtype) if self.kind in ("conv", "attention") else obs
        for number, size in enumerate(self.hidden_sizes):
            x = Dense(size, dtype=dtype, name=f"torso_{number}")(x)
            if self.layer_norm:
                x = LayerNorm(name=f"norm_{number}")(x)
            x = activate(x)
            self._sow_idle(x, self.activation)
        if self.kind == "gru":
            x, hidden = GRU(self.hidden_size, dtype, name="gru")(x, hidden, begins)
            self._sow_idle(x, "tanh")
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), x), hidden

    def _sow_idle(self, x: jax.Array, activation: str) -> None:
        """For `networks.dead_units`: which units do nothing for any row."""
        if not self.is_initializing():
            self.sow("units", "idle", IDLE[activation](x).all(axis=0))

    def _summarise(self, obs: Any, dtype: Any) -> list[jax.Array]:
        """The leaves, windows [B, W, ...] summed up as [B, D]."""
        leaves = jax.tree.leaves(obs)
        if all(leaf.ndim < 3 for leaf in leaves):
            raise JaxtradeError(
                f"torso {self.kind!r} sums up windows, and this environment shows none: "
                "give 'mlp' or 'gru'"
            )
        summaries: dict[str, Callable[[], nn.Module]] = {
            "conv": lambda: Conv(ACTIVATIONS[self.activation], dtype=dtype),
            "attention": lambda: Attention(dtype=dtype),
        }
        return [
            summaries[self.kind]()(leaf.reshape(*leaf.shape[:2], -1)) if leaf.ndim >= 3 else leaf
            for leaf in leaves
        ]
