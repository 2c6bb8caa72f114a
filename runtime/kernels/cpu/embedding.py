"""Rows of a table by number, and the sum of what comes back to each row."""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import (
    LANES,
    inlined,
)
from runtime.kernels.cpu.sorting import merge_sorted
from runtime.kernels.cpu.vector import (
    fill_bytes,
    get,
    get_integer,
    load_first,
    put_integer,
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


@kernel
def embedding_backward_rows(
    index: int,
    dy: int,
    numbers: int,
    values: int,
    count: int,
    rows: int,
    width: int,
    scratch: int,
) -> None:
    """The same sums for the rows alone that are read; `dy` is added in the order of i.

    Args:
        numbers: int64: how many rows there are, then their numbers, which increase.
        values: These rows.
        scratch: Room for 2 * count int64.
    """
    for i in range(count):
        put_integer(scratch, i, row_number(get(index, i), rows) << 32 | i)
    keys = merge_sorted(scratch, scratch + 8 * count, count)
    found, last = 0, -1
    for k in range(count):
        key = get_integer(keys, k)
        row = key >> 32
        source = dy + 4 * width * (key & 0xFFFFFFFF)
        if row != last:
            last = row
            found += 1
            put_integer(numbers, found, row)
            target = values + 4 * width * (found - 1)
            for j in range(0, width, LANES):
                store_first(target, j, load_first(source, j, width - j), width - j)
        else:
            target = values + 4 * width * (found - 1)
            for j in range(0, width, LANES):
                left = width - j
                total = load_first(target, j, left) + load_first(source, j, left)
                store_first(target, j, total, left)
    put_integer(numbers, 0, found)
