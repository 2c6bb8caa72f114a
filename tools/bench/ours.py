"""asyncmod: one step through the public, awaitable interface.

Variant `single` awaits every step, as a hand-written loop does; `pipelined` goes
through `fit` or `iter_predict`, which keep two steps in flight. With `-process` behind
it, the devices are worker processes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from inputs import batch_of
from measurement import Clock, Options, read_options, report
from workloads import LEARNING_RATE, MOMENTUM, WORKLOADS, symbol

import asyncmod as mx


class SameBatch:
    """An iterator that gives one batch over and over, for as long as a clock runs."""

    def __init__(
        self, batch: mx.io.DataBatch, size: int, mod: mx.Module, clock: Clock
    ) -> None:
        self.batch_size = size
        self.provide_data = mod.data_shapes
        self.provide_label = mod.label_shapes
        self._batch = batch
        self._turns = iter(clock)
        self._left = 0

    def __aiter__(self) -> SameBatch:
        return self

    async def __anext__(self) -> mx.io.DataBatch:
        if self._left == 0:
            self._left = next(self._turns, 0)
            if self._left == 0:
                raise StopAsyncIteration
        self._left -= 1
        return self._batch

    async def reset(self) -> None:
        """There is no beginning to go back to."""


@asynccontextmanager
async def ready_module(
    name: str, devices: int, worker: Any = "thread", training: bool = True
) -> AsyncIterator[tuple[mx.Module, mx.io.DataBatch]]:
    """A module of a workload that can step, and a batch for it."""
    workload = WORKLOADS[name]
    data, label = batch_of(workload)
    contexts = [mx.cpu(index, worker=worker) for index in range(devices)]
    async with mx.Module(
        symbol(name, mx.symbol), context=contexts, state_names=workload.state_names
    ) as mod:
        await mod.bind(
            [mx.io.DataDesc("data", data.shape, layout=workload.layout)],
            [mx.io.DataDesc("softmax_label", label.shape, layout=workload.layout)],
            for_training=training,
        )
        await mod.init_params(mx.init.Xavier())
        if training:
            settings = {"learning_rate": LEARNING_RATE, "momentum": MOMENTUM}
            await mod.init_optimizer(optimizer="sgd", optimizer_params=settings)
        yield mod, mx.io.DataBatch([data], [label])


async def main(options: Options) -> None:
    variant, _, worker = options.variant.partition("-")
    async with ready_module(
        options.workload, options.threads, worker or "thread", options.training
    ) as (mod, batch):
        clock = Clock(options.seconds, overlapping=variant != "single")
        if variant == "single":
            await one_by_one(mod, batch, clock, options.training)
        else:
            size = WORKLOADS[options.workload].batch
            batches = SameBatch(batch, size, mod, clock)
            await pipelined(mod, batches, options.training)
    report("asyncmod", version("asyncmod"), options, clock)


async def one_by_one(
    mod: mx.Module, batch: mx.io.DataBatch, clock: Clock, training: bool
) -> None:
    for steps in clock:
        for _ in range(steps):
            if training:
                await mod.step(batch)
            else:
                await mod.forward(batch, is_train=False)


async def pipelined(mod: mx.Module, batches: SameBatch, training: bool) -> None:
    if training:
        nothing = mx.metric.CompositeEvalMetric()  # the peers compute no metric
        await mod.fit(batches, num_epoch=1, eval_metric=nothing)
        return
    async for _ in mod.iter_predict(batches, reset=False):
        pass


if __name__ == "__main__":
    mx.run(main, read_options())
