"""norm: the sum of absolute values, or the root of the sum of squares.

Source: MXNet's `src/operator/tensor/broadcast_reduce_op.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runtime.errors import OperatorError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.ops.reduce import Reduction, kept_shape, reduced_axes, reduced_shape
from runtime.ops.rules import Dtypes, accumulator


@dataclass(frozen=True)
class Norm:
    """Attributes; no axis means all, `ord` is 1 or 2."""

    ord: int = 2
    axis: tuple[int, ...] | None = None
    out_dtype: (
        Literal["float16", "float32", "float64", "int32", "int64", "int8"] | None
    ) = None
    keepdims: bool = False

    @property
    def reduction(self) -> Reduction:
        return Reduction(self.axis, self.keepdims)


def _shape(p: Norm, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    if p.ord not in (1, 2):
        raise OperatorError(f"`ord` (={p.ord}) must be 1 or 2")
    return reduced_shape(p.reduction, inputs, outputs)


def _dtype(p: Norm, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    if p.out_dtype is not None:
        return inputs, [np.dtype(p.out_dtype)]
    one = inputs[0] if inputs[0] is not None else outputs[0]
    return [one], [one]


def _forward(
    p: Norm, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data = inputs[0].astype(accumulator(inputs[0].dtype), copy=False)
    axes = reduced_axes(p.reduction, data.ndim)
    if p.ord == 1:
        value = np.abs(data).sum(axis=axes)
    else:
        value = np.sqrt(np.square(data).sum(axis=axes))
    outputs[0][...] = value.reshape(outputs[0].shape)


def _backward(
    p: Norm,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    (data,) = inputs
    kept = kept_shape(p.reduction, data.shape)
    grad = grads_out[0].reshape(kept)
    if p.ord == 1:
        grads_in[0][...] = grad * np.sign(data)
    else:
        # Where the norm is 0 so is all data, and the gradient is taken as 0.
        norm = outputs[0].reshape(kept)
        grads_in[0][...] = grad * data / np.where(norm == 0, 1, norm)


register(
    Operator(
        name="norm",
        attributes=Norm,
        shape=_shape,
        dtype=_dtype,
        forward=_forward,
        backward=_backward,
        saved=lambda p: Saved(inputs=(0,), outputs=() if p.ord == 1 else (0,)),
    )
)
