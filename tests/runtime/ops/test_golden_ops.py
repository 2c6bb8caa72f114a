"""The operators against results recorded from MXNet 1.9.1 (tests/golden/ops)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden import coverage
from tests.runtime.ops.interpreter import backward, forward, load

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = json.loads((GOLDEN / "ops" / "cases.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, Any]) -> None:
    graph = load(GOLDEN / "ops" / f"{case['name']}.json")
    with np.load(GOLDEN / "ops" / f"{case['name']}.npz") as file:
        arrays = dict(file)
    variables = {
        key.partition(".")[2]: array
        for key, array in arrays.items()
        if key.startswith(("arg.", "aux."))
    }
    run = forward(graph, variables, case["is_train"])

    assert list(graph.output_names) == case["outputs"]
    for i, output in enumerate(run.outputs):
        if f"out.{i}" in arrays and i not in case.get("ignore_outputs", []):
            check(case, f"out.{i}", output, arrays)
    wanted = {name for name, req in case["grad_req"].items() if req != "null"}
    if case["is_train"] and wanted:
        heads = [arrays.get(f"head.{i}") for i in range(len(graph.outputs))]
        for name, grad in backward(run, heads, wanted).items():
            check(case, f"grad.{name}", grad, arrays)
    for key in arrays:
        if key.startswith("auxout."):
            name = key.removeprefix("auxout.")
            value = run.next_auxiliaries.get(name, variables[name])
            check(case, key, value, arrays)


def check(case: dict[str, Any], key: str, got: Any, arrays: dict[str, Any]) -> None:
    expected = arrays[key]
    assert got.shape == expected.shape, key
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected, key)
        return
    np.testing.assert_allclose(
        got,
        expected,
        rtol=case["rtol"],
        atol=case.get("atol_by_array", {}).get(key, case["atol"]),
        equal_nan=key in case.get("nonfinite", []),
        err_msg=key,
    )


def test_every_case_whose_operators_exist_is_here() -> None:
    here = {case["name"] for case in CASES}
    assert here == set(coverage.cases()) - set(coverage.uncovered())


def test_what_is_not_covered_yet_is_listed() -> None:
    expected = (GOLDEN / "ops_uncovered.txt").read_text().splitlines()
    listed = [" ".join((name, *ops)) for name, ops in coverage.uncovered().items()]
    assert listed == expected
