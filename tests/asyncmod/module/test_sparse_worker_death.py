"""Sparse data and gradients on workers: the bits of threads, also over deaths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

import asyncmod as mx
from tests.asyncmod.module.nets import same
from tests.asyncmod.module.sparse_nets import embedding, factorization_machine
from tests.asyncmod.module.test_worker_death import (
    Train,
    by_hand,
    by_steps,
    devices,
    survives,
)
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
        pytest.param("backward", 3, (2,), 1, marks=pytest.mark.slow),
        ("step", 1, ("ended",), 1),
        ("update", 2, ("saved",), 2),
        pytest.param("predict", 1, (1,), 1, marks=pytest.mark.slow),
    ],
)
def test_killed_with_csr_data(
    section: str, launch: int, rows: tuple[int | str, ...], count: int
) -> None:
    point = Point(section, rows, launch, index=count - 1)
    survives(point, optimizer="adam", training=train_on_csr, count=count)


async def train_on_words(contexts: list[mx.Context], how: Train, optimizer: str) -> Any:
    """What is left of a training that updates some rows of a table by two batches."""
    mx.seed(5)
    generator = np.random.default_rng(0)
    words = generator.integers(0, VOCABULARY, (4 * BATCH, 2)).astype(np.float32)
    label = generator.integers(0, 3, 4 * BATCH).astype(np.float32)
    batches = [
        mx.io.DataBatch([words[i : i + BATCH]], [label[i : i + BATCH]])
        for i in range(0, len(words), BATCH)
    ]
    settings = {"learning_rate": 0.1, "wd": 0.01}
    async with mx.Module(embedding(VOCABULARY, 4), context=contexts) as mod:
        await mod.bind(
            [("data", (BATCH, 2))],
            [("softmax_label", (BATCH,))],
            grad_req="add" if how is by_hand else "write",
        )
        await mod.init_params()
        await mod.init_optimizer(optimizer=optimizer, optimizer_params=settings)
        if how is by_hand:
            for i, batch in enumerate(batches):
                await mod.forward_backward(batch)
                if i % 2:
                    await mod.update()
                    await mod.zero_grad()
            await mod.forward_backward(batches[0])
        else:
            data = mx.io.NDArrayIter(words, label, BATCH)
            await mod.fit(data, num_epoch=1, accumulate=2)
        return await mod.get_params(), await mod.get_grads()


@pytest.mark.parametrize("kind", [mx.cpu, mx.reference])
@pytest.mark.parametrize("how", [by_hand, by_steps])
async def test_rows_that_add_up_give_the_bits_of_threads(kind: Any, how: Train) -> None:
    found = []
    for worker in ("thread", "process"):
        found.append(await train_on_words(devices(kind, worker), how, "adam"))
    assert same(*found)


@pytest.mark.parametrize(
    ("how", "section", "launch", "rows"),
    [
        pytest.param(by_hand, "backward", 1, (4,), marks=pytest.mark.slow),
        (by_hand, "backward", 2, (3, 4)),
        pytest.param(by_hand, "update", 2, (1,), marks=pytest.mark.slow),
        pytest.param(by_steps, "start", 1, (1,), marks=pytest.mark.slow),
        (by_steps, "add", 1, ("saved", 1, 2, "ended")),
    ],
)
def test_killed_while_rows_add_up(
    how: Train, section: str, launch: int, rows: tuple[int | str, ...]
) -> None:
    point = Point(section, rows, launch, index=1)
    survives(point, how, optimizer="adam", training=train_on_words)
