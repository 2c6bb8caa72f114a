"""Corners of the loss heads: nothing valid, equality, shapes of labels."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.graph.infer import infer_shapes
from runtime.graph.ir import Entry, Graph, Node
from tests.runtime.ops.interpreter import apply, backward, node


def test_no_valid_label_divides_by_one() -> None:
    ignored = np.full(2, -1.0)
    done = apply("SoftmaxOutput", np.zeros((2, 4)), ignored, normalization="valid")
    assert backward(done, [None], {"x0"})["x0"].tolist() == [[0.25] * 4] * 2


def test_no_valid_loss_divides_by_one() -> None:
    done = apply("MakeLoss", np.zeros(3), normalization="valid", grad_scale="2")
    assert backward(done, [None], {"x0"})["x0"].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("shape", "slope"),
    [((4,), 0.5), ((4, 3), 0.125), ((4, 2, 3), 0.0625), ((2, 2, 2, 3), 0.0625)],
)
def test_size_of_a_batch_of_losses(shape: tuple[int, ...], slope: float) -> None:
    """What MXNet 1.9.1 gives: every axis but the last counts."""
    done = apply("MakeLoss", np.ones(shape), normalization="batch", grad_scale="0.5")
    assert (backward(done, [None], {"x0"})["x0"] == np.full(shape, slope)).all()


def test_absolute_error_at_equality_has_slope_minus_one() -> None:
    done = apply("MAERegressionOutput", np.array([[1.0], [2.0]]), np.array([1.0, 1.0]))
    assert backward(done, [None], {"x0"})["x0"].tolist() == [[-1], [1]]


@pytest.mark.parametrize(
    ("operator", "attributes", "data", "label"),
    [
        ("LinearRegressionOutput", {}, (5, 1), (5,)),
        ("LinearRegressionOutput", {}, (5, 2), (5, 2)),
        ("SoftmaxOutput", {}, (5, 2), (5,)),
        ("SoftmaxOutput", {}, (5, 2, 3), (5, 2)),
        ("SoftmaxOutput", {"multi_output": "True"}, (5, 2, 3, 4), (5, 12)),
    ],
)
def test_shape_of_a_label_that_is_not_given(
    operator: str,
    attributes: dict[str, str],
    data: tuple[int, ...],
    label: tuple[int, ...],
) -> None:
    inputs = [Entry(Node("data")), Entry(Node("label"))]
    graph = Graph((Entry(node("head", operator, inputs, **attributes)),))
    shapes = {e.name: s for e, s in infer_shapes(graph, {"data": data}).items()}
    assert shapes["label"] == label


@pytest.mark.parametrize("label", [(2, 12), (2, 3, 4), (2, 1, 3, 4)])
def test_labels_of_several_outputs_in_three_forms(label: tuple[int, ...]) -> None:
    generator = np.random.default_rng(5)
    data = generator.normal(size=(2, 5, 3, 4))
    classes = generator.integers(0, 5, size=(2, 12)).astype(float)
    flat = apply("SoftmaxOutput", data, classes, multi_output="True")
    shaped = apply("SoftmaxOutput", data, classes.reshape(label), multi_output="True")
    np.testing.assert_array_equal(
        backward(flat, [None], {"x0"})["x0"], backward(shaped, [None], {"x0"})["x0"]
    )


def test_the_head_gradient_is_ignored() -> None:
    done = apply("SoftmaxOutput", np.zeros((1, 2)), np.zeros(1))
    grads = backward(done, [np.full((1, 2), 9.0)], {"x0"})
    assert grads["x0"].tolist() == [[-0.5, 0.5]]
