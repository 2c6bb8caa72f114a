"""Embedding: a table of vectors, read by row number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
from runtime.ops.rules import Dtypes


@dataclass(frozen=True)
class Embedding:
    """Attributes; `dtype` is the weight's if nothing else says it.

    `sparse_grad` has no effect here: gradients are dense.
    """

    input_dim: int
    output_dim: int
    dtype: AnyDtype = "float32"
    sparse_grad: bool = False


def _shape(p: Embedding, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data, weight = inputs
    (output,) = outputs
    if output is not None:
        data = unify(data, output[:-1], "data")
    if data is not None:
        output = unify(output, (*data, p.output_dim), "output")
    return [data, unify(weight, (p.input_dim, p.output_dim), "weight")], [output]


def _dtype(p: Embedding, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    weight = next((d for d in (inputs[1], outputs[0]) if d is not None), None)
    weight = np.dtype(p.dtype) if weight is None else weight
    return [inputs[0], weight], [weight]


def _forward(
    p: Embedding, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, weight = inputs
    np.take(weight, positions(data, p.input_dim), axis=0, out=outputs[0], mode="clip")


def _backward(
    p: Embedding,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    if grads_in[1] is not None:
        scatter(grads_in[1], positions(inputs[0], p.input_dim), grads_out[0])


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
    )
)
