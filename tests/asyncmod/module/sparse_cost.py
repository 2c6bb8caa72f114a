"""What a step costs that updates some rows of a table, by the table's size.

`python -m tests.asyncmod.module.sparse_cost [--steps N]` prints milliseconds per batch
(the least of three runs) and the shared memory that is held in the end, for tables of
10,000 and 1,000,000 rows.
"""

from __future__ import annotations

import argparse
import logging
import time

import numpy as np
import structlog
from numpy.typing import NDArray

import asyncmod as mx
from asyncmod.io import DataBatch, NDArrayIter
from tests.asyncmod.module.sparse_nets import embedding
from tests.processes import shared_bytes

ROWS, LENGTH, WIDTH = 64, 32, 16
HOW = ("write", "add", "accumulate")


async def train(mod: mx.Module, how: str, words: NDArray[np.float32]) -> None:
    """Go through all batches once."""
    label = np.zeros(len(words), np.float32)
    if how == "accumulate":
        data = NDArrayIter(words, label, ROWS)
        settings = {"optimizer": "adam", "accumulate": 4, "progress": False}
        await mod.fit(data, eval_metric=[], num_epoch=1, **settings)
        return
    for i in range(0, len(words), ROWS):
        batch = DataBatch([words[i : i + ROWS]], [label[i : i + ROWS]])
        if how == "write":
            await mod.step(batch)
            continue
        await mod.forward_backward(batch)
        await mod.update()
        await mod.zero_grad()


async def measure(worker: str, count: int, how: str, rows: int, steps: int) -> str:
    """One line of the table."""
    words = np.random.default_rng(0).integers(0, rows, (steps * ROWS, LENGTH))
    contexts = [mx.cpu(i, worker=worker) for i in range(count)]
    async with mx.Module(embedding(rows, WIDTH), context=contexts) as mod:
        await mod.bind(
            [("data", (ROWS, LENGTH))],
            [("softmax_label", (ROWS,))],
            grad_req="add" if how == "add" else "write",
        )
        await mod.init_params(mx.init.Zero())
        await mod.init_optimizer(optimizer="adam")
        seconds = []
        for _ in range(4):
            begin = time.perf_counter()
            await train(mod, how, words.astype(np.float32))
            seconds.append(time.perf_counter() - begin)
        milliseconds = 1000 * min(seconds[1:]) / steps
        return (
            f"{worker:8} {count} {how:10} {rows:9,}  {milliseconds:6.2f} ms"
            f"  {shared_bytes() / 1e6:7.1f} MB"
        )


async def main(steps: int) -> None:
    """Print the table."""
    for worker in ("thread", "process"):
        for count in (1, 2):
            for how in HOW:
                for rows in (10_000, 1_000_000):
                    print(await measure(worker, count, how, rows, steps), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    level = logging.ERROR
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    mx.run(main, parser.parse_args().steps)
