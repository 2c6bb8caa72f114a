"""gather_nd, scatter_nd and batch_take: elements named by several indexes at once.

`indices` is (M, ...): its first axis holds the indexes along the first M axes of what
is read or written; no gradient flows to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from runtime.ops.indexing import positions
from runtime.ops.rules import accumulator, free_label


@dataclass(frozen=True)
class ScatterND:
    """Attributes of scatter_nd."""

    shape: tuple[int, ...]


def _places(index: Array, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """Indexes for NumPy; each is clipped to its axis, as MXNet does."""
    return tuple(positions(row, n) for row, n in zip(index, shape, strict=False))


def _check(count: int, shape: tuple[int, ...]) -> None:
    if count > len(shape):
        raise ShapeError(f"`indices` names {count} axes, but shape {shape} has fewer")


def _gather_shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data, index = inputs
    if data is None or not index:
        return inputs, outputs
    _check(index[0], data)
    shape = (*index[1:], *data[index[0] :])
    return inputs, [unify(outputs[0], shape, "output")]


def _gather(
    p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, index = inputs
    outputs[0][...] = data[_places(index, data.shape)]


def _gather_backward(
    p: Any,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    target = grads_in[0]
    if target is not None:
        total = np.zeros(target.shape, accumulator(target.dtype))
        np.add.at(total, _places(inputs[1], target.shape), grads_out[0])
        target[...] = total


def _scatter_shape(
    p: ScatterND, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    data, index = inputs
    if index:
        _check(index[0], p.shape)
        data = unify(data, (*index[1:], *p.shape[index[0] :]), "data")
    return [data, index], [unify(outputs[0], p.shape, "output")]


def _scatter(
    p: ScatterND, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, index = inputs
    outputs[0][...] = 0
    outputs[0][_places(index, p.shape)] = data


def _scatter_backward(
    p: ScatterND,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    if grads_in[0] is not None:
        grads_in[0][...] = grads_out[0][_places(inputs[1], p.shape)]


def _batch_shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data, index = inputs
    if data is not None:
        if len(data) != 2:
            raise ShapeError(f"`a` must be (row, column), but has shape {data}")
        index = unify(index, data[:1], "indices")
    return [data, index], [unify(outputs[0], index, "output")]


def _batch_take(
    p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, index = inputs
    columns = positions(index, data.shape[1])
    outputs[0][...] = data[np.arange(len(data)), columns]


def _batch_backward(
    p: Any,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    target = grads_in[0]
    if target is not None:
        target[...] = 0
        columns = positions(inputs[1], target.shape[1])
        target[np.arange(len(target)), columns] = grads_out[0]


register(
    Operator(
        name="gather_nd",
        inputs=("data", "indices"),
        no_gradient=("indices",),
        shape=_gather_shape,
        dtype=free_label,
        forward=_gather,
        backward=_gather_backward,
        saved=Saved(inputs=(1,)),
    )
)
register(
    Operator(
        name="scatter_nd",
        attributes=ScatterND,
        inputs=("data", "indices"),
        no_gradient=("indices",),
        shape=_scatter_shape,
        dtype=free_label,
        forward=_scatter,
        backward=_scatter_backward,
        saved=Saved(inputs=(1,)),
    )
)
register(
    Operator(
        name="batch_take",
        inputs=("a", "indices"),
        no_gradient=("indices",),
        shape=_batch_shape,
        dtype=free_label,
        forward=_batch_take,
        backward=_batch_backward,
        saved=Saved(inputs=(1,)),
    )
)
