"""Indices into several axes as indices into the flattened array, and back.

Source: MXNet's `src/operator/tensor/ravel.cc`. There is no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.graph.shapes import unify


@dataclass(frozen=True)
class FlatIndices:
    """Attributes: the shape of the array; the first size may be -1."""

    shape: tuple[int, ...]


def _strides(p: FlatIndices) -> Array:
    """Elements from one index to the next, along each axis."""
    sizes = np.array([*p.shape[1:], 1], np.int64)
    return np.cumprod(sizes[::-1])[::-1]


def _ravel_shape(
    p: FlatIndices, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    (data,), (output,) = inputs, outputs
    if data is None:
        return inputs, outputs
    if data[0] != len(p.shape):
        raise ShapeError(
            f"there must be {len(p.shape)} rows of indices, one for each axis of "
            f"`shape` (={p.shape}), but the indices have shape {data}"
        )
    return inputs, [unify(output, data[1:] or (1,), "output")]


def _ravel(
    p: FlatIndices, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    (data,), (output,) = inputs, outputs
    flat = np.tensordot(_strides(p), data.astype(np.int64), 1)
    output[...] = flat.reshape(output.shape)


def _unravel_shape(
    p: FlatIndices, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    (data,), (output,) = inputs, outputs
    if data is None:
        return inputs, outputs
    return inputs, [unify(output, (len(p.shape), *data), "output")]


def _unravel(
    p: FlatIndices, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    rest = inputs[0].astype(np.int64)
    for axis, stride in enumerate(_strides(p)):
        outputs[0][axis] = rest // stride
        rest = rest % stride


register(
    Operator(
        name="_ravel_multi_index",
        aliases=("ravel_multi_index",),
        attributes=FlatIndices,
        shape=_ravel_shape,
        forward=_ravel,
    )
)
register(
    Operator(
        name="_unravel_index",
        aliases=("unravel_index",),
        attributes=FlatIndices,
        shape=_unravel_shape,
        forward=_unravel,
    )
)
