"""Indexes that are no positions, and dtypes of what is indexed."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.graph.infer import infer_dtypes
from runtime.graph.ir import Entry, Graph, Node
from tests.runtime.ops.interpreter import apply, backward, node

WEIGHT = np.arange(6.0).reshape(3, 2)
STRANGE = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 1.9, -0.5])


def test_strange_indexes_are_clipped_into_range() -> None:
    done = apply("Embedding", STRANGE, WEIGHT, input_dim="3", output_dim="2")
    rows = [0, 2, 0, 2, 0, 1, 0]
    np.testing.assert_array_equal(done.outputs[0], WEIGHT[rows])
    grad = backward(done, [np.ones((7, 2))], {"x1"})["x1"]
    assert grad.tolist() == [[4, 4], [1, 1], [2, 2]]


def test_many_small_gradients_add_up_in_half_precision() -> None:
    weight, index = np.zeros((1, 1), np.float16), np.zeros(4096, np.float16)
    done = apply("Embedding", index, weight, input_dim="1", output_dim="1")
    (grad,) = backward(done, [np.ones((4096, 1), np.float16)], {"x1"}).values()
    assert grad.tolist() == [[4096]]


@pytest.mark.parametrize("operator", ["take", "pick"])
def test_wrapped_indexes(operator: str) -> None:
    index = np.array([-1.0, 3.0])
    data = WEIGHT if operator == "take" else WEIGHT[:2].repeat(2, axis=1)[:, :3]
    (output,) = apply(operator, data, index, mode="wrap").outputs
    expected = WEIGHT[[2, 0]] if operator == "take" else [data[0, 2], data[1, 0]]
    np.testing.assert_array_equal(output, expected)


def test_take_may_refuse() -> None:
    apply("take", WEIGHT, np.array([0.0, 2.0]), mode="raise")
    with pytest.raises(IndexError, match="-1 to 2 must lie in 0 to 2"):
        apply("take", WEIGHT, np.array([-1.0, 2.0]), mode="raise")


def test_one_hot_out_of_range_is_all_off() -> None:
    index = np.array([1, -1, 3, np.nan])
    (output,) = apply("one_hot", index, depth="3", on_value="5", dtype="int32").outputs
    assert output.dtype == np.int32
    assert output.tolist() == [[0, 5, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("known", "weight"),
    [
        ({}, "float16"),
        ({"weight": "float64"}, "float64"),
        ({"data": "int32"}, "float16"),
    ],
)
def test_dtype_of_an_embedding(known: dict[str, str], weight: str) -> None:
    inputs = [Entry(Node("data")), Entry(Node("weight"))]
    attributes = {"input_dim": "3", "output_dim": "2", "dtype": "float16"}
    graph = Graph((Entry(node("e", "Embedding", inputs, **attributes)),))
    dtypes = {e.name: dtype for e, dtype in infer_dtypes(graph, known).items()}
    assert dtypes["weight"] == dtypes["e_output"] == weight
    assert dtypes["data"] == known.get("data", "float32")
