"""What holds in every test: warnings are errors (pyproject.toml), no large captured constants."""

import os
import pathlib

import jax
import pytest

jax.config.update("jax_captured_constants_warn_bytes", 1_000_000)


@pytest.fixture(scope="session")
def data_folder() -> pathlib.Path:
    """The folder of real bars; the test is skipped where there is none."""
    folder = os.environ.get("JAXTRADE_DATA")
    if not folder:
        pytest.skip("JAXTRADE_DATA is not set: no real bars")
    return pathlib.Path(folder)
