"""Rows of a table by number, and the sum of what comes back to each row."""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.vector import (
    LANES,
    fill_bytes,
    get,
    inlined,
    load_first,
    store_first,
)


@inlined
def row_number(index: np.float32, rows: int) -> int:
    """The row that a number names: cut to an integer, then clipped; 0 for a NaN."""
    if not index > np.float32(0):
        return 0
    if index >= np.float32(rows):
        return rows - 1
    return min(int(index), rows - 1)


@kernel
def embedding(
    index: int, weight: int, y: int, count: int, rows: int, width: int
) -> None:
    """y[i] = weight[index[i]] for `count` numbers and rows of `width` elements."""
    for i in range(count):
        source = weight + 4 * width * row_number(get(index, i), rows)
        target = y + 4 * width * i
        for j in range(0, width, LANES):
            store_first(target, j, load_first(source, j, width - j), width - j)


@kernel
def embedding_backward(
    index: int,
    dy: int,
    dweight: int,
    count: int,
    rows: int,
    width: int,
    accumulate: int,
) -> None:
    """dweight[index[i]] += dy[i], in the order of i; from zero unless `accumulate`."""
    if accumulate == 0:
        fill_bytes(dweight, 4 * rows * width)
    for i in range(count):
        source = dy + 4 * width * i
        target = dweight + 4 * width * row_number(get(index, i), rows)
        for j in range(0, width, LANES):
            left = width - j
            total = load_first(target, j, left) + load_first(source, j, left)
            store_first(target, j, total, left)
