"""Other orders of axes against NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.kernels.cpu.conftest import Kernels, Memory

fast = settings(max_examples=15, deadline=None)
sizes = st.integers(1, 35)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
@fast
@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 3), sizes, sizes))
def test_permute(kernels: Kernels, order, shape):
    memory = Memory()
    x = memory.array(np.arange(np.prod(shape)).reshape(shape))
    expected = x.transpose(order)
    y = memory.nans(*expected.shape)
    strides = {f"stride{i}": n // 4 for i, n in enumerate(expected.strides)}
    lengths = {f"size{i}": n for i, n in enumerate(expected.shape)}
    kernels("permute", x=x, y=y, **strides, **lengths)
    np.testing.assert_array_equal(y, expected)
    memory.check()
