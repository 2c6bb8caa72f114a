"""`predict(snapshot=True)`: all batches see the values that stood at its beginning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from tests.harness.cancellation import PLACES, GatePlace, cancel_at_every_step

BATCH, FEATURES = 6, 4


def net() -> Any:
    data = mx.sym.Variable("data")
    x = mx.sym.FullyConnected(data, num_hidden=5, name="fc1")
    x = mx.sym.BatchNorm(x, name="norm", fix_gamma=False)
    x = mx.sym.FullyConnected(x, num_hidden=3, name="fc2")
    return mx.sym.SoftmaxOutput(x, name="softmax")


def batch_of(seed: int) -> mx.io.DataBatch:
    random = np.random.default_rng(seed)
    data = random.standard_normal((BATCH, FEATURES), np.float32) + seed
    return mx.io.DataBatch([data], [random.integers(0, 3, BATCH).astype(np.float32)])


class Training:
    """Batches to predict; the module is trained by a step before each but the first."""

    provide_data = (("data", (BATCH, FEATURES)),)
    provide_label = ()
    batch_size = BATCH

    def __init__(self, module: mx.Module) -> None:
        self.module = module
        self.given = 0

    def __aiter__(self) -> Training:
        return self

    async def __anext__(self) -> mx.io.DataBatch:
        if self.given == 4:
            raise StopAsyncIteration
        if self.given:
            await self.module.step(batch_of(self.given))
        self.given += 1
        return mx.io.DataBatch(batch_of(100 + self.given).data)

    async def reset(self) -> None:
        self.given = 0


async def ready(module: mx.Module) -> None:
    await module.bind([("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))])
    mx.random.seed(3)
    await module.init_params(mx.init.Normal(0.5))
    await module.init_optimizer(optimizer_params={"learning_rate": 0.5})
    for seed in range(3):  # statistics that differ from device to device
        await module.step(batch_of(seed))


@pytest.mark.parametrize("make", [mx.reference, mx.cpu])
@pytest.mark.parametrize("devices", [1, 2])
async def test_every_batch_sees_the_values_of_the_beginning(
    make: Any, devices: int
) -> None:
    contexts = [make(i) for i in range(devices)]
    async with mx.Module(net(), context=contexts) as module:
        await ready(module)
        expected = []
        for k in range(1, 5):
            batch = mx.io.DataBatch(batch_of(100 + k).data)
            expected += await module.predict(batch)
        before, _ = await module.get_params()
        kept = await module.predict(
            Training(module), merge_batches=False, snapshot=True
        )
        for [output], wanted in zip(kept, expected, strict=True):
            np.testing.assert_array_equal(output, wanted)
        after, _ = await module.get_params()
        assert not np.array_equal(before["fc1_weight"], after["fc1_weight"])
        # Without it, later batches see what was trained meanwhile.
        moved = await module.predict(Training(module), merge_batches=False)
        assert not np.array_equal(moved[3][0], expected[3])


async def test_one_batch_and_an_array() -> None:
    async with mx.Module(net(), context=mx.reference(0)) as module:
        await ready(module)
        data = batch_of(7).data[0]
        wanted = await module.predict(data)
        np.testing.assert_array_equal(await module.predict(data, snapshot=True), wanted)


@pytest.mark.parametrize("place", PLACES)
async def test_cancelled_at_every_step_it_leaves_nothing(place: GatePlace) -> None:
    async with (
        mx.open_runtime() as runtime,
        mx.Module(net(), context=mx.reference(0)) as module,
    ):
        await ready(module)
        batch = batch_of(9)
        wanted = await module.predict(batch)

        async def call() -> None:
            await module.predict(batch, snapshot=True)

        async def check(finished: bool) -> None:
            for output, expected in zip(
                await module.predict(batch), wanted, strict=True
            ):
                np.testing.assert_array_equal(output, expected)
            assert list(runtime._owned.values()) == owned

        owned = list(runtime._owned.values())
        await cancel_at_every_step(call, check, runtime=runtime, place=place)


async def test_other_modules_say_that_they_cannot() -> None:
    sequence = mx.SequentialModule()
    sequence.add(mx.Module(net(), context=mx.reference(0)), take_labels=True)
    async with sequence:
        await sequence.bind(
            [("data", (BATCH, FEATURES))], [("softmax_label", (BATCH,))]
        )
        await sequence.init_params()
        with pytest.raises(NotImplementedError, match="not for SequentialModule"):
            await sequence.predict(batch_of(0), snapshot=True)
