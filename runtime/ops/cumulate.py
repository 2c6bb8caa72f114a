"""cumsum: the sums of all elements up to each one, along an axis.

Source: MXNet's `src/operator/numpy/np_cumsum-inl.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.graph.shapes import is_known, unify
from runtime.ops.rules import Dtypes, axis_in


@dataclass(frozen=True)
class CumulativeSum:
    """Attributes.

    Attributes:
        axis: Along which; None for the flattened array.
        dtype: Of the output, and to sum in; that of the input if it is None.
    """

    axis: int | None = None
    dtype: Literal["float16", "float32", "float64", "int8", "int32", "int64"] | None = (
        None
    )


def _shape(p: CumulativeSum, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    (data,), (output,) = inputs, outputs
    if p.axis is None:
        if not is_known(data):
            return inputs, outputs
        return inputs, [unify(output, (prod(data),), "output")]
    shape = unify(data, output)
    if shape is not None:
        axis_in(p.axis, len(shape))
    return [shape], [shape]


def _dtype(p: CumulativeSum, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    return inputs, [inputs[0] if p.dtype is None else np.dtype(p.dtype)]


def _forward(
    p: CumulativeSum, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    np.cumsum(inputs[0], p.axis, outputs[0].dtype, out=outputs[0])


def _backward(
    p: CumulativeSum,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    (head,), (gradient,) = grads_out, grads_in
    axis = 0 if p.axis is None else p.axis
    sums = np.flip(np.cumsum(np.flip(head, axis), axis), axis)
    gradient[...] = sums.reshape(gradient.shape)


register(
    Operator(
        name="cumsum",
        aliases=("_np_cumsum",),
        attributes=CumulativeSum,
        inputs=("a",),
        shape=_shape,
        dtype=_dtype,
        forward=_forward,
        backward=_backward,
    )
)
