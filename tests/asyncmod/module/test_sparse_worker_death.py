"""Sparse data and gradients on workers: the bits of threads, also over deaths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

import asyncmod as mx
from tests.asyncmod.module.nets import same
from tests.asyncmod.module.sparse_nets import factorization_machine
from tests.asyncmod.module.test_worker_death import Train, by_steps, devices, survives
from tests.runtime.devices.process.sabotage import Point

BATCH, FEATURES, FACTORS, VOCABULARY = 8, 30, 3, 50


def csr_batch(seed: int) -> mx.io.DataBatch:
    """Rows of which each batch has another number of elements; one has none."""
    generator = np.random.default_rng(seed)
    density = (0.1, 0.6, 0.0, 0.3)[seed % 4]
    matrix = scipy.sparse.random(BATCH, FEATURES, density, "csr", np.float32, generator)
    return mx.io.DataBatch([matrix], [generator.normal(size=BATCH).astype(np.float32)])


async def train_on_csr(contexts: list[mx.Context], how: Train, optimizer: str) -> Any:
    """What a factorization machine leaves; forwards also stand by themselves."""
    mx.seed(5)
    net = factorization_machine(FEATURES, FACTORS, mx.init.Normal(0.1))
    async with mx.Module(net, label_names=["label"], context=contexts) as mod:
        await mod.bind([("data", (BATCH, FEATURES))], [("label", (BATCH,))])
        await mod.init_params(mx.init.Normal(0.1))
        await mod.init_optimizer(
            optimizer=optimizer, optimizer_params={"learning_rate": 0.1}
        )
        for seed in range(4):
            await mod.step(csr_batch(seed))
        await mod.forward(csr_batch(5), is_train=True)
        await mod.backward()
        await mod.update()
        outputs = await mod.predict(csr_batch(7))
        return await mod.get_params(), await mod.get_grads(), outputs


@pytest.mark.parametrize(("kind", "count"), [(mx.cpu, 2), (mx.reference, 1)])
async def test_csr_data_gives_the_bits_of_threads(kind: Any, count: int) -> None:
    found = []
    for worker in ("thread", "process"):
        contexts = devices(kind, worker, count)
        found.append(await train_on_csr(contexts, by_steps, "adam"))
    assert same(*found)


@pytest.mark.parametrize(
    ("section", "launch", "rows", "count"),
    [
        ("forward", 2, (0, 3), 2),
        ("backward", 3, (2,), 1),
        ("step", 1, ("ended",), 1),
        ("update", 2, ("saved",), 2),
        ("predict", 1, (1,), 1),
    ],
)
def test_killed_with_csr_data(
    section: str, launch: int, rows: tuple[int | str, ...], count: int
) -> None:
    point = Point(section, rows, launch, index=count - 1)
    survives(point, optimizer="adam", training=train_on_csr, count=count)
