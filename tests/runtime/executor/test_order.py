"""Whatever tasks do at once comes out as if they had done it one after another."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.executor.group import ExecutorGroup
from tests.runtime.executor.nets import (
    Arrays,
    Sgd,
    batch_of,
    devices,
    mlp_spec,
    open_group,
    same,
)

STEPS = 4
SPEC = mlp_spec(devices("reference", "reference"))
BATCH, OTHER = batch_of(SPEC, 0), batch_of(SPEC, 1)


@cache
def history() -> tuple[list[Arrays], list[bytes]]:
    """Parameters and predictions after 0, 1, 2, ... steps."""

    async def record() -> tuple[list[Arrays], list[bytes]]:
        parameters, predictions = [], []
        async with open_group(SPEC) as group:
            sgd = Sgd(SPEC)
            for _ in range(2 * STEPS + 1):
                parameters.append((await group.read_parameters())[0])
                predictions.append((await group.predict(OTHER))[0].tobytes())
                await group.step(BATCH, sgd.updater)
        return parameters, predictions

    return trio.run(record)


class Tasks:
    """Tasks over one group; each notes how many steps it has seen the effect of."""

    def __init__(self, group: ExecutorGroup) -> None:
        self.group = group
        self.sgd = Sgd(SPEC)
        self.parameters, self.predictions = history()

    async def step(self, pauses: list[int]) -> None:
        for pause in pauses:
            await self.wait(pause)
            await self.group.step(BATCH, self.sgd.updater)

    async def fit(self, pauses: list[int]) -> None:
        under_way = []
        await self.group.prepare(self.sgd.updater)
        for pause in pauses:
            await self.group.acquire_slot()
            under_way.append(self.group.dispatch_step(BATCH, self.sgd.updater))
            await self.wait(pause)
        for pending in under_way:
            await pending.wait()

    async def predict(self, pauses: list[int]) -> None:
        seen = [0]
        for pause in pauses:
            await self.wait(pause)
            [out] = await self.group.predict(OTHER)
            seen.append(self.predictions.index(out.tobytes()))
        assert seen == sorted(seen)

    async def read(self, pauses: list[int]) -> None:
        seen = [0]
        for pause in pauses:
            await self.wait(pause)
            values, _ = await self.group.read_parameters()
            whole = [same(values, version) for version in self.parameters]
            seen.append(whole.index(True))
        assert seen == sorted(seen)

    async def wait(self, pause: int) -> None:
        for _ in range(pause):
            await trio.lowlevel.checkpoint()


pauses = st.lists(st.integers(0, 6), max_size=STEPS)


@settings(max_examples=40)
@given(pauses, pauses, pauses, pauses)
def test_every_result_is_that_of_whole_steps(
    stepping: list[int], fitting: list[int], predicting: list[int], reading: list[int]
) -> None:
    async def main() -> None:
        async with open_group(SPEC) as group:
            tasks = Tasks(group)
            async with trio.open_nursery() as nursery:
                for task, pattern in (
                    (tasks.step, stepping),
                    (tasks.fit, fitting),
                    (tasks.predict, predicting),
                    (tasks.read, reading),
                ):
                    nursery.start_soon(task, pattern)
            values, _ = await group.read_parameters()
            assert same(values, tasks.parameters[len(stepping) + len(fitting)])

    history()
    trio.run(main)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=6))
def test_cancelled_tasks_leave_whole_steps(plans: list[tuple[int, int]]) -> None:
    """Tasks with a number of steps each, cancelled after a number of checkpoints."""

    async def main() -> None:
        async with open_group(SPEC) as group:
            tasks = Tasks(group)

            async def cancelled(steps: int, patience: int) -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(tasks.step, [0] * steps)
                    await tasks.wait(patience)
                    nursery.cancel_scope.cancel()

            async with trio.open_nursery() as nursery:
                for steps, patience in plans:
                    nursery.start_soon(cancelled, min(steps, 1), patience)
            values, _ = await group.read_parameters()
            assert same(values, tasks.parameters[tasks.sgd.count])

    history()
    trio.run(main)


async def test_calls_of_many_tasks_run_in_the_order_of_their_calls() -> None:
    """Each task's forward is followed by its own outputs if they were called so."""
    async with open_group(SPEC) as group:
        batches = [batch_of(SPEC, k) for k in range(10)]
        expected = [(await group.predict(batch))[0] for batch in batches]
        seen: dict[int, object] = {}

        async def predict(k: int) -> None:
            seen[k] = (await group.predict(batches[k]))[0]

        async with trio.open_nursery() as nursery:
            for k in range(10):
                nursery.start_soon(partial(predict, k))
        for k in range(10):
            np.testing.assert_array_equal(seen[k], expected[k])
