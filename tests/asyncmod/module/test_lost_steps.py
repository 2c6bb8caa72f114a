"""Tasks step, fit, predict and are cancelled: a step counts once or not at all.

The gradient of a step does not depend on the parameters, and is a power of four of its
own. The parameter is their sum then, and its digits say how often each step counted.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio

import asyncmod as mx
from asyncmod.io import DataBatch, DataDesc, DataIter
from tests.harness.cancellation import CancelAtStep

STEPS = 12  # 4 ** 12 is exact in float32
WHERE = {
    "cpu": [mx.cpu(0), mx.cpu(0)],
    "references": [mx.reference(0), mx.reference(1)],
}
LENGTHS = (2, 3, 4)


def shapes(length: int) -> tuple[list[DataDesc], list[DataDesc]]:
    return [DataDesc("data", (1, length))], []


def batch(number: int) -> DataBatch:
    """Its sum is 4 ** number; its length is its bucket."""
    length = LENGTHS[number % 3]
    data = np.zeros((1, length), np.float32)
    data[0, 0] = 4.0**number
    return DataBatch(
        [data], bucket_key=length, provide_data=shapes(length)[0], provide_label=[]
    )


class Numbers(DataIter):
    """The batches of some numbers."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__(1)
        self.provide_data, self.provide_label = shapes(LENGTHS[-1])
        self.numbers = numbers

    async def next(self) -> DataBatch:
        if not self.numbers:
            raise StopAsyncIteration
        return batch(self.numbers.pop(0))

    async def reset(self) -> None:
        pass


def buckets(context: list[mx.Context]) -> mx.BucketingModule:
    def generate(length: int) -> tuple[mx.symbol.Symbol, list[str], None]:
        weight = mx.sym.Variable("weight", shape=(1, 1))
        x = mx.sym.broadcast_mul(mx.sym.Variable("data"), weight)
        return mx.sym.MakeLoss(x, name="loss"), ["data"], None

    return mx.BucketingModule(generate, LENGTHS[-1], context=context[-1], max_buckets=3)


def chain(context: list[mx.Context]) -> mx.SequentialModule:
    """Both modules have the gradient of a step."""
    first = mx.sym.Variable("first_weight", shape=(1, 1))
    second = mx.sym.Variable("second_weight", shape=(1, 1))
    data, x = mx.sym.Variable("data"), mx.sym.Variable("x")
    sum_ = mx.sym.sum(data, axis=1, keepdims=True)
    start = mx.sym.Group([mx.sym.broadcast_mul(sum_, first), sum_])
    y = mx.sym.Variable("y")
    end = mx.sym.MakeLoss(x + mx.sym.broadcast_mul(y, second), name="loss")
    module = mx.SequentialModule()
    module.add(mx.Module(start, label_names=None, context=context[0]))
    module.add(
        mx.Module(end, ["x", "y"], label_names=None, context=context[1]),
        auto_wiring=True,
    )
    return module


KINDS: dict[str, Callable[[list[mx.Context]], Any]] = {
    "buckets": buckets,
    "chain": chain,
}


async def counts(module: Any) -> list[int]:
    """How often each step counted, in every parameter alike."""
    values, _ = await module.get_params()
    sums = {int(-value[0, 0]) for value in values.values()}
    assert len(sums) == 1, f"half a step: {values}"
    [left] = sums
    return [left // 4**number % 4 for number in range(STEPS)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_step_counts_once_or_not_at_all(
    kind: str, where: str, seed: int
) -> None:
    chance = random.Random(seed)
    module = KINDS[kind](WHERE[where])
    returned: set[int] = set()
    async with module:
        await module.bind(*shapes(LENGTHS[-1]))
        await module.init_params(mx.init.Zero())
        settings = {"learning_rate": 1.0, "rescale_grad": 1.0}
        await module.init_optimizer(optimizer_params=settings)

        async def cancelled_somewhere(
            call: Callable[[], Awaitable[object]], longest: int
        ) -> bool:
            """Whether the call returned; it is cancelled at one of its task steps."""
            with trio.CancelScope() as scope:
                task = trio.lowlevel.current_task()
                instrument = CancelAtStep(task, scope, chance.randrange(1, longest))
                trio.lowlevel.add_instrument(instrument)
                try:
                    await call()
                    return True
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            return False

        async def step(number: int) -> None:
            if await cancelled_somewhere(partial(module.step, batch(number)), 12):
                returned.add(number)

        async def by_steps() -> None:
            for number in range(4):
                await step(number)

        async def by_fit() -> None:
            numbers = [[4, 5, 6, 7], [8, 9, 10, 11]]
            for part in numbers:
                options = {"eval_metric": "loss", "num_epoch": 1}
                fit = partial(module.fit, Numbers(list(part)), **options)
                if await cancelled_somewhere(fit, 60):
                    returned.update(part)

        async def predict() -> None:
            for number in range(6):
                await module.predict(batch(number))

        async with trio.open_nursery() as nursery:
            for task in (by_steps, by_fit, predict):
                nursery.start_soon(task)
        seen = await counts(module)
        assert set(seen) <= {0, 1}, seen
        assert not [number for number in returned if not seen[number]]
        # And it goes on from there.
        for number in range(STEPS):
            if not seen[number]:
                await module.step(batch(number))
        assert await counts(module) == [1] * STEPS
