"""Every metric against MXNet 1.9.1, update by update."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from asyncmod import metric

GOLDEN = Path(__file__).parents[2] / "golden" / "metrics"
CASES = {
    case["name"]: case
    for case in json.loads((GOLDEN / "metrics.json").read_text())["cases"]
}
RTOL, ATOL = 1e-4, 1e-5

CUSTOM: dict[str, Any] = {
    "mean_abs": lambda label, pred: np.abs(label - pred.reshape(label.shape)).mean(),
    "sum_and_count": lambda label, pred: ((label * pred[:, 0]).sum(), label.size),
}


def make(config: dict[str, Any]) -> metric.EvalMetric:
    config = dict(config)
    name = config.pop("class")
    if name == "create":
        return metric.create(config["arg"], **config.get("kwargs", {}))
    if "feval" in config:
        config["feval"] = CUSTOM[config["feval"]]
    if name == "np":
        return metric.np(config["feval"], config["name"])
    if "metrics" in config:
        config["metrics"] = [make(inner) for inner in config["metrics"]]
    made: metric.EvalMetric = getattr(metric, name)(**config)
    return made


def values(pairs: list[tuple[str, Any]]) -> np.ndarray[Any, Any]:
    return np.array([value for _, value in pairs], np.float64)


def apply(
    measure: metric.EvalMetric, case: dict[str, Any], arrays: Any, i: int
) -> None:
    update = case["updates"][i]
    labels = {name: arrays[f"u{i}.label.{name}"] for name in update["labels"]}
    preds = {name: arrays[f"u{i}.pred.{name}"] for name in update["preds"]}
    if update.get("reset_before"):
        measure.reset()
    if update.get("reset_local_before"):
        measure.reset_local()
    if case.get("update_dict"):
        measure.update_dict(labels, preds)
    else:
        measure.update(list(labels.values()), list(preds.values()))


@pytest.mark.parametrize("name", CASES)
def test_same_values_as_mxnet(name: str) -> None:
    case = CASES[name]
    arrays = np.load(GOLDEN / f"{name}.npz")
    measure = make(case["metric"])
    assert [pair[0] for pair in measure.get_name_value()] == case["names"]
    for i in range(len(case["updates"])):
        apply(measure, case, arrays, i)
        got = values(measure.get_name_value())
        expected = np.atleast_1d(arrays["exp.value"][i])
        np.testing.assert_allclose(got, expected, RTOL, ATOL)
        got_global = values(measure.get_global_name_value())
        expected_global = np.atleast_1d(arrays["exp.global"][i])
        np.testing.assert_allclose(got_global, expected_global, RTOL, ATOL)


@pytest.mark.parametrize("name", CASES)
def test_state_carries_over_exactly(name: str) -> None:
    case = CASES[name]
    arrays = np.load(GOLDEN / f"{name}.npz")
    for cut in range(len(case["updates"]) + 1):
        straight, resumed = make(case["metric"]), make(case["metric"])
        for i in range(cut):
            apply(straight, case, arrays, i)
        resumed.set_state(msgpack.unpackb(msgpack.packb(straight.get_state())))
        for i in range(cut, len(case["updates"])):
            apply(straight, case, arrays, i)
            apply(resumed, case, arrays, i)
        assert str(resumed) == str(straight)
        assert str(resumed.get_global()) == str(straight.get_global())
