"""Row-sparse values in a store: what MXNet 1.9.1 gives for the same calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.nd.sparse import RowSparseNDArray

SHAPE = (6, 2)
TABLE = np.arange(12, dtype=np.float32).reshape(SHAPE)
ALL = range(6)
Call = Callable[[mx.kvstore.KVStore], Awaitable[RowSparseNDArray]]


def rows(numbers: list[int], *values: float) -> RowSparseNDArray:
    """Rows of which all elements are equal."""
    filled = np.repeat(np.array(values, np.float32), 2).reshape(-1, 2)
    return mx.nd.sparse.row_sparse_array((filled, numbers), shape=SHAPE)


async def pulled(store: mx.kvstore.KVStore, row_ids: Any, key: Any = 0) -> Any:
    out = mx.nd.sparse.zeros("row_sparse", SHAPE)
    await store.row_sparse_pull(key, out=out, row_ids=row_ids)
    return out


async def pushed(store: mx.kvstore.KVStore, value: Any, row_ids: Any) -> Any:
    await store.push(0, value)
    return await pulled(store, row_ids)


async def optimized(store: mx.kvstore.KVStore, name: str, **settings: Any) -> Any:
    """Two updates, of other rows."""
    store.set_optimizer(mx.optimizer.create(name, learning_rate=0.5, **settings))
    for i in range(2):
        await store.push(0, rows([1 + i, 3], 1, 2))
    return await pulled(store, mx.nd.array(ALL))


async def exchanged(store: mx.kvstore.KVStore) -> Any:
    out = rows([4], 7)
    await store.pushpull(0, rows([1], 1), out=out)
    return out


async def ignored(store: mx.kvstore.KVStore) -> Any:
    out = mx.nd.sparse.zeros("row_sparse", SHAPE)
    await store.pull(0, out)
    return out


async def updated(store: mx.kvstore.KVStore) -> Any:
    def add(key: int, pushed: Any, stored: Any) -> None:
        assert pushed.stype == "row_sparse"
        stored[:] = stored + pushed

    store._set_updater(add)
    return await pushed(store, [rows([1], 1), rows([1, 2], 1, 2)], ALL)


CASES: dict[str, tuple[Call, list[int], Any]] = {
    "rows that come twice": (
        lambda s: pulled(s, np.array([3, 1, 3])),
        [1, 3],
        [[2, 3], [6, 7]],
    ),
    "numbers in a matrix": (
        lambda s: pulled(s, np.array([[4, 0], [1, 4]])),
        [0, 1, 4],
        [[0, 1], [2, 3], [8, 9]],
    ),
    "numbers that are floats": (
        lambda s: pulled(s, mx.nd.array([4, 0])),
        [0, 4],
        [[0, 1], [8, 9]],
    ),
    "no numbers": (lambda s: pulled(s, mx.nd.array([])), [], np.empty((0, 2))),
    "a sum of rows": (
        lambda s: pushed(s, [rows([1, 3], 1, 2), rows([3, 5], 4, 8)], [0, 1, 3, 5]),
        [0, 1, 3, 5],
        [[0, 0], [1, 1], [6, 6], [8, 8]],
    ),
    "what is pushed replaces all rows": (
        lambda s: pushed(s, rows([1], 9), [0, 1, 2]),
        [0, 1, 2],
        [[0, 0], [9, 9], [0, 0]],
    ),
    "a sum of rows and a dense array": (
        lambda s: pushed(s, [rows([1], 1), np.ones(SHAPE, np.float32)], [0, 1]),
        [0, 1],
        [[1, 1], [2, 2]],
    ),
    "pushpull passes over rows": (exchanged, [4], [[7, 7]]),
    "pull passes over rows": (ignored, [], np.empty((0, 2))),
    "a function": (
        updated,
        [*ALL],
        [[0, 1], [4, 5], [6, 7], [6, 7], [8, 9], [10, 11]],
    ),
    "SGD": (
        lambda s: optimized(s, "sgd", momentum=0.9, wd=0.1),
        [*ALL],
        [[0, 1], [1.4, 2.35], [3.3, 4.25], [2.295, 3.1525], [8, 9], [10, 11]],
    ),
    "Adam": (
        lambda s: optimized(s, "adam", wd=0.1),
        [*ALL],
        [
            [0, 1],
            [1.4999968, 2.4999969],
            [3.6279292, 4.6279292],
            [5.0002699, 6.0002589],
            [8, 9],
            [10, 11],
        ],
    ),
    "Adam of all rows": (
        lambda s: optimized(s, "adam", wd=0.1, lazy_update=False),
        [*ALL],
        [
            [0, 0.0339069],
            [1.121383, 2.1007013],
            [3.0481071, 4.0390644],
            [5.0002699, 6.0002589],
            [7.0010939, 8.0009422],
            [9.0008259, 10.0007353],
        ],
    ),
    "Ftrl": (
        lambda s: optimized(s, "ftrl", wd=0.1),
        [*ALL],
        [
            [0, 1],
            [0.7292683, 1.2170732],
            [1.7048781, 2.192683],
            [3.3470817, 4.0028191],
            [8, 9],
            [10, 11],
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_rows_as_in_mxnet(name: str) -> None:
    call, numbers, values = CASES[name]
    store = mx.kvstore.create()
    await store.init(0, RowSparseNDArray.whole(TABLE))
    found = await call(store)
    assert found.indices.tolist() == numbers
    # MXNet has 1 - beta2 in float32, which gives another fifth digit.
    np.testing.assert_allclose(found.values, values, rtol=5e-6, atol=1e-5)


async def test_rows_of_several_keys_and_arrays() -> None:
    store = mx.kvstore.create()
    await store.init(["a", "b"], [TABLE, 2 * TABLE])
    outs = [mx.nd.sparse.zeros("row_sparse", SHAPE) for _ in range(2)]
    row_ids = [mx.nd.array([0, 1]), mx.nd.array([5])]
    await store.row_sparse_pull(["a", "b"], out=outs, row_ids=row_ids)
    assert [out.indices.tolist() for out in outs] == [[0, 1], [5]]
    np.testing.assert_array_equal(outs[1].values, 2 * TABLE[[5]])
    await store.row_sparse_pull("a", out=outs, row_ids=row_ids)
    assert [out.indices.tolist() for out in outs] == [[0, 1], [5]]
    np.testing.assert_array_equal(outs[1].values, TABLE[[5]])
