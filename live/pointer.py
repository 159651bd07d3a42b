"""Where an agent's policy comes from, and copies of the bundles it has traded with.

A pointer is a setting such as `registry:ppo-spy`, which means the active version of that agent,
a bundle's file, or the directory of a run. What it points at may change at any time; `token` says
cheaply whether it has.
"""

import contextlib
import dataclasses
import hashlib
import os
from pathlib import Path

from jaxtrade.registry import Registry
from jaxtrade.specs import JaxtradeError
from jaxtrade.storage import read_bytes, write_atomic

REGISTRY = "registry:"
POLICY_FILE = "policy.onnx"
"""What a run calls its bundle."""

DATABASE = "registry.sqlite", "registry.sqlite-wal"
"""The files of a registry that change when anything in it does."""

KEPT_BUNDLES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle's bytes with their SHA-256; name: the version, v3, or the file it is from."""

    name: str
    sha256: str
    content: bytes = dataclasses.field(repr=False)


class Pointer:
    """What the setting `model` of an agent points at; every method reads files.

    Usage:
        pointer = Pointer("registry:ppo-spy", registry="models")
        bundle = pointer.read()
    """

    def __init__(self, model: str, *, registry: Path | str = "models") -> None:
        self.model = model
        self._registry = Path(registry)
        self._known = "", ""  # stamps of a registry's files, the version that was active then

    def token(self) -> str:
        """Changes when the pointer does; "" while there is nothing to be read. A registry is opened
        only where its files have changed: that takes milliseconds, in which nothing is traded.
        """
        with contextlib.suppress(JaxtradeError):
            if not self.model.startswith(REGISTRY):
                return _stamp(self._file())
            stamps = " ".join(_stamp(self._registry / name) for name in DATABASE)
            if stamps != self._known[0]:
                self._known = "", ""
                self._known = stamps, self._version()[0]
            return self._known[1]
        return ""

    def read(self) -> Bundle:
        """The bundle it points at now; that of a registry has the hash it was registered with.

        Raises:
            JaxtradeError: there is none, or it cannot be read or was altered.
        """
        if not self.model.startswith(REGISTRY):
            return _bundle(str(self._file()), read_bytes(self._file()))
        name, path = self._version()
        bundle = _bundle(name, read_bytes(path))
        if bundle.sha256 != path.stem:
            raise JaxtradeError(f"the bundle of {name} was altered: {path}")
        return bundle

    def _version(self) -> tuple[str, Path]:
        agent = self.model.removeprefix(REGISTRY)
        if not (self._registry / DATABASE[0]).is_file():
            raise JaxtradeError(f"{self.model}: there is no registry in {self._registry}")
        with Registry(self._registry) as registry:
            version = registry.active(agent)
            if version is None:
                raise JaxtradeError(
                    f"{self.model}: the agent has no active version: jaxtrade models --activate"
                )
            return version.name, registry.path(version.number)

    def _file(self) -> Path:
        path = Path(self.model)
        return path / POLICY_FILE if path.is_dir() else path


class Shelf:
    """Copies of bundles by hash, in a folder of an account: what has been traded with is at hand
    after a restart, whatever became of its file.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def keep(self, bundle: Bundle) -> None:
        """Keep a copy; of more than a few the oldest goes.

        Raises:
            JaxtradeError: it cannot be written.
        """
        path = self._path(bundle.sha256)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists():
                os.utime(path)
                return
            write_atomic(path, bundle.content, mode=0o444)
            kept = sorted(self.folder.glob("*.onnx"), key=lambda each: each.stat().st_mtime_ns)
            for old in kept[:-KEPT_BUNDLES]:
                old.unlink()
        except OSError as error:
            raise JaxtradeError(f"cannot keep {path}: {error.strerror or error}") from error

    def find(self, sha256: str, *, name: str) -> Bundle:
        """The copy with this hash, under the name that it had.

        Raises:
            JaxtradeError: there is none, or it was altered.
        """
        bundle = _bundle(name, read_bytes(self._path(sha256)))
        if bundle.sha256 != sha256:
            raise JaxtradeError(f"{self._path(sha256)}: was altered, its hash is not its name")
        return bundle

    def _path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.onnx"


def _stamp(path: Path) -> str:
    """Another one where a file was written, or is another file; "" for none."""
    with contextlib.suppress(OSError):
        stat = path.stat()
        return f"{stat.st_mtime_ns} {stat.st_size} {stat.st_ino}"
    return ""


def _bundle(name: str, content: bytes) -> Bundle:
    return Bundle(name=name, sha256=hashlib.sha256(content).hexdigest(), content=content)
