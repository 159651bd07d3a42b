"""Checkpoints of a run: the whole training state, the best actor so far, and what is known."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxtrade.agents import TrainState
from jaxtrade.specs import JaxtradeError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run knows between chunks; JSON.

    best_sharpe: the highest validation Sharpe so far, None before the first; best_iteration: where
    it was; seconds: training time so far; fingerprint: of the market trained on.
    """

    best_sharpe: float | None = None
    best_iteration: int = 0
    seconds: float = 0.0
    fingerprint: str = ""


class Checkpoints:
    """The folder of a run's checkpoints, named by their iteration; the newest `keep` stay.

    A save is complete or not there: a killed process leaves the one before. A context manager,
    whose end waits for the save that is under way.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        logging.getLogger("absl").setLevel(logging.CRITICAL + 1)  # errors reach us as exceptions
        self._folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        with self._one_line("open"):
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            with self._one_line("write"):
                self._manager.close()
            return
        with contextlib.suppress(Exception):  # what went wrong before is what is said
            self._manager.close()

    @property
    def latest(self) -> int | None:
        """Iteration of the newest, None without one."""
        return self._manager.latest_step()

    def save(self, iteration: int, state: TrainState, best: Any, progress: Progress) -> None:
        """Copy the state, which may then be donated, and write it in the background.

        Raises:
            JaxtradeError: this save or the one before it cannot be written, as on a full disk.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_plain(state)),
            best=ocp.args.StandardSave(best),
            progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
        )
        with self._one_line("write"):
            self._manager.check_for_errors()
            self._manager.save(iteration, args=args, force=True)

    def restore(self, template: TrainState) -> tuple[TrainState, Any, Progress]:
        """The newest checkpoint: (state, best actor, progress), shaped like `template`.

        Every array lies on the devices that the template's lies on, wherever it was saved.

        Raises:
            JaxtradeError: there is none, or it cannot be read or does not fit.
        """
        if self.latest is None:
            raise JaxtradeError(f"{self._folder}: no checkpoint to go on from")
        shape = jax.tree.map(ocp.utils.to_shape_dtype_struct, _plain(template))
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(shape),
            best=ocp.args.StandardRestore(shape.learner.actor),
            progress=ocp.args.JsonRestore(),
        )
        with self._one_line("read"):
            found = self._manager.restore(self.latest, args=args)
            state = jax.tree.map(_whole, template, found["state"])
            return state, found["best"], Progress(**found["progress"])

    @contextlib.contextmanager
    def _one_line(self, verb: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise many kinds
            reason = " ".join(str(error).split())[:300]
            raise JaxtradeError(f"{self._folder}: cannot {verb} a checkpoint: {reason}") from error


def _plain(state: TrainState) -> Any:
    """The state with keys as numbers and without empty arrays: orbax takes neither."""

    def plain(leaf: jax.Array) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key_data(leaf)
        return leaf if leaf.size else None

    return jax.tree.map(plain, state)


def _whole(like: jax.Array, found: Any) -> jax.Array:
    """A leaf of the state from what `_plain` made of it."""
    if found is None:
        return like
    return jax.random.wrap_key_data(found) if found.dtype != like.dtype else found
