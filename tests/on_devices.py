"""Run by tests in processes of their own, with several devices: trains and prints JSON.

    python tests/on_devices.py AGENT [FOLDER]

Joins the other hosts if the environment says so, then trains over all devices; alone it also trains
on one, and with a FOLDER on eight it saves there and restores on fewer.
"""

import json
import pathlib
import sys
import warnings

import jax
import numpy as np

from jaxtrade import agents
from jaxtrade.agents import devices, loop

warnings.simplefilter("error")
devices.connect()  # before the environments: gymnax makes arrays when it is imported
sys.path.append(str(pathlib.Path(__file__).parent.parent))  # last: jaxtrade is what is installed
from tests.probes import PROBES, StateTable  # noqa: E402

ENV, PARAMS = StateTable(), PROBES["a smaller reward sooner"].params
SETTINGS = {
    "ppo": {"num_envs": 16, "rollout_steps": 16, "num_minibatches": 4},
    "dqn": {"replay_size": 512, "learning_starts": 64, "batch_size": 32, "prioritised": True},
    "sac": {"replay_size": 512, "learning_starts": 16, "batch_size": 32},
}
UPDATES = 5


def train(agent):
    """Five updates: the state and the metrics of each."""
    steps = UPDATES * agent.num_envs * agent.rollout_steps
    return loop.train(agent, ENV, PARAMS, jax.random.key(0), total_steps=steps, chunk_iterations=1)


def shares(state):
    """The shape of the first device's part of each array, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path): leaf.addressable_shards[0].data.shape for path, leaf in leaves
    }


def numbers(tree):
    """All arrays that a process can see whole, as nested lists."""
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(tree)]


def moved(agent, state, folder):
    """Whether the state comes back from disk, bit for bit, on fewer devices and on one."""
    from jaxtrade.experiments.checkpoint import Checkpoints, Progress

    steps = UPDATES * agent.num_envs * agent.rollout_steps
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(UPDATES, state, state.learner.actor, Progress())
    expected = numbers(state.replace(key=jax.random.key_data(state.key)))
    counts = []
    for count in (4, 1):
        mesh = jax.make_mesh(
            (count,), (devices.ENVS,), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:count]
        )
        with jax.set_mesh(mesh), Checkpoints(folder) as checkpoints:
            template = loop.init(agent, ENV, PARAMS, jax.random.key(1), total_steps=steps)
            found, _, _ = checkpoints.restore(template)
            assert numbers(found.replace(key=jax.random.key_data(found.key))) == expected
            counts.append(len(found.obs.sharding.device_set))
            found, _ = loop.train_chunk(agent, ENV, devices.place(PARAMS), found, np.int32(1))
            assert int(found.iteration) == UPDATES + 1
    return counts


def main():
    name, *folder = sys.argv[1:]
    agent = agents.make(name, hidden_sizes=(16,), **SETTINGS[name])
    answer = {"devices": jax.device_count(), "is_main": devices.is_main()}
    if jax.process_count() == 1:
        answer["one"] = train(agent)[1]
    with devices.divided(devices.ENVS, agent.num_envs):
        state, answer["all"] = train(agent)
    answer["shares"] = shares(state)
    answer["actor"] = numbers(state.learner.actor)
    if folder:
        answer["moved"] = moved(agent, state, pathlib.Path(folder[0]))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
