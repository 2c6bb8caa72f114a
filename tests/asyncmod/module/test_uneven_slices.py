"""Batches that devices share unevenly, or that leave a device without rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.io import DataBatch, NDArrayIter
from tests.asyncmod.module.nets import Array, mlp, ready, rows, values

ROWS = 13


async def results(
    batch_size: int, devices: int, shares: list[float] | None
) -> dict[str, Any]:
    """What training, scoring and predicting give; the last batch is padded."""
    source = NDArrayIter(*rows(ROWS), batch_size=batch_size)
    context = [mx.cpu(i) for i in range(devices)]
    async with mx.Module(mlp(), context=context, work_load_list=shares) as module:
        history = await module.fit(
            source,
            num_epoch=2,
            eval_metric=["acc", "ce"],
            arg_params=values(mlp()),
            optimizer_params={"learning_rate": 0.1, "momentum": 0.9},
        )
        parameters, _ = await module.get_params()
        iterated = [outputs[0] async for outputs, *_ in module.iter_predict(source)]
        return {
            **parameters,
            "train": history.epochs[-1]["train-cross-entropy"],
            "samples": history.epochs[-1]["samples"],
            "score": [value for _, value in await module.score(source, ["acc", "ce"])],
            "predict": await module.predict(source),
            "iter_predict": np.concatenate(iterated),
        }


@pytest.mark.parametrize(
    ("batch_size", "shares", "slices"),
    [
        (7, [1, 1], [4, 3]),
        (10, [3, 1], [8, 2]),
        (10, [1, 2, 1], [2, 5, 3]),
        (6, [1, 1, 1, 1], [2, 2, 2, 0]),
        (5, [1, 1, 1], [2, 2, 1]),
        (1, [1, 1], [0, 1]),
    ],
    ids=str,
)
async def test_training_does_not_depend_on_the_slices(
    batch_size: int, shares: list[float], slices: list[int]
) -> None:
    expected = await results(batch_size, 1, None)
    found = await results(batch_size, len(shares), shares)
    assert found["samples"] == ROWS
    assert found["predict"].shape == (ROWS, 3)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)
    context = [mx.cpu(i) for i in range(len(shares))]
    async with mx.Module(mlp(), context=context, work_load_list=shares) as module:
        await ready(module, batch_size)
        data, label = rows(batch_size)
        await module.forward(DataBatch([data], [label]))
        [merged] = await module.get_outputs()
        [parts] = await module.get_outputs(merge_multi_context=False)
        assert [len(part) for part in parts] == [n for n in slices if n]
        joined: Array = np.concatenate(parts)
        np.testing.assert_array_equal(joined, merged)
