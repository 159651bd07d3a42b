"""What off-policy agents learn from: the last steps of N environments, a ring over time.

All of it is a pytree that functions here return changed; within a jitted loop it is written in
place. Draws are with replacement, which costs the same however much is kept.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxtrade.agents import draws, priorities
from jaxtrade.agents.devices import share_rows, spread
from jaxtrade.agents.distributions import Head
from jaxtrade.agents.priorities import Priorities
from jaxtrade.agents.rollout import keeps_state
from jaxtrade.agents.types import Batch, per_env
from jaxtrade.specs import JaxtradeError


@flax.struct.dataclass(kw_only=True)
class Rows:
    """The part of a `Batch` that is kept, leaves [capacity, N, ...]; see there."""

    seen: Any
    final: Any
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array


@flax.struct.dataclass(kw_only=True)
class Replay:
    """rows; head: i32[], where the next is written; filled: i32[], how many have been, up to the
    capacity; priorities: of rows x environments, or None where all are drawn alike.
    """

    rows: Rows = per_env(axis=1)
    head: jax.Array
    filled: jax.Array
    priorities: Priorities | None

    @property
    def capacity(self) -> int:
        """Steps of each environment that there is room for."""
        return self.rows.reward.shape[0]

    @property
    def num_envs(self) -> int:
        """N."""
        return self.rows.reward.shape[1]

    @property
    def size(self) -> jax.Array:
        """Steps of all environments that are kept, i32[]."""
        return self.filled * self.num_envs


@flax.struct.dataclass(kw_only=True)
class Sample:
    """Some windows of up to n steps, leaves [*shape, ...].

    seen: observations or states before the first step; action: taken there; reward: discounted sum
    of the rewards; discount: of what `final`, observations or states after the last step and before
    any reset, is worth: 0 where it is an end for good; index: i32, of the first step; probability:
    f32, with which it was drawn.
    """

    seen: Any
    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    final: Any
    index: jax.Array
    probability: jax.Array


def example_row(env: Any, env_params: Any, head: Head) -> Rows:
    """The shapes of one step of one environment, for `init`."""

    def row() -> Rows:
        obs, state = env.reset(jax.random.key(0), env_params)
        kept = state if keeps_state(env, env_params) else obs
        return Rows(
            seen=kept,
            final=kept,
            action=head.mode(jnp.zeros(head.num_outputs)),
            reward=jnp.float32(0),
            terminated=jnp.array(False),
            truncated=jnp.array(False),
        )

    return jax.eval_shape(row)


def init(example: Rows, *, capacity: int, num_envs: int, prioritised: bool = False) -> Replay:
    """Room for `capacity` steps of `num_envs` environments, each like the example."""
    rows = jax.tree.map(lambda x: jnp.zeros((capacity, num_envs, *x.shape), x.dtype), example)
    return Replay(
        rows=rows,
        head=jnp.int32(0),
        filled=jnp.int32(0),
        priorities=priorities.init_priorities(capacity * num_envs) if prioritised else None,
    )


def add(replay: Replay, batch: Batch) -> Replay:
    """With the T steps of a batch instead of the oldest; new ones get the highest priority.

    Raises:
        JaxtradeError: the capacity is no multiple of T.
    """
    count = batch.reward.shape[0]
    if replay.capacity % count:
        raise JaxtradeError(
            f"a replay of {replay.capacity} steps is written {count} at a time: give a multiple"
        )
    new = Rows(**{name: getattr(batch, name) for name in Rows.__dataclass_fields__})

    def write(kept: jax.Array, leaf: jax.Array) -> jax.Array:
        start = (replay.head, *(jnp.int32(0),) * (kept.ndim - 1))
        return jax.lax.dynamic_update_slice(kept, leaf.astype(kept.dtype), start)

    kept = replay.priorities
    if kept is not None:
        start = replay.head * replay.num_envs
        kept = priorities.put_new(kept, start, count * replay.num_envs)
    return Replay(
        rows=jax.tree.map(write, replay.rows, new),
        head=(replay.head + count) % replay.capacity,
        filled=jnp.minimum(replay.filled + count, replay.capacity),
        priorities=kept,
    )


def sample(
    replay: Replay, key: jax.Array, shape: tuple[int, ...], *, n_step: int, gamma: Any
) -> Sample:
    """Windows that begin at steps drawn by priority or all alike; something has been added.

    A window ends at the first end of an episode, after `n_step` steps or at the newest step: what
    is behind the write head or in another episode is never part of it. With priorities the last
    axis of `shape` is stratified.
    """
    if replay.priorities is None:
        # Uneven by size / 2^32, for half of what `randint` costs.
        bits = draws.bits(key, shape)
        index = (bits % replay.size.astype(jnp.uint32)).astype(jnp.int32)
        probability = jnp.broadcast_to(1.0 / replay.size.astype(jnp.float32), shape)
    else:
        index, probability = priorities.draw(replay.priorities, key, shape)
    first, env = index // replay.num_envs, index % replay.num_envs
    newer = (replay.head - 1 - first) % replay.capacity

    def at(row: jax.Array, leaf: jax.Array) -> jax.Array:
        # Each of several devices finds its own rows, so that none needs the whole replay.
        return spread(leaf[spread((row, env))])

    rows = replay.rows
    reward, discount = jnp.zeros(shape), jnp.ones(shape)
    last, goes_on = first, jnp.ones(shape, bool)
    for step in range(n_step):
        row = (first + step) % replay.capacity
        goes_on &= step <= newer
        reward += jnp.where(goes_on, discount * at(row, rows.reward), 0.0)
        discount = jnp.where(goes_on, discount * gamma, discount)
        last = jnp.where(goes_on, row, last)
        goes_on &= ~(at(row, rows.terminated) | at(row, rows.truncated))
    drawn = Sample(
        seen=jax.tree.map(lambda leaf: at(first, leaf), rows.seen),
        action=at(first, rows.action),
        reward=reward,
        discount=jnp.where(at(last, rows.terminated), 0.0, discount),
        final=jax.tree.map(lambda leaf: at(last, leaf), rows.final),
        index=index,
        probability=probability,
    )
    return share_rows(drawn, axis=len(shape) - 1)


def importance(replay: Replay, probability: jax.Array, exponent: Any) -> jax.Array:
    """Weights that undo how rows were drawn, the highest of the last axis 1 (Schaul et al. 2016).

    exponent: f32[], 0 undoes nothing, 1 all.
    """
    weight = (probability * replay.size.astype(jnp.float32)) ** -exponent
    return weight / weight.max(axis=-1, keepdims=True)
