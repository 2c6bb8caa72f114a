"""Row-sparse gradients through a module: what they are, and what an update touches."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.io import DataBatch
from asyncmod.nd.sparse import RowSparseNDArray
from tests.asyncmod.module.nets import same
from tests.asyncmod.module.sparse_nets import embedding
from tests.runtime.executor.fragile import failing_on, hooked

VOCABULARY, WIDTH, LENGTH, ROWS = 20, 4, 3, 8
CONTEXTS = {
    "one": [mx.cpu(0)],
    "two": [mx.cpu(0), mx.cpu(1)],
    "reference": [mx.reference(0), mx.reference(1)],
    "own memory": [mx.Context("simulated", 0), mx.reference(0)],
    "process": [mx.cpu(0, worker="process"), mx.cpu(1, worker="process")],
}
MOMENTUM = {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.1}


def batch(words: Any = None, seed: int = 0, rows: int = ROWS) -> DataBatch:
    random = np.random.default_rng(seed)
    if words is None:
        words = random.integers(0, VOCABULARY, (rows, LENGTH))
    data = np.broadcast_to(np.asarray(words, np.float32), (rows, LENGTH)).copy()
    return DataBatch([data], [random.integers(0, 3, rows).astype(np.float32)])


def values(rows: int = VOCABULARY) -> dict[str, Any]:
    random = np.random.default_rng(1)
    shapes = {
        "emb_weight": (rows, WIDTH),
        "fc_weight": (3, LENGTH * WIDTH),
        "fc_bias": (3,),
    }
    return {n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()}


async def ready(mod: mx.Module, optimizer: Any = "sgd", **options: Any) -> mx.Module:
    settings = options.pop("optimizer_params", MOMENTUM)
    await mod.bind([("data", (ROWS, LENGTH))], [("softmax_label", (ROWS,))], **options)
    await mod.init_params(arg_params=values())
    await mod.init_optimizer(optimizer=optimizer, optimizer_params=settings)
    return mod


@pytest.mark.parametrize("context", CONTEXTS)
async def test_gradients_are_the_dense_ones(context: str) -> None:
    found = []
    for sparse_grad in (True, False):
        net = embedding(VOCABULARY, WIDTH, sparse_grad)
        async with mx.Module(net, context=CONTEXTS[context]) as mod:
            await ready(mod)
            await mod.forward_backward(batch())
            found.append((await mod.get_grads())["emb_weight"])
    sparse, dense = found
    assert isinstance(sparse, RowSparseNDArray)
    assert sparse.indices.tolist() == np.unique(batch().data[0]).astype(int).tolist()
    np.testing.assert_array_equal(sparse, dense)


@pytest.mark.parametrize("context", ["one", "two", "reference", "own memory"])
async def test_a_standard_update_is_the_dense_one_and_a_lazy_one_leaves_rows(
    context: str,
) -> None:
    async def train(sparse_grad: bool, lazy: bool) -> Any:
        net = embedding(VOCABULARY, WIDTH, sparse_grad)
        async with mx.Module(net, context=CONTEXTS[context]) as mod:
            await ready(mod, optimizer_params={**MOMENTUM, "lazy_update": lazy})
            await mod.step(batch([1, 2, 3]))
            await mod.step(batch([2, 2, 2], 1))
            return (await mod.get_params())[0]["emb_weight"]

    dense, first = await train(False, True), values()["emb_weight"]
    np.testing.assert_array_equal(await train(True, False), dense)
    lazy = await train(True, True)
    changed = np.flatnonzero((lazy != first).any(axis=1)).tolist()
    assert changed == [1, 2, 3]
    assert same(lazy[2], dense[2])  # touched by both batches
    assert not same(lazy[1], dense[1])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad", "ftrl"])
async def test_the_same_bits_every_time(optimizer: str) -> None:
    results = []
    for _ in range(3):
        async with mx.Module(
            embedding(VOCABULARY, WIDTH), context=CONTEXTS["two"]
        ) as mod:
            await ready(mod, optimizer, optimizer_params={"learning_rate": 0.1})
            for seed in range(5):
                await mod.step(batch(seed=seed))
            results.append(await mod.get_params())
    assert same(results[0], results[1])
    assert same(results[0], results[2])


@pytest.mark.parametrize("context", ["one", "two", "own memory"])
async def test_rows_accumulate_until_they_are_set_to_zero(context: str) -> None:
    async with mx.Module(
        embedding(VOCABULARY, WIDTH), context=CONTEXTS[context]
    ) as mod:
        await ready(mod, grad_req="add")
        expected = np.zeros((VOCABULARY, WIDTH), np.float32)
        for words in ([1, 2, 3], [3, 4, 4]):
            async with mx.Module(
                embedding(VOCABULARY, WIDTH), context=CONTEXTS[context]
            ) as other:
                await ready(other)
                await other.forward_backward(batch(words))
                expected += np.asarray((await other.get_grads())["emb_weight"])
            await mod.forward_backward(batch(words))
        gradient = (await mod.get_grads())["emb_weight"]
        assert gradient.indices.tolist() == [1, 2, 3, 4]
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)
        await mod.zero_grad()
        assert (await mod.get_grads())["emb_weight"].indices.size == 0


@pytest.mark.parametrize("context", ["one", "two", "own memory"])
async def test_batches_accumulated_are_one_large_batch(context: str) -> None:
    words = np.concatenate([batch(seed=seed).data[0] for seed in range(4)])
    label = np.concatenate([batch(seed=seed).label[0] for seed in range(4)])
    results = []
    for size, accumulate in ((8, 2), (16, 1)):
        data = mx.io.NDArrayIter(words, label, size)
        net = embedding(VOCABULARY, WIDTH)
        async with mx.Module(net, context=CONTEXTS[context]) as mod:
            await mod.fit(
                data,
                num_epoch=2,
                arg_params=values(),
                optimizer_params=MOMENTUM,
                accumulate=accumulate,
            )
            results.append((await mod.get_params())[0])
    for name, value in results[0].items():
        np.testing.assert_allclose(value, results[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
async def test_guard_zones_change_nothing(
    accumulate: int, request: pytest.FixtureRequest
) -> None:
    words = np.concatenate([batch(seed=seed).data[0] for seed in range(4)])
    label = np.concatenate([batch(seed=seed).label[0] for seed in range(4)])
    results = []
    for guarded in (False, True):
        if guarded:
            request.getfixturevalue("guard_zones")
        net = embedding(VOCABULARY, WIDTH)
        async with mx.Module(net, context=CONTEXTS["two"]) as mod:
            await mod.fit(
                mx.io.NDArrayIter(words, label, ROWS),
                num_epoch=2,
                arg_params=values(),
                optimizer_params=MOMENTUM,
                accumulate=accumulate,
            )
            results.append(await mod.get_params())
    assert same(*results)


async def test_an_idle_device_adds_nothing() -> None:
    results = []
    for contexts in ([mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]):
        net = embedding(VOCABULARY, WIDTH)
        async with mx.Module(net, context=contexts) as mod:
            await ready(mod)
            await mod.step(batch())
            # One row: the second device idles, and what it had is no gradient of it.
            await mod.step(batch([7, 8, 9], rows=1))
            gradient = (await mod.get_grads())["emb_weight"]
            assert gradient.indices.tolist() == [7, 8, 9]
            results.append((await mod.get_params())[0]["emb_weight"])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


async def test_shared_modules_have_one_gradient() -> None:
    """MXNet's test_executor_group with a sparse embedding; one reads it densely."""
    async with mx.open_runtime():
        sparse = mx.Module(embedding(VOCABULARY, WIDTH))
        dense = mx.Module(embedding(VOCABULARY, WIDTH, sparse_grad=False))
        await ready(sparse)
        await dense.bind(
            [("data", (ROWS, LENGTH))],
            [("softmax_label", (ROWS,))],
            shared_module=sparse,
        )
        await dense.forward_backward(batch([1, 2, 3]))
        await sparse.forward_backward(batch([4, 5, 6]))
        gradients = [(await m.get_grads())["emb_weight"] for m in (sparse, dense)]
        assert [g.indices.tolist() for g in gradients] == [[4, 5, 6]] * 2
        await dense.step(batch([1, 2, 3]))
        whole = (await sparse.get_grads())["emb_weight"]
        assert np.flatnonzero(np.asarray(whole).any(axis=1)).tolist() == [1, 2, 3]
        assert same(await sparse.get_params(), await dense.get_params())


async def test_states_are_saved_and_loaded(tmp_path: Path) -> None:
    path, results = tmp_path / "states", []
    net = embedding(VOCABULARY, WIDTH)
    async with mx.Module(net, context=CONTEXTS["two"]) as mod:
        await ready(mod, "adam", optimizer_params={"learning_rate": 0.1})
        await mod.step(batch(seed=1))
        await mod.save_optimizer_states(path)
        middle, _ = await mod.get_params()
        await mod.step(batch(seed=2))
        results.append(await mod.get_params())
    async with mx.Module(net, context=CONTEXTS["one"]) as mod:
        await ready(mod, "adam", optimizer_params={"learning_rate": 0.1})
        await mod.set_params(middle, {})
        await mod.load_optimizer_states(path)
        await mod.step(batch(seed=2))
        results.append(await mod.get_params())
    for name, value in results[0][0].items():
        np.testing.assert_allclose(value, results[1][0][name], rtol=1e-5, atol=1e-6)


async def test_nothing_changes_if_a_device_fails() -> None:
    emb = mx.sym.Embedding(
        mx.sym.Variable("data"),
        input_dim=VOCABULARY,
        output_dim=WIDTH,
        sparse_grad=True,
        name="emb",
    )
    net = mx.sym._internal._test_fragile(emb)
    net = mx.sym.FullyConnected(net, num_hidden=3, name="fc")
    net = mx.sym.SoftmaxOutput(net, name="softmax")
    async with mx.Module(net, context=CONTEXTS["reference"]) as mod:
        await ready(mod)
        await mod.step(batch())
        before = await mod.get_params()
        failing = hooked(failing_on("reference(1)"))
        with failing, pytest.raises(ArithmeticError, match="injected"):
            await mod.step(batch(seed=1))
        assert same(await mod.get_params(), before)
        await mod.step(batch(seed=1))
        after = await mod.get_params()
    async with mx.Module(net, context=CONTEXTS["reference"]) as mod:
        await ready(mod)
        await mod.step(batch())
        await mod.step(batch(seed=1))
        assert same(await mod.get_params(), after)


async def test_float16_with_master_copies_updates_all_rows() -> None:
    data = mx.sym.Variable("data")
    weight = mx.sym.Variable("emb_weight", dtype="float16")
    emb = mx.sym.Embedding(
        data,
        weight,
        input_dim=VOCABULARY,
        output_dim=WIDTH,
        dtype="float16",
        sparse_grad=True,
        name="emb",
    )
    net = mx.sym.FullyConnected(
        mx.sym.Cast(emb, dtype="float32"), num_hidden=3, name="fc"
    )
    net = mx.sym.SoftmaxOutput(net, name="softmax")
    async with mx.Module(net) as mod:
        await ready(mod, optimizer_params={**MOMENTUM, "multi_precision": True})
        await mod.step(batch([1, 2, 3]))
        after = (await mod.get_params())[0]["emb_weight"]
    assert after.dtype == np.float16
    assert (after != values()["emb_weight"].astype(np.float16)).any(axis=1).all()


async def test_a_step_costs_what_its_rows_cost() -> None:
    """A table a hundred times larger: far from a hundred times the time."""
    seconds = {}
    for rows in (10_000, 1_000_000):
        net = embedding(rows, 16)
        words = np.random.default_rng(0).integers(0, rows, (ROWS, LENGTH))
        one = DataBatch([words.astype(np.float32)], batch().label)
        async with mx.Module(net, context=CONTEXTS["two"]) as mod:
            await mod.bind([("data", (ROWS, LENGTH))], [("softmax_label", (ROWS,))])
            await mod.init_params(mx.init.Zero())
            await mod.init_optimizer(optimizer="adam")
            times = []
            for _ in range(20):
                begin = time.perf_counter()
                await mod.step(one)
                times.append(time.perf_counter() - begin)
            seconds[rows] = min(times)
    # A single pass over the larger table takes more than the bound.
    assert seconds[1_000_000] < 5 * seconds[10_000]
