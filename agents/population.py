"""Populations: many runs of one agent side by side, over seeds and any traced hyperparameter.

Compiled once for all members. Where they run is chosen by measurement: on a CPU one after the
other, for its caches hold one member and matrices of a member keep it busy; elsewhere all at once.
Within `devices.divided("members", M)` each device has its share of them.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from numpy.typing import NDArray

from jaxtrade.agents import loop
from jaxtrade.agents.devices import MEMBERS, is_divided, place, platform
from jaxtrade.agents.types import Actor, Agent, TrainState
from jaxtrade.specs import JaxtradeError, unknown_name


class Best(NamedTuple):
    """The actor with the highest score, as it was then: member and iteration say whose and when."""

    member: int
    iteration: int
    score: float
    actor: Actor


class Population(NamedTuple):
    """states: the members' last, leaves [M, ...]; history: for each chunk, lists of M numbers;
    best: None without a judge, or if no score was a number.
    """

    states: TrainState
    history: list[dict[str, list[float]]]
    best: Best | None


def sweep(agent: Any, **values: Sequence[float]) -> Any:
    """The agents of a population: hyperparameters with one value for each member.

    Raises:
        JaxtradeError: an unknown hyperparameter, one that members must share as it decides shapes
            or program text, a value out of range, or lists of different lengths.
    """
    fields = {field.name: field for field in dataclasses.fields(agent)}
    for name in values:
        if name not in fields:
            raise unknown_name("hyperparameter", name, fields)
        if not fields[name].metadata.get("pytree_node", True):
            raise JaxtradeError(f"agent setting {name} is part of the program: it has one value")
    sizes = {name: len(each) for name, each in values.items()}
    if len(set(sizes.values())) > 1:
        raise JaxtradeError(f"each member needs a value of each hyperparameter: there are {sizes}")
    for member in zip(*values.values(), strict=True):
        dataclasses.replace(agent, **dict(zip(values, member, strict=True))).validate()
    arrays = {name: np.asarray(each, np.float32) for name, each in values.items()}
    return dataclasses.replace(agent, **arrays)


def train_population(
    agent: Agent,
    env: Any,
    env_params: Any,
    keys: jax.Array,
    *,
    total_steps: int,
    chunk_iterations: int = 16,
    refresh: Callable[[int], Any] | None = None,
    judge: Callable[[Actor], jax.Array] | None = None,
) -> Population:
    """Train a member from each of `keys` [M], each for `total_steps`, all to the end.

    agent: the same for all, or a `sweep` with M values; refresh: see `loop.chunks`, the parameters
    are shared; judge: from actors with leaves [M, ...] to scores f32[M] on what they do not train
    on, asked after each chunk, and kept in the history as `score`; NaN is never the best.

    Raises:
        JaxtradeError: hyperparameters for another number of members.
    """
    in_turn = platform() == "cpu"
    start = functools.partial(_START, loop.init_state, in_turn=in_turn)
    program = loop.Program(
        train_chunk=functools.partial(_GO_ON, loop.train_chunk, in_turn=in_turn),
        begin_anew=functools.partial(_GO_ON, loop.begin_anew, in_turn=in_turn),
    )
    num_iterations = jnp.int32(loop.count_iterations(agent, total_steps))
    agent, env_params = place((_one_each(agent, len(keys)), env_params))
    states = start(agent, env, env_params, keys, num_iterations)
    history: list[dict[str, Any]] = []
    best = None
    for latest, metrics in loop.chunks(
        agent,
        env,
        env_params,
        states,
        chunk_iterations=chunk_iterations,
        refresh=refresh,
        program=program,
    ):
        states = latest
        if judge is not None:
            scores = np.asarray(judge(states.learner.actor), np.float64)
            metrics["score"] = scores.tolist()
            best = _better(best, scores, states)
        history.append(metrics)
    return Population(states, history, best)


def _better(best: Best | None, scores: NDArray[np.float64], states: TrainState) -> Best | None:
    """The best so far, with a copy of its actor."""
    member = int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))
    score = float(scores[member])
    if np.isnan(score) or (best is not None and score <= best.score):
        return best
    actor = jax.tree.map(lambda leaf: leaf[member], states.learner.actor)
    return Best(member, int(states.iteration[member]), score, actor)


def _one_each(agent: Any, size: int) -> Any:
    """The agent with each hyperparameter [M]."""

    def spread_out(leaf: Any) -> NDArray[np.float32]:
        if np.shape(leaf) not in ((), (size,)):
            raise JaxtradeError(f"{len(leaf)} members have {size} keys: give one for each")
        return np.broadcast_to(np.asarray(leaf, np.float32), (size,))

    return jax.tree.map(spread_out, agent)


def _each(
    run: Callable[..., Any],
    agents: Any,
    env: Any,
    env_params: Any,
    members: Any,
    *shared: Any,
    in_turn: bool,
) -> Any:
    """`run(agent, env, env_params, member, *shared)` of each member: states, or keys."""

    def share(pairs: Any, env_params: Any, shared: Any) -> Any:
        def one(pair: Any) -> Any:
            agent, member = pair
            return run(agent, env, env_params, member, *shared)

        return jax.lax.map(one, pairs) if in_turn else jax.vmap(one)(pairs)

    if is_divided(MEMBERS):
        mine, whole = PartitionSpec(MEMBERS), PartitionSpec()
        share = jax.shard_map(share, in_specs=(mine, whole, whole), out_specs=mine, check_vma=False)
    return share((agents, members), env_params, shared)


_START = jax.jit(_each, static_argnames=("run", "env", "in_turn"))
_GO_ON = jax.jit(_each, static_argnames=("run", "env", "in_turn"), donate_argnames="members")
