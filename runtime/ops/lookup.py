"""Operators whose output reads its input at positions chosen axis by axis.

tile, repeat, broadcasts, reverse, Pad, crops and the like are one idea: for each axis
a list of the positions that the output shows, -1 where it shows a constant instead.
The gradient adds up what was read from each position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
from runtime.graph.shapes import is_known, unify
from runtime.ops.rules import accumulator, axis_in

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Lookup:
    """What an output shows of its input.

    Attributes:
        shape: The input's shape as one dimension per entry of `positions`.
        positions: For each axis the positions along it; None shows it as it is.
        fill: The constant at positions of -1.
    """

    shape: Shape
    positions: tuple[Array | None, ...]
    fill: float = 0.0

    @property
    def output_shape(self) -> Shape:
        return tuple(
            size if index is None else len(index)
            for size, index in zip(self.shape, self.positions, strict=True)
        )

    def read(self, data: Array) -> Array:
        data = data.reshape(self.shape)
        for axis, index in enumerate(self.positions):
            if index is not None:
                data = data.take(index, axis=axis)
                data[(slice(None),) * axis + (index < 0,)] = self.fill
        return data

    def add_up(self, grad: Array) -> Array:
        grad = grad.astype(accumulator(grad.dtype), copy=False)
        for axis, index in enumerate(self.positions):
            if index is not None:
                rows = np.moveaxis(grad, axis, 0)
                total = np.zeros((self.shape[axis], *rows.shape[1:]), grad.dtype)
                shown = index >= 0
                np.add.at(total, index[shown], rows[shown])
                grad = np.moveaxis(total, 0, axis)
        return grad


Rule = Callable[[Any, list[Shape]], Lookup]


@dataclass(frozen=True)
class Tile:
    """Attributes of tile."""

    reps: tuple[int, ...]


def _tile(p: Tile, shapes: list[Shape]) -> Lookup:
    rank = max(len(shapes[0]), len(p.reps))
    shape = (1,) * (rank - len(shapes[0])) + shapes[0]
    reps = (1,) * (rank - len(p.reps)) + p.reps
    if min(reps) < 1:
        raise ShapeError(f"`reps` (={p.reps}) must be positive")
    return Lookup(
        shape,
        tuple(
            None if r == 1 else np.tile(np.arange(n), r)
            for n, r in zip(shape, reps, strict=True)
        ),
    )


@dataclass(frozen=True)
class Repeat:
    """Attributes of repeat; no axis repeats all elements, flattened."""

    repeats: int
    axis: int | None = None


def _repeat(p: Repeat, shapes: list[Shape]) -> Lookup:
    if p.repeats < 1:
        raise ShapeError(f"`repeats` (={p.repeats}) must be positive")
    (shape,) = shapes
    if p.axis is None:
        shape = (int(np.prod(shape)),)
    axis = axis_in(p.axis or 0, len(shape))
    return _along(shape, {axis: np.repeat(np.arange(shape[axis]), p.repeats)})


@dataclass(frozen=True)
class Reverse:
    """Attributes of reverse."""

    axis: tuple[int, ...]


def _reverse(p: Reverse, shapes: list[Shape]) -> Lookup:
    (shape,) = shapes
    axes = {axis_in(axis, len(shape)) for axis in p.axis}
    return _along(shape, {axis: np.arange(shape[axis])[::-1] for axis in axes})


@dataclass(frozen=True)
class BroadcastTo:
    """Attributes of broadcast_to; 0 keeps a size."""

    shape: tuple[int, ...] = ()


def _broadcast_to(p: BroadcastTo, shapes: list[Shape]) -> Lookup:
    (shape,) = shapes
    if len(shape) != len(p.shape):
        raise ShapeError(f"`shape` (={p.shape}) must have {len(shape)} dimensions")
    return _stretched(shape, tuple(t or n for t, n in zip(p.shape, shape, strict=True)))


@dataclass(frozen=True)
class BroadcastAxis:
    """Attributes of broadcast_axis: sizes for axes of size 1."""

    axis: tuple[int, ...] = ()
    size: tuple[int, ...] = ()


def _broadcast_axis(p: BroadcastAxis, shapes: list[Shape]) -> Lookup:
    (shape,) = shapes
    if len(p.axis) != len(p.size):
        raise ShapeError(
            f"`axis` (={p.axis}) and `size` (={p.size}) must be of one length"
        )
    target = list(shape)
    for axis, size in zip(p.axis, p.size, strict=True):
        target[axis_in(axis, len(shape))] = size
    return _stretched(shape, tuple(target))


@dataclass(frozen=True)
class BroadcastLike:
    """Attributes of broadcast_like; no axes means all."""

    lhs_axes: tuple[int, ...] | None = None
    rhs_axes: tuple[int, ...] | None = None


def _broadcast_like(p: BroadcastLike, shapes: list[Shape]) -> Lookup:
    shape, like = shapes
    ours = range(len(shape)) if p.lhs_axes is None else p.lhs_axes
    theirs = range(len(like)) if p.rhs_axes is None else p.rhs_axes
    if len(ours) != len(theirs):
        raise ShapeError(f"shapes {shape} and {like} give different numbers of axes")
    target = list(shape)
    for our, their in zip(ours, theirs, strict=True):
        target[axis_in(our, len(shape))] = like[axis_in(their, len(like))]
    return _stretched(shape, tuple(target))


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
    return _along(shape, {axis: np.arange(size) for axis, size in sizes.items()})


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
    return _along(shape, positions, p.constant_value)


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
    return _along(shape, positions)


def _along(shape: Shape, positions: dict[int, Array], fill: float = 0.0) -> Lookup:
    return Lookup(shape, tuple(positions.get(i) for i in range(len(shape))), fill)


def _stretched(shape: Shape, target: Shape) -> Lookup:
    """Repeat what has size 1."""
    for n, size in zip(shape, target, strict=True):
        if n not in (1, size):
            raise ShapeError(f"shape {shape} does not broadcast to {target}")
    changed = {i: n for i, n in enumerate(target) if n != shape[i]}
    return _along(shape, {i: np.zeros(n, np.intp) for i, n in changed.items()})


Names = tuple[str, ...]


def _register(
    names: str,
    attributes: type,
    rule: Rule,
    inputs: Names | Callable[[Any], Names] = ("data",),
    like: Names = (),
) -> None:
    """Register an operator; of its inputs named in `like` only the shape counts."""

    def shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
        known = [shape for shape in inputs if is_known(shape)]
        if len(known) < len(inputs):
            return inputs, outputs
        found = rule(p, known).output_shape
        return inputs, [unify(outputs[0], found, "output")]

    def forward(
        p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        outputs[0][...] = rule(p, [x.shape for x in inputs]).read(inputs[0])

    def backward(
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        (target, *_), (grad, *_) = grads_in, grads_out
        others = [x.shape for x in inputs[1:] if x is not None]
        lookup = rule(p, [target.shape, *others])
        target[...] = lookup.add_up(grad).reshape(target.shape)

    name, *aliases = names.split()
    register(
        Operator(
            name=name,
            aliases=tuple(aliases),
            attributes=attributes,
            inputs=inputs,
            shape=shape,
            forward=forward,
            backward=backward,
            saved=lambda p: Saved(inputs=tuple(range(1, _count(p, inputs)))),
            no_gradient=like,
            variadic=callable(inputs),
        )
    )


def _count(p: Any, inputs: Names | Callable[[Any], Names]) -> int:
    return len(inputs(p) if callable(inputs) else inputs)


def _crop_inputs(p: Crop) -> Names:
    return ("data", "crop_like")[: p.num_args]


_register("tile", Tile, _tile)
_register("repeat", Repeat, _repeat)
_register("reverse flip", Reverse, _reverse)
_register("broadcast_to", BroadcastTo, _broadcast_to)
_register("broadcast_axis broadcast_axes", BroadcastAxis, _broadcast_axis)
_register(
    "broadcast_like",
    BroadcastLike,
    _broadcast_like,
    inputs=("lhs", "rhs"),
    like=("rhs",),
)
_register(
    "slice_like",
    SliceLike,
    _slice_like,
    inputs=("data", "shape_like"),
    like=("shape_like",),
)
_register("Pad pad", Pad, _pad)
_register("Crop", Crop, _crop, inputs=_crop_inputs, like=("crop_like",))
