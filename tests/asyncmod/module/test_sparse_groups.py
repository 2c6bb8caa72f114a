"""Sparse data and gradients of graphs whose parts are on different devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import asyncmod as mx
from asyncmod.io import DataBatch, NDArrayIter
from asyncmod.nd.sparse import RowSparseNDArray
from tests.asyncmod.module.nets import same

VOCABULARY, WIDTH, LENGTH, ROWS, FEATURES = 20, 4, 3, 8, 12
SIMULATED = mx.Context("simulated", 0)


def process(index: int) -> mx.Context:
    return mx.reference(index, worker="process")


WHERE: dict[str, tuple[list[mx.Context], Any]] = {
    "one share": ([mx.reference(0)], {"a": mx.reference(1), "b": mx.reference(2)}),
    "two shares": (
        [mx.reference(0), mx.reference(1)],
        {
            "a": [mx.reference(2), mx.reference(3)],
            "b": [mx.reference(4), mx.reference(5)],
        },
    ),
    "two memories": ([mx.reference(0)], {"a": SIMULATED, "b": mx.reference(2)}),
    "two shares in two memories": (
        [mx.reference(0), mx.reference(1)],
        {
            "a": [SIMULATED, mx.Context("simulated", 1)],
            "b": [mx.reference(4), mx.reference(5)],
        },
    ),
    "a process": ([mx.reference(0)], {"a": process(1), "b": mx.reference(2)}),
    "processes": ([process(0)], {"a": process(1), "b": process(2)}),
}


def inputs() -> tuple[mx.symbol.Symbol, mx.symbol.Symbol]:
    return mx.sym.var("data"), mx.sym.var("table_weight")


def table(
    name: str, variables: tuple[mx.symbol.Symbol, mx.symbol.Symbol]
) -> mx.symbol.Symbol:
    return mx.sym.Embedding(
        *variables,
        input_dim=VOCABULARY,
        output_dim=WIDTH,
        sparse_grad=True,
        name=name,
    )


def softmax(net: mx.symbol.Symbol) -> mx.symbol.Symbol:
    net = mx.sym.FullyConnected(net, num_hidden=3, name="fc")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def apart() -> mx.symbol.Symbol:
    """The table on one device, what follows on another."""
    with mx.AttrScope(ctx_group="a"):
        net = table("words", inputs())
    with mx.AttrScope(ctx_group="b"):
        return softmax(net)


def twice() -> mx.symbol.Symbol:
    """The table is read on two devices."""
    with mx.AttrScope(ctx_group="a"):
        variables = inputs()
        net = table("words", variables)
    with mx.AttrScope(ctx_group="b"):
        return softmax(mx.sym.tanh(net) + table("again", variables))


def linear_and_factors() -> mx.symbol.Symbol:
    """CSR data that two devices read; its square goes from one to the other."""
    x = mx.sym.var("data", stype="csr")
    with mx.AttrScope(ctx_group="a"):
        linear = mx.sym.dot(x, mx.sym.var("w_weight", shape=(FEATURES, 3)))
        squares = mx.sym.square(x)
    with mx.AttrScope(ctx_group="b"):
        v = mx.sym.var("v_weight", shape=(FEATURES, 3))
        net = linear + mx.sym.dot(x, v)
        u = mx.sym.var("u_weight", shape=(FEATURES, 3))
        return mx.sym.SoftmaxOutput(net + mx.sym.dot(squares, u), name="softmax")


def words(rows: int = ROWS, seed: int = 0) -> DataBatch:
    random = np.random.default_rng(seed)
    data = random.integers(0, VOCABULARY, (rows, LENGTH)).astype(np.float32)
    return DataBatch([data], [random.integers(0, 3, rows).astype(np.float32)])


def elements(rows: int = ROWS, seed: int = 0) -> DataBatch:
    random = np.random.default_rng(seed)
    data = scipy.sparse.random(rows, FEATURES, 0.2, "csr", np.float32, random)
    return DataBatch([data], [random.integers(0, 3, rows).astype(np.float32)])


Batch = Callable[..., DataBatch]


async def train(
    net: mx.symbol.Symbol,
    batch: Batch,
    context: Any,
    groups: Any = None,
    grad_req: str = "write",
    lazy: bool = True,
) -> Any:
    """Parameters, the last gradients, outputs; one step is of one row only."""
    mx.seed(3)
    async with mx.Module(net, context=context, group2ctxs=groups) as mod:
        await mod.bind(
            [("data", batch().data[0].shape)],
            [("softmax_label", (ROWS,))],
            grad_req=grad_req,
        )
        await mod.init_params(mx.init.Normal(0.3))
        settings = {"learning_rate": 0.1, "wd": 0.1, "lazy_update": lazy}
        await mod.init_optimizer(optimizer="adam", optimizer_params=settings)
        for seed, rows in enumerate((ROWS, 1, ROWS)):
            await mod.step(batch(rows, seed))
        gradients = await mod.get_grads()
        await mod.zero_grad()
        zero = {n: np.asarray(g).any() for n, g in (await mod.get_grads()).items()}
        assert not any(zero.values())
        return (await mod.get_params())[0], gradients, await mod.predict(batch(seed=9))


def assert_close(found: Any, expected: Any) -> None:
    """Two results of `train` differ by rounding only."""
    for one, other in zip(found[:2], expected[:2], strict=True):
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-4, atol=1e-5)


def row_sparse(gradients: Any) -> set[str]:
    return {n for n, g in gradients.items() if isinstance(g, RowSparseNDArray)}


@pytest.mark.parametrize("grad_req", ["write", "add"])
@pytest.mark.parametrize("where", WHERE)
async def test_a_table_on_one_device_has_row_sparse_gradients(
    where: str, grad_req: str
) -> None:
    context, groups = WHERE[where]
    alone = [mx.reference(i) for i in range(len(context))]
    expected = await train(apart(), words, alone, grad_req=grad_req)
    found = await train(apart(), words, context, groups, grad_req)
    assert row_sparse(found[1]) == {"table_weight"}
    assert same(found, expected)


@pytest.mark.parametrize("where", ["one share", "two shares", "processes"])
async def test_a_table_that_two_devices_read(where: str) -> None:
    context, groups = WHERE[where]
    alone = [mx.reference(i) for i in range(len(context))]
    expected = await train(twice(), words, alone)
    found = await train(twice(), words, context, groups)
    assert row_sparse(found[1]) == {"table_weight"}
    assert same(found, expected)


async def test_a_table_that_is_sent_to_another_memory_has_dense_gradients() -> None:
    # The one reader sends it to the other, which sends back the whole gradient.
    context, groups = WHERE["two memories"]
    expected = await train(twice(), words, mx.reference(0), lazy=False)
    found = await train(twice(), words, context, groups, lazy=False)
    assert row_sparse(found[1]) == set()
    assert_close(found, expected)


@pytest.mark.parametrize("where", WHERE)
async def test_csr_data_of_two_devices(where: str) -> None:
    context, groups = WHERE[where]
    alone = [mx.reference(i) for i in range(len(context))]
    net = linear_and_factors()
    expected = await train(net, elements, alone, lazy=False)
    found = await train(net, elements, context, groups, lazy=False)
    assert row_sparse(expected[1]) == {"w_weight", "v_weight", "u_weight"}
    # What comes from another device is dense, and so is what it is multiplied by.
    assert row_sparse(found[1]) == {"w_weight", "v_weight"}
    assert_close(found, expected)


@pytest.mark.parametrize("where", ["two shares", "two shares in two memories"])
async def test_batches_accumulate(where: str) -> None:
    context, groups = WHERE[where]
    results = []
    for contexts, placed in ((context, groups), ([mx.reference(0)] * 1, None)):
        batches = [words(seed=seed) for seed in range(4)]
        data = NDArrayIter(
            np.concatenate([b.data[0] for b in batches]),
            np.concatenate([b.label[0] for b in batches]),
            ROWS,
        )
        mx.seed(3)
        async with mx.Module(apart(), context=contexts, group2ctxs=placed) as mod:
            await mod.fit(
                data,
                num_epoch=2,
                initializer=mx.init.Normal(0.3),
                optimizer_params={"learning_rate": 0.5, "momentum": 0.9},
                accumulate=2,
            )
            results.append((await mod.get_params())[0])
    for name, value in results[0].items():
        np.testing.assert_allclose(value, results[1][name], rtol=1e-4, atol=1e-6)


async def test_monitors_show_csr_data_as_arrays() -> None:
    shown, net = [], linear_and_factors()
    for context, groups in (WHERE["one share"], ([mx.reference(0)], None)):
        mx.seed(3)
        async with mx.Module(net, context=context, group2ctxs=groups) as mod:
            await mod.bind([("data", (ROWS, FEATURES))], [("softmax_label", (ROWS,))])
            await mod.init_params(mx.init.Normal(0.3))
            await mod.init_optimizer()
            monitor = mx.mon.Monitor(1, lambda x: float(np.abs(x).mean()))
            mod.install_monitor(monitor)
            monitor.tic()
            await mod.step(elements())
            shown.append([row[1:] for row in monitor.toc()])
    assert shown[0] == shown[1]
