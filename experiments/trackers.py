"""Who else is told of a run's metrics: wandb, TensorBoard. metrics.jsonl is always written.

    with Trackers(config, run, console) as trackers:
        trackers.log({"step": 4096, "entropy": 1.1})

What is told is the resolved configuration and the metrics: no environment variables, no command
line, no source code, nothing printed. Keys are the services' own business (`wandb login`).
"""

import contextlib
import importlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from jaxtrade.experiments.config import Config, as_dict
from jaxtrade.experiments.rundir import RunDirectory
from jaxtrade.specs import JaxtradeError


class Tracker(Protocol):
    """A service that keeps metrics."""

    def log(self, figures: dict[str, float], step: int) -> None:
        """Finite figures after so many environment steps."""

    def close(self) -> None:
        """Hand over what is left."""


class Wandb:
    """A run of Weights & Biases; its environment variables, such as WANDB_MODE, hold."""

    def __init__(self, config: Config, folder: Path) -> None:
        wandb = _package("wandb", extra="wandb")
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, save_code=False, x_disable_meta=True,
            x_disable_machine_info=True, x_disable_stats=True,
        )  # fmt: skip
        self._run = wandb.init(
            project="jaxtrade",
            id=f"{folder.parent.name}-{folder.name}",
            name=folder.name,
            resume="allow",
            dir=folder,
            config=as_dict(config),
            settings=settings,
        )

    def log(self, figures: dict[str, float], step: int) -> None:
        """See `Tracker`."""
        self._run.log(figures, step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


class TensorBoard:
    """Event files in the run's directory, for `tensorboard --logdir`."""

    def __init__(self, config: Config, folder: Path) -> None:
        del config
        writer = _package("tensorboardX", extra="tensorboard").SummaryWriter
        # named by the second alone, a run that goes on at once would write over its own file
        suffix = f".{time.time_ns()}"
        self._writer = writer(str(folder / "tensorboard"), filename_suffix=suffix)

    def log(self, figures: dict[str, float], step: int) -> None:
        """See `Tracker`."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


KINDS: dict[str, Callable[[Config, Path], Tracker]] = {"wandb": Wandb, "tensorboard": TensorBoard}


class Trackers:
    """The trackers that a configuration names; a context manager.

    One that cannot be opened is an error. One that fails later is left out, and the console told:
    the training goes on.
    """

    def __init__(self, config: Config, run: RunDirectory, console: Console) -> None:
        self._console = console
        self._open: dict[str, Tracker] = {}
        for name in dict.fromkeys(config.trackers):
            if name == "none":
                continue
            try:
                self._open[name] = KINDS[name](config, run.folder.absolute())
            except JaxtradeError:
                raise
            except Exception as error:  # services raise many kinds
                raise JaxtradeError(f"tracker {name}: {_reason(error)}") from error

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._open):
            with self._unless_failing(name):
                self._open[name].close()

    def log(self, row: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, without what is not finite."""
        figures = {name: value for name, value in row.items() if math.isfinite(value)}
        step = int(figures.pop("step"))
        for name in list(self._open):
            with self._unless_failing(name):
                self._open[name].log(figures, step)

    @contextlib.contextmanager
    def _unless_failing(self, name: str) -> Any:
        try:
            yield
        except Exception as error:  # services raise many kinds
            del self._open[name]
            text = f"tracker {name} is left out from here on: {_reason(error)}"
            self._console.print(text, highlight=False, soft_wrap=True)


def require_packages(config: Config) -> None:
    """Raise JaxtradeError unless what the configuration's trackers need is installed."""
    packages = {"wandb": "wandb", "tensorboard": "tensorboardX"}
    for name in config.trackers:
        if name in packages:
            _package(packages[name], extra=name)


def _package(name: str, *, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise JaxtradeError(
            f"tracker {extra} needs the package {name}: pip install 'jaxtrade[{extra}]'"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
