"""`mx.nd.sparse`: sparse arrays by MXNet's names.

CSR matrices are `scipy.sparse.csr_matrix` objects (install `asyncmod[sparse]`; SciPy is
loaded when the first one is made); row-sparse arrays are `RowSparseNDArray`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from asyncmod.errors import ArgumentError
from asyncmod.nd import make
from asyncmod.scipy_sparse import scipy_sparse
from runtime.row_sparse import RowSparseNDArray

if TYPE_CHECKING:
    from asyncmod.context import Context

__all__ = [
    "RowSparseNDArray",
    "array",
    "cast_storage",
    "csr_matrix",
    "dot",
    "empty",
    "retain",
    "row_sparse_array",
    "zeros",
]

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]


def csr_matrix(
    arg1: Any,
    shape: Shape | None = None,
    ctx: Context | None = None,
    dtype: DTypeLike | None = None,
) -> Any:
    """A `scipy.sparse.csr_matrix`.

    Args:
        arg1: A matrix, sparse or dense; (data, indices, indptr); (data, (row,
            column)); or a shape, for a matrix of zeros.
        shape: Of the matrix; else it follows from `arg1`.
        ctx: Accepted for MXNet's sake.
        dtype: Of the elements; what has no dtype of its own becomes float32.

    Raises:
        MissingScipyError: SciPy is not installed.
        ValueError: `arg1` is none of these.
    """
    if dtype is None:
        source = arg1[0] if isinstance(arg1, tuple) else arg1
        dtype = getattr(source, "dtype", np.float32)
    if isinstance(arg1, list):
        arg1 = np.asarray(arg1)
    return scipy_sparse("CSR matrices are").csr_matrix(arg1, shape, dtype)


def row_sparse_array(
    arg1: Any,
    shape: Shape | None = None,
    ctx: Context | None = None,
    dtype: DTypeLike | None = None,
) -> RowSparseNDArray:
    """A row-sparse array.

    Args:
        arg1: (values, row numbers); an array, whose rows that are not zero are kept;
            or a shape, for an array of zeros.
        shape: Of the whole array; else the last of the rows is its last.
        ctx: Accepted for MXNet's sake.
        dtype: Of the elements; what has no dtype of its own becomes float32.

    Raises:
        ArgumentError: the rows do not fit each other, or the shape.
    """
    if isinstance(arg1, RowSparseNDArray):
        same: RowSparseNDArray = arg1.copy()
        return same if dtype is None else same.astype(dtype)
    if isinstance(arg1, tuple) and all(isinstance(n, int | np.integer) for n in arg1):
        nothing = np.zeros((0, *arg1[1:]), np.float32 if dtype is None else dtype)
        return RowSparseNDArray(np.zeros(0, np.int64), nothing, arg1)
    if not isinstance(arg1, tuple):
        whole = _as_array(arg1, dtype)
        rows = np.flatnonzero(whole.reshape(len(whole), -1).any(axis=1))
        return RowSparseNDArray(rows, whole[rows], whole.shape)
    values, indices = _as_array(arg1[0], dtype), np.asarray(arg1[1])
    numbers = indices.astype(np.int64)
    if indices.ndim != 1 or len(indices) != len(values) or (numbers != indices).any():
        raise ArgumentError(
            f"row numbers must be integers, one for each of the {len(values)} rows of "
            f"values, and they are {indices}"
        )
    if shape is None:
        shape = (int(numbers.max(initial=-1)) + 1, *values.shape[1:])
    order = np.argsort(numbers, kind="stable")
    numbers, values = numbers[order], values[order]
    if values.shape[1:] != tuple(shape[1:]):
        raise ArgumentError(f"rows of shape {values.shape[1:]} do not fit into {shape}")
    if numbers.size and (numbers[0] < 0 or numbers[-1] >= shape[0]):
        raise ArgumentError(
            f"row numbers {numbers[0]} to {numbers[-1]} must lie in 0 to {shape[0] - 1}"
        )
    if (np.diff(numbers) == 0).any():
        raise ArgumentError(f"a row number stands twice among {indices}")
    return RowSparseNDArray(numbers, values, tuple(shape))


def zeros(
    stype: str,
    shape: Shape,
    ctx: Context | None = None,
    dtype: DTypeLike | None = None,
) -> Any:
    """Zeros of a storage type: "default", "csr" or "row_sparse".

    Raises:
        ArgumentError: another storage type.
    """
    dtype = np.float32 if dtype is None else dtype
    if stype == "csr":
        return csr_matrix(shape, dtype=dtype)
    if stype == "row_sparse":
        return row_sparse_array(tuple(shape), dtype=dtype)
    if stype != "default":
        raise _unknown(stype)
    return make.zeros(shape, dtype=dtype)


empty = zeros


def array(
    source_array: Any, ctx: Context | None = None, dtype: DTypeLike | None = None
) -> Any:
    """A copy of a sparse array, of the same storage type.

    Raises:
        ArgumentError: `source_array` is not sparse.
    """
    if isinstance(source_array, RowSparseNDArray):
        return row_sparse_array(source_array, dtype=dtype)
    if hasattr(source_array, "tocsr"):
        return csr_matrix(source_array.copy(), dtype=dtype)
    raise ArgumentError(
        f"`source_array` of type {type(source_array).__name__} is not sparse: use "
        "mx.nd.array"
    )


def cast_storage(arr: Any, stype: str) -> Any:
    """An array in another storage type: "default", "csr" or "row_sparse".

    Raises:
        ArgumentError: another storage type.
    """
    if stype == "csr":
        return csr_matrix(arr if hasattr(arr, "tocsr") else np.asarray(arr))
    dense = arr.toarray() if hasattr(arr, "tocsr") else arr
    if stype == "row_sparse":
        return row_sparse_array(dense)
    if stype != "default":
        raise _unknown(stype)
    return make.array(np.asarray(dense))


def retain(data: RowSparseNDArray, indices: Any) -> RowSparseNDArray:
    """Only those rows of a row-sparse array whose numbers are in `indices`."""
    return data.retain(indices)


def dot(
    lhs: Any, rhs: Any, transpose_a: bool = False, transpose_b: bool = False
) -> Any:
    """The product of a CSR matrix and a dense one, which is dense."""
    left = lhs.T if transpose_a else lhs
    right = np.asarray(rhs)
    return make.array(left @ (right.T if transpose_b else right))


def _as_array(value: Any, dtype: DTypeLike | None) -> Array:
    if dtype is None and not hasattr(value, "dtype"):
        dtype = np.float32
    return np.array(value, dtype, subok=False)


def _unknown(stype: str) -> ArgumentError:
    return ArgumentError(
        f"`stype` must be 'default', 'csr' or 'row_sparse', not {stype!r}"
    )
