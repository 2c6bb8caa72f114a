"""What MXNet's tests of modules pin down, where no other test of ours does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.io import DataBatch, NDArrayIter
from tests.asyncmod.module.nets import Array, mlp, rows, same, values

TWO = [mx.cpu(0), mx.cpu(1)]


class Plain:
    """Any object with `data`, and perhaps `label`."""

    def __init__(self, data: list[Array], label: list[Array] | None = None) -> None:
        self.data = data
        if label is not None:
            self.label = label


async def test_forward_takes_any_object_with_data() -> None:
    data, label = rows(8)
    async with mx.Module(mlp(), context=TWO) as module:
        await module.bind([("data", (8, 5))], [("softmax_label", (8,))])
        await module.init_params(arg_params=values(mlp()))
        await module.init_optimizer()
        await module.forward(Plain([data]), is_train=False)
        [out] = await module.get_outputs()
        assert out.shape == (8, 3)
        assert same(await module.predict(data), out)
        assert same(await module.predict(mx.nd.array(data)), out)
        assert same(await module.predict(Plain([data])), [out])
        before, _ = await module.get_params()
        await module.step(Plain([data], [label]))
        assert not same((await module.get_params())[0], before)


async def test_shared_modules_have_one_memory_and_equal_requests() -> None:
    """MXNet's executor group of two lengths of a dense embedding."""

    def net() -> mx.symbol.Symbol:
        words = mx.sym.Embedding(
            mx.sym.Variable("data"), input_dim=10, output_dim=4, name="embed"
        )
        return mx.sym.LinearRegressionOutput(
            mx.sym.sum(words, axis=1, name="sum"), name="softmax"
        )

    def batch(length: int) -> DataBatch:
        ids = np.arange(4 * length, dtype=np.float32).reshape(4, length) % 10
        return DataBatch([ids], [np.zeros((4, 4), np.float32)])

    async with mx.open_runtime():
        long, short = (mx.Module(net(), context=TWO) for _ in range(2))
        label = [("softmax_label", (4, 4))]
        await long.bind([("data", (4, 6))], label, grad_req="add")
        await long.init_params(mx.init.One())
        await short.bind([("data", (4, 3))], label, shared_module=long, grad_req="add")
        await long.forward_backward(batch(6))
        one = (await long.get_grads())["embed_weight"]
        assert same(await short.get_grads(), await long.get_grads())
        await short.forward_backward(batch(3))
        both = (await long.get_grads())["embed_weight"]
        assert not same(both, one)
        assert same(await short.get_grads(), await long.get_grads())
        await long.zero_grad()
        await short.forward_backward(batch(3))
        np.testing.assert_allclose(
            (await long.get_grads())["embed_weight"], both - one, rtol=1e-5
        )
        await short.set_params({"embed_weight": np.full((10, 4), 7.0)}, {})
        arguments, _ = await long.get_params()
        assert (arguments["embed_weight"] == 7).all()


@pytest.mark.parametrize(("count", "batches"), [(8, 1), (16, 2)])
async def test_predict_merges_three_outputs_of_one_and_two_batches(
    count: int, batches: int
) -> None:
    """Scala's test of predict."""
    data = mx.sym.Variable("data")
    outputs = [
        mx.sym.FullyConnected(data, num_hidden=size, name=f"fc{size}")
        for size in (1, 10, 30)
    ]
    source = NDArrayIter(rows(count)[0], batch_size=8)
    module = mx.Module(mx.sym.Group(outputs), label_names=None, context=TWO)
    async with module:
        await module.bind(source.provide_data, for_training=False)
        await module.init_params(mx.init.Normal(1))
        merged = await module.predict(source)
        assert [out.shape for out in merged] == [(count, size) for size in (1, 10, 30)]
        every = await module.predict_every_batch(source)
        assert len(every) == batches
        for i, out in enumerate(merged):
            np.testing.assert_array_equal(out, np.concatenate([o[i] for o in every]))


async def test_reshape_and_back_to_the_original_shape() -> None:
    """Scala's test: a bias after steps of batches of 7, 14 and 7."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=20, name="fc")
    async with mx.Module(net, label_names=None, context=TWO) as module:
        await module.bind([("data", (7, 20))])
        await module.init_params()
        await module.init_optimizer(optimizer_params={"learning_rate": 1.0})
        biases: list[Any] = []
        for count in (7, 14, 7):
            await module.reshape([("data", (count, 20))])
            await module.forward(DataBatch([np.ones((count, 20), np.float32)]))
            await module.backward([np.ones((count, 20), np.float32)])
            await module.update()
            [out] = await module.get_outputs()
            assert out.shape == (count, 20)
            biases.append((await module.get_params())[0]["fc_bias"][0])
    np.testing.assert_allclose(biases, [-1, -3, -4], rtol=1e-6)
