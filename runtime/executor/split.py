"""Splitting a batch over devices, as MXNet does, and putting the parts together.

The rounding is MXNet's (`mxnet.executor_manager._split_input_slice`); where MXNet
refuses a split because a slice comes out empty, the slice stays and its device idles.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.graph.ir import Shape

Array = NDArray[Any]
# What to index an array with; None stands for all of it.
Selection = tuple[slice, ...] | None


def split(batch_size: int, workload: Sequence[float]) -> tuple[slice, ...]:
    """Each device's rows of a batch.

    Args:
        batch_size: Rows of the whole batch, at least 1.
        workload: Each device's share, in any unit.

    Returns:
        One slice per device, in order, together the whole batch; some may be empty.

    Raises:
        ValueError: a size or a share that is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"batch size (={batch_size}) must be at least 1")
    if not workload or not all(0 < share < float("inf") for share in workload):
        raise ValueError(
            f"workload (={tuple(workload)}) must hold a positive number for each device"
        )
    total = sum(workload)
    counts = [round(share * batch_size / total) for share in workload]
    counts[-1] += max(0, batch_size - sum(counts))
    slices = []
    end = 0
    for count in counts:
        begin, end = end, min(end + count, batch_size)
        slices.append(slice(begin, end))
    return tuple(slices)


def is_empty(rows: slice) -> bool:
    """Whether a slice made by `split` holds no row."""
    return bool(rows.start == rows.stop)


def select(axis: int, rows: slice) -> Selection:
    """Index of these rows along an axis; axis -1 selects everything."""
    return None if axis < 0 else (*(slice(None),) * axis, rows)


def sliced_shape(shape: Shape, axis: int, rows: slice) -> Shape:
    """The shape of a device's part; axis -1 leaves it whole."""
    if axis < 0:
        return shape
    return (*shape[:axis], rows.stop - rows.start, *shape[axis + 1 :])


def merged_shape(
    shapes: Sequence[Shape], axis: int
) -> tuple[Shape, tuple[Selection, ...]]:
    """The shape of parts put together, and the place of each part in it.

    With axis -1 the first part stands for all of them, as in MXNet.
    """
    first = shapes[0]
    if axis < 0:
        return first, (None,) * len(shapes)
    places: list[Selection] = []
    end = 0
    for shape in shapes:
        begin, end = end, end + shape[axis]
        places.append(select(axis, slice(begin, end)))
    return (*first[:axis], end, *first[axis + 1 :]), tuple(places)


def merge(parts: Sequence[Array], axis: int) -> Array:
    """Parts put together along an axis; axis -1, or one part, gives the first.

    CSR matrices are put together by rows, as they are split.
    """
    if axis < 0 or len(parts) == 1:
        return parts[0]
    if hasattr(parts[0], "tocsr"):
        # Here, since only those who have CSR inputs need SciPy.
        whole: Array = import_module("scipy.sparse").vstack(parts, format="csr")
        return whole
    return np.concatenate(parts, axis=axis)
