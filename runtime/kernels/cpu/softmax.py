"""Softmax and the gradient of its loss head."""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.activation import exponential
from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.lowering import (
    LANES,
    inlined,
)
from runtime.kernels.cpu.vector import (
    fill_bytes,
    get,
    keep_first,
    largest_of,
    load_first,
    load_first_or,
    prefetch,
    put,
    splat,
    store_first,
    sum_of,
    where_less,
    zeros,
)

# How many rows ahead the gradient of a part of the classes is read.
_AHEAD = 8


@kernel
def softmax(x: int, y: int, rows: int, classes: int) -> None:
    """y = exp(x - max) / sum over each row of `classes` contiguous elements.

    A NaN makes its whole row NaN. y may be x.
    """
    for row in range(rows):
        a = x + 4 * row * classes
        b = y + 4 * row * classes
        largest = splat(get(a, 0))
        for i in range(0, classes, LANES):
            value = load_first_or(a, i, classes - i, largest)
            largest = where_less(largest, value, value, largest)
        top = splat(largest_of(largest))
        total = zeros()
        for i in range(0, classes, LANES):
            value = exponential(load_first(a, i, classes - i) - top)
            total = total + keep_first(value, classes - i)
            store_first(b, i, value, classes - i)
        scale = splat(np.float32(1) / sum_of(total))
        for i in range(0, classes, LANES):
            store_first(b, i, load_first(b, i, classes - i) * scale, classes - i)


@inlined
def is_ignored(label: np.float32, ignored: int) -> bool:
    """Whether a label, cut to an integer, is the one to ignore."""
    if label > np.float32(-1e9) and label < np.float32(1e9):
        return int(label) == ignored
    return False  # also NaN


@kernel
def softmax_output_backward(
    y: int,
    label: int,
    dx: int,
    dx_row: int,
    rows: int,
    classes: int,
    first: int,
    count: int,
    sums: int,
    accumulate: int,
    grad_scale: float,
    use_ignore: int,
    ignore_label: float,
    smooth_alpha: float,
    normalization: int,
    batch: int,
) -> None:
    """Gradient of MXNet's SoftmaxOutput for one label per row.

    dx = (y - onehot(label)) * scale; a label that is no class index (NaN, negative,
    too large) is no element's. With `smooth_alpha` a, the label's element is
    y - 1 + a and all others y - a / (classes - 1). `use_ignore` clears rows whose
    label is `ignore_label`. Scale: `grad_scale`, divided by `batch` (normalization
    1) or by the number of labels that are not `ignore_label`, at least 1 (2).

    Only the `count` classes from `first` on are written, as rows of dx that are
    `dx_row` floats apart. `sums`, unless it is 0, gets the sum of these rows (+ what
    it holds). dx may be y.
    """
    ignored = int(ignore_label)
    scale = grad_scale
    if normalization == 1:
        scale = grad_scale / batch
    elif normalization == 2:
        valid = 0
        for row in range(rows):
            if not is_ignored(get(label, row), ignored):
                valid += 1
        scale = grad_scale / max(valid, 1)
    factor = np.float32(scale)
    share = np.float32(smooth_alpha / max(classes - 1, 1))
    if sums != 0 and accumulate == 0:
        fill_bytes(sums, 4 * count)
    for row in range(rows):
        a = y + 4 * (row * classes + first)
        b = dx + 4 * row * dx_row
        value = get(label, row)
        if use_ignore != 0 and is_ignored(value, ignored):
            for i in range(0, count, LANES):
                store_first(b, i, zeros(), count - i)
            continue
        index = -1
        if value > np.float32(-1) and value < np.float32(classes):
            index = int(value) - first
        is_here = index >= 0 and index < count
        index = max(0, min(index, count - 1))
        probability = get(a, index)
        if count < classes:  # rows that are apart are not foreseen by the processor
            for i in range(0, count, LANES):
                prefetch(a, _AHEAD * classes + i)
        for i in range(0, count, LANES):
            left = count - i
            slope = (load_first(a, i, left) - splat(share)) * splat(factor)
            store_first(b, i, slope, left)
        if is_here:
            put(
                b,
                index,
                (probability - np.float32(1) + np.float32(smooth_alpha)) * factor,
            )
        if sums != 0:
            for i in range(0, count, LANES):
                left = count - i
                total = load_first(sums, i, left) + load_first(b, i, left)
                store_first(sums, i, total, left)
