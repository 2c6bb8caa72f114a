"""Operators that move, add, drop or split axes.

Sources: MXNet's `src/operator/tensor/matrix_op-inl.h`, `src/operator/swapaxis-inl.h`
and `src/operator/slice_channel-inl.h`.
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
    PartialShape,
    Shapes,
    register,
)
from runtime.graph.shapes import unify
from runtime.ops.rules import axis_in
from runtime.ops.shape import view_backward, view_forward


@dataclass(frozen=True)
class SwapAxis:
    """Attributes of SwapAxis."""

    dim1: int = 0
    dim2: int = 0

    def order(self, rank: int) -> tuple[int, ...]:
        """Output's axis i is the input's axis order[i]."""
        order = list(range(rank))
        first, second = (
            axis_in(self.dim1, rank, "dim1"),
            axis_in(self.dim2, rank, "dim2"),
        )
        order[first], order[second] = order[second], order[first]
        return tuple(order)


@dataclass(frozen=True)
class Transpose:
    """Attributes of transpose; no axes means to reverse them."""

    axes: tuple[int, ...] = ()

    def order(self, rank: int) -> tuple[int, ...]:
        """Output's axis i is the input's axis order[i]."""
        axes = self.axes or range(rank - 1, -1, -1)
        order = tuple(axis_in(axis, rank) for axis in axes)
        if sorted(order) != list(range(rank)):
            message = f"`axes` (={self.axes}) must name each of {rank} axes once"
            raise ShapeError(message)
        return order


def _register_permutation(names: str, attributes: type) -> None:
    """Register an operator whose attributes say the order of its output's axes."""

    def shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
        (data,), (output,) = inputs, outputs
        if data is None and output is None:
            return inputs, outputs
        axes = p.order(len(data or output or ()))
        if data is not None:
            output = unify(output, tuple(data[i] for i in axes), "output")
        assert output is not None
        back = tuple(output[axes.index(i)] for i in range(len(axes)))
        return [unify(data, back, "data")], [output]

    def forward(
        p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        outputs[0][...] = inputs[0].transpose(p.order(inputs[0].ndim))

    def backward(
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        grads_in[0].transpose(p.order(grads_in[0].ndim))[...] = grads_out[0]

    name, *aliases = names.split()
    register(
        Operator(
            name=name,
            aliases=tuple(aliases),
            attributes=attributes,
            shape=shape,
            forward=forward,
            backward=backward,
        )
    )


_register_permutation("SwapAxis swapaxes", SwapAxis)
_register_permutation("transpose", Transpose)


@dataclass(frozen=True)
class ExpandDims:
    """Attributes of expand_dims."""

    axis: int


def _expand_shape(
    p: ExpandDims, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    (data,), (output,) = inputs, outputs
    if data is not None:
        axis = axis_in(p.axis, len(data) + 1)
        output = unify(output, (*data[:axis], 1, *data[axis:]), "output")
    if output is not None:
        axis = axis_in(p.axis, len(output))
        data = unify(data, (*output[:axis], *output[axis + 1 :]), "data")
    return [data], [output]


@dataclass(frozen=True)
class Squeeze:
    """Attributes of squeeze; no axis means all of size 1."""

    axis: tuple[int, ...] | None = None


def _squeeze_shape(
    p: Squeeze, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    (data,) = inputs
    if data is None or (p.axis is None and 0 in data):
        return inputs, outputs
    if p.axis is None:
        axes = {i for i, size in enumerate(data) if size == 1}
    else:
        axes = {axis_in(axis, len(data)) for axis in p.axis}
    for axis in axes:
        if data[axis] not in (0, 1):
            raise ShapeError(f"axis {axis} has size {data[axis]}, but must have size 1")
    shape = tuple(size for i, size in enumerate(data) if i not in axes) or (1,)
    return inputs, [unify(outputs[0], shape, "output")]


for _name, _attributes, _shape in (
    ("expand_dims", ExpandDims, _expand_shape),
    ("squeeze", Squeeze, _squeeze_shape),
):
    register(
        Operator(
            name=_name,
            attributes=_attributes,
            shape=_shape,
            forward=view_forward,
            backward=view_backward,
            is_view=True,
        )
    )


@dataclass(frozen=True)
class SliceChannel:
    """Attributes; `squeeze_axis` drops the axis if the pieces have size 1 there."""

    num_outputs: int
    axis: int = 1
    squeeze_axis: bool = False


def _piece_names(p: SliceChannel) -> tuple[str, ...]:
    if p.num_outputs == 1:
        return ("output",)
    return tuple(f"output{i}" for i in range(p.num_outputs))


def _slice_channel_shape(
    p: SliceChannel, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    (data,) = inputs
    piece: PartialShape = None
    for shape in outputs:
        piece = unify(piece, shape, "output")
    if data is not None:
        axis = axis_in(p.axis, len(data))
        size, remainder = divmod(data[axis], p.num_outputs)
        if remainder or (p.squeeze_axis and size > 1):
            rule = "equal" if p.squeeze_axis else "be divisible by"
            raise ShapeError(
                f"axis {axis} of `data` (={data[axis]}) must {rule} `num_outputs` "
                f"(={p.num_outputs})"
            )
        middle = () if p.squeeze_axis else (size,)
        piece = unify(piece, (*data[:axis], *middle, *data[axis + 1 :]), "output")
    if piece is not None:
        axis = axis_in(p.axis, len(piece) + p.squeeze_axis)
        size = 1 if p.squeeze_axis else piece[axis]
        rest = piece[axis:] if p.squeeze_axis else piece[axis + 1 :]
        data = unify(data, (*piece[:axis], size * p.num_outputs, *rest), "data")
    return [data], [piece] * p.num_outputs


def _pieces(p: SliceChannel, array: Array) -> list[Array]:
    pieces = np.split(array, p.num_outputs, axis=p.axis)
    return [x.squeeze(p.axis) for x in pieces] if p.squeeze_axis else pieces


def _slice_channel_forward(
    p: SliceChannel, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    for output, piece in zip(outputs, _pieces(p, inputs[0]), strict=True):
        output[...] = piece


def _slice_channel_backward(
    p: SliceChannel,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    for grad, piece in zip(grads_out, _pieces(p, grads_in[0]), strict=True):
        piece[...] = 0 if grad is None else grad


register(
    Operator(
        name="SliceChannel",
        aliases=("split",),
        attributes=SliceChannel,
        outputs=_piece_names,
        shape=_slice_channel_shape,
        forward=_slice_channel_forward,
        backward=_slice_channel_backward,
    )
)
