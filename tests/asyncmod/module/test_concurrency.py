"""Several tasks use one module: each result is that of some sequential order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.io import NDArrayIter
from tests.asyncmod.module.nets import Array, batch, mlp, ready, rows, same

WHERE = {
    "cpu": [mx.cpu(0)],
    "reference": [mx.reference(0)],
    "references": [mx.reference(0), mx.reference(1)],
    "simulated": [mx.reference(0), mx.Context("simulated", 1)],
}
SETTINGS = {"learning_rate": 0.5, "momentum": 0.9}
STEPS = 12


async def trajectory(where: str, steps: int) -> list[Array]:
    """What the module predicts after 0, 1, 2, ... steps, undisturbed."""
    seen = []
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await ready(module, **SETTINGS)
        for seed in range(steps):
            seen.append((await module.predict(batch(8, 99)))[0])
            await module.step(batch(8, seed))
        seen.append((await module.predict(batch(8, 99)))[0])
    return seen


def position(result: Array, expected: list[Array]) -> int:
    """After which step a prediction was made; it must be after a whole one."""
    found = [k for k, array in enumerate(expected) if same(array, result)]
    assert len(found) == 1, "a mixture of the parameters of two steps"
    return found[0]


@pytest.mark.parametrize("inline", ["0", "1"])
@pytest.mark.parametrize("where", WHERE)
async def test_steps_and_predictions(
    where: str, inline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCMOD_INLINE", inline)
    expected = await trajectory(where, STEPS)
    positions: dict[int, list[int]] = {0: [], 1: []}
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await ready(module, **SETTINGS)
        finished = trio.Event()

        async def predict(task: int) -> None:
            while not finished.is_set():
                [result] = await module.predict(batch(8, 99))
                positions[task].append(position(result, expected))
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for task in positions:
                nursery.start_soon(predict, task)
            for seed in range(STEPS):
                if seed % 2:
                    await module.step(batch(8, seed))
                else:
                    # Nobody comes between a forward and its backward.
                    await module.forward(batch(8, seed))
                    await trio.lowlevel.checkpoint()
                    await module.backward()
                    await module.update()
                await trio.lowlevel.checkpoint()
            finished.set()
        [last] = await module.predict(batch(8, 99))
        assert position(last, expected) == STEPS
    for seen in positions.values():
        assert seen == sorted(seen)
        assert len(set(seen)) > 1


@pytest.mark.parametrize("where", WHERE)
async def test_predictions_during_fit(where: str) -> None:
    """They see whole steps, and fit does not notice them."""
    data, label = rows(8 * STEPS)
    source = NDArrayIter(data, label, 8)

    async def fit(module: mx.Module) -> list[Any]:
        metric = mx.metric.create(["acc", "ce"])
        await module.fit(source, eval_metric=metric, num_epoch=1)
        return [await module.get_params(), metric.get()]

    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await ready(module, **SETTINGS)
        alone = await fit(module)
    expected = []
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await ready(module, **SETTINGS)
        expected.append((await module.predict(batch(8, 99)))[0])
        async for given in NDArrayIter(data, label, 8):
            await module.step(given)
            expected.append((await module.predict(batch(8, 99)))[0])
    async with mx.Module(mlp(), context=WHERE[where]) as module:
        await ready(module, **SETTINGS)
        seen = []
        async with trio.open_nursery() as nursery:

            async def predict() -> None:
                while True:
                    [result] = await module.predict(batch(8, 99))
                    seen.append(position(result, expected))
                    [size] = {len(o[0]) async for o, *_ in _small(module)}
                    assert size == 3
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(predict)
            together = await fit(module)
            nursery.cancel_scope.cancel()
        assert seen == sorted(seen)
        assert seen
    assert same(alone[0], together[0])
    assert alone[1] == together[1]


def _small(module: mx.Module) -> Any:
    """Another batch size, so that another executor is at work meanwhile."""
    return module.iter_predict(NDArrayIter(*rows(3), batch_size=3))


async def test_many_tasks_ask_for_new_shapes_at_once() -> None:
    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module)
        results: dict[int, Any] = {}

        async def predict(task: int, size: int) -> None:
            results[task] = await module.predict(batch(size, 5))

        sizes = [3, 4, 3, 4, 3, 8, 4]
        async with trio.open_nursery() as nursery:
            for task, size in enumerate(sizes):
                nursery.start_soon(predict, task, size)
        for task, size in enumerate(sizes):
            [out] = results[task]
            assert out.shape == (size, 3)
        executors = module.core.need_executors("test")
        assert len(executors._others) == 2
        np.testing.assert_array_equal(results[0][0], results[2][0])


async def test_executors_of_many_shapes_are_bounded() -> None:
    from asyncmod.module.executors import LIMIT

    async with mx.Module(mlp(), context=mx.reference(0)) as module:
        await ready(module, learning_rate=0.1)
        for size in range(9, 9 + LIMIT + 5):
            await module.step(batch(size))
        executors = module.core.need_executors("test")
        assert len(executors._others) == LIMIT
        assert module.data_shapes == [("data", (8 + LIMIT + 5, 5))]
        await module.step(batch(9))
        await module.step(batch(8))
        assert executors.current is executors.first
