"""Row-sparse gradients between the host and a program: only the rows that are there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.devices.contract import Program
from runtime.row_sparse import RowSparseNDArray

Array = NDArray[Any]
Gradient = Array | RowSparseNDArray


def read_gradient(
    program: Program, name: str, kind: str = "gradient"
) -> RowSparseNDArray:
    """A copy of the gradient of a parameter, or of its "accumulator"."""
    count = int(program.read(f"{kind}_rows", name, rows=1)[0])
    return RowSparseNDArray(
        program.read(f"{kind}_rows", name, rows=1 + count)[1:],
        program.read(f"{kind}_values", name, rows=count),
        program.plan.tensors[f"{kind}_values"][name].shape,
    )


def write_gradient(
    program: Program,
    name: str,
    value: RowSparseNDArray,
    suffix: str = "",
    kind: str = "gradient",
) -> None:
    """Set a gradient, or an "accumulator".

    In the plan of an update they have a `suffix` such as ".0".
    """
    count = len(value.indices)
    numbers = np.concatenate([[count], value.indices])
    program.write(f"{kind}_rows{suffix}", name, numbers, rows=1 + count)
    if count:
        program.write(f"{kind}_values{suffix}", name, value.values, rows=count)


def clear_gradient(program: Program, name: str) -> None:
    """Set a gradient to zero."""
    program.write("gradient_rows", name, np.zeros(1, np.int64), rows=1)
