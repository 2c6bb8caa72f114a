"""Reshape's codes beyond the golden cases, and inference against the stream."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.graph.infer import infer_shapes
from runtime.graph.ir import Entry, Graph, Node
from runtime.ops.shape import Reshape, reshaped
from tests.runtime.ops.interpreter import apply, node

Shape = tuple[int, ...]


@pytest.mark.parametrize(
    ("codes", "reverse", "before", "after"),
    [
        # MXNet's own documentation, then the corners.
        ((4, 0, 2), False, (2, 3, 4), (4, 3, 2)),
        ((2, 0, 0), False, (2, 3, 4), (2, 3, 4)),
        ((6, 1, -1), False, (2, 3, 4), (6, 1, 4)),
        ((3, -1, 8), False, (2, 3, 4), (3, 1, 8)),
        ((-2, 1, 1), False, (2, 3, 4), (2, 3, 4, 1, 1)),
        ((0, -3), False, (2, 3, 4), (2, 12)),
        ((-3, -2), False, (2, 3, 4), (6, 4)),
        ((2, -4, -1, 3, -2), False, (2, 3, 4), (2, 1, 3, 4)),
        ((-1, 0), False, (10, 5, 4), (40, 5)),
        ((-1, 0), True, (10, 5, 4), (50, 4)),
        ((0, -4, 2, -1), True, (3, 8), (3, 2, 4)),
        ((-4, -1, 4, 0), True, (8, 5), (2, 4, 5)),
        ((-3, 0), True, (2, 3, 4), (6, 4)),
    ],
)
def test_codes(codes: Shape, reverse: bool, before: Shape, after: Shape) -> None:
    assert reshaped(Reshape(codes, reverse), before) == after


def test_the_older_form() -> None:
    assert reshaped(Reshape(target_shape=(0, 4)), (2, 3, 4)) == (6, 4)
    older = Reshape(target_shape=(0, 0), keep_highest=True)
    assert reshaped(older, (2, 3, 4)) == (2, 12)


@pytest.mark.parametrize(
    ("operator", "attributes", "after"),
    [("Reshape", {"shape": "(-1, 4)"}, (6, 4)), ("Flatten", {}, (2, 12))],
)
def test_one_unknown_size_follows_from_the_output(
    operator: str, attributes: dict[str, str], after: Shape
) -> None:
    view = Entry(node("view", operator, [Entry(Node("x"))], **attributes))
    total = node("sum", "elemwise_add", [view, Entry(Node("y"))])
    graph = Graph((Entry(total),))
    shapes = {e.name: s for e, s in infer_shapes(graph, {"y": after}).items()}
    assert shapes["x"] is None
    known = {"x": (2, 0, 4), "y": after}
    shapes = {e.name: s for e, s in infer_shapes(graph, known).items()}
    assert shapes["x"] == (2, 3, 4)


def test_fill_takes_its_shape_from_its_users() -> None:
    total = node(
        "sum", "elemwise_add", [Entry(node("z", "_zeros", [])), Entry(Node("x"))]
    )
    shapes = infer_shapes(Graph((Entry(total),)), {"x": (2, 3)})
    assert {e.name: s for e, s in shapes.items()}["z_output"] == (2, 3)


def test_views_are_views() -> None:
    data = np.arange(6.0).reshape(2, 3)
    (output,) = apply("Reshape", data, shape="(3, 2)").outputs
    assert output.tolist() == [[0, 1], [2, 3], [4, 5]]
