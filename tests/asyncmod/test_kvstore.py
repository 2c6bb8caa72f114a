"""`mx.kvstore`: sums, updates, rows, files, and what it refuses."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import asyncmod as mx
from asyncmod import errors, kvstore

SHAPE = (4, 4)


def ones(factor: float = 1.0, dtype: Any = np.float32) -> Any:
    return mx.nd.full(SHAPE, factor, dtype=dtype)


async def value(store: mx.kvstore.KVStore, key: Any, dtype: Any = np.float32) -> Any:
    out = mx.nd.empty(SHAPE, dtype=dtype)
    await store.pull(key, out)
    return out


async def with_a(first: float = 0.0, kind: str = "local") -> mx.kvstore.KVStore:
    store = mx.kvstore.create(kind)
    await store.init("a", ones(first))
    return store


@pytest.mark.parametrize(
    "name",
    [
        "local",
        "local_update_cpu",
        "local_allreduce_cpu",
        "local_allreduce_device",
        "device",
        "nccl",
    ],
)
def test_stores_of_this_process(name: str) -> None:
    store = mx.kv.create(name)
    assert (store.type, store.rank, store.num_workers) == (name, 0, 1)
    assert store.is_capable("optimizer")


@pytest.mark.parametrize("name", ["foo", "", "teststore", "Local"])
def test_unknown_stores(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown kvstore '{name}'; known are local"):
        mx.kvstore.create(name)


@pytest.mark.parametrize("name", ["dist_sync", "dist_device_sync", "dist_async"])
def test_distributed_stores_say_how_they_will_be_served(name: str) -> None:
    with pytest.raises(errors.UnsupportedError, match=f"'{name}'.*over MPI"):
        mx.kvstore.create(name)


@pytest.mark.parametrize("name", [None, 3])
def test_a_name_is_a_string(name: Any) -> None:
    with pytest.raises(TypeError, match="`name` of a store must be a string, not"):
        mx.kvstore.create(name)


async def test_init_keeps_a_copy_and_pull_gives_one() -> None:
    first = ones()
    store = mx.kvstore.create()
    await store.init("a", first)
    first[:] = 5
    out = await value(store, "a")
    out[:] = 6
    np.testing.assert_array_equal(await value(store, "a"), ones())


async def test_a_push_without_updater_replaces_by_the_sum() -> None:
    store = await with_a(7)
    await store.push("a", [ones(2), ones(3)])
    np.testing.assert_array_equal(await value(store, "a"), ones(5))
    await store.push("a", ones(1))
    np.testing.assert_array_equal(await value(store, "a"), ones(1))


async def test_a_sum_goes_from_first_to_last() -> None:
    store = await with_a()
    await store.push("a", [ones(1e8), ones(-1e8), ones(1)])
    np.testing.assert_array_equal(await value(store, "a"), ones(1))


@pytest.mark.parametrize("keys", [[3, 5, 7], ["b", "c", "d"]])
async def test_several_keys(keys: list[Any]) -> None:
    store = mx.kvstore.create("device")
    await store.init(keys, [ones()] * 3)
    await store.push(keys, [[ones(i), ones(10)] for i in range(3)])
    outs = [[mx.nd.empty(SHAPE), mx.nd.empty(SHAPE)] for _ in keys]
    await store.pull(keys, outs)
    for i, pair in enumerate(outs):
        for out in pair:
            np.testing.assert_array_equal(out, ones(10 + i))


async def test_an_updater_gets_key_sum_and_value() -> None:
    store = await with_a(4)
    seen = []

    def updater(key: Any, pushed: Any, stored: Any) -> None:
        seen.append((key, pushed.copy()))
        stored += 2 * pushed

    store._set_updater(updater)
    await store.push("a", [ones()] * 4)
    np.testing.assert_array_equal(await value(store, "a"), ones(12))
    assert seen[0][0] == "a"
    np.testing.assert_array_equal(seen[0][1], ones(4))


async def test_a_failing_updater_leaves_the_value() -> None:
    store = await with_a(4)

    def updater(key: Any, pushed: Any, stored: Any) -> None:
        stored[:] = 0
        raise RuntimeError("no")

    store._set_updater(updater)
    with pytest.raises(RuntimeError, match="no"):
        await store.push("a", ones())
    np.testing.assert_array_equal(await value(store, "a"), ones(4))


async def test_pushpull_and_broadcast() -> None:
    store = mx.kvstore.create()
    outs = [mx.nd.empty(SHAPE), mx.nd.empty(SHAPE)]
    await store.broadcast("a", ones(3), outs)
    np.testing.assert_array_equal(outs, [ones(3)] * 2)
    await store.pushpull("a", [ones(1), ones(2)], outs)
    np.testing.assert_array_equal(outs, [ones(3)] * 2)
    gradients = [ones(4), ones(5)]
    await store.pushpull("a", gradients)
    np.testing.assert_array_equal(gradients, [ones(9)] * 2)


async def test_dtypes() -> None:
    store = mx.kvstore.create()
    await store.init("half", ones(2, np.float16))
    await store.push("half", [ones(1, np.float64), ones(2, np.float32)])
    out = await value(store, "half", np.float64)
    np.testing.assert_array_equal(out, ones(3, np.float64), strict=False)
    await store.init("whole", ones(2, np.int64))
    with pytest.raises(ValueError, match=r"'whole' has dtype float32, .* int64"):
        await store.push("whole", ones())
    with pytest.raises(ValueError, match="`out` of key 'half' has dtype int32"):
        await store.pull("half", np.zeros(SHAPE, np.int32))


@pytest.mark.parametrize("shared", [True, False])
async def test_rows(shared: bool) -> None:
    table = np.arange(16, dtype=np.float32).reshape(SHAPE)
    store = mx.kvstore.create()
    await store.init("a", table)
    outs = [ones(9), ones(9)]
    wanted = [[3, 1, 3], [3, 1, 3]] if shared else [[3, 1, 3], [0]]
    row_ids: Any = np.array(wanted[0]) if shared else [np.array(w) for w in wanted]
    await store.row_sparse_pull("a", outs, row_ids=row_ids)
    for out, rows in zip(outs, wanted, strict=True):
        expected = np.zeros_like(table)
        expected[rows] = table[rows]
        np.testing.assert_array_equal(out, expected)
    await store.row_sparse_pull(["a"], [outs[0]], row_ids=[])
    np.testing.assert_array_equal(outs[0], ones(0))


@pytest.mark.parametrize(
    ("row_ids", "message"),
    [
        ([4], r"of key 'a' must be row numbers of shape \(4, 4\), and they are \[4\]"),
        ([-1], "must be row numbers"),
        (np.array([0.5]), "`row_ids` must be whole numbers"),
        (np.array([np.nan]), "`row_ids` must be whole numbers"),
        (None, "`row_ids` must be whole numbers, not None"),
        ([np.array([1]), np.array([1])], "one for each array of `out`; there are 2"),
    ],
)
async def test_rows_that_are_not_there(row_ids: Any, message: str) -> None:
    store = await with_a()
    out = ones(9)
    with pytest.raises(ValueError, match=message):
        await store.row_sparse_pull("a", out, row_ids=row_ids)
    np.testing.assert_array_equal(out, ones(9))


async def test_an_optimizer_updates_by_what_is_pushed(tmp_path: Path) -> None:
    def optimizer() -> Any:
        return mx.optimizer.create("sgd", learning_rate=0.5, momentum=0.5)

    store = await with_a(4)
    store.set_optimizer(optimizer())
    await store.push("a", [ones(1), ones(1)])
    np.testing.assert_array_equal(await value(store, "a"), ones(3))  # m = -1
    file = tmp_path / "store.states"
    await store.save_optimizer_states(file)
    await store.push("a", ones(0))
    np.testing.assert_array_equal(await value(store, "a"), ones(2.5))

    other = await with_a(3)
    other.set_optimizer(optimizer())
    await other.load_optimizer_states(file)
    await other.push("a", ones(0))
    np.testing.assert_array_equal(await value(other, "a"), ones(2.5))
    assert os.listdir(tmp_path) == ["store.states"]


async def test_optimizer_states_without_optimizer(tmp_path: Path) -> None:
    store = await with_a()
    for member in (store.save_optimizer_states, store.load_optimizer_states):
        with pytest.raises(errors.ModuleStateError, match="`set_optimizer` comes"):
            await member(tmp_path / "x.states")
    with pytest.raises(ValueError, match=r"must be an mx\.optimizer\.Optimizer"):
        store.set_optimizer("sgd")  # type: ignore[arg-type]


async def test_files_that_hold_something_else(tmp_path: Path) -> None:
    store = await with_a()
    store.set_optimizer(mx.optimizer.create("sgd"))
    file = trio.Path(tmp_path / "x.states")
    await file.write_bytes(b"\x80\x03pickle")
    with pytest.raises(mx.optimizer.OptimizerStatesError, match=f"^{file}: "):
        await store.load_optimizer_states(file)
    with pytest.raises(FileNotFoundError):
        await store.load_optimizer_states(tmp_path / "nowhere")


Call = Callable[[mx.kvstore.KVStore], Awaitable[Any]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.init("a", ones()), "duplicate init of key a"),
        (lambda s: s.init(["b", "b"], [ones(), ones()]), "duplicate init of key b"),
        (lambda s: s.init("b", [ones(), ones()]), "must be one array, not 2"),
        (lambda s: s.init(1, ones()), "all strings or all integers; key 1 comes"),
        (lambda s: s.push("zz", ones()), r"key zz doesn't exist. Did you init\?"),
        (lambda s: s.pull("zz", ones()), r"key zz doesn't exist. Did you init\?"),
        (lambda s: s.push(3, ones()), "key 3 comes after 'a'"),
        (lambda s: s.push(2.5, ones()), "a key must be a string or an integer"),
        (lambda s: s.push("a", ones()[:2]), r"shape of its value, \(4, 4\), .* \(2, 4"),
        (lambda s: s.push("a", []), "`value` of key 'a' must not be empty"),
        (lambda s: s.push(["a"], ones()), "one entry for each of the 1 keys"),
        (lambda s: s.push("a", "text"), "must be dense arrays of numbers, not str"),
        (lambda s: s.pull("a", None), "can be written to, not NoneType"),
        (lambda s: s.pull("a", np.broadcast_to(0.0, SHAPE)), "can be written to"),
        (lambda s: s.pull("a", ones()[0]), r"shape of its value, \(4, 4\)"),
        (lambda s: s.pushpull("a", np.broadcast_to(0.0, SHAPE)), "can be written to"),
    ],
)
async def test_refusals(call: Call, message: str) -> None:
    store = await with_a(8)
    with pytest.raises(ValueError, match=message):
        await call(store)
    np.testing.assert_array_equal(await value(store, "a"), ones(8))


async def test_keys_of_a_first_init_are_of_one_type() -> None:
    with pytest.raises(ValueError, match="key 1 comes after 'b'"):
        await mx.kvstore.create().init(["b", 1], [ones(), ones()])


def test_what_is_left_out() -> None:
    store = mx.kvstore.create()
    with pytest.raises(errors.UnsupportedError, match="gradient compression"):
        store.set_gradient_compression({"type": "2bit", "threshold": 0.5})
    with pytest.raises(ValueError, match="unknown capability 'teleport'"):
        store.is_capable("teleport")


@pytest.mark.parametrize("large", [True, False])
async def test_a_cancelled_call_has_done_nothing_or_all(
    large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvstore, "LARGE_COPY", 0 if large else 1 << 20)
    store = await with_a(1)
    store._set_updater(lambda key, pushed, stored: stored.__iadd__(pushed))
    done = 0
    for turns in range(6):
        async with trio.open_nursery() as nursery:

            async def push(scope: trio.CancelScope) -> None:
                nonlocal done
                await store.push("a", ones())
                done += 1

            nursery.start_soon(push, nursery.cancel_scope)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        np.testing.assert_array_equal(await value(store, "a"), ones(1 + done))
    assert 0 < done < 6


async def test_calls_are_served_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvstore, "LARGE_COPY", 0)
    store = await with_a()
    seen: list[float] = []
    go_on = threading.Event()

    def updater(key: Any, pushed: Any, stored: Any) -> None:
        assert go_on.wait(10)
        seen.append(float(pushed[0, 0]))

    async def wait_for_all() -> None:
        await store.barrier()
        assert seen == [0, 1, 2, 3, 4]

    store._set_updater(updater)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(store.push, "a", ones(number))
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait_for_all)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert seen == [0, 1, 2, 3, 4]


def test_outside_trio() -> None:
    with pytest.raises(errors.ScopeError, match="a KVStore runs under Trio"):
        mx.kvstore.create().init("a", ones()).send(None)


async def test_large_work_leaves_the_trio_thread() -> None:
    store = mx.kvstore.create()
    big = np.ones(1 << 20, np.float32)
    await store.init("a", big)
    places = []

    def updater(key: Any, pushed: Any, stored: Any) -> None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            places.append("thread")

    store._set_updater(updater)
    await store.push("a", big)
    assert places == ["thread"]


async def test_module_takes_a_store() -> None:
    store = mx.kvstore.create("device")
    net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2, name="fc")
    net = mx.sym.LinearRegressionOutput(net, mx.sym.var("label"))
    async with mx.open_runtime(), mx.Module(net, label_names=["label"]) as module:
        await module.bind([("data", (2, 3))], [("label", (2, 2))])
        await module.init_params()
        await module.init_optimizer(kvstore=store)
        assert module.optimizer_initialized


def some(rows: list[int], factor: float = 1.0) -> Any:
    """Rows of ones, of a table of SHAPE."""
    values = factor * np.ones((len(rows), *SHAPE[1:]), np.float32)
    return mx.nd.sparse.row_sparse_array((values, rows), shape=SHAPE)


async def test_row_sparse_values_are_summed_by_rows() -> None:
    store = mx.kvstore.create("device")
    await store.init("a", some([0], 5))
    np.testing.assert_array_equal(await value(store, "a"), some([0], 5))
    await store.push("a", [some([1, 3]), some([3], 2)])
    expected = some([1, 3]).asnumpy() + some([3], 2).asnumpy()
    np.testing.assert_array_equal(await value(store, "a"), expected)
    await store.push("a", [some([1]), ones(1)])
    np.testing.assert_array_equal(await value(store, "a"), some([1]).asnumpy() + 1)


async def test_rows_are_pulled_into_row_sparse_values() -> None:
    table = np.arange(16, dtype=np.float32).reshape(SHAPE)
    store = mx.kvstore.create()
    await store.init("a", table)
    out = mx.nd.sparse.zeros("row_sparse", SHAPE)
    await store.row_sparse_pull("a", out, row_ids=np.array([3, 1, 3]))
    assert out.indices.tolist() == [1, 3]
    np.testing.assert_array_equal(out.values, table[[1, 3]])
    out.values[:] = -1
    np.testing.assert_array_equal(await value(store, "a"), table)
    await store.pull("a", out)  # passes over it, as in MXNet
    assert out.indices.tolist() == [1, 3]
    await store.pull("a", out, ignore_sparse=False)
    np.testing.assert_array_equal(out, table)


@pytest.mark.parametrize("lazy", [True, False])
async def test_an_optimizer_updates_the_rows_that_are_pushed(lazy: bool) -> None:
    store = mx.kvstore.create()
    await store.init("a", ones(1))
    store.set_optimizer(mx.optimizer.SGD(learning_rate=0.5, wd=0.1, lazy_update=lazy))
    await store.push("a", some([2]))
    expected = ones(1) if lazy else ones(0.95)
    expected[2] = 0.45
    np.testing.assert_allclose(await value(store, "a"), expected, rtol=1e-6)
    wrong = mx.nd.sparse.row_sparse_array((np.ones((1, 3)), [0]), shape=(4, 3))
    with pytest.raises(ValueError, match="must have the shape of its value"):
        await store.push("a", wrong)


async def test_a_function_is_given_what_was_pushed() -> None:
    seen = []

    def update(key: str, pushed: Any, stored: Any) -> None:
        seen.append(pushed)
        stored -= np.asarray(pushed)

    store = mx.kvstore.create()
    await store.init("a", ones(1))
    store._set_updater(update)
    await store.push("a", [some([2]), some([2])])
    assert seen[0].indices.tolist() == [2]
    np.testing.assert_array_equal(
        await value(store, "a"), ones(1) - 2 * some([2]).asnumpy()
    )
