"""tile, repeat, reverse and broadcasts: elements once more, or the other way.

Sources: MXNet's `src/operator/tensor/matrix_op-inl.h` and
`src/operator/tensor/broadcast_reduce_op.h`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.errors import ShapeError
from runtime.ops.lookup import Lookup, Shape, along, register_lookup
from runtime.ops.rules import axis_in


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
    return along(shape, {axis: np.repeat(np.arange(shape[axis]), p.repeats)})


@dataclass(frozen=True)
class Reverse:
    """Attributes of reverse."""

    axis: tuple[int, ...]


def _reverse(p: Reverse, shapes: list[Shape]) -> Lookup:
    (shape,) = shapes
    axes = {axis_in(axis, len(shape)) for axis in p.axis}
    return along(shape, {axis: np.arange(shape[axis])[::-1] for axis in axes})


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


def _stretched(shape: Shape, target: Shape) -> Lookup:
    """Repeat what has size 1."""
    for n, size in zip(shape, target, strict=True):
        if n not in (1, size):
            raise ShapeError(f"shape {shape} does not broadcast to {target}")
    changed = {i: n for i, n in enumerate(target) if n != shape[i]}
    return along(shape, {i: np.zeros(n, np.intp) for i, n in changed.items()})


register_lookup("tile", Tile, _tile)
register_lookup("repeat", Repeat, _repeat)
register_lookup("reverse flip", Reverse, _reverse)
register_lookup("broadcast_to", BroadcastTo, _broadcast_to)
register_lookup("broadcast_axis broadcast_axes", BroadcastAxis, _broadcast_axis)
register_lookup(
    "broadcast_like",
    BroadcastLike,
    _broadcast_like,
    inputs=("lhs", "rhs"),
    like=("rhs",),
)
