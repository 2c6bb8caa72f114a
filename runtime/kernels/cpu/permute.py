"""Another order of an array's axes."""

from __future__ import annotations

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.layout import transpose_matrix
from runtime.kernels.cpu.lowering import LANES
from runtime.kernels.cpu.vector import (
    get,
    load_first,
    put,
    store_first,
)


@kernel
def permute(
    x: int,
    stride0: int,
    stride1: int,
    stride2: int,
    stride3: int,
    y: int,
    size0: int,
    size1: int,
    size2: int,
    size3: int,
) -> None:
    """y[i, j, k, l] = x[i * stride0 + j * stride1 + k * stride2 + l * stride3].

    y is dense. Fast if one of the last two strides is 1.
    """
    for i in range(size0):
        for j in range(size1):
            source = x + 4 * (i * stride0 + j * stride1)
            target = y + 4 * (i * size1 + j) * size2 * size3
            if stride3 == 1:
                for k in range(size2):
                    a, b = source + 4 * k * stride2, target + 4 * k * size3
                    for v in range(0, size3, LANES):
                        store_first(b, v, load_first(a, v, size3 - v), size3 - v)
            elif stride2 == 1:
                # fmt: off
                transpose_matrix(source, stride3, target, size3, size3, size2, size3)
                # fmt: on
            else:
                for k in range(size2):
                    for v in range(size3):
                        element = get(source, k * stride2 + v * stride3)
                        put(target, k * size3 + v, element)
