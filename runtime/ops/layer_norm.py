"""LayerNorm: normalize every row along one axis, then scale it.

Sources: MXNet's `src/operator/nn/layer_norm-inl.h`; Ba, Kiros and Hinton, "Layer
Normalization", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    PartialShape,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import unify
from runtime.ops.rules import accumulator, axis_in


@dataclass(frozen=True)
class LayerNorm:
    """Attributes of LayerNorm."""

    axis: int = -1
    eps: float = 1e-5
    output_mean_var: bool = False


def _shape(p: LayerNorm, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data = unify(inputs[0], outputs[0], "data")
    if data is None:
        return inputs, outputs
    axis = axis_in(p.axis, len(data))
    vector: PartialShape = (data[axis],)
    for name, shape in zip(("gamma", "beta"), inputs[1:], strict=True):
        vector = unify(vector, shape, name)
    moments: PartialShape = (*data[:axis], 1, *data[axis + 1 :])
    for name, shape in zip(("mean", "std"), outputs[1:], strict=True):
        moments = unify(moments, shape, name)
    return [data, vector, vector], [data, moments, moments]


def _spread(p: LayerNorm, rank: int) -> tuple[int, ...]:
    """The shape that lets gamma and beta broadcast."""
    return tuple(-1 if i == p.axis % rank else 1 for i in range(rank))


def _forward(
    p: LayerNorm, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, gamma, beta = inputs
    wide, spread = accumulator(data.dtype), _spread(p, data.ndim)
    mean = data.mean(axis=p.axis, dtype=wide, keepdims=True)
    centered = data - mean
    std = np.sqrt(np.square(centered).mean(axis=p.axis, keepdims=True) + p.eps)
    centered /= std
    outputs[0][...] = centered * gamma.reshape(spread) + beta.reshape(spread)
    outputs[1][...] = mean
    outputs[2][...] = std


def _backward(
    p: LayerNorm,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    """Gradients of the outputs mean and std are not propagated."""
    data, gamma = inputs[:2]
    _, mean, std = outputs
    if grads_out[0] is None:
        for array in grads_in:
            if array is not None:
                array[...] = 0
        return
    wide, spread = accumulator(data.dtype), _spread(p, data.ndim)
    grad = grads_out[0].astype(wide, copy=False)
    normal = (data - mean.astype(wide)) / std
    others = tuple(i for i in range(data.ndim) if i != p.axis % data.ndim)
    if grads_in[1] is not None:
        grads_in[1][...] = (grad * normal).sum(axis=others)
    if grads_in[2] is not None:
        grads_in[2][...] = grad.sum(axis=others)
    if grads_in[0] is not None:
        scaled = grad * gamma.reshape(spread)
        scaled -= scaled.mean(axis=p.axis, keepdims=True) + normal * (
            scaled * normal
        ).mean(axis=p.axis, keepdims=True)
        grads_in[0][...] = scaled / std


register(
    Operator(
        name="LayerNorm",
        attributes=LayerNorm,
        inputs=("data", "gamma", "beta"),
        outputs=("output", "mean", "std"),
        visible=lambda p: 3 if p.output_mean_var else 1,
        shape=_shape,
        forward=_forward,
        backward=_backward,
        saved=Saved(inputs=(0, 1), outputs=(1, 2)),
    )
)
