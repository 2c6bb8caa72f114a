"""Sparse arrays in MXNet's parameter files: row-sparse parameters, CSR data.

Such a record has the shape of the stored values behind the storage type, dtype and
shape of each auxiliary array (row-sparse: row numbers; CSR: row pointers, then columns)
behind the dtype, and the auxiliary arrays behind the values. Only what is stored is
read into memory, however large the shape says the array is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from asyncmod.scipy_sparse import scipy_sparse
from runtime.row_sparse import RowSparseNDArray

Shape = tuple[int, ...]
Array = np.ndarray[Any, np.dtype[Any]]
AUXILIARIES = {1: 1, 2: 2}  # how many a storage type has
_INTEGERS = "iu"


class Reader(Protocol):
    """What reads the numbers of a file."""

    def number(self, code: str, what: str) -> int: ...
    def invalid(self, reason: str, offset: int | None = None) -> Exception: ...


def read_sparse(
    reader: Reader,
    storage: int,
    shape: Shape,
    stored_shape: Shape,
    flag: int,
    read_shape: Callable[[Any], Shape],
    read_values: Callable[[Any, Shape, int], Array],
) -> Any:
    """A sparse array from behind its dtype on: row-sparse, or scipy.sparse CSR.

    Args:
        reader: Where it is read from.
        storage: 1 for row-sparse, 2 for CSR.
        shape: Of the whole array.
        stored_shape: Of the values.
        flag: Number of the values' dtype.
        read_shape, read_values: Read a shape, and an array of a shape and dtype.
    """
    described = []
    for _ in range(AUXILIARIES[storage]):
        number = reader.number("i", "dtype of an index")
        described.append((read_shape(reader), number))
    values = np.asarray(read_values(reader, stored_shape, flag))
    indexes = [np.asarray(read_values(reader, *each)) for each in described]
    if any(index.ndim != 1 or index.dtype.kind not in _INTEGERS for index in indexes):
        raise reader.invalid("the indexes of a sparse array are no list of integers")
    if storage == 1:
        (rows,) = indexes
        fits = shape and stored_shape == (len(rows), *shape[1:])
        if not fits or not _increases_below(rows, shape[0]):
            raise reader.invalid(f"the rows do not fit a row-sparse array of {shape}")
        return RowSparseNDArray(rows.astype(np.int64), values, shape)
    pointers, columns = indexes
    if len(shape) != 2 or not _is_csr(shape, values, pointers, columns):
        raise reader.invalid(f"the elements do not fit a CSR matrix of {shape}")
    matrix = scipy_sparse("sparse arrays are").csr_matrix
    return matrix((values, columns, pointers), shape)


def _increases_below(rows: Array, count: int) -> bool:
    if not rows.size:
        return True
    return bool(rows[0] >= 0 and rows[-1] < count and (rows[1:] > rows[:-1]).all())


def _is_csr(shape: Shape, values: Array, pointers: Array, columns: Array) -> bool:
    if values.ndim != 1 or len(columns) != len(values):
        return False
    if len(pointers) != shape[0] + 1:
        return False
    begins, ends = pointers[:-1], pointers[1:]
    inside = not columns.size or (columns.min() >= 0 and columns.max() < shape[1])
    whole = pointers[0] == 0 and pointers[-1] == len(values)
    return bool(whole and inside and (begins <= ends).all())
