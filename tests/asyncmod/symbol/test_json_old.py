"""Files of old MXNet generations."""

from __future__ import annotations

import json
from typing import Any

import pytest

import asyncmod.symbol as sym
from runtime.errors import GraphError
from runtime.graph import registry


def file(*nodes: dict[str, Any], version: int | None = None, heads: Any = None) -> str:
    data: dict[str, Any] = {
        "nodes": [{"name": node["op"], "inputs": [], **node} for node in nodes],
        "heads": heads or [[len(nodes) - 1, 0]],
    }
    if version is not None:
        data["attrs"] = {"mxnet_version": ["int", version]}
    return json.dumps(data)


def variable(name: str, **attributes: str) -> dict[str, Any]:
    return {"op": "null", "name": name, "attr": attributes}


OLD_NET = (
    variable("data"),
    variable("fc_weight"),
    variable("fc_bias"),
    {
        "op": "FullyConnected",
        "name": "fc",
        "param": {"num_hidden": "4L", "no_bias": "False"},
        "attr": {"ctx_group": "dev1", "weight_lr_mult": "3"},
        "inputs": [[0, 0], [1, 0], [2, 0]],
        "backward_source_id": -1,
    },
    variable("bn_gamma"),
    variable("bn_beta"),
    {
        "op": "BatchNorm",
        "name": "bn",
        "param": {"fix_gamma": "False"},
        "inputs": [[3, 0], [4, 0], [5, 0]],
        "backward_source_id": -1,
    },
)


def test_missing_auxiliary_states_are_made() -> None:
    net = sym.load_json(file(*OLD_NET))
    assert net.list_auxiliary_states() == ["bn_moving_mean", "bn_moving_var"]
    assert net.attr_dict()["bn_moving_var"] == {
        "__init__": '["one", {}]',
        "fix_gamma": "False",
    }
    _, outputs, auxiliaries = net.infer_shape(data=(2, 3))
    assert outputs == [(2, 4)]
    assert auxiliaries == [(4,), (4,)]


def test_plain_hidden_attributes_are_hidden_now() -> None:
    net = sym.load_json(file(*OLD_NET))
    assert net.get_internals()["fc_output"].list_attr() == {
        "num_hidden": "4L",
        "no_bias": "False",
        "__ctx_group__": "dev1",
        "ctx_group": "dev1",
    }
    node = sym.load_json(file(variable("x", lr_mult="2", wd_mult="0")))
    assert json.loads(node.tojson())["nodes"][0]["attrs"] == {
        "__lr_mult__": "2",
        "__wd_mult__": "0",
    }


def test_attributes_meant_for_an_input_move_there() -> None:
    attributes = sym.load_json(file(*OLD_NET)).attr_dict()
    assert attributes["fc_weight"]["lr_mult"] == "3"
    assert not any("lr_mult" in key for key in attributes["fc"])


def test_attributes_meant_for_a_computed_input_are_dropped() -> None:
    layer = {
        "op": "FullyConnected",
        "name": "fc",
        "param": {"num_hidden": "4", "no_bias": "True"},
        "attr": {"data_lr_mult": "3"},
        "inputs": [[1, 0], [2, 0]],
    }
    computed = {"op": "exp", "name": "e", "inputs": [[0, 0]]}
    net = sym.load_json(file(variable("x"), computed, variable("w"), layer))
    assert net.attr_dict() == {"fc": {"num_hidden": "4", "no_bias": "True"}}


def test_new_files_must_be_complete() -> None:
    with pytest.raises(GraphError, match=r"node 6 \(`bn`\).* needs 5 inputs"):
        sym.load_json(file(*OLD_NET, version=10901))


def test_written_again_it_is_a_new_file() -> None:
    net = sym.load_json(file(*OLD_NET))
    data = json.loads(net.tojson())
    assert data["attrs"] == {"mxnet_version": ["int", 10901]}
    batch_norm = data["nodes"][-1]
    assert [version for *_, version in batch_norm["inputs"]] == [0, 0, 0, 1, 1]
    assert sym.load_json(net.tojson()).tojson() == net.tojson()


def test_argmax_axis_minus_one_meant_all_axes() -> None:
    if "argmax" not in registry.names():
        total = registry.get("sum")
        registry.register(
            registry.Operator(
                name="argmax",
                attributes=total.attributes,
                shape=total.shape,
                forward=total.forward,
            )
        )
    node = {"op": "argmax", "inputs": [[0, 0]], "attr": {"axis": "-1"}}
    old = sym.load_json(file(variable("x"), node, version=904))
    new = sym.load_json(file(variable("x"), node, version=905))
    assert old.attr("axis") is None
    assert new.attr("axis") == "-1"


def test_old_operator_names_are_read_and_not_written() -> None:
    node = {"op": "_Plus", "name": "p", "inputs": [[0, 0], [0, 0]]}
    net = sym.load_json(file(variable("x"), node, version=800))
    assert json.loads(net.tojson())["nodes"][1]["op"] == "elemwise_add"


def test_any_json_layout_is_read() -> None:
    text = file(variable("x"), {"op": "exp", "inputs": [[0, 0, 0]]}, version=10901)
    loose = sym.load_json("\n " + text.replace(",", " ,\n"))
    assert loose.list_outputs() == ["exp_output"]
