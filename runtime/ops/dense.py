"""FullyConnected: y = x W^T + b.

Source: MXNet's `src/operator/nn/fully_connected-inl.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
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
from runtime.ops.rules import accumulator


@dataclass(frozen=True)
class Dense:
    """Attributes; `flatten` False applies the layer along the last axis only."""

    num_hidden: int
    no_bias: bool = False
    flatten: bool = True


def _shape(p: Dense, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data, weight, *bias = inputs
    (output,) = outputs
    width = 0
    if data is not None:
        width = prod(data[1:]) if p.flatten else data[-1]
        kept = data[:1] if p.flatten else data[:-1]
        output = unify(output, (*kept, p.num_hidden), "output")
        if output is not None:
            # Only the leading sizes come back: the last is the layer's own.
            batch = output[:-1]
            data = unify(data, (*batch, *data[len(batch) :]), "data")
    weight = unify(weight, (p.num_hidden, width), "weight")
    bias = [unify(shape, (p.num_hidden,), "bias") for shape in bias]
    return [data, weight, *bias], [output]


def _rows(p: Dense, data: Array) -> Array:
    """The data as a matrix, one row for each application of the layer."""
    return data.reshape(len(data) if p.flatten else prod(data.shape[:-1]), -1)


def _forward(
    p: Dense, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, weight = _rows(p, inputs[0]), inputs[1]
    output = outputs[0].reshape(len(data), p.num_hidden)
    wide = accumulator(output.dtype)
    if wide == output.dtype:
        np.matmul(data, weight.T, out=output)
        if not p.no_bias:
            output += inputs[2]
    else:
        product = data.astype(wide) @ weight.T.astype(wide)
        output[...] = product if p.no_bias else product + inputs[2]


def _backward(
    p: Dense,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    data, weight = _rows(p, inputs[0]), inputs[1]
    wide = accumulator(data.dtype)
    grad = grads_out[0].reshape(len(data), p.num_hidden).astype(wide, copy=False)
    if grads_in[0] is not None:
        product = grad @ weight.astype(wide, copy=False)
        grads_in[0][...] = product.reshape(grads_in[0].shape)
    if grads_in[1] is not None:
        grads_in[1][...] = grad.T @ data.astype(wide, copy=False)
    if not p.no_bias and grads_in[2] is not None:
        grads_in[2][...] = grad.sum(axis=0)


register(
    Operator(
        name="FullyConnected",
        attributes=Dense,
        inputs=lambda p: (
            ("data", "weight") if p.no_bias else ("data", "weight", "bias")
        ),
        shape=_shape,
        forward=_forward,
        backward=_backward,
        saved=Saved(inputs=(0, 1)),
    )
)
