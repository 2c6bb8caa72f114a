"""No call holds the event loop up, however much it copies, reads or writes.

Two things are measured while a call runs: how long another task has to wait (wall time,
which a busy machine stretches), and how much processor time the event loop's thread
spends in one go (which it stretches less).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod import log
from asyncmod.io import DataBatch, DataDesc, NDArrayIter
from tests.asyncmod.module.test_responsiveness import LONGEST_GAP, ticking
from tests.timing import check_never_slow

WIDTH = 5000  # so that the weight alone has 25 million elements
ROWS = 32
MANY_ROWS = 2500
LONGEST_WORK = 0.020
"""Seconds of processor time on the event loop's thread: the bound itself."""


class Work(trio.abc.Instrument):
    """The longest time that the event loop's thread computed in one go."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._began = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.note()

    def note(self) -> None:
        self.longest = max(self.longest, time.thread_time() - self._began)


@contextmanager
def working() -> Iterator[Work]:
    work = Work()
    trio.lowlevel.add_instrument(work)
    try:
        yield work
        work.note()
    finally:
        trio.lowlevel.remove_instrument(work)


class Watch:
    """Runs calls, and notes those that hold the loop up."""

    def __init__(self) -> None:
        self.work: dict[str, float] = {}
        self.gaps: dict[str, float] = {}

    async def __call__(self, name: str, call: Any) -> Any:
        async with ticking() as gap:
            with working() as work:
                result = await call
        self.work[name], self.gaps[name] = work.longest, gap[0]
        return result

    def slow(self) -> dict[str, tuple[float, float]]:
        """Seconds of work and of waiting, of the calls that held the loop up."""
        return {
            name: (round(work, 4), round(self.gaps[name], 4))
            for name, work in self.work.items()
            if work > LONGEST_WORK or self.gaps[name] > LONGEST_GAP
        }


async def check(calls: Callable[[Watch], Awaitable[None]]) -> None:
    """Fail if a call holds the event loop up each time."""

    async def run() -> dict[str, tuple[float, float]]:
        watch = Watch()
        await calls(watch)
        return watch.slow()

    await check_never_slow(run)


def wide_net() -> mx.symbol.Symbol:
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=WIDTH, name="wide")
    return mx.sym.LinearRegressionOutput(x, name="out")


def scaling_net() -> mx.symbol.Symbol:
    """Little to compute, and outputs as large as the data."""
    scale = mx.sym.Variable("scale_weight", shape=(1, WIDTH))
    x = mx.sym.broadcast_mul(mx.sym.Variable("data"), scale, name="scaled")
    return mx.sym.LinearRegressionOutput(x, name="out")


def batch(rows: int = ROWS, key: Any = None) -> DataBatch:
    data = np.ones((rows, WIDTH), np.float32)
    return DataBatch([data], [data], bucket_key=key)


def shapes(rows: int = ROWS) -> tuple[list[DataDesc], list[DataDesc]]:
    data, label = DataDesc("data", (rows, WIDTH)), DataDesc("out_label", (rows, WIDTH))
    return [data], [label]


async def test_a_call_that_blocks_is_found() -> None:
    async def copy() -> None:
        array = np.zeros(25_000_000, np.float32)
        for _ in range(5):
            array = array.copy()

    async def calls(watch: Watch) -> None:
        await watch("copy", copy())

    with pytest.raises(pytest.fail.Exception, match=r"\{'copy': "):
        await check(calls)


async def test_a_call_that_was_slow_once_is_not() -> None:
    runs = []

    async def calls(watch: Watch) -> None:
        watch.work["once"] = 0.0 if runs else 1.0
        watch.gaps["once"] = 0.0
        runs.append(watch)

    await check(calls)
    assert len(runs) == 2


@pytest.mark.parametrize(("net", "rows"), [(wide_net, ROWS), (scaling_net, MANY_ROWS)])
async def test_members_of_a_module(
    net: Callable[[], mx.symbol.Symbol], rows: int, tmp_path: Path
) -> None:
    async def calls(watch: Watch) -> None:
        log.DEFAULT.info("structlog sets itself up when its first line is written")
        context = [mx.reference(0), mx.reference(1)]
        async with mx.Module(net(), label_names=["out_label"], context=context) as mod:
            await mod.bind(*shapes(rows), inputs_need_grad=True)
            await watch("init_params", mod.init_params(mx.init.One()))
            settings = {"learning_rate": 1e-6, "momentum": 0.9}
            await watch("init_optimizer", mod.init_optimizer(optimizer_params=settings))
            await watch("forward", mod.forward(batch(rows), is_train=True))
            await watch("backward", mod.backward())
            await watch("update", mod.update())
            await watch("step", mod.step(batch(rows)))
            halves = [batch(rows // 2), batch(rows // 2)]
            await watch("forward (per device)", mod.forward(halves, is_train=True))
            doubles = DataBatch([np.ones((rows, WIDTH))], [np.ones((rows, WIDTH))])
            await watch("forward (float64)", mod.forward(doubles, is_train=True))
            listed = DataBatch([np.ones((rows, WIDTH)).T.copy().T], batch(rows).label)
            await watch("forward (transposed)", mod.forward(listed, is_train=True))
            await watch("forward_backward", mod.forward_backward(batch(rows)))
            for name in (
                "get_outputs",
                "get_input_grads",
                "get_grads",
                "get_params",
                "zero_grad",
                "get_states",
            ):
                await watch(name, getattr(mod, name)())
            await watch("get_outputs (per device)", mod.get_outputs(False))
            await watch("get_input_grads (per device)", mod.get_input_grads(False))
            arguments, auxiliaries = await mod.get_params()
            await watch("set_params", mod.set_params(arguments, auxiliaries))
            doubled = {n: v.astype(np.float64) for n, v in arguments.items()}
            await watch("set_params (float64)", mod.set_params(doubled, {}))
            metric = mx.metric.create("mse")
            label = batch(rows).label
            await watch("update_metric", mod.update_metric(metric, label))
            parts = [[label[0][: rows // 2]], [label[0][rows // 2 :]]]
            await watch(
                "update_metric (per device)",
                mod.update_metric(metric, parts, pre_sliced=True),
            )
            await watch("reshape", mod.reshape(*shapes(rows + 2)))
            await watch("forward (another size)", mod.forward(batch(rows + 4)))
            await watch("prepare", mod.prepare(batch(rows)))
            await watch("predict (a batch)", mod.predict(batch(rows)))
            await watch("predict (an array)", mod.predict(batch(rows).data[0]))
            source = NDArrayIter(np.ones((2 * rows - 1, WIDTH), np.float32), None, rows)
            await watch("predict", mod.predict(source))
            await watch("predict_every_batch", mod.predict_every_batch(source))

            async def iterate() -> None:
                async for _ in mod.iter_predict(source):
                    pass

            await watch("iter_predict", iterate())
            prefix = tmp_path / "wide"
            await watch("save_params", mod.save_params(f"{prefix}.params"))
            await watch("load_params", mod.load_params(f"{prefix}.params"))
            await watch("save_optimizer_states", mod.save_optimizer_states(prefix))
            await watch("load_optimizer_states", mod.load_optimizer_states(prefix))
            await watch("save_checkpoint", mod.save_checkpoint(prefix, 0, True))
            await watch("bind", mod.bind(*shapes(8), force_rebind=True))
            loaded = await watch(
                "load", mx.Module.load(prefix, 0, True, label_names=None)
            )
            await watch("get_params (loaded)", loaded.get_params())

    await check(calls)


async def test_members_of_buckets(tmp_path: Path) -> None:
    """All buckets have the same weight of 25 million elements."""

    async def calls(watch: Watch) -> None:

        def generate(key: int) -> tuple[mx.symbol.Symbol, list[str], list[str]]:
            return wide_net(), ["data"], ["out_label"]

        async with mx.BucketingModule(generate, 8, context=mx.reference(0)) as mod:
            await mod.bind(*shapes(8))
            await mod.init_params(mx.init.One())
            await mod.init_optimizer(optimizer_params={"momentum": 0.9})
            await watch("switch_bucket", mod.switch_bucket(16, *shapes(16)))
            await watch("forward", mod.forward(batch(32, key=32), is_train=True))
            await watch("prepare", mod.prepare(batch(64, key=64)))
            await watch("step", mod.step(batch(8, key=8)))
            await watch("get_params", mod.get_params())
            await watch("save_checkpoint", mod.save_checkpoint(tmp_path / "wide", 0))
            await watch("bind", mod.bind(*shapes(4), force_rebind=True))

    await check(calls)


async def test_members_of_a_sequence() -> None:
    """Its loss is computed in Python, from scores of more than a megabyte."""

    async def calls(watch: Watch) -> None:
        scale = mx.sym.Variable("scale_weight", shape=(1, WIDTH))
        net = mx.sym.broadcast_mul(mx.sym.Variable("data"), scale, name="scaled")
        chain = mx.SequentialModule()
        chain.add(mx.Module(net, label_names=None, context=mx.reference(0)))
        loss = mx.PythonLossModule(grad_func=np.subtract, label_names=["out_label"])
        chain.add(loss, take_labels=True, auto_wiring=True)
        rows = MANY_ROWS // 2
        many = batch(rows)
        async with chain:
            await chain.bind(*shapes(rows), inputs_need_grad=True)
            await watch("init_params", chain.init_params(mx.init.One()))
            await chain.init_optimizer(optimizer_params={"learning_rate": 1e-6})
            await watch("forward", chain.forward(many, is_train=True))
            await watch("backward", chain.backward())
            await watch("step", chain.step(many))
            await watch("get_outputs", chain.get_outputs())
            await watch("get_input_grads", chain.get_input_grads())
            await watch("get_grads", chain.get_grads())
            await watch("get_params", chain.get_params())
            await watch("loss's gradient", loss.get_input_grads())
            metric = mx.metric.create("mse")
            await watch("update_metric", chain.update_metric(metric, many.label))
            await watch("predict", chain.predict(many))
            source = NDArrayIter(many.data[0], None, rows)
            await watch("predict (iterator)", chain.predict(source))
            fed = NDArrayIter(many.data[0], many.data[0], rows, label_name="out_label")
            await watch("fit", chain.fit(fed, eval_metric="mse", num_epoch=1))

    await check(calls)


async def test_members_of_an_executor() -> None:
    async def calls(watch: Watch) -> None:
        values = {
            "data": np.ones((ROWS, WIDTH)),
            "wide_weight": np.ones((WIDTH, WIDTH)),
        }
        values = {name: array.astype(np.float32) for name, array in values.items()}
        net = mx.sym.FullyConnected(
            mx.sym.Variable("data"), num_hidden=WIDTH, no_bias=True, name="wide"
        )
        async with mx.bind(net, values, context=mx.reference(0)) as executor:
            weight = values["wide_weight"]
            forward = executor.forward(is_train=True, wide_weight=weight)
            await watch("forward", forward)
            await watch("backward", executor.backward(np.ones((ROWS, WIDTH))))
            await watch("zero_grad", executor.zero_grad())
            await watch("forward (listed)", executor.forward(data=values["data"]))

    await check(calls)


async def test_members_of_a_store(tmp_path: Path) -> None:
    async def calls(watch: Watch) -> None:
        async with mx.open_runtime():
            store = mx.kvstore.create()
            value = np.ones((WIDTH, WIDTH), np.float32)
            out = np.empty_like(value)
            rows = np.arange(WIDTH)
            await watch("init", store.init("wide", value))
            await watch("push", store.push("wide", [value, value]))
            await watch("pull", store.pull("wide", out))
            store.set_optimizer(mx.optimizer.create("sgd", momentum=0.9))
            await watch("pushpull", store.pushpull("wide", value, out))
            await watch("broadcast", store.broadcast("other", value, out))
            pull = store.row_sparse_pull("wide", out, row_ids=rows)
            await watch("row_sparse_pull", pull)
            path = tmp_path / "states"
            await watch("save_optimizer_states", store.save_optimizer_states(path))
            await watch("load_optimizer_states", store.load_optimizer_states(path))

    await check(calls)
