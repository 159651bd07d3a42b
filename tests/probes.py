"""Probe environments: decision processes so small that values and best actions are known by hand.

All are tables of the same shape, so that an agent compiles once for all of them. Each isolates one
thing that an agent must do; the first that fails says where to look.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces

from jaxtrade import agents
from jaxtrade.envs.base import Environment

GAMMA = 0.9
NUM_CELLS = 2

# Tests share it, so that it compiles once for each kind of environment.
AGENT = agents.make(
    "ppo",
    num_envs=16,
    rollout_steps=16,
    num_minibatches=4,
    learning_rate=1e-2,
    gamma=GAMMA,
    entropy_coefficient=0.0,
    hidden_sizes=(16,),
)
PER_ITERATION = 256


@flax.struct.dataclass(kw_only=True)
class Params(environment.EnvParams):
    """num_starts: i32[], an episode starts in a cell drawn from the first so many;
    following: i32[cells, actions]; reward: f32[cells, actions]; terminates: bool[cells, actions].
    """

    num_starts: jax.Array
    following: jax.Array
    reward: jax.Array
    terminates: jax.Array


@flax.struct.dataclass(kw_only=True)
class State(environment.EnvState):
    """cell: i32[]; time: i32[]."""

    cell: jax.Array


@dataclasses.dataclass(frozen=True)
class Table(environment.Environment[State, Params]):
    """A gymnax environment. Observation: f32[4], twice the cell as one of two. Two actions."""

    num_actions = 2

    def step_env(self, key: jax.Array, state: State, action: jax.Array, params: Params) -> Any:
        following = State(cell=params.following[state.cell, action], time=state.time + 1)
        reward = params.reward[state.cell, action]
        terminated = params.terminates[state.cell, action]
        return see(following), following, reward, terminated, {}

    def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        cell = jax.random.randint(key, (), 0, params.num_starts)
        state = State(cell=cell, time=jnp.int32(0))
        return see(state), state

    def action_space(self, params: Params | None = None) -> spaces.Discrete:
        return spaces.Discrete(2)


@flax.struct.dataclass(kw_only=True)
class CountedState(State):
    """episode: i32[], how many went before."""

    episode: jax.Array


@dataclasses.dataclass(frozen=True)
class StateTable(Environment[CountedState, Params]):
    """The same process, its observation a function of the state; starts alternate.

    With the key it starts in, an episode ends up in one of the cells that `num_starts` allows.
    """

    num_actions = 2

    def reset_state(self, key: jax.Array, params: Params) -> CountedState:
        return self._begin(jax.random.randint(key, (), 0, 1000), params)

    def restart(self, state: CountedState, params: Params) -> CountedState:
        return self._begin(state.episode + 1, params)

    def _begin(self, episode: jax.Array, params: Params) -> CountedState:
        return CountedState(cell=episode % params.num_starts, time=jnp.int32(0), episode=episode)

    def advance(self, state: CountedState, action: jax.Array, params: Params) -> Any:
        following = state.replace(cell=params.following[state.cell, action], time=state.time + 1)
        return (
            following,
            params.reward[state.cell, action],
            params.terminates[state.cell, action],
            {},
        )

    def observation(self, state: CountedState, params: Params) -> jax.Array:
        return see(state)

    def action_space(self, params: Params | None = None) -> spaces.Discrete:
        return spaces.Discrete(2)


def trained(agent: Any, env: Any, params: Params, iterations: int) -> Any:
    """The learner after so many iterations in one chunk."""
    state, _ = agents.train(
        agent,
        env,
        params,
        jax.random.key(0),
        total_steps=iterations * agent.num_envs * agent.rollout_steps,
        chunk_iterations=iterations,
    )
    return state.learner


def see(state: State) -> jax.Array:
    one = jax.nn.one_hot(state.cell, NUM_CELLS, dtype=jnp.float32)
    return jnp.concatenate([one, one])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """values: of the cells under the best policy at GAMMA; actions: the best, None where equal."""

    params: Params
    values: tuple[float, ...]
    actions: tuple[int | None, ...]


def probe(reward, *, values, actions, following=None, ends=True, num_starts=1, max_steps=100):
    """A probe from its tables; by default each step ends the episode."""
    shape = (NUM_CELLS, 2)
    return Probe(
        params=Params(
            num_starts=jnp.int32(num_starts),
            following=jnp.asarray(np.zeros(shape) if following is None else following, jnp.int32),
            reward=jnp.asarray(reward, jnp.float32),
            terminates=jnp.asarray(np.broadcast_to(ends, shape)),
            max_steps_in_episode=jnp.int32(max_steps),
        ),
        values=values,
        actions=actions,
    )


PROBES = {
    # Does the value learn, of a reward that float32 rounds and that never varies?
    "a constant reward": probe([[0.3, 0.3], [0.0, 0.0]], values=(0.3,), actions=(None,)),
    # Does it see the observation?
    "a reward that is seen": probe(
        [[1.0, 1.0], [-1.0, -1.0]], num_starts=2, values=(1.0, -1.0), actions=(None, None)
    ),
    # Is what comes later discounted? 0 goes to 1, 1 pays and ends.
    "a reward one step away": probe(
        [[0.0, 0.0], [1.0, 1.0]],
        following=[[1, 1], [1, 1]],
        ends=[[False, False], [True, True]],
        values=(0.9, 1.0),
        actions=(None, None),
    ),
    # Does the policy learn?
    "a reward for an action": probe([[-1.0, 1.0], [0.0, 0.0]], values=(1.0,), actions=(1,)),
    # Does it depend on the observation?
    "a reward for the action that fits": probe(
        [[1.0, -1.0], [-1.0, 1.0]], num_starts=2, values=(1.0, 1.0), actions=(0, 1)
    ),
    # Is an action credited with what follows? In 0, 0.5 now and the end, or 0 and then 1 in 1.
    "a smaller reward sooner": probe(
        [[0.5, 0.0], [1.0, 1.0]],
        following=[[0, 1], [1, 1]],
        ends=[[True, False], [True, True]],
        values=(0.9, 1.0),
        actions=(1, None),
    ),
    # Is a truncation bootstrapped, from what the last step led to? 0 goes to 1, 1 pays 1 forever:
    # 1 / (1 - 0.9) = 10. Taken for the end it would be 1; bootstrapped from the next episode's
    # start 1 / (1 - 0.9 x 0.9) = 5.3.
    "a reward that the clock cuts off": probe(
        [[0.0, 0.0], [1.0, 1.0]],
        following=[[1, 1], [1, 1]],
        ends=False,
        max_steps=2,
        values=(9.0, 10.0),
        actions=(None, None),
    ),
}
