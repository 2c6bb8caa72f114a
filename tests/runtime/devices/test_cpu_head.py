"""A layer with its loss against the reference: few classes, and very many."""

from __future__ import annotations

import numpy as np
import pytest

import asyncmod.symbol as sym
from runtime.devices.factory import create_device
from runtime.graph.plan import NativeRow, Plan
from tests.conformance.nets import Net
from tests.runtime.devices.agreement import check

ROWS, CLASSES, WIDTH = 105, 10007, 9  # just enough to be done by classes


def head(classes: int, no_bias: bool = False, **loss: object) -> sym.Symbol:
    x = sym.FullyConnected(
        sym.Variable("data"), num_hidden=classes, no_bias=no_bias, name="layer"
    )
    return sym.SoftmaxOutput(x, name="softmax", **loss)


def net(symbol: sym.Symbol, rows: int = ROWS, **requests: str) -> Net:
    return Net(symbol, {"data": (rows, WIDTH), "softmax_label": (rows,)}, requests)


def kernels(plan: Plan, section: str) -> list[str]:
    rows = plan.sections[section]  # type: ignore[index]
    return [row.kernel for row in rows if isinstance(row, NativeRow)]


@pytest.mark.parametrize("classes", [3, 200, CLASSES])
@pytest.mark.parametrize("no_bias", [False, True])
@pytest.mark.parametrize("request_", ["write", "add"])
def test_gradients(classes: int, no_bias: bool, request_: str) -> None:
    names = ["data", "layer_weight"] + ["layer_bias"] * (not no_bias)
    check(net(head(classes, no_bias), **dict.fromkeys(names, request_)))


@pytest.mark.parametrize("unwanted", ["data", "layer_weight", "layer_bias"])
def test_what_is_not_wanted_is_not_computed(unwanted: str) -> None:
    check(net(head(CLASSES), **{unwanted: "null"}))


def test_ways_to_count() -> None:
    options = {"use_ignore": True, "ignore_label": 1, "smooth_alpha": 0.1}
    check(net(head(CLASSES, normalization="valid", grad_scale=0.5, **options)))


def test_the_probabilities_stay_after_backward() -> None:
    wide = net(head(CLASSES))
    program = wide.compile(create_device("cpu"), True)
    wide.load(program)
    program.launch("forward")
    before = program.read("output", "softmax_output")
    program.launch("backward")
    after = program.read("output", "softmax_output")
    np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(after.sum(axis=1), 1, rtol=1e-5)


def test_the_gradient_of_many_classes_is_never_there_as_a_whole() -> None:
    plan = net(head(CLASSES)).compile(create_device("cpu"), True).plan
    assert plan.segments["arena"] < 4 * ROWS * CLASSES // 4
    parts = kernels(plan, "backward").count("softmax_output_backward")
    assert parts == -(-CLASSES // 112)
    few = net(head(200)).compile(create_device("cpu"), True).plan
    assert kernels(few, "backward").count("softmax_output_backward") == 1


def test_logits_that_others_read_stay() -> None:
    layer = sym.FullyConnected(sym.Variable("data"), num_hidden=4, name="layer")
    loss = sym.SoftmaxOutput(layer, name="softmax")
    check(net(sym.Group([loss, layer]), rows=3))
    check(net(sym.Group([loss, sym.BlockGrad(layer * 2)]), rows=3), native=False)
