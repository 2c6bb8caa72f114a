"""Batches that are CSR matrices, through a module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import asyncmod as mx
from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
    InputError,
    NameMismatchError,
)
from asyncmod.io import DataBatch, NDArrayIter
from tests.asyncmod.module.nets import same

FEATURES, CLASSES, ROWS = 30, 3, 24
CONTEXTS = {
    "one": [mx.cpu(0)],
    "two": [mx.cpu(0), mx.cpu(1)],
    "idle": [mx.cpu(i) for i in range(3)],
    "own memory": [mx.Context("simulated", 0), mx.reference(0)],
    "process": [mx.cpu(i, worker="process") for i in range(2)],
    "a process and a thread": [mx.reference(0, worker="process"), mx.cpu(0)],
}


def net(stype: str | None = "csr") -> mx.symbol.Symbol:
    """data -> dot weight -> softmax."""
    x = mx.sym.Variable("data", stype=stype)
    w = mx.sym.Variable("weight", shape=(FEATURES, CLASSES))
    scores = mx.sym.broadcast_add(mx.sym.dot(x, w), mx.sym.var("bias", shape=(3,)))
    return mx.sym.SoftmaxOutput(scores, name="softmax")


def data(rows: int = ROWS, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    matrix = scipy.sparse.random(rows, FEATURES, 0.2, "csr", np.float32, random)
    return matrix, random.integers(0, CLASSES, rows).astype(np.float32)


def batches(matrix: Any, label: Any, size: int = 8) -> NDArrayIter:
    return NDArrayIter(matrix, label, size, last_batch_handle="discard")


def values() -> dict[str, Any]:
    weight = np.random.default_rng(3).normal(size=(FEATURES, CLASSES))
    return {"weight": weight.astype(np.float32), "bias": np.zeros(3, np.float32)}


async def ready(mod: mx.Module, rows: int = 8) -> None:
    await mod.bind([("data", (rows, FEATURES))], [("softmax_label", (rows,))])
    await mod.init_params(arg_params=values())


@pytest.mark.parametrize("context", CONTEXTS)
async def test_fit_score_and_predict_are_those_of_dense_data(context: str) -> None:
    matrix, label = data()
    results = []
    for stype, given in (("csr", matrix), (None, matrix.toarray())):
        async with mx.Module(net(stype), context=CONTEXTS[context]) as mod:
            await mod.fit(
                batches(given, label, 2 if context == "idle" else 8),
                num_epoch=2,
                arg_params=values(),
                optimizer_params={"learning_rate": 0.5},
            )
            score = await mod.score(batches(given, label), "ce")
            outputs = await mod.predict(batches(given, label))
            results.append((score[0][1], outputs, (await mod.get_params())[0]))
    sparse, dense = results
    assert sparse[0] == pytest.approx(dense[0], rel=1e-5)
    np.testing.assert_allclose(sparse[1], dense[1], rtol=1e-5)
    for name, value in sparse[2].items():
        np.testing.assert_allclose(value, dense[2][name], rtol=1e-5, atol=1e-6)


async def test_any_form_of_a_batch() -> None:
    matrix, label = data(8)
    async with mx.Module(net(), context=CONTEXTS["two"]) as mod:
        await ready(mod)
        [expected] = await mod.predict(DataBatch([matrix], [label]))
        for form in (matrix, matrix.tocsc(), matrix.tocoo(), matrix.astype(float)):
            assert same(await mod.predict(form), expected)
        assert same(await mod.predict(matrix.toarray()), expected)
        twice = matrix.tocoo()
        doubled = scipy.sparse.coo_matrix(
            (
                np.tile(twice.data / 2, 2),
                (np.tile(twice.row, 2), np.tile(twice.col, 2)),
            ),
            twice.shape,
        )
        elements = doubled.tocsr(copy=True)
        np.testing.assert_allclose(await mod.predict(elements), expected, rtol=1e-6)
        parts = [
            DataBatch([matrix[:3]], [label[:3]]),
            DataBatch([matrix[3:]], [label[3:]]),
        ]
        await mod.forward(parts, is_train=True)
        assert same(await mod.get_outputs(), [expected])
        # Another number of rows: another group, with the same parameters.
        await mod.forward(DataBatch([matrix[:5]], [label[:5]]), is_train=True)
        assert same(await mod.get_outputs(), [expected[:5]])


async def test_elements_that_stand_twice_are_added_up() -> None:
    """By `square` too, which is not linear."""
    x = mx.sym.Variable("data", stype="csr")
    square = mx.sym.dot(mx.sym.square(x), mx.sym.Variable("w", shape=(2, 1)))
    twice = scipy.sparse.csr_matrix(([1.0, 2.0], [0, 0], [0, 2]), (1, 2))
    async with mx.Module(square, label_names=None) as mod:
        await mod.bind([("data", (1, 2))], for_training=False)
        await mod.init_params(arg_params={"w": np.ones((2, 1))})
        assert (await mod.predict(twice)).tolist() == [[9.0]]
    assert twice.nnz == 2


async def test_large_batches_are_the_caller_s_again_when_they_were_copied() -> None:
    matrix = scipy.sparse.random(
        2000, 500, 0.2, "csr", np.float32, np.random.default_rng(0)
    )
    w = np.random.default_rng(1).normal(size=(500, 2)).astype(np.float32)
    expected = matrix @ w
    x = mx.sym.Variable("data", stype="csr")

    class Reused(mx.io.DataIter):
        """Gives the same matrix three times, and spoils it in between."""

        def __init__(self) -> None:
            super().__init__(2000)
            self.provide_data = [mx.io.DataDesc("data", matrix.shape)]
            self.provide_label = []
            self.given = 0

        async def next(self) -> DataBatch:
            if self.given == 3:
                raise StopAsyncIteration
            self.given += 1
            current.data[:] = matrix.data * self.given
            return DataBatch([current], pad=0)

    current = matrix.copy()
    product = mx.sym.dot(x, mx.sym.Variable("w", shape=w.shape))
    async with mx.Module(product, label_names=None, context=CONTEXTS["two"]) as mod:
        await mod.bind([("data", matrix.shape)], for_training=False)
        await mod.init_params(arg_params={"w": w})
        outputs = await mod.predict(Reused(), merge_batches=False, reset=False)
    for factor, [output] in enumerate(outputs, 1):
        np.testing.assert_allclose(output, factor * expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((8, FEATURES, 1)), r"`data` has shape \(8, 30, 1\); a CSR input"),
        (scipy.sparse.csr_matrix((8, FEATURES + 1)), r"`data` \(8, 31\)"),
        (scipy.sparse.csr_matrix((8, FEATURES), dtype=complex), "dtype complex128"),
    ],
)
async def test_batches_that_do_not_fit(wrong: Any, message: str) -> None:
    async with mx.Module(net()) as mod:
        await ready(mod)
        with pytest.raises(InputError, match=message):
            await mod.forward(DataBatch([wrong], [np.zeros(8)]))


async def test_a_file_of_sparse_rows(tmp_path: Path) -> None:
    matrix, label = data()
    lines = []
    for k in range(ROWS):
        row = matrix[k].tocoo()
        pairs = " ".join(f"{c}:{v}" for c, v in zip(row.col, row.data, strict=True))
        lines.append(f"{label[k]:g} {pairs}\n")
    (tmp_path / "rows").write_text("".join(lines))
    source = mx.io.LibSVMIter(
        data_libsvm=tmp_path / "rows", data_shape=(FEATURES,), batch_size=8
    )
    async with mx.Module(net(), context=CONTEXTS["two"]) as mod:
        await mod.fit(source, num_epoch=30, optimizer_params={"learning_rate": 2.0})
        [(_, accuracy)] = await mod.score(source, "acc")
    assert accuracy == 1.0


async def test_gradients_of_a_bound_executor_are_dense() -> None:
    matrix, _ = data(4)
    w = values()["weight"]
    product = mx.sym.dot(mx.sym.Variable("data", stype="csr"), mx.sym.Variable("w"))
    async with mx.bind(product, {"data": matrix.toarray(), "w": w}) as executor:
        [out] = await executor.forward(is_train=True)
        np.testing.assert_allclose(out, matrix @ w, rtol=1e-5)
        gradients = await executor.backward(np.ones_like(out))
    np.testing.assert_allclose(
        gradients["w"], matrix.T @ np.ones((4, CLASSES)), rtol=1e-5
    )


async def test_row_ids_are_checked() -> None:
    matrix, label = data(8)
    batch = DataBatch([matrix], [label])
    seen = []

    def rows_of(batch: DataBatch) -> dict[str, Any]:
        seen.append(batch)
        return {"weight": np.unique(batch.data[0].indices)}

    async with mx.Module(net()) as mod:
        await ready(mod)
        await mod.prepare(batch, sparse_row_id_fn=rows_of)
        assert seen == [batch]
        await mod.score(batches(*data()), "acc", sparse_row_id_fn=rows_of)
        assert len(seen) == 1 + ROWS // 8
        for given, error, message in (
            ({"weight": [FEATURES]}, ArgumentError, "rows 30 to 30 of `weight`"),
            ({"w": [0]}, NameMismatchError, "`w`, which is no parameter"),
            ([1], ArgumentTypeError, "must give a dict"),
        ):
            with pytest.raises(error, match=message):
                await mod.prepare(batch, sparse_row_id_fn=lambda _, g=given: g)
