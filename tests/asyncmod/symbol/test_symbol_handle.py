from __future__ import annotations

import copy
import pickle

import pytest

import asyncmod.symbol as sym
from asyncmod.errors import ArgumentError, ArgumentTypeError, UnsupportedError
from runtime.errors import GraphError


def classifier() -> sym.Symbol:
    data = sym.Variable("data")
    hidden = sym.FullyConnected(data, num_hidden=4, name="fc")
    normal = sym.BatchNorm(hidden, name="bn")
    return sym.SoftmaxOutput(normal, name="softmax")


def test_lists_names_in_depth_first_order() -> None:
    net = classifier()
    assert net.list_arguments() == [
        "data",
        "fc_weight",
        "fc_bias",
        "bn_gamma",
        "bn_beta",
        "softmax_label",
    ]
    assert net.list_auxiliary_states() == ["bn_moving_mean", "bn_moving_var"]
    assert net.list_outputs() == ["softmax_output"]
    assert net.list_inputs() == [
        "data",
        "fc_weight",
        "fc_bias",
        "bn_gamma",
        "bn_beta",
        "bn_moving_mean",
        "bn_moving_var",
        "softmax_label",
    ]


def test_two_variables_of_one_name_are_both_listed() -> None:
    net = sym.Variable("x") + sym.Variable("x")
    assert net.list_arguments() == ["x", "x"]
    with pytest.raises(GraphError, match="two nodes are named `x`"):
        net.graph.check_names()


def test_one_variable_used_twice_is_listed_once() -> None:
    x = sym.Variable("x")
    assert (x + x).list_arguments() == ["x"]


def test_outputs_of_an_operator_with_several() -> None:
    pieces = sym.Pieces(sym.Variable("x"), num_outputs=2, name="p")
    assert pieces.list_outputs() == ["p_output0", "p_output1"]
    assert len(pieces) == 2
    assert pieces.name == "p"
    assert pieces[1].list_outputs() == ["p_output1"]
    assert [piece.list_outputs() for piece in pieces] == [["p_output0"], ["p_output1"]]


def test_graph_is_made_once() -> None:
    net = classifier()
    assert net.graph is net.graph
    assert net.graph.outputs == net.entries


def test_internals_leave_hidden_outputs_out() -> None:
    internals = classifier().get_internals()
    assert internals.list_outputs() == [
        "data",
        "fc_weight",
        "fc_bias",
        "fc_output",
        "bn_gamma",
        "bn_beta",
        "bn_moving_mean",
        "bn_moving_var",
        "bn_output",
        "softmax_label",
        "softmax_output",
    ]
    assert internals["fc_output"].list_arguments() == ["data", "fc_weight", "fc_bias"]


def test_children_are_what_the_node_reads() -> None:
    children = classifier().get_children()
    assert children is not None
    assert children.list_outputs() == ["bn_output", "softmax_label"]
    assert sym.Variable("x").get_children() is None


def test_index_by_number() -> None:
    group = sym.Group([sym.Variable("a"), sym.Variable("b"), sym.Variable("c")])
    assert group[0].name == "a"
    assert group[-1].name == "c"
    assert group[1:].list_outputs() == ["b", "c"]
    with pytest.raises(IndexError, match="no output 3"):
        group[3]
    with pytest.raises(IndexError, match="selects none"):
        group[3:]


def test_index_by_name() -> None:
    net = classifier()
    assert net["softmax_output"].name == "softmax"
    with pytest.raises(ValueError, match='Cannot find output that matches name "fc"'):
        net["fc"]
    twice = sym.Group([sym.Variable("a"), sym.Variable("a")])
    with pytest.raises(ArgumentError, match='multiple outputs with name "a"'):
        twice["a"]


def test_unknown_name_among_many_shows_those_alike() -> None:
    internals = classifier().get_internals()
    with pytest.raises(ValueError, match=r"softmax_output.*11 in all"):
        internals["softmax_outptu"]


def test_group_has_no_name() -> None:
    group = sym.Group([sym.Variable("a"), classifier()])
    assert group.name is None
    assert group.attr("x") is None
    assert group.list_attr() == {}
    assert group.list_outputs() == ["a", "softmax_output"]
    assert repr(group) == "<Symbol group [a, softmax]>"


def test_group_refuses_what_is_no_symbol() -> None:
    with pytest.raises(ArgumentError, match="at least one symbol"):
        sym.Group([])
    with pytest.raises(ArgumentTypeError, match="not 3"):
        sym.Group([sym.Variable("a"), 3])  # type: ignore[list-item]


def test_compose_by_name() -> None:
    first = sym.FullyConnected(sym.Variable("data"), num_hidden=3, name="fc1")
    second = sym.FullyConnected(sym.Variable("x"), num_hidden=2, name="fc2")
    net = second(x=first, name="composed")
    assert net.name == "composed"
    assert net.list_arguments() == [
        "data",
        "fc1_weight",
        "fc1_bias",
        "fc2_weight",
        "fc2_bias",
    ]
    # The symbols it was made of are as they were.
    assert second.name == "fc2"
    assert second.list_arguments() == ["x", "fc2_weight", "fc2_bias"]


def test_compose_by_position() -> None:
    net = sym.Variable("a") - sym.Variable("b")
    swapped = net(sym.Variable("c"))
    assert swapped.list_arguments() == ["c", "b"]


def test_compose_replaces_once_even_under_the_same_name() -> None:
    net = sym.sqrt(sym.Variable("x"), name="root")
    inside = net(x=sym.Variable("x") + 1)
    assert inside.list_arguments() == ["x"]
    assert len(inside.graph.nodes) == 3


def test_compose_keeps_sharing() -> None:
    x = sym.Variable("x")
    shared = sym.exp(x)
    net = (shared + shared)(x=sym.Variable("y"))
    assert [node.name for node in net.graph.nodes].count(shared.name or "") == 1


def test_compose_keeps_what_is_below_no_replaced_variable() -> None:
    kept = sym.exp(sym.Variable("a"))
    net = (kept + sym.Variable("b"))(b=sym.Variable("c"))
    assert kept.entries[0].node in net.graph.nodes


def test_compose_refuses_unknown_names_and_non_symbols() -> None:
    net = classifier()
    with pytest.raises(GraphError, match="no input `dta`; its inputs are: data"):
        net(dta=sym.Variable("x"))
    with pytest.raises(ArgumentTypeError, match="not 3"):
        net(data=3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="not both"):
        net(sym.Variable("x"), data=sym.Variable("x"))
    with pytest.raises(GraphError, match="has 1 inputs, but 2"):
        sym.Variable("a")(sym.Variable("b"), sym.Variable("c"))


def test_compose_keeps_auxiliary_states_variables() -> None:
    with pytest.raises(GraphError, match="auxiliary state and must be a variable"):
        classifier()(bn_moving_mean=sym.Variable("a") + 1)


def test_several_outputs_are_refused_where_one_is_needed() -> None:
    pieces = sym.Pieces(sym.Variable("x"), num_outputs=2, name="p")
    with pytest.raises(GraphError, match=r"has 2 \(p_output0, p_output1\): choose one"):
        sym.exp(pieces)
    assert sym.exp(pieces[1]).list_arguments() == ["x"]


def test_binding_members_point_to_mx_bind() -> None:
    for member in ("bind", "simple_bind", "eval"):
        with pytest.raises(UnsupportedError, match=r"async with mx\.bind"):
            getattr(classifier(), member)()


def test_truth_value_is_refused() -> None:
    with pytest.raises(ArgumentTypeError, match="no truth value"):
        bool(sym.Variable("x") == sym.Variable("y"))


def test_handles_hash_by_identity() -> None:
    a, b = sym.Variable("x"), sym.Variable("x")
    assert len({a: 1, b: 2}) == 2


def test_copies_share_the_graph_and_pickles_are_equal() -> None:
    net = classifier()
    assert copy.copy(net) is net
    assert copy.deepcopy(net) is net
    assert pickle.loads(pickle.dumps(net)).tojson() == net.tojson()


def test_debug_str_lists_every_node() -> None:
    net = sym.FullyConnected(sym.Variable("data"), num_hidden=4, name="fc")
    assert net.debug_str() == (
        "Symbol Outputs:\n"
        "\toutput[0]=fc(0)\n"
        "Variable:data\n"
        "Variable:fc_weight\n"
        "Variable:fc_bias\n"
        "--------------------\n"
        "Op:FullyConnected, Name=fc\n"
        "Inputs:\n"
        "\targ[0]=data(0)\n"
        "\targ[1]=fc_weight(0)\n"
        "\targ[2]=fc_bias(0)\n"
        "Attrs:\n"
        "\tnum_hidden=4\n"
    )
    assert repr(net) == "<Symbol fc>"


def test_unknown_member_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no member `forward`"):
        sym.Variable("x").forward()
