"""What MXNet's own tests of iterators pin down, where no recorded case does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncmod as mx
from asyncmod.io import DataBatch, NDArrayIter

ROWS = np.ones((1000, 2, 2), np.float32) * np.arange(1000)[:, None, None]
LABELS = np.repeat(np.arange(10.0), 100)


@pytest.mark.parametrize(
    ("handle", "batches"),
    [("pad", 8), ("discard", 7), ("roll_over", 7)],
)
@pytest.mark.parametrize("form", ["array", "list", "dict"])
@pytest.mark.parametrize("labelled", [True, False])
async def test_batches_of_128_of_1000_rows(
    handle: str, batches: int, form: str, labelled: bool
) -> None:
    data: Any = {"array": ROWS, "list": [ROWS, ROWS], "dict": {"a": ROWS, "b": ROWS}}
    label = LABELS if labelled else None
    iterator = NDArrayIter(data[form], label, 128, True, last_batch_handle=handle)
    counts = np.zeros(10, int)
    count = 0
    async for batch in iterator:
        count += 1
        assert len(batch.data) == (1 if form == "array" else 2)
        first = batch.data[0][:, 0, 0]
        assert first.shape == (128,)
        if labelled:
            # Rows and labels are shuffled alike.
            np.testing.assert_array_equal(batch.label[0], first // 100)
            counts += np.bincount(batch.label[0].astype(int), minlength=10)
        else:
            assert batch.label == []
    assert count == batches
    if labelled:
        assert counts.sum() == 128 * batches
        assert counts.min() >= (100 if handle == "pad" else 100 - (1000 - 896))


async def test_roll_over_begins_with_what_pad_ends_with() -> None:
    padded = NDArrayIter(ROWS, LABELS, 128, last_batch_handle="pad")
    rolled = NDArrayIter(ROWS, LABELS, 128, last_batch_handle="roll_over")
    last = [batch async for batch in padded][-1]
    assert len([batch async for batch in rolled]) == 7
    await rolled.reset()
    first = await rolled.next()
    real = 128 - last.pad
    assert real == 1000 - 7 * 128
    np.testing.assert_array_equal(first.data[0][:real], last.data[0][:real])
    np.testing.assert_array_equal(first.data[0][real:], ROWS[: 128 - real])


async def test_ten_rows_fill_a_batch_of_205() -> None:
    rows = np.arange(10.0)[:, None]
    iterator = NDArrayIter(rows, batch_size=205, last_batch_handle="pad")
    batches = [batch async for batch in iterator]
    assert len(batches) == 1
    assert batches[0].pad == 195
    expected = np.arange(205) % 10
    np.testing.assert_array_equal(batches[0].data[0][:, 0], expected)


def test_a_batch_as_text() -> None:
    batch = DataBatch([mx.nd.ones((2, 3))], [mx.nd.ones((10,))])
    assert str(batch) == "DataBatch: data shapes: [(2, 3)] label shapes: [(10,)]"
    batch = DataBatch([mx.nd.ones((2, 3)), mx.nd.ones((7, 8))])
    assert str(batch) == "DataBatch: data shapes: [(2, 3), (7, 8)] label shapes: None"
