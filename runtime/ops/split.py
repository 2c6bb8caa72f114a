"""_split_v2: an array cut along an axis at given places, or into equal parts.

Source: MXNet's `src/operator/tensor/matrix_op-inl.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from runtime.errors import OperatorError, ShapeError
from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.graph.shapes import unify
from runtime.ops.rules import axis_in


@dataclass(frozen=True)
class Split:
    """Attributes.

    Attributes:
        indices: Where parts begin, 0 for the first one; not used with `sections`.
        axis: Along which to cut.
        squeeze_axis: Leave out the axis, along which every part has one element.
        sections: How many equal parts; 0 to cut at `indices`.
    """

    indices: tuple[int, ...]
    axis: int = 0
    squeeze_axis: bool = False
    sections: int = 0


def _count(p: Split) -> int:
    count = p.sections or len(p.indices)
    if count < 1:
        raise OperatorError("`sections` or `indices` must give one part or more")
    return count


def _bounds(p: Split, size: int) -> list[int]:
    """Where parts begin, and the end of the last one."""
    if not p.sections:
        return [*p.indices, size]
    if size % p.sections:
        raise ShapeError(
            f"{size} rows along axis {p.axis} cannot be cut into {p.sections} equal "
            "`sections`"
        )
    return list(range(0, size + 1, size // p.sections))


def _names(p: Split) -> tuple[str, ...]:
    count = _count(p)
    return ("output",) if count == 1 else tuple(f"output{i}" for i in range(count))


def _shape(p: Split, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    (data,) = inputs
    if data is None or data[axis := axis_in(p.axis, len(data))] == 0:
        return inputs, outputs
    bounds = _bounds(p, data[axis])
    sizes = [end - begin for begin, end in pairwise(bounds)]
    if bounds[0] != 0 or min(sizes) < 1 or (p.squeeze_axis and max(sizes) > 1):
        raise ShapeError(
            f"`indices` (={p.indices}) must rise from 0 and stay below {data[axis]}, "
            "and every part have one row if `squeeze_axis` is true"
        )
    shapes = [
        (*data[:axis], *(() if p.squeeze_axis else (n,)), *data[axis + 1 :])
        for n in sizes
    ]
    return inputs, [
        unify(output, shape, "output")
        for output, shape in zip(outputs, shapes, strict=True)
    ]


def _parts(p: Split, array: Array) -> list[Array]:
    bounds = _bounds(p, array.shape[p.axis])
    parts = np.split(array, bounds[1:-1], p.axis)
    return [part.squeeze(p.axis) for part in parts] if p.squeeze_axis else parts


def _forward(
    p: Split, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    for place, part in zip(outputs, _parts(p, inputs[0]), strict=True):
        place[...] = part


def _backward(
    p: Split,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    for place, head in zip(_parts(p, grads_in[0]), grads_out, strict=True):
        place[...] = 0 if head is None else head


register(
    Operator(
        name="_split_v2",
        attributes=Split,
        outputs=_names,
        shape=_shape,
        forward=_forward,
        backward=_backward,
    )
)
