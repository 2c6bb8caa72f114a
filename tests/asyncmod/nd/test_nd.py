"""`mx.nd`: what old scripts call on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncmod import cpu, nd
from asyncmod.errors import ArgumentError


def test_members_of_mxnet() -> None:
    array = nd.array([[1, 2], [3, 4]])
    assert array.dtype == np.float32
    assert array.context == array.ctx == cpu(0)
    assert array.as_in_context(cpu(1)) is array
    assert array.stype == "default"
    array.wait_to_read()
    assert array.tostype("default") is array.detach() is array.as_nd_ndarray() is array
    with pytest.raises(ArgumentError, match="'coo'"):
        array.tostype("coo")
    nd.waitall()
    plain = array.asnumpy()
    assert type(plain) is np.ndarray
    assert not np.shares_memory(plain, array)
    assert array.sum().asscalar() == 10
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        array.asscalar()


def test_results_are_of_the_same_class() -> None:
    array = nd.ones((2, 3))
    for result in (array + 1, array[0], array.reshape(-1), array.mean(), array.T):
        assert isinstance(result, nd.NDArray)


def test_copyto() -> None:
    array = nd.array([1.5, 2.5])
    target = np.zeros(2, np.int32)
    array.copyto(target)
    assert target.tolist() == [1, 2]
    copied = array.copyto(cpu(1))
    assert copied.tolist() == [1.5, 2.5]
    assert not np.shares_memory(copied, array)
    with pytest.raises(ValueError, match="equal shapes"):
        array.copyto(np.zeros(3))


@pytest.mark.parametrize(
    ("source", "dtype", "expected"),
    [
        ([1, 2], None, np.float32),
        ([1, 2], "int8", np.int8),
        (np.array([1, 2], np.int64), None, np.float32),
        (np.array([1, 2], np.float64), "float64", np.float64),
        (nd.ones((2,), dtype="float16"), None, np.float16),
    ],
)
def test_array_dtypes(source: Any, dtype: Any, expected: Any) -> None:
    array = nd.array(source, dtype=dtype)
    assert array.dtype == expected
    assert not np.shares_memory(array, np.asarray(source))


def test_makers() -> None:
    assert nd.zeros(3).tolist() == [0, 0, 0]
    assert nd.full((2,), 7, dtype="int32").tolist() == [7, 7]
    assert nd.empty((2, 5)).shape == (2, 5)
    assert nd.arange(3).tolist() == [0, 1, 2]
    assert nd.arange(1, 3, 0.5, repeat=2).tolist() == [1, 1, 1.5, 1.5, 2, 2, 2.5, 2.5]
    assert nd.ones_like(nd.zeros((2, 1))).tolist() == [[1], [1]]
    assert nd.zeros_like(np.ones(2, np.int8)).dtype == np.int8
    one = nd.ones((2, 1))
    assert nd.concat(one, one).shape == (2, 2)
    assert nd.concatenate([one, one]).shape == (4, 1)
    assert nd.stack(one, one).shape == (2, 2, 1)
    assert nd.moveaxis(nd.zeros((2, 3, 4)), 0, 2).shape == (3, 4, 2)
    assert nd.eye(2, 3, 1).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert nd.linspace(0, 1, 3).tolist() == [0, 0.5, 1]
    assert nd.linspace(0, 1, 2, endpoint=False, dtype="float64").tolist() == [0, 0.5]
    parts = nd.split_v2(nd.arange(6).reshape(3, 2), (1,), axis=0)
    assert [part.shape for part in parts] == [(1, 2), (2, 2)]
    parts = nd.arange(6).reshape(3, 2).split_v2(2, axis=1, squeeze_axis=True)
    assert [part.tolist() for part in parts] == [[0, 2, 4], [1, 3, 5]]
    plain = np.arange(3)
    assert np.shares_memory(nd.from_numpy(plain), plain)
    assert not np.shares_memory(nd.from_numpy(plain, zero_copy=False), plain)
    for made in (nd.concat(one, one), nd.full(1, 2.0), nd.arange(2), nd.empty(1)):
        assert isinstance(made, nd.NDArray)


def test_reshape_knows_mxnets_codes() -> None:
    array = nd.arange(24).reshape((2, 3, 4))
    for given, expected in [
        ((0, -1), (2, 12)),
        ((-1, 0), (8, 3)),
        ((-2,), (2, 3, 4)),
        ((0, -3), (2, 12)),
        ((-4, 1, 2, -2), (1, 2, 3, 4)),
        ((4, -1), (4, 6)),
        ((24,), (24,)),
    ]:
        for reshaped in (
            array.reshape(given),
            array.reshape(*given),
            array.reshape(shape=given),
        ):
            assert isinstance(reshaped, nd.NDArray)
            assert reshaped.shape == expected
            assert reshaped.ravel().tolist() == list(range(24))
    assert array.reshape((-1, 0), reverse=True).shape == (6, 4)
    assert array.reshape(6, 4, order="F").shape == (6, 4)
    # A size of 0 is a size where there is nothing to copy.
    assert nd.zeros((0, 3)).reshape(0, 1, 3).shape == (0, 1, 3)
    with pytest.raises(ValueError, match="reshape"):
        array.reshape((5, -1))
