"""Dropout, with the random numbers of its definition."""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import (
    LANES,
    Vector,
    inlined,
)
from runtime.kernels.cpu.philox import uniform_numbers
from runtime.kernels.cpu.vector import (
    get_integer,
    load,
    load_first,
    splat,
    stack,
    store,
    store_first,
    where_less,
    zeros,
)

_NUMBERS = 4 * LANES  # that are drawn at once
_room = stack(_NUMBERS + LANES)


@inlined
def kept(number: Vector, keep: np.float32) -> Vector:
    """1 where a number is below `keep`, else 0."""
    return where_less(number, splat(keep), splat(np.float32(1)), zeros())


@kernel
def dropout(
    key: int,
    x: int,
    y: int,
    row_stride: int,
    run_stride: int,
    rows: int,
    runs: int,
    length: int,
    first: int,
    node: int,
    keep: float,
) -> None:
    """y = x / keep where a number of `runtime.ops.random` is below `keep`, else 0.

    `key` holds the seed, the step and the first row in the whole batch. A row consists
    of `runs` runs of `length` elements, which take its numbers from `first` on. y may
    be x.
    """
    seed, step, first_row = (
        get_integer(key, 0),
        get_integer(key, 1),
        get_integer(key, 2),
    )
    mask, scale, threshold = _room(), splat(np.float32(1 / keep)), np.float32(keep)
    for row in range(rows):
        for run in range(runs):
            begin = 4 * (row * row_stride + run * run_stride)
            done = 0
            while done < length:
                number = first + run * length + done
                skipped = number % 4
                drawn = uniform_numbers(seed, node, step, first_row + row, number // 4)
                store(mask, 0, kept(drawn[0], threshold))
                store(mask, LANES, kept(drawn[1], threshold))
                store(mask, 2 * LANES, kept(drawn[2], threshold))
                store(mask, 3 * LANES, kept(drawn[3], threshold))
                count = min(length - done, _NUMBERS - skipped)
                a, b = x + begin + 4 * done, y + begin + 4 * done
                for i in range(0, count, LANES):
                    value = load_first(a, i, count - i) * load(mask, skipped + i)
                    store_first(b, i, value * scale, count - i)
                done += count
