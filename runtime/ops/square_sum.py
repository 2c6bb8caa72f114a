"""_square_sum: the sum of squares over axes, for weights that are trained by rows.

Source: MXNet's `src/operator/tensor/square_sum-inl.h`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from runtime.graph.registry import Array, Mode, Operator, Saved, register
from runtime.ops.reduce import Reduction, kept_shape, reduced_axes, reduced_shape
from runtime.ops.rules import accumulator
from runtime.row_sparse import RowSparsePlace


def _forward(
    p: Reduction, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data = inputs[0].astype(accumulator(inputs[0].dtype), copy=False)
    axes = reduced_axes(p, data.ndim)
    outputs[0][...] = np.square(data).sum(axis=axes).reshape(outputs[0].shape)


def _backward(
    p: Reduction,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    data, head, target = inputs[0], grads_out[0], grads_in[0]
    shape = kept_shape(p, data.shape)
    if not isinstance(head, RowSparsePlace):
        target[...] = 2 * data * head.reshape(shape)
        return
    rows = head.value
    values = 2 * data[rows.indices] * rows.values.reshape(-1, *shape[1:])
    if isinstance(target, RowSparsePlace):
        target.set(rows.indices, values)
    else:
        target[...] = 0
        target[rows.indices] = values


def _row_sparse(p: Reduction, csr: Collection[str], head: bool) -> tuple[str, ...]:
    by_rows = p.axis == (1,) and not p.exclude
    return ("data",) if head and by_rows else ()


register(
    Operator(
        name="_square_sum",
        attributes=Reduction,
        shape=reduced_shape,
        forward=_forward,
        backward=_backward,
        saved=Saved(inputs=(0,)),
        row_sparse_gradients=_row_sparse,
    )
)
