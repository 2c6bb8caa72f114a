"""Shapes and dtypes of every entry, from those of a few variables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest

from runtime.errors import OperatorError, ShapeError
from runtime.graph.infer import infer, infer_dtypes, infer_shapes
from runtime.graph.ir import Entry, Graph, Node
from tests.runtime.ops.interpreter import node


def variable(name: str, **text: str) -> Entry:
    return Entry(Node(name, text=MappingProxyType(text)))


def dense(name: str, data: Entry, hidden: int) -> Entry:
    weight, bias = variable(f"{name}_weight"), variable(f"{name}_bias")
    inputs = [data, weight, bias]
    return Entry(node(name, "FullyConnected", inputs, num_hidden=str(hidden)))


def classifier() -> Graph:
    hidden = dense("fc1", variable("data"), 8)
    hidden = Entry(node("act", "Activation", [hidden], act_type="relu"))
    inputs = [dense("fc2", hidden, 3), variable("label")]
    return Graph((Entry(node("softmax", "SoftmaxOutput", inputs)),))


def by_name(facts: Mapping[Entry, object]) -> dict[str, object]:
    return {entry.name: fact for entry, fact in facts.items()}


def test_shapes_flow_down_and_fill_parameters_and_labels() -> None:
    shapes = by_name(infer_shapes(classifier(), {"data": (5, 4)}))
    assert shapes == {
        "data": (5, 4),
        "fc1_weight": (8, 4),
        "fc1_bias": (8,),
        "fc1_output": (5, 8),
        "act_output": (5, 8),
        "fc2_weight": (3, 8),
        "fc2_bias": (3,),
        "fc2_output": (5, 3),
        "label": (5,),
        "softmax_output": (5, 3),
    }


def test_an_unknown_batch_size_stays_unknown() -> None:
    shapes = by_name(infer_shapes(classifier(), {"data": (-1, 4)}))
    assert shapes["fc2_weight"] == (3, 8)
    assert shapes["softmax_output"] == (0, 3)
    assert shapes["label"] == (0,)


def test_nothing_known() -> None:
    shapes = by_name(infer_shapes(classifier(), {}))
    assert shapes["data"] is None
    assert shapes["softmax_output"] is None


def test_shapes_flow_up() -> None:
    """A state of unknown batch size, through a layer, a sum and a view."""
    state = Entry(node("state", "_zeros", [], shape="(0, 6)"))
    left = Entry(node("flat", "Flatten", [dense("h2h", state, 4)]))
    total = Entry(node("sum", "elemwise_add", [left, dense("i2h", variable("x"), 4)]))
    shapes = by_name(infer_shapes(Graph((total,)), {"x": (7, 2)}))
    assert shapes["state_output"] == (7, 6)
    assert shapes["h2h_weight"] == (4, 6)


def test_concat_completes_a_missing_size() -> None:
    joined = node("c", "Concat", [variable("a"), variable("b")], num_args="2")
    total = Entry(node("sum", "elemwise_add", [Entry(joined), variable("x")]))
    shapes = by_name(infer_shapes(Graph((total,)), {"a": (2, 3), "x": (0, 5)}))
    assert shapes["b"] == (2, 2)
    assert shapes["x"] == (2, 5)


def test_variables_may_carry_their_shape() -> None:
    graph = Graph((dense("fc", variable("data", __shape__="(2, 4)"), 3),))
    assert by_name(infer_shapes(graph, {}))["fc_weight"] == (3, 4)
    assert by_name(infer_shapes(graph, {"data": (2, 6)}))["fc_weight"] == (3, 6)


def test_a_conflict_names_operator_node_and_both_shapes() -> None:
    with pytest.raises(ShapeError) as caught:
        infer_shapes(classifier(), {"data": (5, 4), "fc1_weight": (8, 5)})
    message = str(caught.value)
    for part in ("FullyConnected", "`fc1`", "`weight`", "(8, 5)", "(8, 4)"):
        assert part in message


def test_one_variable_used_twice_cannot_have_two_shapes() -> None:
    shared = variable("w")
    first = node("a", "FullyConnected", [variable("x"), shared], **ONE)
    second = node("b", "FullyConnected", [variable("y"), shared], **ONE)
    graph = Graph((Entry(first), Entry(second)))
    with pytest.raises(ShapeError, match=r"node `b`.*\(3, 4\).*\(3, 5\)"):
        infer_shapes(graph, {"x": (2, 4), "y": (2, 5)})


ONE = {"num_hidden": "3", "no_bias": "True"}


def test_a_variable_against_itself() -> None:
    """Both inputs of a node are one entry, of which the node says two things."""
    x = variable("x")
    product = node("f", "FullyConnected", [x, x], num_hidden="3", no_bias="True")
    assert by_name(infer_shapes(Graph((Entry(product),)), {"x": (3, 4)}))["x"] == (3, 4)
    with pytest.raises(ShapeError, match="node `f`"):
        infer_shapes(Graph((Entry(product),)), {"x": (0, 4, 2)})


def test_an_unknown_name_lists_the_arguments() -> None:
    with pytest.raises(ShapeError, match=r"`dta` is not an argument.*data, fc1_weight"):
        infer_shapes(classifier(), {"dta": (5, 4)})
    with pytest.raises(ShapeError, match=r"`dta` is not an argument.*data, fc1_weight"):
        infer_dtypes(classifier(), {"dta": np.float32})


def test_float32_by_default() -> None:
    assert set(infer_dtypes(classifier(), {}).values()) == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_one_dtype_spreads(dtype: type) -> None:
    assert set(infer_dtypes(classifier(), {"data": dtype}).values()) == {
        np.dtype(dtype)
    }


def test_labels_may_have_a_dtype_of_their_own() -> None:
    dtypes = by_name(infer_dtypes(classifier(), {"label": np.int32}))
    assert dtypes["label"] == np.int32
    assert dtypes["fc2_weight"] == np.float32


@pytest.mark.parametrize("text", ["2", "float16"])
def test_variables_may_carry_their_dtype(text: str) -> None:
    graph = Graph((dense("fc", variable("data", __dtype__=text), 3),))
    assert by_name(infer_dtypes(graph, {}))["fc_weight"] == np.float16
    dtypes = by_name(infer_dtypes(graph, {"data": "float64"}))
    assert dtypes["fc_weight"] == np.float64


def test_a_dtype_that_is_none() -> None:
    graph = Graph((dense("fc", variable("data", __dtype__="99"), 3),))
    with pytest.raises(OperatorError, match=r"`data` has dtype '99'.*float32"):
        infer_dtypes(graph, {})


def test_two_dtypes_in_one_operator() -> None:
    with pytest.raises(
        ShapeError, match=r"FullyConnected at node `fc1`.*Cast.*float64"
    ):
        infer_dtypes(classifier(), {"data": np.float64, "fc1_weight": np.float32})


def test_parameters_of_half_precision_batch_norm_are_single() -> None:
    names = ("gamma", "beta", "moving_mean", "moving_var")
    inputs = [variable("data"), *map(variable, names)]
    graph = Graph((Entry(node("bn", "BatchNorm", inputs)),))
    dtypes = by_name(infer_dtypes(graph, {"data": np.float16}))
    assert {dtypes[name] for name in names} == {np.dtype(np.float32)}
    assert dtypes["bn_output"] == np.float16
    assert dtypes["bn_mean"] == np.float32
    with pytest.raises(ShapeError, match="`beta` is float16, but must be float32"):
        infer_dtypes(graph, {"data": np.float16, "beta": np.float16})


def test_inference_is_complete() -> None:
    inference = infer(classifier(), {"data": (5, 4)}, {"data": np.float64})
    entries = {Entry(n, 0) for n in classifier().nodes}
    assert len(inference.shapes) == len(inference.dtypes) == len(entries)
    assert inference.shapes.keys() == inference.dtypes.keys()


def test_what_cannot_be_inferred_is_listed() -> None:
    with pytest.raises(ShapeError) as caught:
        infer(classifier(), {"label": (5,)}, {})
    message = str(caught.value)
    assert "data" in message
    assert "fc1_weight (8, ?)" in message
    assert "label (5,)" in message
