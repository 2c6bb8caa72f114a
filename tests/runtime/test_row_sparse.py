"""Row-sparse values: sums, shares, and the memory in which they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.row_sparse import (
    RowSparseNDArray,
    RowSparsePlace,
    gather,
    summed_share,
)

ROWS, COLUMNS = 9, 2


def array(indices: list[int], seed: int = 0) -> RowSparseNDArray:
    values = np.random.default_rng(seed).normal(size=(len(indices), COLUMNS))
    return RowSparseNDArray(
        np.array(indices, np.int64), values.astype(np.float32), (ROWS, COLUMNS)
    )


some_rows = st.lists(st.integers(0, ROWS - 1), unique=True).map(sorted)


@given(some_rows, some_rows)
def test_a_sum_is_the_sum_of_the_whole_arrays(one: list[int], two: list[int]) -> None:
    a, b = array(one), array(two, 1)
    total = a + b
    assert total.indices.tolist() == sorted({*one, *two})
    np.testing.assert_array_equal(np.asarray(total), np.asarray(a) + np.asarray(b))


@given(st.lists(some_rows, min_size=1, max_size=3), st.integers(1, 4))
def test_shares_make_up_the_sum(rows: list[list[int]], parts: int) -> None:
    summands = [array(indices, seed) for seed, indices in enumerate(rows)]
    expected: Any = summands[0].asnumpy()
    for other in summands[1:]:
        expected = expected + other.asnumpy()
    shares = [summed_share(summands, part, parts) for part in range(parts)]
    numbers = [int(i) for share in shares for i in share.indices]
    assert numbers == sorted({i for indices in rows for i in indices})
    found = sum(share.asnumpy() for share in shares)
    np.testing.assert_array_equal(found, expected)


@given(st.lists(st.integers(0, ROWS - 1), max_size=12))
def test_rows_are_gathered_in_their_order(positions: list[int]) -> None:
    index = np.array(positions, np.int64)
    rows = np.random.default_rng(0).normal(size=(len(positions), COLUMNS))
    rows = (rows * 1e3).astype(np.float32)
    whole = np.zeros((ROWS, COLUMNS), np.float32)
    for position, row in zip(positions, rows, strict=True):
        whole[position] += row
    found = gather(index, rows, whole.shape)
    assert found.indices.tolist() == sorted(set(positions))
    np.testing.assert_array_equal(found, whole)


def test_a_place_holds_any_number_of_rows() -> None:
    place = RowSparsePlace(
        np.zeros(1 + ROWS, np.int64), np.empty((ROWS, COLUMNS), np.float32)
    )
    assert len(place.value.indices) == 0
    for rows in ([1, 7], list(range(ROWS)), [3]):
        place.assign(array(rows))
        np.testing.assert_array_equal(place.value, array(rows))
    place.clear()
    assert not np.asarray(place.value).any()


def test_its_members() -> None:
    value = array([2, 5])
    assert (value.stype, value.ndim, value.dtype) == ("row_sparse", 2, np.float32)
    assert value.nbytes == 2 * 8 + 4 * 4
    assert value.data is value.values
    assert value.tostype("row_sparse") is value
    np.testing.assert_array_equal(value.tostype("default"), value.asnumpy())
    assert value.retain([5, 6]).indices.tolist() == [5]
    assert value.astype(np.float64).dtype == np.float64
    assert np.asarray(value, np.float16).dtype == np.float16
    copied = value.copy()
    copied.values[:] = 0
    assert value.values.all()
    with pytest.raises(ValueError, match="cannot become 'csr'"):
        value.tostype("csr")
    with pytest.raises(ValueError, match="by a copy only"):
        np.asarray(value, copy=False)
