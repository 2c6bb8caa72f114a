"""The table of MXNet's tests names tests that there are."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.upstream_inventory import INVENTORY, Later

ROWS = [
    pytest.param(ours, id=f"{Path(file).stem}-{upstream}")
    for file, rows in INVENTORY.items()
    for upstream, ours in rows.items()
    if not isinstance(ours, Later)
]


@cache
def functions_in(path: str) -> frozenset[str]:
    """Names of the test functions of a file below `tests`."""
    tree = ast.parse((Path(__file__).parent / path).read_text())
    functions = ast.FunctionDef, ast.AsyncFunctionDef
    return frozenset(node.name for node in tree.body if isinstance(node, functions))


@pytest.mark.parametrize("ours", ROWS)
def test_each_row_names_tests_that_there_are(ours: tuple[str, ...]) -> None:
    assert ours
    for test in ours:
        path, _, name = test.partition("::")
        assert name.startswith("test_")
        assert name in functions_in(path), test


def test_what_waits_says_for_what() -> None:
    waiting = {
        f"{upstream}: {ours.needs}"
        for rows in INVENTORY.values()
        for upstream, ours in rows.items()
        if isinstance(ours, Later)
    }
    assert len(waiting) < len(ROWS) / 4
    assert all(line.partition(": ")[2] for line in waiting)
