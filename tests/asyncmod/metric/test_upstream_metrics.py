"""What MXNet's own tests of metrics pin down, where no recorded case does."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod import metric
from asyncmod.nd import NDArray

Pair = tuple[NDArray, NDArray]


def classes(random: np.random.Generator, shape: tuple[int, int]) -> Pair:
    """Predictions in random order; half of the labels are 1."""
    pred = 1 - 0.1 * random.random(shape).argsort(1)
    label = np.ones(shape[0])
    label[: shape[0] // 2] = 0
    return mx.nd.array(label), mx.nd.array(pred)


def alike(random: np.random.Generator, shape: tuple[int, int]) -> Pair:
    """Predictions and labels of one shape."""
    label, pred = random.random((2, *shape))
    return mx.nd.array(label), mx.nd.array(pred)


def distance(label: Any, pred: Any) -> float:
    return float(np.abs(label - pred).mean())


GLOBAL: list[tuple[Any, dict[str, Any], Any, tuple[int, int]]] = [
    ("acc", {}, classes, (10, 10)),
    ("TopKAccuracy", {"top_k": 3}, classes, (10, 10)),
    ("f1", {}, classes, (10, 2)),
    ("f1", {"average": "micro"}, classes, (10, 2)),
    ("mcc", {}, classes, (10, 2)),
    ("mcc", {"average": "micro"}, classes, (10, 2)),
    ("perplexity", {"ignore_label": -1}, classes, (10, 10)),
    ("pearsonr", {}, alike, (10, 10)),
    ("pcc", {}, classes, (10, 2)),
    ("nll_loss", {}, classes, (10, 10)),
    ("loss", {}, alike, (10, 10)),
    ("torch", {}, alike, (10, 10)),
    ("ce", {}, classes, (10, 10)),
    ("mae", {}, alike, (10, 10)),
    ("mse", {}, alike, (10, 10)),
    ("rmse", {}, alike, (10, 10)),
    (distance, {}, alike, (10, 10)),
    (["acc", "f1"], {}, classes, (10, 2)),
]


@pytest.mark.parametrize(("name", "options", "draw", "shape"), GLOBAL, ids=str)
def test_a_local_reset_keeps_the_global_value(
    name: Any, options: dict[str, Any], draw: Any, shape: tuple[int, int]
) -> None:
    random = np.random.default_rng(7)
    local = metric.create(name, **options)
    plain = deepcopy(local)
    for _ in range(10):
        label, pred = draw(random, shape)
        for measure in (local, plain):
            measure.update([label], [pred])
        local.reset_local()
    assert local.get_global() == plain.get()
    plain.reset()
    local.update(*([array] for array in draw(random, shape)))
    local.reset_local()
    label, pred = draw(random, shape)
    for measure in (local, plain):
        measure.update([label], [pred])
    assert local.get() == plain.get()


def test_labels_of_two_axes_are_flattened() -> None:
    pred = np.array([[0.3, 0.7], [0, 1.0], [0.4, 0.6], [0.8, 0.2], [0.3, 0.5]] * 2)
    pred = pred[:6]
    label = np.array([[0, 1, 1], [1, 0, 1]])
    measure = metric.create("acc")
    measure.update([label], [pred])
    assert measure.get()[1] == (pred.argmax(1) == label.ravel()).sum() / label.size


def test_loss_takes_a_list_or_one_array() -> None:
    pred = np.array([[0.3, 0.7], [0, 1.0], [0.4, 0.6]])
    from_list, from_array = metric.create("loss"), metric.create("loss")
    from_list.update([np.zeros(3)], [pred])
    from_array.update(np.zeros(3), pred)
    assert from_list.get() == from_array.get()
    assert from_list.get()[1] == pytest.approx(pred.mean())


@pytest.mark.parametrize(
    ("name", "expected"), [("mse", 4.0), ("mae", 2.0), ("rmse", 2.0)]
)
def test_one_array_in_place_of_lists(name: str, expected: float) -> None:
    measure = metric.create(name)
    measure.update(np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6]))
    assert measure.get()[1] == expected


@pytest.mark.parametrize("kind", [metric.F1, metric.MCC])
def test_micro_pools_and_macro_averages(kind: Any) -> None:
    micro, macro = kind(average="micro"), kind(average="macro")
    assert math.isnan(macro.get()[1])
    assert math.isnan(micro.get()[1])
    nothing = np.array([[0.9, 0.1], [0.8, 0.2]])
    for measure in (micro, macro):
        measure.update([np.array([0, 0])], [nothing])
        assert measure.get()[1] == 0  # 0 on 0 / 0
        measure.reset()
    parts = [
        (np.array([0, 0, 1]), np.array([[0.1, 0.9], [0.5, 0.5], [0.2, 0.8]])),
        (np.array([1, 0, 1, 1]), np.array([[0.6, 0.4], [1, 0], [0, 1], [0.1, 0.9]])),
    ]
    single = []
    for label, pred in parts:
        alone = kind()
        alone.update([label], [pred])
        single.append(alone.get()[1])
        for measure in (micro, macro):
            measure.update([label], [pred])
    whole = kind()
    whole.update(
        [np.concatenate([label for label, _ in parts])],
        [np.concatenate([pred for _, pred in parts])],
    )
    assert macro.get()[1] == pytest.approx(np.mean(single))
    assert micro.get()[1] == pytest.approx(whole.get()[1])
    assert micro.get()[1] != pytest.approx(macro.get()[1])


def test_pcc_depends_on_neither_order_nor_batches() -> None:
    random = np.random.default_rng(3)
    label, guess = random.integers(0, 5, (2, 60))
    names = random.permutation(5)
    values = []
    for labels, guesses, size in (
        (label, guess, 60),
        (label, guess, 7),
        (label[::-1], guess[::-1], 60),
        (names[label], names[guess], 60),
    ):
        measure = metric.PCC()
        for begin in range(0, 60, size):
            part = slice(begin, begin + size)
            measure.update([labels[part]], [np.eye(5)[guesses[part]]])
        values.append(measure.get()[1])
    np.testing.assert_allclose(values, values[0])
