"""What stops a run: a number that is not finite, or that explodes."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrade.agents import TrainState
from jaxtrade.agents.loop import EPISODE_SUMS
from jaxtrade.specs import JaxtradeError

LARGEST = 1e8
"""A loss or a norm above this has exploded."""


def require_healthy(
    means: Mapping[str, float], state: TrainState, *, first: int, last: int
) -> None:
    """Check what a chunk of iterations first .. last leaves behind.

    Looked at in the order of cause and effect: rewards, losses, norms, other metrics, and then
    what was learned itself, a replay apart, whose states may say "none" by not-a-number.

    Raises:
        JaxtradeError: naming the first quantity that is not finite, or has exploded.
    """
    for name, value in _suspects(means, state):
        is_sized = any(word in name for word in ("loss", "norm"))
        if math.isfinite(value) and not (is_sized and abs(value) > LARGEST):
            continue
        advice = (
            "look at the data and env.rewards"
            if name in ("reward", *EPISODE_SUMS)
            else "lower agent.learning_rate"
        )
        raise JaxtradeError(
            f"training diverged in iterations {first:,} to {last:,}: {name} is {value:.3g}: "
            f"{advice}; nothing of these iterations was saved"
        )


def _suspects(means: Mapping[str, float], state: TrainState) -> Iterator[tuple[str, float]]:
    """Names and numbers, causes first."""
    causes = ("reward", *EPISODE_SUMS)
    order = [name for name in causes if name in means]
    for word in ("loss", "norm", ""):
        order += [name for name in means if word in name and name not in order]
    for name in order:
        if name not in EPISODE_SUMS or means["episodes"]:  # without an episode there is no mean
            yield name, means[name]
    paths = jax.tree_util.tree_leaves_with_path(_are_finite({"learner": state.learner}))
    for path, is_finite in paths:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if "replay" not in name:
            yield name, 0.0 if is_finite else math.nan


@jax.jit
def _are_finite(tree: Any) -> Any:
    """bool[] for each leaf of numbers with a point, else True."""

    def is_finite(leaf: jax.Array) -> jax.Array:
        is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.isfinite(leaf).all() if is_float else jnp.bool_(True)

    return jax.tree.map(is_finite, tree)
