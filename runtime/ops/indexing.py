"""Operators that read positions given by numbers: take, pick, one_hot.

Indexes come as any dtype; they are truncated to integers. No gradient flows to them.

Sources: MXNet's `src/operator/tensor/indexing_op.h` and
`src/operator/tensor/broadcast_reduce_op.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import unify
from runtime.ops.rules import Dtypes, accumulator, axis_in, free_label

AnyDtype = Literal["float16", "float32", "float64", "uint8", "int8", "int32", "int64"]


def positions(index: Array, size: int, mode: str = "clip") -> Array:
    """Indexes as integers in 0..size-1.

    Args:
        index: Numbers; nan counts as 0.
        size: How many positions there are.
        mode: What becomes of others: `clip` to the nearest, `wrap` around, or `raise`.

    Raises:
        IndexError: in mode `raise`, if an index lies outside.
    """
    whole: Array = np.nan_to_num(np.trunc(index))
    if mode == "wrap":
        whole = np.mod(whole, size)
    if mode == "raise" and whole.size and not 0 <= whole.min() <= whole.max() < size:
        raise IndexError(
            f"index {whole.min():g} to {whole.max():g} must lie in 0 to {size - 1}"
        )
    inside: Array = np.clip(whole, 0, size - 1).astype(np.intp)
    return inside


def scatter(target: Array, index: Array, rows: Array) -> None:
    """Make `target` the sum of the rows that were taken from each position."""
    total = np.zeros(target.shape, accumulator(target.dtype))
    np.add.at(total, index, rows)
    target[...] = total


@dataclass(frozen=True)
class Take:
    """Attributes of take."""

    axis: int = 0
    mode: Literal["clip", "wrap", "raise"] = "clip"


def _take_shape(p: Take, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data, index = inputs
    if data is None or index is None:
        return inputs, outputs
    axis = axis_in(p.axis, len(data))
    shape = (*data[:axis], *index, *data[axis + 1 :])
    return inputs, [unify(outputs[0], shape, "output")]


def _take_forward(
    p: Take, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, index = inputs
    index = positions(index, data.shape[p.axis], p.mode)
    np.take(data, index, axis=p.axis, out=outputs[0], mode="clip")


def _take_backward(
    p: Take,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    if grads_in[0] is None:
        return
    target = np.moveaxis(grads_in[0], p.axis, 0)
    index = positions(inputs[1], len(target), p.mode)
    axis = p.axis % target.ndim
    rows = np.moveaxis(grads_out[0], range(axis, axis + index.ndim), range(index.ndim))
    scatter(target, index, rows)


register(
    Operator(
        name="take",
        attributes=Take,
        inputs=("a", "indices"),
        no_gradient=("indices",),
        shape=_take_shape,
        dtype=free_label,
        forward=_take_forward,
        backward=_take_backward,
        saved=Saved(inputs=(1,)),
    )
)


@dataclass(frozen=True)
class Pick:
    """Attributes of pick: one element per row along `axis`."""

    axis: int = -1
    keepdims: bool = False
    mode: Literal["clip", "wrap"] = "clip"


def _pick_shape(p: Pick, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data, index = inputs
    if data is None:
        return inputs, outputs
    axis = axis_in(p.axis, len(data))
    kept = (*data[:axis], 1, *data[axis + 1 :])
    dropped = (*data[:axis], *data[axis + 1 :]) or (1,)
    if index is None or len(index) != len(data):
        index = unify(index, dropped, "index")
    else:
        index = unify(index, kept, "index")
    shape = kept if p.keepdims else dropped
    return [data, index], [unify(outputs[0], shape, "output")]


def _picked(p: Pick, shape: tuple[int, ...], index: Array) -> Array:
    axis = p.axis % len(shape)
    kept = (*shape[:axis], 1, *shape[axis + 1 :])
    return positions(index, shape[axis], p.mode).reshape(kept)


def _pick_forward(
    p: Pick, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, index = inputs
    picked = np.take_along_axis(data, _picked(p, data.shape, index), p.axis)
    outputs[0][...] = picked.reshape(outputs[0].shape)


def _pick_backward(
    p: Pick,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    if grads_in[0] is None:
        return
    index = _picked(p, grads_in[0].shape, inputs[1])
    grads_in[0][...] = 0
    np.put_along_axis(grads_in[0], index, grads_out[0].reshape(index.shape), p.axis)


register(
    Operator(
        name="pick",
        aliases=("choose_element_0index",),
        attributes=Pick,
        inputs=("data", "index"),
        no_gradient=("index",),
        shape=_pick_shape,
        dtype=free_label,
        forward=_pick_forward,
        backward=_pick_backward,
        saved=Saved(inputs=(1,)),
    )
)


@dataclass(frozen=True)
class OneHot:
    """Attributes of one_hot; an index out of range has no element on."""

    depth: int
    on_value: float = 1.0
    off_value: float = 0.0
    dtype: AnyDtype = "float32"


def _one_hot_shape(p: OneHot, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    shape = None if inputs[0] is None else (*inputs[0], p.depth)
    return inputs, [unify(outputs[0], shape, "output")]


def _one_hot_dtype(p: OneHot, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    return inputs, [np.dtype(p.dtype)]


def _one_hot_forward(
    p: OneHot, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    hit = np.trunc(inputs[0])[..., None] == np.arange(p.depth)
    outputs[0][...] = np.where(hit, p.on_value, p.off_value)


register(
    Operator(
        name="one_hot",
        attributes=OneHot,
        inputs=("indices",),
        no_gradient=("indices",),
        shape=_one_hot_shape,
        dtype=_one_hot_dtype,
        forward=_one_hot_forward,
    )
)
