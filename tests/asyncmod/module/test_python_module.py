"""PythonModule and PythonLossModule: parts of a net that are written in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.io import DataBatch, NDArrayIter
from tests.asyncmod.module.nets import CLASSES, FEATURES, Array, batch, rows, same
from tests.harness.cancellation import cancel_at_every_step

SHAPES = [("data", (8, CLASSES))], [("softmax_label", (8,))]


def softmax_gradient(scores: Array, labels: Array) -> Array:
    """Gradient of the cross entropy after a softmax."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    gradient = shifted / shifted.sum(axis=1, keepdims=True)
    gradient[np.arange(len(labels)), labels.astype(int)] -= 1
    return np.asarray(gradient)


async def softmax_gradient_async(scores: Array, labels: Array) -> Array:
    await trio.lowlevel.checkpoint()
    return softmax_gradient(scores, labels)


def scores(seed: int = 0) -> DataBatch:
    random = np.random.default_rng(seed)
    return DataBatch(
        [random.normal(size=(8, CLASSES)).astype(np.float32)],
        [random.integers(0, CLASSES, 8).astype(np.float32)],
    )


async def bound(**options: Any) -> mx.PythonLossModule:
    module = mx.PythonLossModule(**options)
    await module.bind(*SHAPES, inputs_need_grad=True)
    await module.init_params()
    return module


@pytest.mark.parametrize("function", [softmax_gradient, softmax_gradient_async])
async def test_scores_pass_and_the_gradient_is_the_functions(function: Any) -> None:
    module = await bound(grad_func=function, name="loss")
    assert module.output_names == ["loss_output"]
    assert module.output_shapes == [("loss_output", (8, CLASSES))]
    assert module.data_shapes == SHAPES[0]
    assert module.label_shapes == SHAPES[1]
    given = scores()
    await module.forward_backward(given)
    assert same(await module.get_outputs(), given.data)
    [gradient] = await module.get_input_grads()
    assert same(gradient, softmax_gradient(given.data[0], given.label[0]))  # type: ignore[index]
    assert isinstance(gradient, mx.nd.NDArray)
    assert await module.get_params() == ({}, {})
    await module.init_optimizer()
    await module.update()
    assert module.binded
    assert module.params_initialized
    assert module.optimizer_initialized


async def test_large_arrays_are_looked_at_in_a_thread() -> None:
    seen = []

    def function(scores: Array, labels: Array) -> Array:
        try:
            trio.lowlevel.current_task()
            seen.append("loop")
        except RuntimeError:
            seen.append("thread")
        return scores

    for count in (8, 1 << 17):
        module = mx.PythonLossModule(grad_func=function)
        await module.bind([("data", (count, 3))], [("softmax_label", (count,))])
        await module.forward_backward(
            DataBatch([np.zeros((count, 3), np.float32)], [np.zeros(count)])
        )
    assert seen == ["loop", "thread"]


async def test_what_it_was_given_may_be_reused() -> None:
    module = await bound(grad_func=lambda scores, labels: scores * labels[:, None])
    given = scores()
    expected = given.data[0] * given.label[0][:, None]  # type: ignore[index]
    await module.forward(given)
    given.data[0].fill(9)
    given.label[0].fill(9)  # type: ignore[index]
    await module.backward()
    [gradient] = await module.get_input_grads()
    assert same(gradient, expected)
    gradient.fill(7)
    assert same(await module.get_input_grads(), [expected])
    await module.forward(given)
    with pytest.raises(AssertionError, match=r"backward\(\)"):
        await module.get_input_grads()


async def test_predict_does_not_disturb_a_pair() -> None:
    module = await bound(grad_func=softmax_gradient)
    await module.forward(scores(0))
    assert same(await module.predict(scores(1)), scores(1).data)
    await module.backward()
    [gradient] = await module.get_input_grads()
    assert same(gradient, softmax_gradient(scores(0).data[0], scores(0).label[0]))  # type: ignore[index]


async def test_constructor_and_bind_errors() -> None:
    with pytest.raises(AssertionError, match=r"one data input.*data_names=\['a', 'b'"):
        mx.PythonLossModule(data_names=("a", "b"))
    with pytest.raises(AssertionError, match="label_names=\\[\\]"):
        mx.PythonLossModule(label_names=())
    with pytest.raises(TypeError, match="grad_func"):
        mx.PythonLossModule(grad_func=3)  # type: ignore[arg-type]
    module = mx.PythonLossModule()
    with pytest.raises(AssertionError, match="only support write gradient"):
        await module.bind(*SHAPES, grad_req="add")
    with pytest.raises(ValueError, match=r"describes \['x'\].*\['data'\], in this"):
        await module.bind([("x", (8, 3))], SHAPES[1])
    with pytest.raises(ValueError, match=r"`label_shapes` describes \['x'\]"):
        await module.bind(SHAPES[0], [("x", (8,))])
    with pytest.raises(AssertionError, match="for_training"):
        await module.bind(*SHAPES, for_training=False, inputs_need_grad=True)
    assert not module.binded
    with pytest.raises(AssertionError, match="bound"):
        await module.forward(scores())
    plain = mx.PythonModule(["data"], None, ["out"])
    with pytest.raises(NotImplementedError, match="_compute_output_shapes"):
        await plain.bind([("data", (8, 3))])
    assert not plain.binded


async def test_errors_of_calls() -> None:
    module = await bound()
    with pytest.raises(AssertionError, match="forward in training mode"):
        await module.backward()
    with pytest.raises(AssertionError, match=r"forward\(batch\)"):
        await module.get_outputs()
    with pytest.raises(ValueError, match="no list of label arrays"):
        await module.forward(DataBatch(scores().data))
    await module.forward(scores(), is_train=False)
    with pytest.raises(AssertionError, match="forward in training mode"):
        await module.backward()
    await module.forward(scores())
    with pytest.raises(NotImplementedError, match="grad_func"):
        await module.backward()
    with pytest.raises(AssertionError, match="takes no `out_grads`"):
        await module.backward([scores().data[0]])
    with pytest.raises(AssertionError, match=r"backward\(\)"):
        await module.get_input_grads()
    with pytest.raises(AssertionError, match="merge_multi_context"):
        await module.get_outputs(merge_multi_context=False)
    with pytest.raises(NotImplementedError):
        module.install_monitor(None)
    with pytest.raises(RuntimeError, match="pre_sliced"):
        await module.update_metric(mx.metric.Accuracy(), [], pre_sliced=True)
    wrong = await bound(grad_func=lambda scores, labels: labels)
    await wrong.forward(scores())
    with pytest.raises(ValueError, match=r"shape \(8,\) for scores of shape \(8, 3\)"):
        await wrong.backward()
    inference = mx.PythonLossModule(grad_func=softmax_gradient)
    await inference.bind(*SHAPES, for_training=False)
    await inference.forward(scores())
    with pytest.raises(AssertionError, match="bound for training"):
        await inference.backward()
    with pytest.raises(AssertionError, match="inputs_need_grad=True"):
        await inference.get_input_grads()
    await inference.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await inference.forward(scores())


async def test_metrics_need_labels() -> None:
    metric = mx.metric.Accuracy()
    module = mx.PythonLossModule()
    await module.bind(SHAPES[0])
    await module.forward(scores(), is_train=False)
    await module.update_metric(metric, scores().label)
    assert metric.num_inst == 0
    await module.bind(*SHAPES, force_rebind=True)
    await module.update_metric(metric, scores().label)
    assert metric.num_inst == 8


async def test_a_subclass_may_define_the_gradient_as_in_mxnet() -> None:
    class Loss(mx.PythonLossModule):
        def _backward_impl(self) -> None:
            values, labels = self._scores.asnumpy(), self._labels.asnumpy()  # type: ignore[union-attr]
            self._scores_grad = mx.nd.array(softmax_gradient(values, labels))

    module = Loss()
    await module.bind(*SHAPES, inputs_need_grad=True)
    for seed in range(2):
        given = scores(seed)
        await module.forward(given, is_train=True)
        await module.backward()
        [gradient] = await module.get_input_grads()
        assert same(gradient, softmax_gradient(given.data[0], given.label[0]))  # type: ignore[index]


async def test_a_cancelled_backward_leaves_no_gradient() -> None:
    module = await bound(grad_func=softmax_gradient_async)

    async def call() -> None:
        await module.forward(scores())
        await module.backward()

    async def check(finished: bool) -> None:
        if finished:
            await module.get_input_grads()
        else:
            with pytest.raises(AssertionError):
                await module.get_input_grads()
        module._scores_grad = None

    assert await cancel_at_every_step(call, check) > 2


def net_without_loss() -> mx.symbol.Symbol:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=7, name="fc1")
    net = mx.sym.Activation(net, act_type="relu")
    return mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc2")


@pytest.mark.parametrize("function", [softmax_gradient, softmax_gradient_async])
async def test_trains_as_the_built_in_loss(function: Any) -> None:
    """MXNet's python_loss example: the loss of a net is a Python function."""
    sequence = mx.SequentialModule()
    sequence.add(mx.Module(net_without_loss(), label_names=None))
    sequence.add(
        mx.PythonLossModule(grad_func=function), take_labels=True, auto_wiring=True
    )
    source = NDArrayIter(*rows(24), batch_size=8)
    random = np.random.default_rng(3)
    values = {
        "fc1_weight": random.normal(size=(7, FEATURES)),
        "fc1_bias": np.zeros(7),
        "fc2_weight": random.normal(size=(CLASSES, 7)),
        "fc2_bias": np.zeros(CLASSES),
    }
    arguments = {
        "num_epoch": 3,
        "arg_params": values,
        "optimizer_params": {"learning_rate": 0.3, "momentum": 0.9},
    }
    async with sequence:
        history = await sequence.fit(source, **arguments)
        learnt, _ = await sequence.get_params()
        predicted = await sequence.predict(batch())
    head = mx.sym.SoftmaxOutput(net_without_loss(), name="softmax")
    async with mx.Module(head) as module:
        expected = await module.fit(source, **arguments)
        wanted, _ = await module.get_params()
        softmax = await module.predict(batch())
    for name, value in wanted.items():
        np.testing.assert_allclose(learnt[name], value, rtol=1e-4, atol=1e-6)
    assert history.to_dict()["train-accuracy"] == expected.to_dict()["train-accuracy"]
    assert same(predicted[0].argmax(axis=1), softmax[0].argmax(axis=1))
