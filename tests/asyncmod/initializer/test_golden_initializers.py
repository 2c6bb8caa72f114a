"""Initializers against MXNet 1.9.1: exact values, name rules, statistics, dumps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncmod import initializer, random

GOLDEN = Path(__file__).parents[2] / "golden" / "init"
CASES = json.loads((GOLDEN / "init.json").read_text())


def make(config: dict[str, Any]) -> Any:
    config = dict(config)
    return getattr(initializer, config.pop("class"))(**config)


def called(init: Any, case: dict[str, Any], shape: Any) -> np.ndarray[Any, Any]:
    arr = np.full(shape, np.nan, np.float32)
    if case.get("called_with") == "str":
        init(case["param"], arr)
    else:
        init(initializer.InitDesc(case["param"], case.get("attrs")), arr)
    return arr


@pytest.mark.parametrize("case", CASES["exact"], ids=lambda c: c["array"])
def test_exact_values(case: dict[str, Any]) -> None:
    arr = called(make(case["init"]), case, case["shape"])
    expected = np.load(GOLDEN / "exact.npz")[case["array"]]
    np.testing.assert_allclose(arr, expected, 1e-5, 1e-5)


@pytest.mark.parametrize(
    "case",
    # MXNet fills `weight_quantize` with random int8 numbers; INT8 is not here.
    [c for c in CASES["name_dispatch"]["cases"] if c["param"] != "x_weight_quantize"],
    ids=lambda c: f"{c['called_with']}-{c['param']}-{len(c['shape'])}",
)
def test_name_rules(case: dict[str, Any]) -> None:
    init = make(CASES["name_dispatch"]["initializer"])
    if "values" in case:
        arr = called(init, case, case["shape"])
        np.testing.assert_allclose(arr.ravel(), case["values"], 1e-5, 1e-5)
    else:
        with pytest.raises(ValueError, match=case["param"]) as caught:
            called(init, case, case["shape"])
        if case["error"] == "ValueError":
            assert str(caught.value).startswith(case["message"])


@pytest.mark.parametrize("case", CASES["mixed"]["cases"], ids=lambda c: c["param"])
def test_mixed_takes_the_first_pattern_that_matches(case: dict[str, Any]) -> None:
    mixed = CASES["mixed"]
    init = initializer.Mixed(
        mixed["patterns"], [make(inner) for inner in mixed["initializers"]]
    )
    shape = (len(case.get("values", [0, 0])),)
    if "values" in case:
        assert called(init, case, shape).tolist() == case["values"]
    else:
        with pytest.raises(ValueError, match="Unknown initialization pattern"):
            called(init, case, shape)


@pytest.mark.parametrize("case", CASES["dumps"], ids=lambda c: c["dumps"])
def test_dumps(case: dict[str, Any]) -> None:
    init = make(case["init"])
    assert init.dumps() == case["dumps"]
    assert initializer.create(case["dumps"]).dumps() == case["dumps"]


@pytest.mark.parametrize(
    "case", CASES["random"], ids=lambda c: f"{c['init']}-{len(c['shape'])}"
)
def test_distribution(case: dict[str, Any]) -> None:
    random.seed(20)
    facts = case["facts"]
    arr = called(make(case["init"]), {"param": "fc_weight"}, case["shape"])
    if facts["dist"] == "orthogonal":
        matrix = arr.reshape(arr.shape[0], -1)
        if facts["gram"] == "columns":
            matrix = matrix.T
        gram = matrix @ matrix.T
        expected = facts["gram_equals"] * np.eye(len(matrix))
        np.testing.assert_allclose(gram, expected, atol=1e-5)
        return
    # Four standard errors of the estimates.
    bound = 4 / np.sqrt(arr.size)
    assert abs(arr.mean()) < bound * facts["expected_std"]
    assert abs(arr.std() / facts["expected_std"] - 1) < bound
    if facts["dist"] == "uniform":
        assert abs(arr).max() <= facts["bound"]
        assert abs(arr).max() > 0.999 * facts["bound"]
    else:
        assert abs(arr).max() > 3.5 * facts["std"]
