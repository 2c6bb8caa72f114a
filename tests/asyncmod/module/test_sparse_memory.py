"""What a step with row-sparse gradients touches: its rows, and nothing of the table.

Memory that was not touched is not there, so pages are counted. A pass over any array
of the table's size, to journal, copy or clear it, would show as that many bytes.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.io import DataBatch, NDArrayIter
from tests.asyncmod.module.sparse_nets import embedding
from tests.processes import children, private_bytes, shared_bytes

VOCABULARY, WIDTH, LENGTH, ROWS = 1_000_000, 16, 4, 8
TABLE = 4 * VOCABULARY * WIDTH
STEPS = 4


def words(rows: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    # Neighbors, since the first touch of a row may give a page of two megabytes.
    indices = generator.integers(0, 1000, (rows, LENGTH))
    return indices.astype(np.float32), np.zeros(rows, np.float32)


def touched() -> int:
    """Bytes of memory that this process and its workers have."""
    here = os.getpid()
    return shared_bytes() + sum(map(private_bytes, [here, *children(here)]))


async def one_by_one(mod: mx.Module) -> None:
    data, label = words(ROWS)
    for _ in range(STEPS):
        await mod.step(DataBatch([data], [label]))


async def added_up(mod: mx.Module) -> None:
    data, label = words(ROWS)
    for _ in range(STEPS):
        for _ in range(2):
            await mod.forward_backward(DataBatch([data], [label]))
        await mod.update()
        await mod.zero_grad()


async def accumulated(mod: mx.Module) -> None:
    await mod.fit(
        NDArrayIter(*words(STEPS * ROWS), ROWS),
        num_epoch=1,
        optimizer="adam",
        accumulate=2,
        force_init=False,
    )


async def growth(how: Any, contexts: list[mx.Context], vocabulary: int) -> int:
    """Bytes that some steps touch for the first time."""
    async with mx.Module(embedding(vocabulary, WIDTH), context=contexts) as mod:
        await mod.bind(
            [("data", (ROWS, LENGTH))],
            [("softmax_label", (ROWS,))],
            grad_req="add" if how is added_up else "write",
        )
        await mod.init_params(mx.init.Zero())
        await mod.init_optimizer(optimizer="adam")
        before = touched()
        await how(mod)
        grown = touched() - before
        if vocabulary == VOCABULARY and contexts[0].worker == "process":
            # The table, its mean and its variance.
            assert 3 * TABLE <= shared_bytes() < 3.1 * TABLE
        return grown


@pytest.mark.parametrize("how", [one_by_one, added_up, accumulated])
@pytest.mark.parametrize(
    ("worker", "count"), [("thread", 1), ("thread", 2), ("process", 1), ("process", 2)]
)
async def test_a_step_touches_its_rows_alone(how: Any, worker: str, count: int) -> None:
    contexts = [mx.cpu(i, worker=worker) for i in range(count)]
    async with mx.open_runtime():
        # What is loaded and compiled is there afterwards.
        await growth(how, contexts, 1000)
        assert await growth(how, contexts, VOCABULARY) < 0.75 * TABLE
