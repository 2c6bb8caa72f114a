"""`mx.mon.Monitor`: what it reports, and in which words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.errors import ArgumentError, ArgumentTypeError, ModuleStateError
from tests.asyncmod.module.nets import Array, batch, mlp, ready
from tests.golden.arrays import HERE

RECORDED: dict[str, dict[str, Any]] = json.loads(
    (HERE / "monitor" / "statistics.json").read_text()
)
# What MXNet shows there is memory that nobody wrote to: gradients of labels, and of
# data that needs none.
UNWRITTEN = {"softmax_backward_output1", "fc_0_backward_output0"}
# MXNet shows auxiliary states as the batch left them, and its BatchNorm keeps the
# inverse of the standard deviation.
DIFFERENT = {"bn_moving_mean", "bn_moving_var", "bn_var"}


def as_arrays(lists: dict[str, Any]) -> dict[str, Array]:
    return {name: np.array(value, np.float32) for name, value in lists.items()}


async def recorded(name: str, module: mx.Module) -> mx.io.DataBatch:
    """Bind and fill a module as in a recorded case; its batch."""
    case = RECORDED[name]
    arguments = as_arrays(case["values"])
    data, label = arguments.pop("data"), arguments.pop("softmax_label")
    await module.bind(
        [("data", data.shape)],
        [("softmax_label", label.shape)],
        inputs_need_grad=case["inputs_need_grad"],
    )
    await module.init_params(arg_params=arguments, aux_params=as_arrays(case["aux"]))
    return mx.io.DataBatch([data], [label])


def recorded_module(name: str, kind: Any = mx.cpu) -> mx.Module:
    case = RECORDED[name]
    symbol = mx.symbol.load_json(json.dumps(case["symbol"]))
    return mx.Module(symbol, context=[kind(i) for i in range(case["devices"])])


def names(rows: list[tuple[int, str, str]]) -> list[str]:
    return [name for _, name, _ in rows]


@pytest.mark.parametrize("kind", [mx.cpu, mx.reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("name", RECORDED)
async def test_reports_what_mxnet_reports(name: str, kind: Any) -> None:
    monitor = mx.mon.Monitor(1)
    async with recorded_module(name, kind) as module:
        one = await recorded(name, module)
        module.install_monitor(monitor)
        monitor.tic()
        await module.forward_backward(one)
        rows = monitor.toc()
    expected = RECORDED[name]["rows"]
    assert names(rows) == [row[1] for row in expected]
    assert {row[0] for row in rows} == {1}
    unwritten = UNWRITTEN
    if RECORDED[name]["inputs_need_grad"]:
        unwritten = UNWRITTEN - {"fc_0_backward_output0"}
    for (_, label, text), (_, _, value) in zip(rows, expected, strict=True):
        if label not in unwritten | DIFFERENT:
            assert text.endswith("\t")
            assert float(text) == pytest.approx(value, rel=1e-5), label


async def test_upstream_test_monitor() -> None:
    monitor = mx.mon.Monitor(1, lambda x: np.abs(x).sum() / x.size, ".*", True)
    async with recorded_module("two_layers") as module:
        one = await recorded("two_layers", module)
        monitor.install(module)
        monitor.tic()
        await module.forward_backward(one)
        found = names(monitor.toc())
    keys = ["act_0", "act_1", "data", "fc_0", "fc_1", "softmax"]
    counts = [sum(name.startswith(key) for name in found) for key in keys]
    assert counts == [2, 2, 1, 6, 6, 4]
    assert len(found) == 21
    assert found == sorted(found)


async def test_a_step_reports_the_same_as_forward_and_backward() -> None:
    reports = []
    for whole in (False, True):
        monitor = mx.mon.Monitor(1)
        async with recorded_module("branches") as module:
            one = await recorded("branches", module)
            await module.init_optimizer()
            module.install_monitor(monitor)
            monitor.tic()
            if whole:
                await module.step(one)
            else:
                await module.forward_backward(one)
                await module.update()
            reports.append(monitor.toc())
    assert reports[0] == reports[1]


async def test_monitor_all_adds_what_operators_read() -> None:
    monitor = mx.mon.Monitor(1, monitor_all=True, pattern="fc_1|act_1")
    async with recorded_module("two_layers") as module:
        one = await recorded("two_layers", module)
        module.install_monitor(monitor)
        monitor.tic()
        await module.forward_backward(one)
        found = names(monitor.toc())
    assert found == [
        *("fc_1_data", "fc_1_weight", "fc_1_weight", "fc_1_bias", "fc_1_bias"),
        *("fc_1_output", "act_1_data", "act_1_output"),
        *("act_1_backward_input0", "act_1_backward_output", "fc_1_backward_input0"),
        *("fc_1_backward_output0", "fc_1_backward_output1", "fc_1_backward_output2"),
        *("fc_1_weight", "fc_1_bias"),
    ]


async def test_inference_forward_is_reported_without_gradients() -> None:
    monitor = mx.mon.Monitor(1, pattern="softmax|fc2")
    async with mx.Module(mlp()) as module:
        await ready(module)
        module.install_monitor(monitor)
        monitor.tic()
        await module.forward(batch(), is_train=False)
        found = names(monitor.toc())
    assert found == [
        *("fc2_output", "softmax_output"),
        *("fc2_weight", "fc2_bias", "softmax_label"),
    ]


async def test_gradients_that_nobody_needs_are_not_reported() -> None:
    monitor = mx.mon.Monitor(1, pattern=".*backward")
    async with mx.Module(mlp(), fixed_param_names=["fc1_weight", "fc1_bias"]) as module:
        await ready(module)
        module.install_monitor(monitor)
        monitor.tic()
        await module.forward_backward(batch())
        found = names(monitor.toc())
    assert found == [
        *("softmax_backward_output0", "softmax_backward_output1"),
        *("fc2_backward_output0", "fc2_backward_output1", "fc2_backward_output2"),
    ]


async def test_an_executor_is_monitored_with_its_head_gradients() -> None:
    net = mx.sym.square(mx.sym.Variable("x"), name="square")
    monitor = mx.mon.Monitor(1, lambda x: [x.sum(), x.shape[0]])
    async with (
        mx.open_runtime(),
        mx.bind(net, {"x": np.array([1, 2, 3], np.float32)}) as executor,
    ):
        monitor.install(executor)
        monitor.tic()
        await executor.forward(is_train=True)
        await executor.backward(np.full(3, 10, np.float32))
        rows = monitor.toc()
        await executor.forward()
        assert monitor.toc() == []
    assert rows == [
        (1, "square_output", "14.0\t3\t"),
        (1, "square_backward_output", "120.0\t3\t"),
        (1, "x", "6.0\t3\t"),
    ]


async def test_what_is_no_monitor_is_refused() -> None:
    with pytest.raises(ArgumentError, match="`interval`"):
        mx.mon.Monitor(0)
    async with mx.Module(mlp()) as module:
        with pytest.raises(ModuleStateError, match="install_monitor"):
            module.install_monitor(mx.mon.Monitor(1))
        await ready(module)
        with pytest.raises(ArgumentTypeError, match=r"mx\.mon\.Monitor"):
            module.install_monitor(object())


def test_arrays_are_printed_as_mxnet_does() -> None:
    monitor = mx.mon.Monitor(1)
    monitor.tic()
    monitor.add([(1, "a", np.array([2.5], np.float32)), (1, "b", np.arange(2))])
    assert monitor.toc() == [(1, "a", "2.5\t"), (1, "b", "[0 1]\t")]
    assert monitor.toc() == []
    assert mx.monitor.Monitor is mx.mon.Monitor
