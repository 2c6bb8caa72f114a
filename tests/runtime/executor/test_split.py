"""MXNet's split, and parts put together again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.executor.split import (
    is_empty,
    merge,
    merged_shape,
    select,
    sliced_shape,
    split,
)

# Run against MXNet 1.9.1; the last three it refuses, as a slice comes out empty.
MXNET = [
    (10, (1, 1, 1), [3, 3, 4]),
    (5, (1, 1), [2, 3]),
    (7, (1, 1), [4, 3]),
    (3, (1, 1), [2, 1]),
    (9, (1, 1), [4, 5]),
    (11, (1,) * 4, [3, 3, 3, 2]),
    (10, (1,) * 4, [2, 2, 2, 4]),
    (14, (1,) * 4, [4, 4, 4, 2]),
    (13, (1,) * 5, [3, 3, 3, 3, 1]),
    (128, (1, 1, 1), [43, 43, 42]),
    (4, (1, 1, 1), [1, 1, 2]),
    (5, (1, 1, 1), [2, 2, 1]),
    (10, (3, 1), [8, 2]),
    (10, (1, 2, 1), [2, 5, 3]),
    (2, (1, 1, 1), [1, 1, 0]),
    (1, (1, 1), [0, 1]),
    (6, (1,) * 4, [2, 2, 2, 0]),
]


@pytest.mark.parametrize(("size", "workload", "counts"), MXNET)
def test_splits_as_mxnet_does(
    size: int, workload: tuple[float, ...], counts: list[int]
) -> None:
    assert [rows.stop - rows.start for rows in split(size, workload)] == counts


@given(
    st.integers(1, 500),
    st.lists(st.floats(0.1, 10), min_size=1, max_size=9),
)
def test_slices_are_the_whole_batch_in_order(size: int, workload: list[float]) -> None:
    slices = split(size, workload)
    assert len(slices) == len(workload)
    assert [i for rows in slices for i in range(size)[rows]] == list(range(size))


@pytest.mark.parametrize(
    ("size", "workload"), [(0, (1,)), (3, ()), (3, (1, 0)), (3, (1, float("nan")))]
)
def test_refuses_what_cannot_be_split(size: int, workload: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must"):
        split(size, workload)


@given(st.integers(1, 20), st.integers(1, 4), st.sampled_from([0, 1, 2]))
def test_parts_merge_to_the_whole(size: int, devices: int, axis: int) -> None:
    shape = (*(2, 3)[:axis], size, *(2, 3)[axis:])
    whole = np.arange(np.prod(shape)).reshape(shape)
    slices = [rows for rows in split(size, (1,) * devices) if not is_empty(rows)]
    parts = [whole[select(axis, rows) or ()] for rows in slices]
    for part, rows in zip(parts, slices, strict=True):
        assert part.shape == sliced_shape(shape, axis, rows)
    np.testing.assert_array_equal(merge(parts, axis), whole)
    merged, places = merged_shape([part.shape for part in parts], axis)
    assert merged == shape
    for part, place in zip(parts, places, strict=True):
        np.testing.assert_array_equal(whole[place or ()], part)


def test_without_a_batch_axis_the_first_part_stands_for_all() -> None:
    parts = [np.zeros(3), np.ones(3)]
    assert merge(parts, -1) is parts[0]
    assert merged_shape([(3,), (3,)], -1) == ((3,), (None, None))
    assert sliced_shape((3,), -1, slice(0, 1)) == (3,)
    assert select(-1, slice(0, 1)) is None


def test_an_output_without_batch_is_put_together_along_axis_0_as_mxnet_does() -> None:
    """TNC without a layout: (5, 4, 3) on two devices is (10, 2, 3); a loss is (2,)."""
    assert merged_shape([(5, 2, 3), (5, 2, 3)], 0)[0] == (10, 2, 3)
    assert merged_shape([(1,), (1,)], 0)[0] == (2,)
