"""Lists of one batch per device, joined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio

from asyncmod.io import DataBatch, DataDesc
from asyncmod.io.adapter import as_async
from asyncmod.io.batch import BatchError
from asyncmod.io.slices import is_sliced, join_slices, whole

DATA, LABEL = [DataDesc("data", (4, 2))], [DataDesc("softmax_label", (4,))]


def part(first: int, count: int, **options: Any) -> DataBatch:
    """Rows `first`, `first` + 1, ..."""
    rows = np.arange(first, first + count, dtype=np.float32)
    return DataBatch([np.stack([rows, -rows], 1)], [rows], **options)


def test_what_is_sliced() -> None:
    assert is_sliced([part(0, 1), part(1, 1)])
    assert is_sliced((part(0, 1),))
    array = np.zeros(2)
    for other in (part(0, 1), [], [array], [array, array], array, ([array], [array])):
        assert not is_sliced(other)


def test_rows_stand_one_after_another() -> None:
    slices = [part(0, 2, index=np.array([7, 8])), part(2, 3, index=np.array([9, 1, 2]))]
    joined = join_slices(slices, DATA, LABEL)
    assert joined.data[0].tolist() == [[i, -i] for i in range(5)]
    assert joined.label is not None
    assert joined.label[0].tolist() == [0, 1, 2, 3, 4]
    assert joined.index.tolist() == [7, 8, 9, 1, 2]
    assert (joined.pad, joined.bucket_key, joined.provide_data) == (0, None, None)


def test_the_layout_says_where_rows_are() -> None:
    described = [DataDesc("data", (3, 4), layout="TN"), DataDesc("c", (2,), layout="C")]
    slices = [
        DataBatch([np.full((3, n), n, np.float16), np.array([5, 6])]) for n in (1, 2)
    ]
    joined = join_slices(slices, described, [])
    assert joined.data[0].tolist() == [[1, 2, 2]] * 3
    assert joined.data[0].dtype == np.float16
    assert joined.data[1].tolist() == [5, 6]
    assert joined.label == []


def test_own_descriptions_come_first_and_get_the_joined_shape() -> None:
    own = {
        "bucket_key": 3,
        "provide_data": [DataDesc("data", (3, 2), np.float32, "TN")],
        "provide_label": [("softmax_label", (2,))],
    }
    slices = [DataBatch([np.ones((3, 2))], [np.ones(2)], **own) for _ in range(2)]
    joined = join_slices(slices, DATA, LABEL)
    assert joined.bucket_key == 3
    assert joined.provide_data == [("data", (3, 4))]
    assert joined.provide_data[0].layout == "TN"
    assert joined.provide_label == [("softmax_label", (4,))]


@pytest.mark.parametrize(
    ("pads", "total"), [([0, 0], 0), ([0, 1], 1), ([None, 2], 2), ([1, 2], 3)]
)
def test_pads_at_the_end_add_up(pads: list[int], total: int) -> None:
    slices = [part(0, 2, pad=pads[0]), part(2, 2, pad=pads[1])]
    assert join_slices(slices, DATA, LABEL).pad == total


def test_slices_that_do_not_fit_together() -> None:
    one = part(0, 2)
    for other, match in (
        (part(2, 2, bucket_key=1), "several buckets"),
        (DataBatch([one.data[0]]), r"\[1, 0\] label arrays"),
        (DataBatch([np.ones((2, 3))], one.label), r"shapes .* joined on axis 0"),
    ):
        with pytest.raises(BatchError, match=match):
            join_slices([one, other], DATA, LABEL)
    with pytest.raises(BatchError, match="must be at its end"):
        join_slices([part(0, 2, pad=1), part(2, 2)], DATA, LABEL)


async def test_large_slices_are_joined_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = []
    run_sync = trio.to_thread.run_sync

    async def note(function: Any, *arguments: Any) -> Any:
        threads.append(function)
        return await run_sync(function, *arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", note)
    small, large = part(0, 2), DataBatch([np.zeros((300, 1000), np.float32)])
    assert (await whole([small, small], DATA, LABEL)).data[0].shape == (4, 2)
    assert await whole(small, DATA, LABEL) is small
    assert threads == []
    assert (await whole([large, large], DATA, LABEL)).data[0].shape == (600, 1000)
    assert threads == [join_slices]


async def test_a_cancelled_read_of_slices_loses_no_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches = [[part(i, 1), part(i + 1, 1)] for i in (0, 2, 4)]
    scope = trio.CancelScope()

    async def cancelled(*arguments: Any) -> DataBatch:
        scope.cancel()
        await trio.lowlevel.checkpoint()
        return join_slices(*arguments)

    monkeypatch.setattr("asyncmod.io.adapter.whole", cancelled)
    async with as_async(iter(batches), provide_data=DATA) as source:
        seen = []
        for _ in batches:
            with trio.CancelScope() as scope:
                seen.append((await source.next()).data[0][:, 0].tolist())
        assert seen == [[0, 1], [2, 3], [4, 5]]
