"""CTCLoss against the definition: the sum over every way to say the labels."""

from __future__ import annotations

from itertools import groupby, product
from typing import Any

import numpy as np
import pytest

from runtime.graph.registry import Array
from tests.runtime.ops.interpreter import apply, backward

STEPS, CLASSES = 5, 3


def brute_force(scores: Array, labels: list[int], blank: int) -> float:
    """The loss of one row (step, class): tries all classes at all steps."""
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    total = 0.0
    for said in product(range(scores.shape[1]), repeat=len(scores)):
        if [key for key, _ in groupby(said) if key != blank] == labels:
            total += float(np.prod(probabilities[np.arange(len(said)), said]))
    return -np.log(total)


def scores(rows: int) -> Array:
    return np.random.default_rng(5).normal(size=(STEPS, rows, CLASSES))


@pytest.mark.parametrize(
    ("blank_label", "padded"),
    [
        ("first", [[1, 0, 0], [2, 2, 0], [1, 2, 1], [0, 1, 2], [2, 2, 2]]),
        ("last", [[0, -1, -1], [1, 1, -1], [0, 1, 0], [-1, 0, 1], [1, 1, 1]]),
    ],
)
def test_labels_end_at_the_padding(blank_label: str, padded: list[list[int]]) -> None:
    data, label = scores(5), np.array(padded)
    run = apply("ctc_loss", data, label, blank_label=blank_label)
    blank, padding = (0, 0) if blank_label == "first" else (CLASSES - 1, -1)
    expected = [
        brute_force(
            data[:, row], [*labels, padding][: [*labels, padding].index(padding)], blank
        )
        for row, labels in enumerate(padded)
    ]
    np.testing.assert_allclose(run.outputs[0], expected, rtol=1e-12)


def test_lengths_say_what_counts() -> None:
    data, label = scores(4), np.array([[1, 2, 1], [2, 2, 1], [1, 1, 1], [2, 1, 2]])
    steps, counts = [5, 3, 2, 1], [3, 2, 0, 1]
    run = apply(
        "CTCLoss",
        data,
        label,
        np.array(steps, float),
        np.array(counts, float),
        use_data_lengths="True",
        use_label_lengths="True",
    )
    expected = [
        brute_force(data[:n, row], [*map(int, label[row, :count])], 0)
        for row, (n, count) in enumerate(zip(steps, counts, strict=True))
    ]
    np.testing.assert_allclose(run.outputs[0], expected, rtol=1e-12)
    grad = backward(run, [np.ones(4)], {"x0"})["x0"]
    for row, n in enumerate(steps):
        assert grad[:n, row].all()
        assert not grad[n:, row].any()


def test_labels_that_need_more_steps_cost_nothing() -> None:
    """As in MXNet, whose gradient is then undefined; here it is zero."""
    data, label = scores(3), np.array([[2, 2, 2], [1, 2, 1], [1, 0, 0]])
    lengths = np.array([4.0, 2, 0])
    run = apply("CTCLoss", data, label, lengths, use_data_lengths="True")
    assert run.outputs[0].tolist() == [0, 0, 0]
    assert not backward(run, [np.ones(3)], {"x0"})["x0"].any()


def test_labels_and_lengths_out_of_range_are_clipped() -> None:
    given: Any = {"use_data_lengths": "True", "use_label_lengths": "True"}
    data = scores(2)
    far = [np.array([[1, 9], [2, np.nan]]), np.array([99.0, 5]), np.array([7.0, -3])]
    near = [np.array([[1, 2], [2, 0]]), np.array([5.0, 5]), np.array([2.0, 0])]
    np.testing.assert_array_equal(
        apply("CTCLoss", data, *far, **given).outputs[0],
        apply("CTCLoss", data, *near, **given).outputs[0],
    )


def test_long_rows_keep_their_precision() -> None:
    """Every step says class 1 or blank alike: 1 label, any run of steps."""
    steps = 3000
    data = np.zeros((steps, 1, 2), np.float32)
    run = apply("CTCLoss", data, np.array([[1.0]]))
    expected = steps * np.log(2) - np.log(steps * (steps + 1) / 2)
    np.testing.assert_allclose(run.outputs[0], [expected], rtol=1e-6)
