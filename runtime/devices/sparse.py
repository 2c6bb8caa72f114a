"""Sparse operands of rows, and the rows that change the storage of a value.

CSR matrices are scipy.sparse objects that a program keeps by name and slot, since
their size changes from batch to batch; SciPy itself is never imported here. Row-sparse
arrays lie in the program's segments (`runtime.row_sparse`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import DeviceError
from runtime.graph.plan import CsrTensor
from runtime.graph.registry import Mode, Operator
from runtime.row_sparse import RowSparseNDArray, RowSparsePlace

Array = NDArray[Any]


@dataclass(eq=False)
class CsrPlace:
    """Where a program keeps a CSR matrix.

    Attributes:
        tensor: What belongs here.
        matrix: The scipy.sparse matrix of the present batch; None before the first.
    """

    tensor: CsrTensor
    matrix: Any = None

    @property
    def value(self) -> Any:
        """The matrix.

        Raises:
            DeviceError: there is none yet.
        """
        if self.matrix is None:
            raise DeviceError(f"the CSR input `{self.tensor.name}` was never written")
        return self.matrix

    def write(self, value: Any) -> None:
        """Keep a copy, cast to the dtype."""
        self.matrix = value.astype(self.tensor.dtype, copy=True)


def current(operand: Any) -> Any:
    """What a definition is given for an operand."""
    return operand.value if isinstance(operand, CsrPlace) else operand


def map_stored(
    operator: Operator, p: Any, source: CsrPlace, target: CsrPlace, mode: Mode
) -> None:
    """Run the definition of a function that keeps zeros over the stored values."""
    matrix = source.value.copy()
    values = np.empty_like(matrix.data)
    operator.forward(p, [matrix.data], [values], mode)
    matrix.data = values
    target.matrix = matrix


def copy(source: Any, target: Any) -> None:
    """target = source, whatever their storage; dense values are cast."""
    if isinstance(target, RowSparsePlace):
        target.assign(_as_rows(source))
    elif isinstance(source, CsrPlace):
        target[...] = source.value.toarray()
    elif isinstance(source, RowSparsePlace):
        target.fill(0)
        copy_rows(source, target)
    else:
        np.copyto(target, source, casting="unsafe")


def copy_rows(source: RowSparsePlace, target: Array) -> None:
    """Set those rows of the target that the source has."""
    rows = source.value
    target[rows.indices] = rows.values


def add(source: Any, target: Any) -> None:
    """target += source, whatever their storage."""
    if isinstance(target, RowSparsePlace):
        target.assign(target.value + _as_rows(source))
    else:
        target += source


def clear(target: Any) -> None:
    """target = 0."""
    if isinstance(target, RowSparsePlace):
        target.clear()
    else:
        target.fill(0)


def _as_rows(source: Any) -> RowSparseNDArray:
    if isinstance(source, RowSparsePlace):
        return source.value
    return RowSparseNDArray.whole(source)
