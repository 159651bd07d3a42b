"""What holds in every test: warnings are errors (pyproject.toml), no large captured constants.

And what is costly to make and shared by tests of several files, made once: worlds, and programs,
which whoever needs them first compiles for all workers. The processes that tests start do not share
in that unless told to (`programs.shared`): some of them are killed, or have no room on the disk,
and would leave half a program.
"""

import itertools
import os
import pathlib
import shutil

import pytest

from tests import programs

os.environ.setdefault("NPROC", "1")  # XLA's threads: there is a worker for each core

import jax

jax.config.update("jax_captured_constants_warn_bytes", 1_000_000)
for name, value in programs.SETTINGS.items():
    jax.config.update(name, value)


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    if programs.IS_FIRST:
        shutil.rmtree(programs.FOLDER, ignore_errors=True)


@pytest.fixture(scope="session")
def data_folder() -> pathlib.Path:
    """The folder of real bars; the test is skipped where there is none."""
    folder = os.environ.get("JAXTRADE_DATA")
    if not folder:
        pytest.skip("JAXTRADE_DATA is not set: no real bars")
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A market, its rows, and a bundle that trades on nearly every bar: `live_runs.World`."""
    from tests.live_runs import make_world

    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def trade(world, tmp_path):
    """Run an engine over the world, with faults; settings by keyword."""
    from tests.live_runs import paper_of, run, settings_of

    accounts = itertools.count()

    def traded(faults=None, prepare=None, broker=None, folder="", **tree):
        broker = broker or paper_of(world.market, world.params, faults=faults)
        folder = tmp_path / (folder or f"account{next(accounts)}")
        return run(settings_of(folder, world.bundle, **tree), broker, prepare=prepare)

    return traded
