"""Where nodes are placed, and how a graph is cut."""

from __future__ import annotations

import pytest

from runtime.errors import GraphError
from runtime.graph.infer import infer
from runtime.graph.ir import Graph
from runtime.graph.passes.stages import Stage, cut, place_nodes
from tests.runtime.executor.nets import apply, dense, variable
from tests.runtime.executor.staged_nets import back_and_forth, chain, in_groups, unit

GROUPS = {"a": "A", "b": "B"}
ONE_SPACE = {"A": "host", "B": "host", "main": "host"}
APART = {"A": "A", "B": "B", "main": "main"}
INPUTS = ("data", "softmax_label")


def names(stages: tuple[Stage, ...]) -> list[tuple[object, list[str]]]:
    """The place and the operators of each stage."""
    return [
        (s.place, [n.name for n in s.graph.nodes if not n.is_variable]) for s in stages
    ]


def test_who_has_no_group_follows_its_first_input() -> None:
    x = dense("a_fc", variable("data"), 3)
    x = apply("Activation", "free", x, act_type="tanh")
    y = apply("Activation", "data_too", variable("other"), act_type="tanh")
    x = apply("elemwise_add", "sum", y, x)
    graph = in_groups(Graph((x,)), {"a_": "a"})
    places = {n.name: p for n, p in place_nodes(graph, GROUPS, "main").items()}
    assert places["a_fc_weight"] == places["a_fc"] == places["free"] == "A"
    assert places["data"] == places["data_too"] == places["sum"] == "main"


def test_without_places_everything_is_at_the_default() -> None:
    assert set(place_nodes(chain(), {}, "main").values()) == {"main"}


def test_a_group_without_a_place_is_refused() -> None:
    with pytest.raises(GraphError, match="`b_drop` is in the context group `b`"):
        place_nodes(chain(), {"a": "A"}, "main")


def test_auxiliary_states_live_with_their_operator() -> None:
    graph = in_groups(Graph((unit("a1", variable("data")),)), {"a1": "a"})
    moved = in_groups(graph, {"a1_bn_moving": "b"})
    places = {n.name: p for n, p in place_nodes(moved, GROUPS, "main").items()}
    assert places["a1_bn_moving_mean"] == "A"


def test_auxiliary_states_of_two_places_are_refused() -> None:
    states = [variable(name) for name in ("gamma", "beta", "mean", "var")]
    x = apply("BatchNorm", "a_bn", variable("data"), *states)
    x = apply("BatchNorm", "b_bn", x, *states)
    graph = in_groups(Graph((x,)), {"a_": "a", "b_": "b"})
    with pytest.raises(GraphError, match="kept by `a_bn` on A and by `b_bn`"):
        place_nodes(graph, GROUPS, "main")


def test_there_are_as_few_stages_as_the_order_allows() -> None:
    graph = back_and_forth()
    places = place_nodes(graph, GROUPS, "main")
    stages = cut(graph, places, INPUTS, ONE_SPACE)
    listed = names(stages)
    assert [place for place, _ in listed] == ["A", "B", "A", "B", "A", "B", "A"]
    assert listed[4][1] == ["a3_both", "a3_sum", "a3_drop"]
    made = [name for _, operators in listed for name in operators]
    assert sorted(made) == sorted(n.name for n in graph.nodes if n.operator)
    assert set(stages[3].received) == {*stages[1].sent, *stages[2].sent}


def test_branches_of_one_place_are_one_stage() -> None:
    data = variable("data")
    parts = [dense(f"b{k}", dense(f"a{k}", data, 3), 3) for k in range(3)]
    top = apply("add_n", "a_sum", *parts, num_args=3)
    graph = in_groups(Graph((top,)), {"a": "a", "b": "b"})
    stages = cut(graph, place_nodes(graph, GROUPS, "main"), INPUTS, ONE_SPACE)
    assert names(stages) == [
        ("A", ["a0", "a1", "a2"]),
        ("B", ["b0", "b1", "b2"]),
        ("A", ["a_sum"]),
    ]


@pytest.mark.parametrize("spaces", [ONE_SPACE, APART])
def test_a_parameter_is_sent_only_to_other_memory(spaces: dict[str, str]) -> None:
    weight = variable("weight")
    x = apply("broadcast_mul", "b_product", variable("data"), weight)
    graph = in_groups(Graph((x,)), {"weight": "a", "b_": "b"})
    stages = cut(graph, place_nodes(graph, GROUPS, "main"), ["data"], spaces)
    if spaces is ONE_SPACE:
        assert names(stages) == [("B", ["b_product"])]
        assert not stages[0].received
    else:
        assert names(stages) == [("A", []), ("B", ["b_product"])]
        assert [e.name for e in stages[0].sent] == ["weight"]
        assert [n.name for n in stages[1].graph.arguments] == ["data", "@weight.0"]


def test_a_stage_knows_its_shapes_from_the_whole() -> None:
    graph = chain()
    stages = cut(graph, place_nodes(graph, GROUPS, "main"), INPUTS, ONE_SPACE)
    whole = infer(graph, {"data": (6, 4)}, {})
    last = stages[-1].infer(whole)
    shapes = {entry.name: shape for entry, shape in last.shapes.items()}
    assert shapes["@a_tanh.0"] == (6, 5)
    assert shapes["softmax_label"] == (6,)
