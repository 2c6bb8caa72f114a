"""`mx.nd.sparse`: sparse arrays by MXNet's names."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import asyncmod as mx
from asyncmod.nd import sparse

DENSE = np.array([[0, 0], [1, 2], [0, 0], [0, 3]], np.float32)


def test_row_sparse_arrays() -> None:
    of_rows = sparse.row_sparse_array((DENSE[[3, 1]], [3, 1]), shape=DENSE.shape)
    of_array = sparse.row_sparse_array(DENSE)
    for array in (of_rows, of_array, mx.nd.array(DENSE).tostype("row_sparse")):
        assert array.indices.tolist() == [1, 3]
        np.testing.assert_array_equal(array.data, DENSE[[1, 3]])
        np.testing.assert_array_equal(array.asnumpy(), DENSE, strict=True)
    assert sparse.row_sparse_array(([[1, 2]], [4])).shape == (5, 2)
    assert sparse.row_sparse_array(([[1, 2]], [4])).dtype == np.float32
    assert sparse.row_sparse_array((3, 2)).shape == (3, 2)
    again = sparse.array(of_rows, dtype=np.float64)
    assert again.dtype == np.float64
    again.values[:] = 0
    assert of_rows.values.any()
    assert sparse.retain(of_rows, mx.nd.array([3])).indices.tolist() == [3]
    np.testing.assert_array_equal(of_rows + of_array, 2 * DENSE)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (([[1, 2]], [4]), r"row numbers 4 to 4 must lie in 0 to 3"),
        (([[1, 2]], [-1]), r"row numbers -1 to -1"),
        (([[1, 2], [1, 2]], [1, 1]), "a row number stands twice"),
        (([[1, 2]], [0.5]), "row numbers must be integers"),
        (([[1, 2]], [1, 2]), "one for each of the 1 rows"),
        (([[1, 2, 3]], [1]), r"rows of shape \(3,\) do not fit into \(4, 2\)"),
    ],
)
def test_rows_that_cannot_be(rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sparse.row_sparse_array(rows, shape=(4, 2))


def test_csr_matrices() -> None:
    made = scipy.sparse.csr_matrix(DENSE)
    for given in (DENSE, made, DENSE.tolist(), (made.data, made.indices, made.indptr)):
        matrix = sparse.csr_matrix(given, shape=DENSE.shape)
        assert matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix.toarray(), DENSE)
    assert sparse.csr_matrix((2, 3)).shape == (2, 3)
    np.testing.assert_array_equal(mx.nd.array(DENSE).tostype("csr").toarray(), DENSE)
    copied = sparse.array(made)
    copied.data[:] = 0
    assert made.data.any()
    right = np.array([[1], [10]], np.float32)
    product = sparse.dot(made, right)
    assert type(product) is mx.nd.NDArray
    np.testing.assert_array_equal(product, DENSE @ right)
    np.testing.assert_array_equal(
        sparse.dot(made, DENSE, transpose_a=True), DENSE.T @ DENSE
    )
    np.testing.assert_array_equal(
        sparse.dot(made, DENSE, transpose_b=True), DENSE @ DENSE.T
    )


@pytest.mark.parametrize("stype", ["default", "csr", "row_sparse"])
def test_zeros_and_casts(stype: str) -> None:
    zeros = sparse.zeros(stype, (2, 3), dtype=np.float64)
    assert zeros.shape == (2, 3)
    assert zeros.dtype == np.float64
    assert not mx.nd.cast_storage(zeros, "default").any()
    cast = mx.nd.cast_storage(mx.nd.array(DENSE), stype)
    np.testing.assert_array_equal(mx.nd.cast_storage(cast, "default"), DENSE)


def test_storage_types_that_there_are_not() -> None:
    for refused in (
        lambda: sparse.zeros("coo", (2, 2)),
        lambda: sparse.cast_storage(DENSE, "coo"),
        lambda: sparse.array(DENSE),
    ):
        with pytest.raises(ValueError, match=r"'coo'|is not sparse"):
            refused()


def test_scipy_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'asyncmod\[sparse\]'"):
        sparse.csr_matrix((2, 2))
