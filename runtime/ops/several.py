"""Operators that combine several arrays: where, add_n and stack.

Sources: MXNet's `src/operator/tensor/control_flow_op.h`,
`src/operator/tensor/elemwise_sum.h` and `src/operator/tensor/matrix_op-inl.h`.
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
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import is_known, unify
from runtime.ops.rules import Dtypes, accumulator, axis_in, one_shape


def _where_shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    condition, *branches = inputs
    _, (data,) = one_shape(p, branches, outputs)
    if is_known(data) and is_known(condition):
        if condition not in (data, data[:1]):
            raise ShapeError(
                f"`condition` has shape {condition}, but must have the shape of `x` "
                f"(={data}) or that of its first axis"
            )
    return [condition, data, data], [data]


def _where_dtype(p: Any, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    given = (dtype for dtype in (*inputs[1:], *outputs) if dtype is not None)
    data = next(given, None)
    condition = data if inputs[0] is None else inputs[0]
    return [condition, data, data], [data]


def _chosen(condition: Array, rank: int) -> Array:
    chosen: Array = condition != 0
    return chosen.reshape(chosen.shape + (1,) * (rank - chosen.ndim))


def _where_forward(
    p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    condition, x, y = inputs
    outputs[0][...] = np.where(_chosen(condition, x.ndim), x, y)


def _where_backward(
    p: Any,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    grad = grads_out[0]
    chosen = _chosen(inputs[0], grad.ndim)
    for target, shown in zip(grads_in[1:], (chosen, ~chosen), strict=True):
        if target is not None:
            target[...] = np.where(shown, grad, 0)


register(
    Operator(
        name="where",
        inputs=("condition", "x", "y"),
        no_gradient=("condition",),
        shape=_where_shape,
        dtype=_where_dtype,
        forward=_where_forward,
        backward=_where_backward,
        saved=Saved(inputs=(0,)),
    )
)


@dataclass(frozen=True)
class Several:
    """Attributes of operators that take any number of inputs, and no others."""

    num_args: int


@dataclass(frozen=True)
class Stack:
    """Attributes of stack."""

    num_args: int
    axis: int = 0


def argument_names(p: Any) -> tuple[str, ...]:
    """Names of the inputs of an operator that counts them by `num_args`."""
    return tuple(f"arg{i}" for i in range(p.num_args))


def _add_forward(
    p: Several, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    total = inputs[0].astype(accumulator(inputs[0].dtype))
    for data in inputs[1:]:
        total += data
    outputs[0][...] = total


def _add_backward(
    p: Several,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    for target in grads_in:
        if target is not None:
            target[...] = grads_out[0]


def _stack_shape(p: Stack, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    one: PartialShape = None
    for shape in inputs:
        one = unify(one, shape)
    (output,) = outputs
    if output is not None:
        axis = axis_in(p.axis, len(output))
        one = unify(one, (*output[:axis], *output[axis + 1 :]))
    if one is not None:
        axis = axis_in(p.axis, len(one) + 1)
        output = unify(output, (*one[:axis], p.num_args, *one[axis:]), "output")
    return [one] * p.num_args, [output]


def _stack_forward(
    p: Stack, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    np.stack(inputs, axis=p.axis, out=outputs[0])


def _stack_backward(
    p: Stack,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    pieces = np.moveaxis(grads_out[0], p.axis, 0)
    for target, piece in zip(grads_in, pieces, strict=True):
        if target is not None:
            target[...] = piece


register(
    Operator(
        name="add_n",
        aliases=("ElementWiseSum", "_sum"),
        attributes=Several,
        inputs=argument_names,
        shape=one_shape,
        forward=_add_forward,
        backward=_add_backward,
        shares_gradient=True,
        variadic=True,
    )
)
register(
    Operator(
        name="stack",
        attributes=Stack,
        inputs=argument_names,
        shape=_stack_shape,
        forward=_stack_forward,
        backward=_stack_backward,
        variadic=True,
    )
)
