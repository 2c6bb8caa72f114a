"""Rows of tables against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.ops.indexing import positions
from runtime.row_sparse import gather
from tests.runtime.kernels.cpu.conftest import Kernels, Memory

fast = settings(max_examples=60, deadline=None)
WILD = [np.nan, np.inf, -np.inf, 3e38, -3e38, 9.3e18, -9.3e18, 2147483648, -1, -0.5]


@fast
@given(rows=st.integers(1, 9), width=st.integers(1, 70), count=st.integers(0, 20))
def test_embedding(kernels: Kernels, rows, width, count):
    memory, random = Memory(), np.random.default_rng(rows * width + count)
    index = memory.array([*random.uniform(-2, rows + 2, count), *WILD])
    weight = memory.array(random.normal(size=(rows, width)))
    y = memory.nans(len(index), width)
    kernels(
        "embedding",
        index=index,
        weight=weight,
        y=y,
        count=len(index),
        rows=rows,
        width=width,
    )
    np.testing.assert_array_equal(y, weight[positions(index, rows)])
    memory.check()


@pytest.mark.parametrize("accumulate", [0, 1])
@fast
@given(rows=st.integers(1, 9), width=st.integers(1, 70), count=st.integers(0, 20))
def test_embedding_backward(kernels: Kernels, rows, width, count, accumulate):
    memory, random = Memory(), np.random.default_rng(rows * width + count)
    index = memory.array([*random.uniform(-2, rows + 2, count), *WILD])
    dy = memory.array(random.normal(size=(len(index), width)))
    before = random.normal(size=(rows, width)) * accumulate
    dweight = memory.array(before if accumulate else np.full_like(before, np.nan))
    kernels(
        "embedding_backward",
        index=index,
        dy=dy,
        dweight=dweight,
        count=len(index),
        rows=rows,
        width=width,
        accumulate=accumulate,
    )
    # The same order of additions: the same bits.
    expected = before.astype(np.float32)
    np.add.at(expected, positions(index, rows), dy)
    np.testing.assert_array_equal(dweight, expected)
    memory.check()


@fast
@given(rows=st.integers(1, 50), width=st.integers(1, 70), count=st.integers(0, 90))
def test_embedding_backward_rows(kernels: Kernels, rows, width, count):
    memory, random = Memory(), np.random.default_rng(rows * width + count)
    index = memory.array([*random.uniform(-2, rows + 2, count), *WILD])
    dy = memory.array(random.normal(size=(len(index), width)))
    numbers = memory.array(np.full(1 + rows, -1), np.int64)
    values = memory.nans(rows, width)
    kernels(
        "embedding_backward_rows",
        index=index,
        dy=dy,
        numbers=numbers,
        values=values,
        count=len(index),
        rows=rows,
        width=width,
        scratch=memory.array(np.zeros(2 * len(index)), np.int64),
    )
    # The same order of additions: the same bits.
    expected = gather(positions(index, rows), dy, (rows, width))
    found = int(numbers[0])
    np.testing.assert_array_equal(numbers[1 : 1 + found], expected.indices)
    np.testing.assert_array_equal(values[:found], expected.values)
    assert (numbers[1 + found :] == -1).all()
    memory.check()
