"""Outputs of steps are copied for metrics only: not where nothing counts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.io import DataBatch, DataDesc, NDArrayIter
from runtime.executor.merging import Merge
from tests.asyncmod.module.nets import batch, mlp, ready, rows, same

SETTINGS = {"learning_rate": 0.1}
BATCHES = 4
TWO = [mx.reference(0), mx.reference(1)]


@pytest.fixture(name="copies")
def _copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has one entry for each batch whose outputs were copied."""
    made: list[int] = []
    allocate = Merge.allocate

    def noted(merge: Merge) -> list[Any]:
        made.append(merge.nbytes)
        return allocate(merge)

    monkeypatch.setattr(Merge, "allocate", noted)
    return made


def source() -> NDArrayIter:
    return NDArrayIter(*rows(8 * BATCHES), batch_size=8)


def plain() -> mx.BaseModule:
    return mx.Module(mlp(), context=TWO)


def inline() -> mx.BaseModule:
    return mx.Module(mlp(), context=mx.cpu(0))


def bucketing() -> mx.BaseModule:
    def generate(key: Any) -> Any:
        return mlp(), ["data"], ["softmax_label"]

    return mx.BucketingModule(generate, default_bucket_key=0, context=TWO)


def sequential() -> mx.BaseModule:
    return mx.SequentialModule().add(mx.Module(mlp(), context=TWO), take_labels=True)


def buckets() -> Any:
    def made() -> Iterator[DataBatch]:
        for seed in range(BATCHES):
            one = batch(8, seed)
            one.bucket_key = seed % 2
            one.provide_data = [DataDesc("data", (8, 5))]
            one.provide_label = [DataDesc("softmax_label", (8,))]
            yield one

    return mx.io.as_async(
        list(made()),
        provide_data=[DataDesc("data", (8, 5))],
        provide_label=[DataDesc("softmax_label", (8,))],
    )


MODULES = pytest.mark.parametrize(
    ("module", "data"),
    [
        (plain, source),
        (inline, source),
        (bucketing, buckets),
        (sequential, source),
    ],
)


async def fitted(module: mx.BaseModule, data: Any, **settings: Any) -> Any:
    await module.bind(data.provide_data, data.provide_label)
    await module.init_params(mx.init.One())
    history = await module.fit(data, num_epoch=1, optimizer_params=SETTINGS, **settings)
    counted = [row["samples"] for row in history.batches]
    return await module.get_params(), await module.get_outputs(), counted


@MODULES
async def test_nothing_is_copied_where_nothing_counts(
    module: Callable[[], Any], data: Callable[[], Any], copies: list[int]
) -> None:
    async with module() as one:
        expected = await fitted(one, data(), eval_metric="acc")
        assert copies
    copies.clear()
    async with module() as one:
        await one.bind(data().provide_data, data().provide_label)
        got = await fitted(one, data(), eval_metric=[])
        assert len(copies) == 1  # `get_outputs` of the test itself
        assert same(got[:2], expected[:2])
        assert got[2] == expected[2] == [8] * BATCHES


async def test_a_metric_that_a_callback_adds_counts_from_the_second_next_batch() -> (
    None
):
    accuracy = mx.metric.Accuracy()
    metric = mx.metric.CompositeEvalMetric()

    def add(param: Any) -> None:
        if param.nbatch == 0:
            metric.add(accuracy)

    async with plain() as module:
        await fitted(module, source(), eval_metric=metric, batch_end_callback=add)
    assert accuracy.num_inst == 8 * (BATCHES - 2)


class Largest(mx.metric.CompositeEvalMetric):
    """Counts by itself, though it holds no metric."""

    def update_dict(self, label: Any, pred: Any) -> None:
        self._count(float(np.max(pred["softmax_output"])), 1)

    def get(self) -> Any:
        return ["largest"], [self.sum_metric / self.num_inst]


async def test_a_composite_metric_that_counts_by_itself_is_given_outputs() -> None:
    metric = Largest()
    async with plain() as module:
        await fitted(module, source(), eval_metric=metric)
    assert metric.num_inst == BATCHES


def test_metrics_of_metrics_that_count_nothing_are_empty() -> None:
    nested = mx.metric.CompositeEvalMetric([mx.metric.CompositeEvalMetric()])
    assert nested.is_empty
    nested.get_metric(0).add("acc")  # type: ignore[attr-defined]
    assert not nested.is_empty
    assert not mx.metric.Accuracy().is_empty


async def test_a_step_without_its_outputs_can_be_waited_for() -> None:
    async with plain() as module:
        await ready(module, **SETTINGS)
        step = await module.inside.dispatch_step(batch(8), None, False)
        await step.wait()
        with pytest.raises(RuntimeError, match="dispatched without"):
            await step.outputs()
