"""What MXNet's tests of sparse modules and iterators pin down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

import asyncmod as mx
from asyncmod.io import DataBatch, NDArrayIter
from tests.asyncmod.module.nets import same
from tests.asyncmod.module.sparse_nets import embedding, factorization_machine

TWO = [mx.cpu(0), mx.cpu(1)]


def matrix(rows: int, columns: int, density: float = 0.3) -> scipy.sparse.csr_matrix:
    return scipy.sparse.random(
        rows, columns, density, "csr", np.float32, np.random.default_rng(6)
    )


async def test_batches_of_a_csr_matrix() -> None:
    csr, dense = matrix(11, 4), matrix(11, 4).toarray()
    with pytest.raises(NotImplementedError, match="discard"):
        NDArrayIter({"data": csr}, dense, 3)
    shuffled = NDArrayIter(
        {"csr": csr, "dense": dense}, dense, 3, True, last_batch_handle="discard"
    )
    count = 0
    async for batch in shuffled:
        count += 1
        np.testing.assert_array_equal(batch.data[0].toarray(), batch.data[1])
        np.testing.assert_array_equal(batch.label[0], batch.data[1])
    assert count == 3
    with pytest.raises(StopAsyncIteration):
        await shuffled.next()
    iterator = NDArrayIter(csr, csr, 3, last_batch_handle="discard")
    batches = [batch async for batch in iterator]
    for i, batch in enumerate(batches):
        for given in (batch.data[0], batch.label[0]):
            np.testing.assert_array_equal(given.toarray(), dense[3 * i : 3 * i + 3])


@pytest.mark.parametrize("context", [mx.cpu(0), TWO], ids=["1", "2"])
async def test_a_factorization_machine_learns_in_a_manual_loop(context: Any) -> None:
    net = factorization_machine(500, 4, init=mx.init.Normal(0.01))
    source = NDArrayIter(
        matrix(320, 500, 0.1),
        {"label": np.ones((320, 1), np.float32)},
        64,
        last_batch_handle="discard",
    )
    mx.seed(2)
    optimizer = mx.optimizer.Adam(learning_rate=0.01, rescale_grad=1 / 64)
    metric = mx.metric.create("MSE")
    async with mx.Module(net, label_names=["label"], context=context) as module:
        await module.bind(source.provide_data, source.provide_label)
        await module.init_params()
        await module.init_optimizer(optimizer=optimizer)
        for _ in range(10):
            metric.reset()
            async for batch in source:
                await module.forward(batch, is_train=True)
                await module.update_metric(metric, batch.label)
                await module.backward()
                await module.update()
            await source.reset()
    assert metric.get()[1] < 0.02


@pytest.mark.parametrize(
    ("init", "value"), [(mx.init.Constant(2.0), 2), (mx.init.Zero(), 0)], ids=str
)
async def test_a_row_sparse_parameter_starts_as_its_variable_says(
    init: Any, value: float
) -> None:
    data = mx.sym.Variable("data", stype="csr")
    weight = mx.sym.Variable("w", shape=(10, 2), init=init, stype="row_sparse")
    net = mx.sym.sparse.dot(data, weight, name="dot")
    async with mx.Module(net, label_names=None) as module:
        await module.bind([("data", (10, 10))])
        await module.init_params(mx.init.One())
        arguments, _ = await module.get_params()
    assert np.asarray(arguments["w"]).tolist() == [[value] * 2] * 10


@pytest.mark.parametrize("sparse_grad", [True, False])
async def test_shared_modules_share_a_sparse_embedding(sparse_grad: bool) -> None:
    def batch(*ids: int) -> DataBatch:
        return DataBatch([np.array(ids, np.float32)], [np.zeros(len(ids))])

    async with mx.open_runtime():
        net = embedding(6, 3, sparse_grad)
        long, short = (mx.Module(net, context=TWO) for _ in range(2))
        for module, count, owner in ((long, 4, None), (short, 2, long)):
            shapes = [("data", (count,))], [("softmax_label", (count,))]
            await module.bind(*shapes, shared_module=owner)
            if owner is None:
                await module.init_params(mx.init.Normal(1))
                await module.init_optimizer(optimizer_params={"learning_rate": 1.0})
        before, _ = await long.get_params()
        await short.forward_backward(batch(1, 4))
        await long.update()
        after, _ = await long.get_params()
        changed = (before["emb_weight"] != after["emb_weight"]).any(axis=1)
        assert changed.tolist() == [False, True, False, False, True, False]
        assert same((await short.get_params())[0], after)
        await long.step(batch(0, 2, 3, 5))
        assert same(await short.get_params(), await long.get_params())


async def test_a_monitor_shows_sparse_gradients_as_whole_arrays() -> None:
    monitor = mx.mon.Monitor(1, lambda x: x.copy())
    data = np.array([1, 4, 1, 0], np.float32)
    async with mx.Module(embedding(6, 3), context=TWO) as module:
        await module.bind([("data", (4,))], [("softmax_label", (4,))])
        await module.init_params(mx.init.Normal(1))
        module.install_monitor(monitor)
        monitor.tic()
        await module.forward_backward(DataBatch([data], [np.arange(4) % 3]))
        gradient = (await module.get_grads())["emb_weight"]
        shown = [v for _, name, v in monitor.queue if name == "emb_backward_output1"]
    expected = np.zeros((6, 3), np.float32)
    expected[gradient.indices] = gradient.values
    np.testing.assert_allclose(sum(shown), expected, rtol=1e-5, atol=1e-7)
