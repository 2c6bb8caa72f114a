"""Embedding: a table of vectors, read by row number."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
from runtime.ops.indexing import AnyDtype, positions, scatter
from runtime.ops.rules import Dtypes, accumulator
from runtime.row_sparse import RowSparsePlace, gather


class Table(Protocol):
    """What the attributes of both operators say."""

    @property
    def input_dim(self) -> int: ...
    @property
    def output_dim(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def sparse_grad(self) -> bool: ...


@dataclass(frozen=True)
class Embedding:
    """Attributes; `dtype` is the weight's if nothing else says it.

    With `sparse_grad` the gradient of the weight has only the rows that were read.
    """

    input_dim: int
    output_dim: int
    dtype: AnyDtype = "float32"
    sparse_grad: bool = False


def _shape(p: Table, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data, weight = inputs
    (output,) = outputs
    if output is not None:
        data = unify(data, output[:-1], "data")
    if data is not None:
        output = unify(output, (*data, p.output_dim), "output")
    return [data, unify(weight, (p.input_dim, p.output_dim), "weight")], [output]


def _dtype(p: Table, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    weight = next((d for d in (inputs[1], outputs[0]) if d is not None), None)
    weight = np.dtype(p.dtype) if weight is None else weight
    return [inputs[0], weight], [weight]


def _forward(
    p: Table, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, weight = inputs
    np.take(weight, positions(data, p.input_dim), axis=0, out=outputs[0], mode="clip")


def _backward(
    p: Table,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    target = grads_in[1]
    if isinstance(target, RowSparsePlace):
        index, rows = positions(inputs[0], p.input_dim), grads_out[0]
        wide = rows.astype(accumulator(rows.dtype), copy=False)
        target.assign(gather(index, wide, target.shape))
    elif target is not None:
        scatter(target, positions(inputs[0], p.input_dim), grads_out[0])


def _row_sparse(p: Table, csr: Collection[str], head: bool) -> tuple[str, ...]:
    return ("weight",) if p.sparse_grad else ()


register(
    Operator(
        name="Embedding",
        attributes=Embedding,
        inputs=("data", "weight"),
        no_gradient=("data",),
        shape=_shape,
        dtype=_dtype,
        forward=_forward,
        backward=_backward,
        saved=Saved(inputs=(0,)),
        row_sparse_gradients=_row_sparse,
    )
)


@dataclass(frozen=True)
class SparseEmbedding:
    """Attributes of MXNet's older name for it; `deterministic` it is always."""

    input_dim: int
    output_dim: int
    dtype: AnyDtype = "float32"
    deterministic: bool = False

    @property
    def sparse_grad(self) -> bool:
        return True


register(
    Operator(
        name="_contrib_SparseEmbedding",
        attributes=SparseEmbedding,
        inputs=("data", "weight"),
        no_gradient=("data",),
        shape=_shape,
        dtype=_dtype,
        forward=_forward,
        backward=_backward,
        saved=Saved(inputs=(0,)),
        row_sparse_gradients=_row_sparse,
    )
)
