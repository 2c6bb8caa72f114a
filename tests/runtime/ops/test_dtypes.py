"""The definitions in half precision, in integers, and where values are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.runtime.ops.interpreter import apply, backward, forward
from tests.runtime.ops.test_gradients import ROWS, Row, build


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_half_precision_is_close_to_double(row: Row) -> None:
    results = []
    for dtype in (np.float16, np.float64):
        graph, point = build(row, np.random.default_rng(7))
        # The same values for both: rounded to half precision first.
        values = {name: v.astype(np.float16).astype(dtype) for name, v in point.items()}
        if row.operator == "BatchNorm" and dtype == np.float16:
            parameters = {n: v.astype(np.float32) for n, v in values.items()}
            values = parameters | {"data": values["data"]}
        done = forward(graph, values, is_train=True)
        (operator_node,) = (n for n in graph.nodes if n.operator)
        assert operator_node.operator is not None
        head = None if operator_node.operator.is_loss else np.ones_like(done.outputs[0])
        grads = backward(done, [head], set(point))
        if row.operator != "Cast":
            assert done.outputs[0].dtype == dtype
        results.append([done.outputs[0], *grads.values()])
    for half, double in zip(*results, strict=True):
        scale = np.abs(double).max() + 1
        np.testing.assert_allclose(half / scale, double / scale, atol=4e-3)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("elemwise_add", [9, 6]),
        ("elemwise_sub", [5, 4]),
        ("elemwise_mul", [14, 5]),
        ("elemwise_div", [3, 5]),
        ("_greater", [1, 1]),
    ],
)
def test_integer_arithmetic(dtype: type, operator: str, expected: list[int]) -> None:
    (output,) = apply(
        operator, np.array([7, 5], dtype), np.array([2, 1], dtype)
    ).outputs
    assert output.dtype == dtype
    assert output.tolist() == expected


def test_integers_through_layers() -> None:
    data = np.arange(18, dtype=np.int32).reshape(1, 1, 3, 6)
    (output,) = apply("Pooling", data, kernel="(2, 2)", pool_type="max").outputs
    assert output.tolist() == [[[[7, 8, 9, 10, 11], [13, 14, 15, 16, 17]]]]
    (output,) = apply("sum", data, axis="3").outputs
    assert output.tolist() == [[[15, 51, 87]]]
    weight = np.ones((1, 1, 3, 6), np.int32)
    attributes: Any = {"kernel": "(3, 6)", "num_filter": "1", "no_bias": "True"}
    (output,) = apply("Convolution", data, weight, **attributes).outputs
    assert output.tolist() == [[[[153]]]]


def test_a_scalar_takes_the_dtype_of_the_array() -> None:
    (output,) = apply("_plus_scalar", np.array([1, 2], np.int32), scalar="1.9").outputs
    assert output.tolist() == [2, 3]
    (output,) = apply("_mul_scalar", np.array([1, 2], np.int32), scalar="1.9").outputs
    assert output.tolist() == [1, 2]


def test_a_half_precision_sum_does_not_overflow_early() -> None:
    data = np.full((1, 4096), 16, np.float16)
    (output,) = apply("mean", data).outputs
    assert output.tolist() == [16]


def test_a_cast_is_silent() -> None:
    data = np.array([1.9, -1.9, np.nan, 1e30], np.float32)
    with np.errstate(all="raise"):
        (output,) = apply("Cast", data, dtype="int32").outputs
        (half,) = apply("Cast", data, dtype="float16").outputs
    assert output[:2].tolist() == [1, -1]
    np.testing.assert_array_equal(half[2:], [np.nan, np.inf])


def test_large_inputs_do_not_overflow() -> None:
    large = np.array([[-1e4, 0, 1e4]], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        logistic = apply("LogisticRegressionOutput", large, large).outputs[0]
    assert logistic.tolist() == [[0, 0.5, 1]]
    assert apply("sigmoid", large).outputs[0].tolist() == [[0, 0.5, 1]]
    softrelu = apply("Activation", large, act_type="softrelu").outputs[0]
    np.testing.assert_allclose(softrelu, [[0, np.log(2), 1e4]], rtol=1e-6)
    assert apply("softmax", large).outputs[0].tolist() == [[0, 0, 1]]
    assert apply("log_softmax", large).outputs[0].tolist() == [[-2e4, -1e4, 0]]


@pytest.mark.parametrize("label", [np.nan, np.inf, -np.inf, -2, 4, 1e30])
def test_a_label_that_is_no_class_matches_none(label: float) -> None:
    data = np.zeros((1, 4), np.float32)
    done = apply("SoftmaxOutput", data, np.array([label], np.float32))
    assert backward(done, [None], {"x0"})["x0"].tolist() == [[0.25] * 4]


def test_labels_are_truncated() -> None:
    data = np.zeros((1, 4), np.float32)
    done = apply("SoftmaxOutput", data, np.array([1.9], np.float32))
    assert backward(done, [None], {"x0"})["x0"].tolist() == [[0.25, -0.75, 0.25, 0.25]]


def test_out_of_domain_is_nan_in_silence() -> None:
    done = apply("log", np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(done.outputs[0], [np.nan, -np.inf, 0])
