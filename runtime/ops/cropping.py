"""Pad, Crop and slice_like: a border around the data, or a part of it.

Sources: MXNet's `src/operator/pad-inl.h`, `src/operator/crop-inl.h` and
`src/operator/tensor/matrix_op-inl.h`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Array
from runtime.ops.lookup import Lookup, Shape, along, register_lookup
from runtime.ops.rules import axis_in


@dataclass(frozen=True)
class SliceLike:
    """Attributes of slice_like; no axes means all."""

    axes: tuple[int, ...] = ()


def _slice_like(p: SliceLike, shapes: list[Shape]) -> Lookup:
    shape, like = shapes
    axes = p.axes or range(len(shape))
    if not p.axes and len(shape) != len(like):
        raise ShapeError(f"shapes {shape} and {like} must have as many dimensions")
    sizes = {axis_in(a, len(shape)): like[axis_in(a, len(like))] for a in axes}
    for axis, size in sizes.items():
        if size > shape[axis]:
            raise ShapeError(
                f"axis {axis} of `shape_like` (={size}) exceeds that of `data` "
                f"(={shape[axis]})"
            )
    return along(shape, {axis: np.arange(size) for axis, size in sizes.items()})


@dataclass(frozen=True)
class Pad:
    """Attributes of Pad; `pad_width` holds before and after for each axis."""

    mode: Literal["constant", "edge", "reflect"]
    pad_width: tuple[int, ...]
    constant_value: float = 0.0


def _pad(p: Pad, shapes: list[Shape]) -> Lookup:
    (shape,) = shapes
    width = p.pad_width
    if len(shape) not in (4, 5):
        raise ShapeError(f"`data` must have 4 or 5 dimensions, but has shape {shape}")
    if len(width) != 2 * len(shape) or min(width) < 0 or any(width[:4]):
        raise ShapeError(
            f"`pad_width` (={width}) must hold two numbers for each of {len(shape)} "
            "axes, the first four of them 0"
        )
    positions: dict[int, Array] = {}
    for axis in range(2, len(shape)):
        around = width[2 * axis], width[2 * axis + 1]
        if p.mode == "reflect" and max(around) >= shape[axis]:
            raise ShapeError(
                f"`pad_width` (={width}) must be below the size {shape[axis]} of axis "
                f"{axis} to reflect"
            )
        index = np.arange(shape[axis])
        if p.mode == "constant":
            positions[axis] = np.pad(index, around, constant_values=-1)
        else:
            positions[axis] = np.pad(index, around, p.mode)
    return along(shape, positions, p.constant_value)


@dataclass(frozen=True)
class Crop:
    """Attributes of Crop; two inputs mean to crop to the size of the second."""

    num_args: int
    offset: tuple[int, ...] = (0, 0)
    h_w: tuple[int, ...] = (0, 0)
    center_crop: bool = False


def _crop(p: Crop, shapes: list[Shape]) -> Lookup:
    shape = shapes[0]
    size = shapes[1][2:] if p.num_args == 2 else p.h_w
    if len(shape) != 4 or len(size) != 2 or len(p.offset) != 2:
        raise ShapeError(
            f"Crop works on two spatial axes, but has shape {shape}, size {size} and "
            f"`offset` {p.offset}"
        )
    positions = {}
    for axis, (n, offset) in enumerate(zip(size, p.offset, strict=True), 2):
        start = (shape[axis] - n) // 2 if p.center_crop else offset
        if start < 0 or n < 1 or start + n > shape[axis]:
            raise ShapeError(f"a crop of {size} from {p.offset} exceeds {shape[2:]}")
        positions[axis] = np.arange(start, start + n)
    return along(shape, positions)


def _crop_inputs(p: Crop) -> tuple[str, ...]:
    return ("data", "crop_like")[: p.num_args]


register_lookup(
    "slice_like",
    SliceLike,
    _slice_like,
    inputs=("data", "shape_like"),
    like=("shape_like",),
)
register_lookup("Pad pad", Pad, _pad)
register_lookup("Crop", Crop, _crop, inputs=_crop_inputs, like=("crop_like",))
