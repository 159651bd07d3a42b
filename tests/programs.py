"""Compiled programs that the workers of a test run, and processes they start, have in common."""

import os
import tempfile

PLACE = "JAXTRADE_TEST_PROGRAMS"
"""The variable that tells workers where they are."""

IS_FIRST = PLACE not in os.environ
"""Whether this process starts the others, and clears up."""

if IS_FIRST:
    os.environ[PLACE] = tempfile.mkdtemp(prefix="programs-")
FOLDER = os.environ[PLACE]

SETTINGS = {
    "jax_compilation_cache_dir": FOLDER,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def shared() -> dict[str, str]:
    """The environment of a process that takes and leaves programs; one that is not killed."""
    return os.environ | {name.upper(): str(value) for name, value in SETTINGS.items()}
