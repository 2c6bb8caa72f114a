"""Data that comes slowly, or never: compute waits, nothing is lost, deadlines hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import trio

import asyncmod as mx
from tests.asyncmod.module.nets import FEATURES, batch, mlp, same, values

BATCH, COUNT = 8, 5
SECONDS = 0.1


class Source:
    """Batches of which each comes late, or the next one never."""

    provide_data = (mx.io.DataDesc("data", (BATCH, FEATURES)),)
    provide_label = (mx.io.DataDesc("softmax_label", (BATCH,)),)
    batch_size = BATCH

    def __init__(
        self,
        seconds: float = 0.0,
        count: int = COUNT,
        waiting: trio.CancelScope | None = None,
    ) -> None:
        self.seconds = seconds
        self.count = count
        self.waiting = waiting

    async def __aiter__(self) -> AsyncIterator[mx.io.DataBatch]:
        for number in range(self.count):
            await trio.sleep(self.seconds)
            yield batch(BATCH, number)
        if self.waiting is not None:
            self.waiting.deadline = trio.current_time() + SECONDS
            await trio.sleep_forever()


async def fit(module: mx.Module, source: Any, **options: Any) -> mx.History:
    return await module.fit(
        source, num_epoch=1, arg_params=values(mlp()), progress=False, **options
    )


async def test_compute_waits_and_the_history_names_the_stage() -> None:
    seen: list[int] = []
    results = []
    for seconds in (0.0, SECONDS):
        async with mx.Module(mlp(), context=[mx.cpu(0), mx.cpu(1)]) as module:
            history = await fit(
                module,
                Source(seconds),
                batch_end_callback=lambda param: seen.append(param.nbatch),
            )
            results.append((await module.get_params(), history))
    (expected, _), (got, history) = results
    assert same(got, expected)
    assert seen == 2 * list(range(COUNT))
    timing = history.timing
    assert timing["data"] >= 0.9 * COUNT * SECONDS
    assert max(timing, key=lambda stage: timing[stage]) == "data"


async def test_a_deadline_ends_the_waiting_at_a_whole_step() -> None:
    async with mx.Module(mlp(), context=[mx.cpu(0), mx.cpu(1)]) as module:
        with trio.CancelScope() as waiting:
            await fit(module, Source(count=2, waiting=waiting))
        assert waiting.cancelled_caught
        assert trio.current_time() < waiting.deadline + 1
        stopped = await module.get_params()
    async with mx.Module(mlp(), context=[mx.cpu(0), mx.cpu(1)]) as module:
        await fit(module, Source(count=2))
        assert same(stopped, await module.get_params())
