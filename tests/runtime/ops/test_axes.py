"""Shapes that follow from what is done with the result."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.graph.infer import infer_shapes
from runtime.graph.ir import Entry, Graph, Node
from tests.runtime.ops.interpreter import apply, node

Shape = tuple[int, ...]


@pytest.mark.parametrize(
    ("operator", "attributes", "after", "before"),
    [
        ("SwapAxis", {"dim1": "0", "dim2": "2"}, (4, 3, 2), (2, 3, 4)),
        ("transpose", {"axes": "(1, 2, 0)"}, (3, 4, 2), (2, 3, 4)),
        ("transpose", {}, (4, 3, 2), (2, 3, 4)),
        ("expand_dims", {"axis": "1"}, (2, 1, 3), (2, 3)),
        ("expand_dims", {"axis": "-1"}, (2, 3, 1), (2, 3)),
        ("SliceChannel", {"num_outputs": "3"}, (2, 4), (2, 12)),
        ("SliceChannel", {"num_outputs": "3", "squeeze_axis": "1"}, (2, 4), (2, 3, 4)),
        ("Embedding", {"input_dim": "5", "output_dim": "4"}, (2, 3, 4), (2, 3)),
        ("relu", {}, (2, 3), (2, 3)),
    ],
)
def test_shapes_flow_up(
    operator: str, attributes: dict[str, str], after: Shape, before: Shape
) -> None:
    inputs = [Entry(Node("x"))]
    if operator == "Embedding":
        inputs.append(Entry(Node("weight")))
    result = Entry(node("op", operator, inputs, **attributes))
    graph = Graph((Entry(node("sum", "elemwise_add", [result, Entry(Node("y"))])),))
    shapes = {e.name: s for e, s in infer_shapes(graph, {"y": after}).items()}
    assert shapes["x"] == before


def test_slices_of_unknown_sizes() -> None:
    attributes = {"axis": "0", "begin": "1", "end": "3"}
    sliced = node("op", "slice_axis", [Entry(Node("x"))], **attributes)
    graph = Graph((Entry(sliced),))
    shapes = {e.name: s for e, s in infer_shapes(graph, {"x": (0, 4)}).items()}
    assert shapes["op_output"] == (0, 4)
    shapes = {e.name: s for e, s in infer_shapes(graph, {"x": (5, 0)}).items()}
    assert shapes["op_output"] == (2, 0)


def test_nothing_left_after_squeeze_is_one_element() -> None:
    assert apply("squeeze", np.ones((1, 1, 1))).outputs[0].shape == (1,)
