"""The directory of a run: what it is called and what is where in it."""

import datetime
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtrade.experiments.config import Config, from_yaml, to_yaml
from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import finite, read_bytes, write_atomic


class RunDirectory:
    """`<output_dir>/<date>/<time>-<name>/` with a run's resolved config, metrics and results."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.config = self.folder / "config.yaml"
        self.metrics = self.folder / "metrics.jsonl"
        self.checkpoints = self.folder / "checkpoints"
        self.policy = self.folder / "policy.onnx"
        self.report = self.folder / "report.html"
        self.trades = self.folder / "trades.parquet"

    @classmethod
    def create(cls, config: Config, default_name: str) -> "RunDirectory":
        """A new directory with the configuration in it.

        Raises:
            JaxtradeError: it cannot be written.
        """
        now = datetime.datetime.now()
        name = config.name or re.sub(r"[^A-Za-z0-9._-]+", "-", default_name)
        parent = Path(config.output_dir) / f"{now:%Y-%m-%d}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for attempt in range(1000):
                suffix = f"-{attempt + 1}" if attempt else ""
                folder = parent / f"{now:%H%M%S}-{name}{suffix}"
                try:
                    folder.mkdir()
                    break
                except FileExistsError:
                    continue
        except OSError as error:
            raise JaxtradeError(
                f"{error.filename}: cannot make a run directory: {error.strerror}"
            ) from error
        run = cls(folder)
        write_atomic(run.config, to_yaml(config).encode())
        return run

    @classmethod
    def open(cls, folder: str | Path) -> "RunDirectory":
        """An existing run.

        Raises:
            JaxtradeError: there is none.
        """
        run = cls(folder)
        if not run.config.is_file():
            raise JaxtradeError(f"{folder}: not a run directory (it has no config.yaml)")
        return run

    def read_config(self) -> Config:
        """The resolved configuration."""
        return from_yaml(read_bytes(self.config).decode(), source=str(self.config))

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a line; numbers that are not finite become null.

        Raises:
            JaxtradeError: it cannot be written.
        """
        line = json.dumps(finite(dict(row))) + "\n"
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise JaxtradeError(f"{self.metrics}: cannot be written: {error.strerror}") from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines so far; a last one cut short by a crash is left out."""
        if not self.metrics.exists():
            return []
        rows = []
        for line in read_bytes(self.metrics).decode(errors="replace").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def keep_metrics(self, iteration: int) -> None:
        """Drop lines of chunks after `iteration`, which will be trained again."""
        rows = [row for row in self.read_metrics() if row["iteration"] <= iteration]
        write_atomic(self.metrics, "".join(json.dumps(row) + "\n" for row in rows).encode())
