"""Who may import whom, read off the source; and what importing the package brings along."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("jaxtrade", "envs", "agents", "live", "conf", "experiments")

# What the modules of a folder may import of ours.
ALLOWED = {
    "jaxtrade": {"jaxtrade"},
    "envs": {"jaxtrade", "envs"},
    "agents": {"jaxtrade", "agents"},
    "live": {"jaxtrade", "live"},
    "conf": set(),
    "experiments": {"jaxtrade", "envs", "agents", "live", "conf", "experiments"},
}

# Modules that live trading shares: they must not bring JAX along.
WITHOUT_JAX = (
    "jaxtrade.specs",
    "jaxtrade.bars",
    "jaxtrade.sizing",
    "jaxtrade.storage",
    "jaxtrade.database",
    "jaxtrade.registry",
    "jaxtrade.metrics",
    "jaxtrade.cli",
    "jaxtrade.live.policy",
    "jaxtrade.live.brokers.paper",
    "jaxtrade.live.supervisor",
    "jaxtrade.live.starting",
    "jaxtrade.experiments.config",
    "jaxtrade.experiments.versions",
)


def sources() -> list[pathlib.Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def floor(name: str) -> str | None:
    """The folder that a full name of ours lies in."""
    parts = name.split(".")
    if parts[0] != "jaxtrade":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FOLDERS else "jaxtrade"


def violations(folder: str, text: str) -> set[str]:
    floors = {floor(name) for name in imported(ast.parse(text))} - {None}
    return {str(each) for each in floors} - ALLOWED[folder]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_its_own_floor_and_below(path: pathlib.Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    assert violations(folder, path.read_text()) == set()


def test_a_violation_is_seen() -> None:
    assert violations("jaxtrade", "from jaxtrade.envs import Trading") == {"envs"}
    assert violations("agents", "import jaxtrade.experiments.train") == {"experiments"}
    assert violations("envs", "from jaxtrade import live") == {"live"}


def test_one_algorithm_never_imports_another() -> None:
    from jaxtrade.agents import AGENTS

    files = {agent.__module__ for agent in AGENTS.values()}
    for file in files:
        path = ROOT / "agents" / f"{file.rsplit('.', 1)[1]}.py"
        names = imported(ast.parse(path.read_text()))
        assert not {each.rsplit(".", 1)[0] for each in names} & (files - {file})


def test_only_the_export_and_the_paper_venue_reach_jax_in_live() -> None:
    with_jax = {"live/export.py", "live/brokers/paper_venue.py"}
    for path in sorted((ROOT / "live").rglob("*.py")):
        roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
        is_allowed = str(path.relative_to(ROOT)) in with_jax
        assert is_allowed or not roots & {"jax", "flax", "optax", "jax2onnx"}, path


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("name", WITHOUT_JAX)
def test_what_live_shares_brings_no_jax(name: str) -> None:
    assert "jax" not in modules_after(f"import {name}")


def test_the_process_of_an_engine_starts_light() -> None:
    heavy = {"jax", "flax", "pandas", "scipy", "hydra", "omegaconf", "rich", "typer", "plotly"}
    for name in ("run", "alerts.worker"):
        assert not heavy & modules_after(f"import jaxtrade.live.{name}")


def test_importing_the_package_brings_nothing_heavy() -> None:
    heavy = {"jax", "flax", "numpy", "pandas", "gymnax", "orbax", "onnx", "onnxruntime", "plotly"}
    assert not heavy & modules_after("import jaxtrade")
    assert "jax" in modules_after("import jaxtrade; jaxtrade.Market")


def test_importing_the_package_is_quick() -> None:
    code = "import time; t = time.perf_counter(); import jaxtrade; print(time.perf_counter() - t)"
    times = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
        times.append(float(done.stdout))
    assert min(times) < 0.3


# Not `jaxtrade.envs`: gymnax makes arrays when it is imported.
@pytest.mark.parametrize("name", ["jaxtrade", "jaxtrade.agents", "jaxtrade.decision"])
def test_importing_touches_no_device(name: str) -> None:
    code = (
        f"import {name}; from jax._src import xla_bridge; "
        "assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_folder_explains_itself() -> None:
    for folder in FOLDERS:
        tree = ast.parse((ROOT / folder / "__init__.py").read_text())
        assert len(ast.get_docstring(tree) or "") > 40, folder
