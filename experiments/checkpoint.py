"""Checkpoints of a run: the whole training state, the best actor so far, and what is known."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxtrade.agents import TrainState
from jaxtrade.specs import JaxtradeError

KEPT = 2
"""Newest checkpoints kept: the last, and one should the last be damaged."""


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
    """The folder of a run's checkpoints, named by their iteration.

    A save is complete or not there: a killed process leaves the one before. A context manager.
    """

    def __init__(self, folder: Path) -> None:
        logging.getLogger("absl").setLevel(logging.CRITICAL + 1)  # errors reach us as exceptions
        self._folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=False)
        with self._one_line("open"):
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """Iteration of the newest, None without one."""
        return self._manager.latest_step()

    def save(self, iteration: int, state: TrainState, best: Any, progress: Progress) -> None:
        """Write a checkpoint; returns when it is on disk.

        Raises:
            JaxtradeError: it cannot be written, as on a full disk.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_plain(state)),
            best=ocp.args.StandardSave(best),
            progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
        )
        with self._one_line("write"):
            self._manager.save(iteration, args=args, force=True)

    def restore(self, template: TrainState) -> tuple[TrainState, Any, Progress]:
        """The newest checkpoint: (state, best actor, progress), shaped like `template`.

        Raises:
            JaxtradeError: there is none, or it cannot be read or does not fit.
        """
        if self.latest is None:
            raise JaxtradeError(f"{self._folder}: no checkpoint to go on from")
        shape = jax.eval_shape(lambda: _plain(template))
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(shape),
            best=ocp.args.StandardRestore(shape.learner.actor),
            progress=ocp.args.JsonRestore(),
        )
        with self._one_line("read"):
            found = self._manager.restore(self.latest, args=args)
            progress = Progress(**found["progress"])
        state = dataclasses.replace(
            found["state"],
            key=jax.random.wrap_key_data(found["state"].key),
            hidden=template.hidden if found["state"].hidden is None else found["state"].hidden,
        )
        return state, found["best"], progress

    @contextlib.contextmanager
    def _one_line(self, verb: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise many kinds
            reason = " ".join(str(error).split())[:300]
            raise JaxtradeError(f"{self._folder}: cannot {verb} a checkpoint: {reason}") from error


def _plain(state: TrainState) -> Any:
    """The state with its key as numbers, and without an empty memory: orbax takes neither."""
    hidden: Any = state.hidden if state.hidden.size else None
    return dataclasses.replace(state, key=jax.random.key_data(state.key), hidden=hidden)
