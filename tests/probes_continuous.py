"""Probe environments for actions that are numbers; see `tests.probes`."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces

from jaxtrade.spaces import Simplex
from tests.probes import GAMMA, NUM_CELLS, State, see

SIZE = 2


@flax.struct.dataclass(kw_only=True)
class Params(environment.EnvParams):
    """num_starts: i32[], see `probes.Params`; reward: f32[cells], for the best action; cost:
    f32[cells], of the squared distance from it; best: f32[cells, SIZE]; following: i32[cells];
    terminates: bool[cells].
    """

    num_starts: jax.Array
    reward: jax.Array
    cost: jax.Array
    best: jax.Array
    following: jax.Array
    terminates: jax.Array


@dataclasses.dataclass(frozen=True)
class Numbers(environment.Environment[State, Params]):
    """A gymnax environment. Observation: f32[4], twice the cell as one of two. Two numbers from -1
    to 1 as actions, or `shares` that sum to 1.
    """

    shares: bool = False

    def step_env(self, key: jax.Array, state: State, action: jax.Array, params: Params) -> Any:
        cell = state.cell
        distance = jnp.square(action - params.best[cell]).sum()
        reward = params.reward[cell] - params.cost[cell] * distance
        following = State(cell=params.following[cell], time=state.time + 1)
        return see(following), following, reward, params.terminates[cell], {}

    def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        cell = jax.random.randint(key, (), 0, params.num_starts)
        state = State(cell=cell, time=jnp.int32(0))
        return see(state), state

    def action_space(self, params: Params | None = None) -> spaces.Box:
        return Simplex(SIZE) if self.shares else spaces.Box(-1.0, 1.0, (SIZE,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """values: of the cells under the best policy at GAMMA; best: its actions, None where equal."""

    params: Params
    values: tuple[float, ...]
    best: tuple[tuple[float, float] | None, ...]


def probe(
    reward, *, values, best=None, cost=0.0, following=(0, 0), ends=True, num_starts=1, max_steps=100
):
    """A probe from its tables; by default each step ends the episode and actions are equal."""
    places = np.zeros((NUM_CELLS, SIZE))
    for cell, place in enumerate(best or ()):
        places[cell] = (0.0, 0.0) if place is None else place
    return Probe(
        params=Params(
            num_starts=jnp.int32(num_starts),
            reward=jnp.float32(reward),
            cost=jnp.full(NUM_CELLS, cost, jnp.float32),
            best=jnp.float32(places),
            following=jnp.int32(following),
            terminates=jnp.broadcast_to(jnp.asarray(ends), NUM_CELLS),
            max_steps_in_episode=jnp.int32(max_steps),
        ),
        values=values,
        best=best or (None,) * len(values),
    )


PROBES = {
    "a constant reward": probe((0.3, 0.0), values=(0.3,)),
    "a reward that is seen": probe((1.0, -1.0), num_starts=2, values=(1.0, -1.0)),
    # 0 goes to 1, 1 pays and ends.
    "a reward one step away": probe(
        (0.0, 1.0), following=(1, 1), ends=(False, True), values=(GAMMA, 1.0)
    ),
    "a reward for an action": probe((1.0, 0.0), cost=1.0, best=((0.6, -0.3),), values=(1.0,)),
    "a reward for the action that fits": probe(
        (1.0, -1.0),
        cost=1.0,
        best=((0.6, -0.3), (-0.5, 0.2)),
        num_starts=2,
        values=(1.0, -1.0),
    ),
    # See `probes`: 10 = 1 / (1 - 0.9); taken for the end it would be 1.
    "a reward that the clock cuts off": probe(
        (0.0, 1.0), following=(1, 1), ends=False, max_steps=2, values=(9.0, 10.0)
    ),
    # The same, ended for good.
    "a reward that the end cuts off": probe(
        (1.0, 1.0), following=(1, 1), ends=(False, True), values=(1.9, 1.0)
    ),
}
