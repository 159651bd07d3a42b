"""Files that are whole or not there: atomic writes, hashes, reads with one-line errors; JSON."""

import contextlib
import hashlib
import math
import os
import secrets
from pathlib import Path
from typing import Any

from jaxtrade.specs import JaxtradeError


def write_atomic(path: Path | str, data: bytes | str, *, mode: int = 0o666) -> None:
    """Write a file so that its path holds the old content or the new one, also after a power cut.

    The content goes to a temporary file in the same folder, which must exist, is flushed to disk
    and renamed over `path`; text is UTF-8. `mode` gives the permissions, less the umask. Raises
    JaxtradeError with the path and the reason, and then leaves no temporary file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            with open(
                temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)
            ) as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise JaxtradeError(f"cannot write {path}: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; Windows has no such call and needs none."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Path | str) -> bytes:
    """The content of a file; JaxtradeError with the path and the reason if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise JaxtradeError(f"cannot read {path}: {error.strerror or error}") from error


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's content, 64 hex digits; errors as `read_bytes`."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise JaxtradeError(f"cannot read {path}: {error.strerror or error}") from error


def finite(value: Any) -> Any:
    """A value for JSON, in which numbers that are not finite are None, at any depth."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
