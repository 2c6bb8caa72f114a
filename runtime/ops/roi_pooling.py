"""ROIPooling: the maxima of a grid of bins over each region of interest.

Sources: MXNet's `src/operator/roi_pooling.cc`; Girshick, "Fast R-CNN", 2015.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, floor
from typing import Any

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import unify
from runtime.ops.rules import accumulator


@dataclass(frozen=True)
class ROIPooling:
    """Attributes; regions times `spatial_scale` are in pixels of the data."""

    pooled_size: tuple[int, ...]
    spatial_scale: float


def _shape(p: ROIPooling, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    if len(p.pooled_size) != 2 or min(p.pooled_size) < 1:
        raise ShapeError(
            f"`pooled_size` (={p.pooled_size}) must be two positive numbers"
        )
    data: Any = unify(inputs[0], (0, 0, 0, 0), "data")
    rois: Any = unify(inputs[1], (0, 5), "rois")
    output = unify(outputs[0], (rois[0], data[1], *p.pooled_size), "output")
    return [data, rois], [output]


def _bounds(start: int, end: int, bins: int, size: int) -> list[slice]:
    """Where the bins of one axis lie; they may overlap by a pixel, or be empty."""
    step = max(end - start + 1, 1) / bins
    return [
        slice(
            min(max(start + floor(i * step), 0), size),
            min(max(start + ceil((i + 1) * step), 0), size),
        )
        for i in range(bins)
    ]


def _bins(
    p: ROIPooling, rois: Array, shape: tuple[int, ...]
) -> Iterator[tuple[Any, Any]]:
    """Indexes of every bin that is not empty: in the output, and in the data."""
    for number, (image, *corners) in enumerate(rois):
        left, top, right, bottom = (
            floor(float(c) * p.spatial_scale + 0.5) for c in corners
        )
        rows = _bounds(top, bottom, p.pooled_size[0], shape[2])
        columns = _bounds(left, right, p.pooled_size[1], shape[3])
        for (i, row), (j, column) in product(enumerate(rows), enumerate(columns)):
            if row.start < row.stop and column.start < column.stop:
                yield (
                    (number, slice(None), i, j),
                    (int(image), slice(None), row, column),
                )


def _forward(
    p: ROIPooling, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, rois = inputs
    outputs[0][...] = 0
    for place, region in _bins(p, rois, data.shape):
        outputs[0][place] = data[region].max(axis=(1, 2))


def _backward(
    p: ROIPooling,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    """The first maximum of a bin gets its gradient."""
    if grads_in[0] is None:
        return
    data, rois = inputs
    total = np.zeros(data.shape, accumulator(data.dtype))
    channels = np.arange(data.shape[1])
    for place, region in _bins(p, rois, data.shape):
        part = data[region]
        first = part.reshape(len(channels), -1).argmax(axis=1)
        row, column = np.unravel_index(first, part.shape[1:])
        total[region][channels, row, column] += grads_out[0][place]
    grads_in[0][...] = total


register(
    Operator(
        name="ROIPooling",
        attributes=ROIPooling,
        inputs=("data", "rois"),
        no_gradient=("rois",),
        shape=_shape,
        forward=_forward,
        backward=_backward,
        saved=Saved(inputs=(0, 1)),
    )
)
