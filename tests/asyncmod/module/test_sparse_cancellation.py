"""Sparse training that is cancelled anywhere stands where a whole step left it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

import asyncmod as mx
from tests.asyncmod.module.nets import same
from tests.asyncmod.module.sparse_nets import factorization_machine
from tests.harness.cancellation import PLACES, GatePlace, cancel_at_every_step

FEATURES, ROWS, BATCHES = 12, 6, 3
SETTINGS = {"learning_rate": 0.05, "momentum": 0.9, "wd": 0.1}
CONTEXTS = {
    "one memory": [mx.reference(0), mx.reference(1)],
    "own memory": [mx.reference(0), mx.Context("simulated", 0)],
}


def data() -> mx.io.NDArrayIter:
    """The same CSR batch three times."""
    random = np.random.default_rng(0)
    rows = scipy.sparse.random(ROWS, FEATURES, 0.2, "csr", np.float32, random)
    label = random.normal(size=(ROWS, 1)).astype(np.float32)
    return mx.io.NDArrayIter(
        scipy.sparse.vstack([rows] * BATCHES, format="csr"),
        {"label": np.tile(label, (BATCHES, 1))},
        ROWS,
        last_batch_handle="discard",
    )


async def state_of(module: mx.Module) -> dict[str, Any]:
    """Parameters and momentum."""
    arguments, _ = await module.get_params()
    assert module.core.optimization is not None
    group = module.core.need_executors("test").first.group
    states = await group.read_updater_states(module.core.optimization.updater)
    return {**arguments, **{f"m {n}": v for n, v in states["momentum"].items()}}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", [pytest.param("step", marks=pytest.mark.slow), "fit"])
async def test_a_whole_number_of_steps(
    name: str, context: str, place: GatePlace
) -> None:
    source = data()
    batch = await data().next()
    async with mx.open_runtime() as runtime:
        machine = factorization_machine(FEATURES, 2, mx.init.Uniform(0.5))
        module = mx.Module(machine, label_names=["label"], context=CONTEXTS[context])
        await module.bind(source.provide_data, source.provide_label)
        await module.init_params()
        first, _ = await module.get_params()
        await module.init_optimizer(optimizer_params=SETTINGS)
        expected = []
        for _ in range(40):
            expected.append(await state_of(module))
            await module.step(batch)
        await module.set_params(first, {})
        await module.init_optimizer(optimizer_params=SETTINGS, force_init=True)

        async def call() -> None:
            if name == "step":
                await module.step(batch)
            else:
                await module.fit(data(), num_epoch=1, eval_metric="mse")

        async def check(finished: bool) -> None:
            assert module.optimizer is not None
            count = module.optimizer.num_update
            assert same(await state_of(module), expected[count])

        steps = await cancel_at_every_step(call, check, runtime=runtime, place=place)
        assert steps >= 1
