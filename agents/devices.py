"""Where training runs: on one kind of device, on all of them at once, on several hosts.

Within `divided` the environments of a run, or the members of a population, are shared out over all
devices, also those of other hosts; parameters and the market are copied to each. Training itself is
the same program: it marks what belongs to the environments (`types.per_env`), and XLA cuts the work
and adds the gradients up. Random numbers do not depend on the number of devices, and results only
by rounding.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxtrade.specs import JaxtradeError

T = TypeVar("T")

ENVS, MEMBERS = "envs", "members"
"""What a mesh divides."""

MAX_SAID = 4096
"""Bytes of a text that hosts agree on."""


def use_device(device: str) -> None:
    """Make JAX run on `device`: auto, cpu, gpu or tpu. Call before anything is computed.

    Raises:
        JaxtradeError: there is no such device here.
    """
    if device == "auto":
        return
    try:
        jax.config.update("jax_default_device", jax.local_devices(backend=device)[0])
    except RuntimeError as error:
        found = sorted({each.platform for each in jax.devices()})
        raise JaxtradeError(
            f"device is {device!r}: this machine has {', '.join(found)}; give device=auto"
        ) from error


def platform() -> str:
    """The kind of device that runs: cpu, gpu, tpu."""
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    return (chosen or jax.local_devices()[0]).platform


@contextlib.contextmanager
def divided(axis: str, count: int) -> Iterator[None]:
    """Share out `count` environments (`ENVS`) or members (`MEMBERS`) over all devices.

    Raises:
        JaxtradeError: the devices do not divide them.
    """
    devices = jax.devices(platform())
    if count % len(devices):
        raise JaxtradeError(
            f"{count} {axis} do not divide among {len(devices)} devices: "
            f"give a multiple of {len(devices)}"
        )
    if len(devices) == 1:
        yield
        return
    mesh = jax.make_mesh((len(devices),), (axis,), axis_types=(AxisType.Auto,), devices=devices)
    with jax.set_mesh(mesh):
        yield


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within `divided`: what follows runs on one device of each process, on `local` copies."""
    with jax.set_mesh(None):
        yield


def is_divided(axis: str) -> bool:
    """Whether this runs, or is traced, within `divided(axis, ...)`."""
    return axis in jax.sharding.get_abstract_mesh().axis_names


def place(tree: T) -> T:
    """What all devices need, such as the market, copied to each; unchanged if nothing is divided.

    On several hosts all of them must give the same.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.device_put(tree, NamedSharding(jax.sharding.get_mesh(), PartitionSpec()))


def spread(tree: T) -> T:
    """Within jit: `types.per_env` fields shared out over the devices, all else on each of them."""
    if not is_divided(ENVS):
        return tree
    return jax.lax.with_sharding_constraint(tree, _layout(tree, None))


def share_rows(tree: T, axis: int = 0) -> T:
    """Within jit: a minibatch, or its indices, shared out by its rows, which lie along `axis`.

    Each device then learns from its part of them; unchanged where the devices do not divide them.
    """
    mesh = jax.sharding.get_abstract_mesh()
    sizes = {leaf.shape[axis] for leaf in jax.tree.leaves(tree)}
    if not is_divided(ENVS) or any(size % mesh.shape[ENVS] for size in sizes):
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec(*[None] * axis, ENVS))


def _layout(tree: Any, axis: int | None) -> Any:
    """How each array lies; those below a field with an environment axis by that axis."""
    if axis is not None:
        return jax.tree.map(lambda _: PartitionSpec(*[None] * axis, ENVS), tree)

    def of(node: Any) -> Any:
        if not dataclasses.is_dataclass(node) or isinstance(node, type):
            return PartitionSpec()
        layouts = {
            field.name: _layout(getattr(node, field.name), field.metadata.get("env_axis"))
            for field in dataclasses.fields(node)
            if field.metadata.get("pytree_node", True)
        }
        return dataclasses.replace(node, **layouts)

    return jax.tree.map(of, tree, is_leaf=dataclasses.is_dataclass)


def local(tree: T) -> T:
    """The copy, on one device of this process, of what every device has; see `alone`."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def connect() -> None:
    """Join the processes of a run on several hosts; call before anything is computed.

    `JAXTRADE_COORDINATOR` says so: `host:port` of the first process, with
    `JAXTRADE_NUM_PROCESSES` and `JAXTRADE_PROCESS_ID`; or `auto` where JAX finds all three by
    itself, as on a TPU pod, under Slurm or Open MPI. Without it there is one process.

    Raises:
        JaxtradeError: a variable is missing or wrong, or the others cannot be reached.
    """
    coordinator = os.environ.get("JAXTRADE_COORDINATOR", "")
    if not coordinator or jax.distributed.is_initialized():
        return
    hosts: tuple[Any, ...] = ()
    if coordinator != "auto":
        count = _number("JAXTRADE_NUM_PROCESSES", 1, math.inf)
        hosts = coordinator, count, _number("JAXTRADE_PROCESS_ID", 0, count - 1)
    try:
        jax.distributed.initialize(*hosts)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise JaxtradeError(
            f"JAXTRADE_COORDINATOR is {coordinator!r}: the hosts do not join: {reason}"
        ) from error


def is_main() -> bool:
    """Whether this process writes files and messages: one of all hosts does."""
    return jax.process_index() == 0


def agreed(text: str) -> str:
    """What the main process says, on every host; all of them must ask."""
    if jax.process_count() == 1:
        return text
    page = np.zeros(MAX_SAID, np.uint8)
    said = text.encode()
    page[: len(said)] = list(said)
    page = multihost_utils.broadcast_one_to_all(page)
    return bytes(page).rstrip(b"\0").decode()


def _number(name: str, least: int, most: float) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal() or not least <= int(text) <= most:
        raise JaxtradeError(f"{name} is {text!r}: give a number from {least} to {most}")
    return int(text)
