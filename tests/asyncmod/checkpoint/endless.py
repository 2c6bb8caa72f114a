"""A training without end, for signals; `python -m tests.asyncmod.checkpoint.endless`.

Arguments: the prefix, and what it does after the third batch, when it prints "ready":
"train" goes on, "callback" blocks in a callback, "data" waits for a batch that never
comes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import structlog
import trio

import asyncmod as mx
from tests.asyncmod.checkpoint.scenarios import COLUMNS, data, devices, perceptron

prefix, then = sys.argv[1:]


class Source:
    """The same batch again and again, three times or without end."""

    provide_data = (mx.io.DataDesc("data", (4, COLUMNS)),)
    provide_label = (mx.io.DataDesc("softmax_label", (4,)),)
    batch_size = 4

    async def __aiter__(self) -> AsyncIterator[mx.io.DataBatch]:
        rows, labels = data()
        count = 0
        while count < 3 or then != "data":
            yield mx.io.DataBatch([rows[:4]], [labels[:4]])
            count += 1
        await trio.sleep_forever()


def batch_end(param: Any) -> None:
    if param.nbatch == (1 if then == "data" else 2):
        print("ready", flush=True)
        if then == "callback":
            time.sleep(60)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fit)


async def fit() -> None:
    module = mx.Module(perceptron(), context=devices(1))
    checkpoint = mx.checkpoint.Checkpoint(prefix, every_seconds=1000)
    try:
        await module.fit(
            Source(),
            num_epoch=1,
            batch_end_callback=batch_end,
            checkpoint=checkpoint,
            progress=False,
        )
    finally:
        print("applied", module.optimizer.num_update, flush=True)


structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
mx.run(main)
