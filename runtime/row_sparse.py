"""Row-sparse arrays: some rows of an array, all the others being zero.

`RowSparseNDArray` is the value, as users see it; `RowSparsePlace` is memory in which
one lies, as gradient rules and updates see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]


@dataclass(eq=False)
class RowSparseNDArray:
    """Some rows of an array; make it with `mx.nd.sparse.row_sparse_array`.

    `np.asarray` and `asnumpy` give the whole array, zeros included.

    Attributes:
        indices: Numbers of the rows, int64, increasing, each once.
        values: The rows themselves, (len(indices), *shape[1:]).
        shape: Shape of the whole array.
    """

    indices: Array
    values: Array
    shape: tuple[int, ...]

    @property
    def data(self) -> Array:
        """MXNet's name of `values`."""
        return self.values

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """The number of axes of the whole array."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, not those of the whole array."""
        return self.indices.nbytes + self.values.nbytes

    @property
    def stype(self) -> str:
        """Storage type: "row_sparse"."""
        return "row_sparse"

    def asnumpy(self) -> Array:
        """The whole array as a fresh NumPy array."""
        whole = np.zeros(self.shape, self.dtype)
        whole[self.indices] = self.values
        return whole

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> Array:
        if copy is False:
            raise ValueError("a row-sparse array becomes dense by a copy only")
        whole = self.asnumpy()
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def tostype(self, stype: str) -> Any:
        """Itself for "row_sparse", the whole array for "default".

        Raises:
            ValueError: another storage type.
        """
        if stype not in ("default", "row_sparse"):
            raise ValueError(
                f"a row-sparse array cannot become {stype!r}: only 'default' or "
                "'row_sparse'"
            )
        return self if stype == "row_sparse" else self.asnumpy()

    def astype(self, dtype: DTypeLike) -> RowSparseNDArray:
        """The same rows in another dtype."""
        return RowSparseNDArray(self.indices, self.values.astype(dtype), self.shape)

    def copy(self) -> RowSparseNDArray:
        """A copy that shares no memory."""
        return RowSparseNDArray(self.indices.copy(), self.values.copy(), self.shape)

    def retain(self, row_ids: Any) -> RowSparseNDArray:
        """Only those of the rows whose numbers are in `row_ids`."""
        kept = np.isin(self.indices, np.asarray(row_ids))
        return RowSparseNDArray(self.indices[kept], self.values[kept], self.shape)

    def between(self, begin: int, end: int) -> RowSparseNDArray:
        """Only the rows whose numbers are in begin..end-1; views."""
        kept = slice(*np.searchsorted(self.indices, (begin, end)))
        return RowSparseNDArray(self.indices[kept], self.values[kept], self.shape)

    def wait_to_read(self) -> None:
        """Return at once: the values are there."""

    def __add__(self, other: RowSparseNDArray) -> RowSparseNDArray:
        """The sum, row by row: the cost follows the rows that are there."""
        indices = np.union1d(self.indices, other.indices)
        dtype = np.result_type(self.dtype, other.dtype)
        values = np.zeros((len(indices), *self.shape[1:]), dtype)
        values[np.searchsorted(indices, self.indices)] = self.values
        values[np.searchsorted(indices, other.indices)] += other.values
        return RowSparseNDArray(indices, values, self.shape)

    @classmethod
    def whole(cls, array: Array) -> RowSparseNDArray:
        """An array with all its rows; not copied."""
        return cls(np.arange(len(array)), array, array.shape)


class RowSparsePlace:
    """Memory for a row-sparse array of any number of rows.

    Args:
        rows: int64 (1 + all rows): how many there are, then their numbers.
        values: As large as the whole array; the first rows hold the values. Memory
            that was never written costs nothing, so the place may be that large.
    """

    def __init__(self, rows: Array, values: Array) -> None:
        self._rows = rows
        self._values = values
        self.shape = values.shape

    @property
    def value(self) -> RowSparseNDArray:
        """What lies here; views of the memory."""
        count = int(self._rows[0])
        return RowSparseNDArray(
            self._rows[1 : 1 + count], self._values[:count], self.shape
        )

    def set(self, indices: Array, values: Array) -> None:
        """Write rows whose numbers increase."""
        count = len(indices)
        self._rows[0] = count
        self._rows[1 : 1 + count] = indices
        self._values[:count] = values

    def assign(self, value: RowSparseNDArray) -> None:
        """Write a whole value."""
        self.set(value.indices, value.values)

    def clear(self) -> None:
        """Zero: no row is there."""
        self._rows[0] = 0


def gather(index: Array, rows: Array, shape: tuple[int, ...]) -> RowSparseNDArray:
    """The sum of rows that belong to each position.

    Rows of one position are added in the order in which they stand.

    Args:
        index: Position of each row; any shape.
        rows: (*index.shape, *shape[1:]).
        shape: Of the whole result.
    """
    indices, first, places = np.unique(
        index.ravel(), return_index=True, return_inverse=True
    )
    rows = rows.reshape(index.size, *shape[1:])
    total = rows[first]
    again = np.ones(index.size, np.bool_)
    again[first] = False
    np.add.at(total, places[again], rows[again])
    return RowSparseNDArray(indices, total, shape)


def summed_share(
    summands: Sequence[RowSparseNDArray], part: int, parts: int
) -> RowSparseNDArray:
    """One share of the rows of a sum; the summands are added in their order.

    Args:
        summands: What to add up, of one shape and dtype.
        part, parts: Which share of the rows that are in any of them.
    """
    indices = summands[0].indices
    for other in summands[1:]:
        indices = np.union1d(indices, other.indices)
    count = len(indices)
    share = indices[count * part // parts : count * (part + 1) // parts]
    if not len(share):
        return summands[0].between(0, 0)
    first, *others = (x.between(share[0], share[-1] + 1) for x in summands)
    return sum(others, first)
