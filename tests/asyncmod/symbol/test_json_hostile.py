"""Files that are wrong, by accident or on purpose."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncmod.symbol as sym
from asyncmod.errors import ArgumentTypeError
from asyncmod.symbol import json_records
from runtime.errors import GraphError, OperatorError

MLP = json.loads(
    (Path(__file__).parents[2] / "golden/nets/mlp_bn-symbol.json").read_text()
)


def broken(path: list[Any], value: Any) -> str:
    """The net with one place of its JSON replaced."""
    data = copy.deepcopy(MLP)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(data)


def position(name: str) -> int:
    return [node["name"] for node in MLP["nodes"]].index(name)


FC = position("fc1")
AT = ["nodes", FC]
HERE = rf"node {FC} \(`fc1`\)"

CASES: dict[str, tuple[str, str]] = {
    "not an object": ("[]", "must be an object"),
    "no JSON": ("{", "no JSON"),
    "empty": ("", "no JSON"),
    "deep": ("[" * 100_000, "no JSON"),
    "long number": ('{"nodes": [], "heads": %s}' % ("9" * 10_000), "no JSON"),
    "no nodes": ('{"heads": [[0, 0, 0]]}', "`nodes` of the file must be a list"),
    "no heads": ('{"nodes": []}', "`heads` of the file must be a list"),
    "heads empty": (broken(["heads"], []), "`heads` of the file is empty"),
    "heads out of range": (
        broken(["heads"], [[99, 0, 0]]),
        "`heads` of the file refers to node 99",
    ),
    "heads negative": (
        broken(["heads"], [[-1, 0, 0]]),
        "`heads` of the file refers to node -1",
    ),
    "head of no output": (
        broken(["heads"], [[FC, 1, 0]]),
        f"no output 1 of node {FC} .*fc1.*, which has 1",
    ),
    "node is a list": (broken(AT, []), f"node {FC} must be an object"),
    "no name": (broken([*AT, "name"], None), f"`name` of node {FC} must be a string"),
    "name is a number": (broken([*AT, "name"], 3), f"`name` of node {FC}"),
    "name is no Unicode": (broken([*AT, "name"], "\ud800"), "valid Unicode"),
    "op is a number": (broken([*AT, "op"], 3), f"`op` of {HERE} must be a string"),
    "attrs is a list": (broken([*AT, "attrs"], []), f"`attrs` of {HERE}"),
    "attribute is a number": (
        broken([*AT, "attrs"], {"num_hidden": 3}),
        rf"`attrs\.num_hidden` of {HERE} must be a string, not 3",
    ),
    "attribute is unknown": (
        broken([*AT, "attrs"], {"num_hidden": "3", "size": "3"}),
        f"{HERE}: operator FullyConnected has no attribute `size`",
    ),
    "attribute is missing": (
        broken([*AT, "attrs"], {}),
        f"{HERE}: Required parameter num_hidden",
    ),
    "inputs is an object": (broken([*AT, "inputs"], {}), f"`inputs` of {HERE}"),
    "inputs are numbers": (broken([*AT, "inputs"], [1]), f"`inputs` of {HERE}"),
    "input of one number": (broken([*AT, "inputs", 0], [1]), "2 or 3 integers"),
    "input of a boolean": (broken([*AT, "inputs", 0], [True, 0]), "2 or 3 integers"),
    "input of a fraction": (broken([*AT, "inputs", 0], [0.5, 0]), "2 or 3 integers"),
    "input is itself": (
        broken([*AT, "inputs", 0], [FC, 0, 0]),
        f"`inputs` of {HERE} refers to node {FC}: only the {FC} nodes before",
    ),
    "input is later": (broken([*AT, "inputs", 0], [FC + 1, 0, 0]), "nodes before"),
    "input is huge": (broken([*AT, "inputs", 0], [10**30, 0]), "more than 20 digits"),
    "input of no output": (
        broken([*AT, "inputs", 0], [0, 7, 0]),
        f"{HERE}: there is no output 7 of node 0",
    ),
    "input of a negative output": (
        broken([*AT, "inputs", 0], [0, -1, 0]),
        "there is no output -1",
    ),
    "too many inputs": (
        broken([*AT, "inputs"], [[0, 0, 0]] * 4),
        rf"`inputs` of {HERE}: .* needs 3 inputs \(data, weight, bias\), but has 4",
    ),
    "variable with inputs": (
        broken(["nodes", position("fc1_weight"), "inputs"], [[0, 0, 0]]),
        "a variable cannot have inputs",
    ),
    "computed auxiliary state": (
        broken(["nodes", position("bn1"), "inputs", 3], [FC, 0, 1]),
        "`inputs` of .*`moving_mean` .* must be a variable",
    ),
    "subgraphs": (broken([*AT, "subgraphs"], [MLP]), "control-flow"),
    "version is text": (
        broken(["attrs", "mxnet_version"], ["int", "new"]),
        r"`attrs\.mxnet_version` of the file",
    ),
    "attrs of the file is text": (broken(["attrs"], "new"), "`attrs` of the file"),
}


@pytest.mark.parametrize(("text", "message"), CASES.values(), ids=CASES.keys())
def test_wrong_file_is_refused_by_node_and_field(text: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        sym.load_json(text)


def test_all_unknown_operators_are_listed_at_once() -> None:
    data = copy.deepcopy(MLP)
    data["nodes"][FC]["op"] = "FullyConected"
    data["nodes"][-1]["op"] = "Magic"
    with pytest.raises(OperatorError, match="unknown operators") as caught:
        sym.load_json(json.dumps(data))
    message = str(caught.value)
    assert (
        f"`FullyConected` (node {FC} (`fc1`); did you mean FullyConnected?)" in message
    )
    assert "`Magic` (node" in message


def test_text_must_be_text() -> None:
    with pytest.raises(ArgumentTypeError, match="not bytes"):
        sym.load_json(b"{}")  # type: ignore[arg-type]


def test_long_text_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "MAXIMUM_LENGTH", 100)
    with pytest.raises(GraphError, match="the limit is 100"):
        sym.load_json(json.dumps(MLP))


@pytest.mark.parametrize("count", ["999999999", " +0999999999", "9" * 5000])
def test_counts_do_not_take_memory(count: str) -> None:
    nodes = [
        {"op": "null", "name": "x", "inputs": []},
        {
            "op": "Pieces",
            "name": "p",
            "attrs": {"num_outputs": count},
            "inputs": [[0, 0, 0]],
        },
    ]
    with pytest.raises(OperatorError, match=r"`num_outputs` .* at most 5 digits"):
        sym.load_json(json.dumps({"nodes": nodes, "heads": [[1, 0, 0]]}))


def test_many_large_counts_do_not_take_time() -> None:
    pieces = {
        "op": "Pieces",
        "name": "p",
        "attrs": {"num_outputs": "99999"},
        "inputs": [[0, 0, 0]],
    }
    nodes = [{"op": "null", "name": "x", "inputs": []}, *([pieces] * 1000)]
    with pytest.raises(OperatorError, match="add up to 99999000, which is refused"):
        sym.load_json(json.dumps({"nodes": nodes, "heads": [[1, 0, 0]]}))


def test_long_chains_need_no_stack() -> None:
    count = 20_000
    nodes: list[dict[str, Any]] = [{"op": "null", "name": "x", "inputs": []}]
    for index in range(count):
        nodes.append({"op": "exp", "name": f"e{index}", "inputs": [[index, 0, 0]]})
    net = sym.load_json(json.dumps({"nodes": nodes, "heads": [[count, 0, 0]]}))
    assert len(net.graph.nodes) == count + 1
    again = net(x=sym.Variable("y"))
    assert again.list_arguments() == ["y"]
    assert net.tojson().count('"exp"') == count


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a JSON value, itself left out."""
    if isinstance(data, dict):
        items: list[tuple[Any, Any]] = list(data.items())
    elif isinstance(data, list):
        items = list(enumerate(data))
    else:
        return []
    found = []
    for key, value in items:
        found += [(*path, key), *places(value, (*path, key))]
    return found


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.sampled_from([10**40, 0.5, "", "null", "relu", "BatchNorm", "-1", "(3,"]),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(
            st.sampled_from(["op", "name", "num_hidden", "axis", "data_lr_mult"]),
            values,
            max_size=3,
        )
    ),
    max_leaves=4,
)


@given(st.sampled_from(places(MLP)), ANYTHING)
def test_any_change_is_read_or_refused(path: tuple[Any, ...], value: Any) -> None:
    try:
        net = sym.load_json(broken(list(path), value))
    except GraphError:
        return
    assert sym.load_json(net.tojson()).tojson() == net.tojson()
