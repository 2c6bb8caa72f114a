"""Losses of scores against classes: SVMOutput and softmax_cross_entropy.

Sources: MXNet's `src/operator/svm_output-inl.h` and
`src/operator/loss_binary_op-inl.h`; Tang, "Deep Learning using Linear Support Vector
Machines", 2013.
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
from runtime.graph.shapes import unify
from runtime.ops.indexing import positions
from runtime.ops.rules import accumulator, free_label


@dataclass(frozen=True)
class SVMOutput:
    """Attributes of SVMOutput; `use_linear` is the L1 form."""

    margin: float = 1.0
    regularization_coefficient: float = 1.0
    use_linear: bool = False


def _with_labels(data: PartialShape, label: PartialShape) -> tuple[Any, Any]:
    """Shapes of (row, class) scores and of their labels, completed."""
    if data is not None:
        if len(data) != 2:
            raise ShapeError(f"`data` must be (row, class), but has shape {data}")
        label = unify(label, data[:1], "label")
    if data is not None and label is not None:
        data = (label[0], data[1])
    return data, label


def _svm_shape(p: SVMOutput, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data, label = _with_labels(unify(inputs[0], outputs[0], "data"), inputs[1])
    return [data, label], [data]


def _svm_forward(
    p: SVMOutput, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    outputs[0][...] = inputs[0]


def _svm_backward(
    p: SVMOutput,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    if grads_in[0] is None:
        return
    label, scores = inputs[1], outputs[0]
    sign = np.where(np.trunc(label)[:, None] == np.arange(scores.shape[1]), -1, 1)
    missing = np.maximum(p.margin + sign * scores, 0)
    slope = missing > 0 if p.use_linear else 2 * missing
    grads_in[0][...] = p.regularization_coefficient * sign * slope


register(
    Operator(
        name="SVMOutput",
        attributes=SVMOutput,
        inputs=("data", "label"),
        no_gradient=("label",),
        shape=_svm_shape,
        dtype=free_label,
        forward=_svm_forward,
        backward=_svm_backward,
        saved=Saved(inputs=(1,), outputs=(0,)),
        is_loss=True,
    )
)


def _entropy_shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    return [*_with_labels(*inputs)], [unify(outputs[0], (1,), "output")]


def _log_softmax(data: Array) -> Array:
    wide = data.astype(accumulator(data.dtype), copy=False)
    shifted: Array = wide - wide.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _entropy_forward(
    p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, label = inputs
    index = positions(label, data.shape[1])
    outputs[0][...] = -_log_softmax(data)[np.arange(len(data)), index].sum()


def _entropy_backward(
    p: Any,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    if grads_in[0] is None:
        return
    data, label = inputs
    grad = np.exp(_log_softmax(data))
    grad[np.arange(len(data)), positions(label, data.shape[1])] -= 1
    grads_in[0][...] = grad * grads_out[0]


register(
    Operator(
        name="softmax_cross_entropy",
        inputs=("data", "label"),
        no_gradient=("label",),
        shape=_entropy_shape,
        dtype=free_label,
        forward=_entropy_forward,
        backward=_entropy_backward,
        saved=Saved(inputs=(0, 1)),
    )
)
