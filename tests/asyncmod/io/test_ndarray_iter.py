"""NDArrayIter beyond the golden cases: rows, copies, dtypes, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from asyncmod import io, nd, random

ROWS = np.arange(20, dtype=np.float32).reshape(10, 2)


async def epoch(iterator: Any) -> list[io.DataBatch]:
    return [batch async for batch in iterator]


async def order(iterator: Any) -> list[int]:
    """Row numbers of an epoch, then the iterator reset."""
    batches = await epoch(iterator)
    await iterator.reset()
    return [int(i) for batch in batches for i in batch.index]


def run(async_fn: Any, *args: Any) -> Any:
    import trio

    return trio.run(async_fn, *args)


@given(
    rows=st.integers(1, 12),
    size=st.integers(1, 15),
    handle=st.sampled_from(["pad", "discard", "roll_over"]),
    shuffle=st.booleans(),
)
def test_every_row_comes_once(rows: int, size: int, handle: Any, shuffle: bool) -> None:
    """Over the epochs that it takes, real rows are a permutation each."""
    data = np.arange(rows, dtype=np.float32)
    iterator = io.NDArrayIter(data, data + 100, size, shuffle, handle, seed=1)
    epochs = size if handle == "roll_over" else 2
    seen: list[int] = []

    async def main() -> None:
        for _ in range(epochs):
            for batch in await epoch(iterator):
                assert len(batch.index) == size
                np.testing.assert_array_equal(batch.data[0], batch.index)
                np.testing.assert_array_equal(batch.label[0], batch.index + 100)
                seen.extend(batch.index[: size - batch.pad])
            await iterator.reset()

    run(main)
    kept = rows * epochs // size * size if handle == "roll_over" else None
    if handle == "pad":
        assert sorted(seen) == sorted(list(range(rows)) * epochs)
    elif handle == "discard":
        assert len(seen) == rows // size * size * epochs
        assert all(seen.count(row) <= epochs for row in range(rows))
    else:
        assert len(seen) == kept
        whole = len(seen) // rows
        assert all(whole <= seen.count(row) <= epochs for row in range(rows))


async def test_padding_wraps_around_as_often_as_needed() -> None:
    iterator = io.NDArrayIter(np.arange(4.0), batch_size=11)
    (batch,) = await epoch(iterator)
    assert batch.data[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    assert batch.pad == 7


async def test_shuffle_is_drawn_anew_every_epoch_and_repeats_with_the_seed() -> None:
    random.seed(5)
    first = io.NDArrayIter(ROWS, batch_size=5, shuffle=True)
    epochs = [await order(first) for _ in range(3)]
    assert len({tuple(rows) for rows in epochs}) == 3
    random.seed(5)
    again = io.NDArrayIter(ROWS, batch_size=5, shuffle=True)
    assert [await order(again) for _ in range(3)] == epochs
    other = io.NDArrayIter(ROWS, batch_size=5, shuffle=True)
    assert await order(other) != epochs[0]
    given = io.NDArrayIter(ROWS, batch_size=5, shuffle=True, seed=9)
    assert await order(given) == await order(
        io.NDArrayIter(ROWS, batch_size=5, shuffle=True, seed=9)
    )


async def test_a_second_reset_forgets_rows_carried_over() -> None:
    iterator = io.NDArrayIter(np.arange(10.0), None, 4, False, "roll_over")
    await epoch(iterator)
    await iterator.reset()
    await iterator.reset()
    assert (await iterator.next()).index.tolist() == [0, 1, 2, 3]
    await epoch(iterator)
    iterator.hard_reset()
    assert (await iterator.next()).index.tolist() == [0, 1, 2, 3]


async def test_rows_in_order_are_views_that_cannot_be_written() -> None:
    iterator = io.NDArrayIter(ROWS, batch_size=4)
    first, _, last = await epoch(iterator)
    assert np.shares_memory(first.data[0], ROWS)
    assert isinstance(first.data[0], nd.NDArray)
    with pytest.raises(ValueError, match="read-only"):
        first.data[0][0] = 1
    assert not np.shares_memory(last.data[0], ROWS)
    assert ROWS.flags.writeable


async def test_a_memory_mapped_file_is_read_by_batches(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    batch = await io.NDArrayIter(mapped, batch_size=4).next()
    np.testing.assert_array_equal(batch.data[0], ROWS[:4])
    assert np.shares_memory(batch.data[0], mapped)


class DataSet:
    """Like a data set of h5py: slices, or increasing row numbers."""

    shape, dtype, ndim = ROWS.shape, ROWS.dtype, 2

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("read as a whole")

    def __getitem__(self, key: Any) -> Any:
        rows = key[0]
        assert isinstance(rows, slice) or (np.diff(rows) > 0).all()
        return ROWS[key]


class Exchanged:
    """Only speaks DLPack."""

    def __dlpack__(self, **kwargs: Any) -> Any:
        return ROWS.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return ROWS.__dlpack_device__()


@pytest.mark.parametrize("source", [DataSet, Exchanged])
async def test_arrays_of_others(source: Any) -> None:
    iterator = io.NDArrayIter(source(), batch_size=4, shuffle=True, seed=1)
    for batch in await epoch(iterator):
        np.testing.assert_array_equal(batch.data[0], ROWS[batch.index])
        assert isinstance(batch.data[0], nd.NDArray)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64", "float16"])
@pytest.mark.parametrize("shuffle", [False, True])
async def test_dtypes(dtype: str, shuffle: bool) -> None:
    rows = ROWS.astype(dtype)
    cast = io.NDArrayIter(rows, batch_size=4, shuffle=shuffle)
    kept = io.NDArrayIter(rows, batch_size=4, shuffle=shuffle, keep_dtype=True)
    as_nd = io.NDArrayIter(nd.array(rows, dtype=dtype), batch_size=4, shuffle=shuffle)
    for iterator, expected in ((cast, "float32"), (kept, dtype), (as_nd, dtype)):
        assert iterator.provide_data[0].dtype == expected
        assert (await iterator.next()).data[0].dtype == expected


async def test_batch_axis_of_another_layout() -> None:
    rows = np.arange(24.0).reshape(3, 8)
    iterator = io.NDArrayIter(rows, batch_size=4, layout="TN")
    assert iterator.provide_data == [("data", (3, 4))]
    first, second = await epoch(iterator)
    np.testing.assert_array_equal(first.data[0], rows[:, :4])
    np.testing.assert_array_equal(second.data[0], rows[:, 4:])


async def test_without_labels() -> None:
    for label in (None, [], {}):
        iterator = io.NDArrayIter(ROWS, label, 5)
        assert iterator.provide_label == []
        assert (await iterator.next()).label == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data": None}, AssertionError, "must not be empty"),
        ({"data": []}, AssertionError, "must not be empty"),
        ({"data": "rows"}, TypeError, "Input must be NDArray"),
        ({"data": {"a": [1, 2]}}, TypeError, "Input must be NDArray"),
        ({"data": ROWS, "label": ROWS[:9]}, ValueError, "'softmax_label': 9"),
        ({"data": ROWS[:0]}, ValueError, "no rows"),
        ({"data": ROWS, "batch_size": 0}, ValueError, "`batch_size`"),
        ({"data": ROWS, "last_batch_handle": "wrap"}, ValueError, "'wrap'"),
        ({"data": ROWS, "seed": -1}, ValueError, "`seed`"),
        ({"data": np.float32(1)}, ValueError, "no axis 0"),
    ],
)
def test_refused_arguments(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        io.NDArrayIter(**arguments)


def test_a_state_of_other_data_is_refused() -> None:
    state = io.NDArrayIter(ROWS).get_state()
    with pytest.raises(io.DataError, match="10 rows"):
        io.NDArrayIter(ROWS[:5]).set_state(state)


def test_a_for_loop_is_told_what_to_write() -> None:
    with pytest.raises(TypeError, match="async for"):
        iter(io.NDArrayIter(ROWS))


async def test_sparse_rows_come_in_whole_batches() -> None:
    matrix = scipy.sparse.random(
        13, 5, 0.4, "csr", np.float64, np.random.default_rng(0)
    )
    label = np.arange(13)
    for handle in ("pad", "roll_over"):
        with pytest.raises(NotImplementedError, match="last_batch_handle='discard'"):
            io.NDArrayIter(matrix, label, 4, last_batch_handle=handle)
    for source in (matrix, matrix.tocsc(), {"data": matrix}):
        iterator = io.NDArrayIter(source, label, 4, last_batch_handle="discard")
        assert iterator.provide_data[0].shape == (4, 5)
        batches = await epoch(iterator)
        assert len(batches) == 3
        for k, batch in enumerate(batches):
            rows = batch.data[0]
            assert rows.dtype == np.float32
            expected = matrix[4 * k : 4 * k + 4].toarray().astype(np.float32)
            np.testing.assert_array_equal(rows.toarray(), expected)
        with pytest.raises(StopAsyncIteration):
            await iterator.next()


async def test_sparse_rows_are_shuffled_with_their_labels() -> None:
    matrix = scipy.sparse.csr_matrix(np.diag(np.arange(1.0, 11)))
    iterator = io.NDArrayIter(
        matrix, np.arange(10), 5, True, "discard", seed=1, keep_dtype=True
    )
    batches = await epoch(iterator)
    seen = np.concatenate([batch.label[0] for batch in batches])
    assert sorted(seen) == list(range(10))
    assert list(seen) != list(range(10))
    for batch in batches:
        assert batch.data[0].dtype == np.float64
        assert (batch.data[0].argmax(axis=1).ravel() == batch.label[0]).all()


def test_sparse_rows_are_the_batch() -> None:
    matrix = scipy.sparse.csr_matrix((4, 2))
    with pytest.raises(io.DataError, match="its rows are the batch axis"):
        io.NDArrayIter(matrix, None, 2, False, "discard", layout="TN")
