from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import asyncmod.symbol as sym
from runtime.devices.reference import ReferenceDevice
from runtime.errors import GraphError, ShapeError
from runtime.graph.compile import Request, compile_plan, parameter_names
from runtime.graph.plan import DefinitionRow


def request(symbol: sym.Symbol, **more: Any) -> Request:
    base = Request(graph=symbol.graph, inputs=("x",), shapes={"x": (2, 3)})
    return dataclasses.replace(base, **more)


def dense() -> sym.Symbol:
    return sym.FullyConnected(sym.Variable("x"), num_hidden=4, name="fc")


def test_parameters_are_what_is_no_input() -> None:
    plan = compile_plan(request(dense()))
    assert parameter_names(dense().graph, ["x"]) == ("fc_weight", "fc_bias")
    assert list(plan.tensors["parameter"]) == ["fc_weight", "fc_bias"]
    assert plan.tensors["parameter"]["fc_weight"].shape == (4, 3)
    assert plan.output_names == ("fc_output",)
    assert set(plan.sections) == {"predict"}


def test_only_outputs_that_are_no_losses_need_heads() -> None:
    wishes = {"fc_weight": "write"}
    plan = compile_plan(request(dense(), is_train=True, gradients=wishes))
    assert plan.heads == ("fc_output",)
    loss = sym.make_loss(dense())
    plan = compile_plan(request(loss, is_train=True, gradients=wishes))
    assert plan.heads == ()
    plan = compile_plan(request(dense(), is_train=True))
    assert plan.heads == ()


def test_gradient_that_nothing_reaches_is_zero() -> None:
    net = sym.Group([sym.make_loss(dense()), sym.BlockGrad(sym.Variable("z") + 1)])
    plan = compile_plan(
        request(
            net,
            shapes={"x": (2, 3), "z": (5,)},
            is_train=True,
            gradients={"z": "write", "fc_bias": "write"},
        )
    )
    program = ReferenceDevice().compile(plan)
    program.fill("gradient", 7.0)
    for name in ("x",):
        program.write("input", name, np.ones((2, 3), np.float32))
    program.launch("forward")
    program.launch("backward")
    assert not program.read("gradient", "z").any()
    assert (program.read("gradient", "fc_bias") == 2).all()


def test_gradients_are_summed_once_per_use() -> None:
    x = sym.Variable("x")
    net = sym.make_loss(x * x + x + 2 * x)
    plan = compile_plan(request(net, is_train=True, gradients={"x": "write"}))
    program = ReferenceDevice().compile(plan)
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    program.write("input", "x", value)
    program.launch("forward")
    program.launch("backward")
    np.testing.assert_allclose(program.read("input_gradient", "x"), 2 * value + 3)


def test_an_output_may_stand_twice() -> None:
    net = dense()
    plan = compile_plan(request(sym.Group([net, net])))
    program = ReferenceDevice().compile(plan)
    program.write("parameter", "fc_bias", np.arange(4, dtype=np.float32))
    program.fill("input", 0.0)
    program.write("parameter", "fc_weight", np.zeros((4, 3), np.float32))
    program.launch("predict")
    first, second = (program.read("output", name) for name in plan.output_names)
    np.testing.assert_array_equal(first, second)
    assert first[1, 3] == 3


def test_views_cost_no_row() -> None:
    net = sym.Reshape(sym.Flatten(dense()), shape=(4, 2))
    net = sym.Activation(net, act_type="relu")
    rows = compile_plan(request(net)).sections["predict"]
    operators = [row.operator for row in rows if isinstance(row, DefinitionRow)]
    assert operators == ["FullyConnected", "Activation"]


def test_shared_layouts_must_fit() -> None:
    layout = compile_plan(request(dense())).tensors["parameter"]
    other = request(dense(), shapes={"x": (2, 5)})
    from runtime.graph.plan import Layout

    shared = Layout(layout, 1 << 20)
    with pytest.raises(ShapeError, match="`fc_weight` is \\(4, 5\\)"):
        compile_plan(dataclasses.replace(other, parameters=shared))
    renamed = sym.FullyConnected(sym.Variable("x"), num_hidden=4, name="other")
    with pytest.raises(GraphError, match="`other_weight` is not among the shared"):
        compile_plan(request(renamed, parameters=shared))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"inputs": ("y",)}, "input `y` is not an argument"),
        ({"gradients": {"nope": "write"}}, "gradient of `nope` requested"),
        ({"gradients": {"x": "sum"}}, "gradient request of `x`"),
        ({"shapes": {"x": (2, 3), "fc_weight": (4, 4)}}, "fc"),
        ({"shapes": {}}, "x"),
    ],
)
def test_errors_name_what_is_wrong(more: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        compile_plan(request(dense(), **more))


def test_two_nodes_of_one_name() -> None:
    net = sym.FullyConnected(dense(), num_hidden=2, name="fc")
    with pytest.raises(GraphError, match="two nodes are named `fc"):
        compile_plan(request(net))
