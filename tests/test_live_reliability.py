"""The table of promises and faults is true of the tests: each that it names is there."""

import ast
import functools
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).parent
PAGE = (HERE.parent / "live" / "RELIABILITY.md").read_text()
PROMISED = [
    *(f"P{number}" for number in (*range(1, 8), 14, *range(16, 26))),
    *(f"F{number}" for number in (*range(1, 5), *range(6, 9), *range(20, 31))),
]
_ROW = re.compile(r"^\| ([PF]\d+) \|(.*)\|$", re.MULTILINE)
_TEST = re.compile(r"`(test_\w+\.py)::(\w+)`")

ROWS = {name: _TEST.findall(rest) for name, rest in _ROW.findall(PAGE.split("## Not yet")[0])}


@functools.cache
def functions_of(name: str) -> set[str]:
    path = HERE / name
    if not path.exists():
        return set()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


def test_every_promise_and_fault_has_its_row() -> None:
    assert list(ROWS) == PROMISED


@pytest.mark.parametrize("name", PROMISED)
def test_what_is_promised_is_held_by_tests(name: str) -> None:
    assert ROWS[name], f"{name} names no test"
    missing = [f"{file}::{test}" for file, test in ROWS[name] if test not in functions_of(file)]
    assert not missing


def test_no_name_of_a_test_is_misspelt() -> None:
    named = re.findall(r"`(test_[^`]*::[^`]*)`", PAGE)
    assert len(named) == len(_TEST.findall(PAGE)) > len(PROMISED)
    for file, test in _TEST.findall(PAGE):
        assert test in functions_of(file), f"{file}::{test}"
