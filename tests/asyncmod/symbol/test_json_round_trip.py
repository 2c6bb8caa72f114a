"""Random graphs through text and back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import asyncmod.symbol as sym
from asyncmod.symbol.compose import application, variable
from runtime.graph import registry
from runtime.graph.ir import Entry, Graph, Node

NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=5
) | st.sampled_from(['"', "\\", "\n", "\x00\x1f", "data", "𝛂"])
TEXTS = st.dictionaries(NAMES.map(lambda name: f"__{name}x__"), NAMES, max_size=3)
OPERATORS: dict[str, dict[str, str]] = {
    "exp": {},
    "elemwise_add": {},
    "_plus_scalar": {"scalar": "2"},
    "FullyConnected": {"num_hidden": "3", "no_bias": "True"},
    "BatchNorm": {"fix_gamma": "False", "eps": "2e-05"},
    "Concat": {"num_args": "12"},
    "Pooling": {"kernel": "(2, 2)"},
    "Pieces": {"num_outputs": "3"},
    "_zeros": {"shape": "(2,)"},
}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    entries = [Entry(variable("first", draw(TEXTS)))]
    variables = list(entries)
    for _ in range(draw(st.integers(0, 12))):
        if draw(st.booleans()):
            node = variable(draw(NAMES), draw(TEXTS))
            variables.append(Entry(node))
        else:
            name = draw(st.sampled_from(list(OPERATORS)))
            operator = registry.get(name)
            text = {**OPERATORS[name], **draw(TEXTS)}
            attributes = registry_attributes(operator, text)
            inputs = [
                draw(st.sampled_from(variables if name == "BatchNorm" else entries))
                for _ in operator.input_names(attributes)
            ]
            node = application(draw(NAMES), operator, inputs, text)
        entries += [Entry(node, index) for index in range(len(node.output_names))]
    heads = st.lists(st.sampled_from(entries), min_size=1, max_size=12)
    return Graph(tuple(draw(heads)))


def registry_attributes(operator: registry.Operator, text: dict[str, str]) -> Any:
    from runtime.graph.attributes import parse

    return parse(operator.attributes, text, operator.name)


def structure(graph: Graph) -> tuple[Any, ...]:
    """All that a file must keep, with nodes by their position."""
    position = {node: index for index, node in enumerate(graph.nodes)}

    def entry(entry: Entry) -> tuple[int, int]:
        return position[entry.node], entry.index

    def described(node: Node) -> tuple[Any, ...]:
        inputs = [entry(e) for e in node.inputs]
        return node.name, node.operator, node.attributes, dict(node.text), inputs

    nodes = [described(node) for node in graph.nodes]
    return nodes, [entry(head) for head in graph.outputs]


def without_defaults(graph: tuple[Any, ...]) -> tuple[Any, ...]:
    """BatchNorm's initializers are written with its variables."""
    nodes, heads = graph
    for *_, text, _ in nodes:
        if text.get("__init__") in ('["zero", {}]', '["one", {}]'):
            del text["__init__"]
    return nodes, heads


@given(graphs())
def test_graph_comes_back(graph: Graph) -> None:
    text = sym.Symbol(graph.outputs).tojson()
    again = sym.load_json(text)
    assert without_defaults(structure(again.graph)) == structure(graph)
    assert again.tojson() == text


@given(graphs())
def test_text_is_json_of_the_graph(graph: Graph) -> None:
    net = sym.Symbol(graph.outputs)
    data = json.loads(net.tojson())
    assert [node["name"] for node in data["nodes"]] == [n.name for n in graph.nodes]
    assert [data["nodes"][i]["op"] for i in data["arg_nodes"]] == ["null"] * len(
        net.list_inputs()
    )
    assert len(data["arg_nodes"]) == len(net.list_inputs())
    assert len(data["node_row_ptr"]) == len(graph.nodes) + 1
    assert len(data["heads"]) == len(net)
    for node, row in zip(graph.nodes, data["nodes"], strict=True):
        assert [index for _, index, _ in row["inputs"]] == [
            entry.index for entry in node.inputs
        ]
        assert {**row.get("attrs", {}), **node.text} == row.get("attrs", {})
