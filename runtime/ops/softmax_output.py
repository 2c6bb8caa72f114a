"""SoftmaxOutput: the softmax whose gradient is that of the cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

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
from runtime.ops.rules import accumulator, free_label
from runtime.ops.softmax import softmax


@dataclass(frozen=True)
class SoftmaxOutput:
    """Attributes of SoftmaxOutput.

    The head's own gradient is ignored. By default the loss is a sum over the batch.

    Attributes:
        grad_scale: Factor of the gradient.
        ignore_label: The label that `use_ignore` and `normalization` 'valid' mean.
        multi_output: Softmax along axis 1, one label per position behind it.
        use_ignore: Rows with `ignore_label` get no gradient.
        preserve_shape: Softmax along the last axis; else over all of a row of the
            batch.
        normalization: Divide the gradient by 1, by the number of labels (rows of the
            batch for `multi_output`), or by that of labels other than `ignore_label`.
        out_grad: Multiply the gradient by the output. It was meant to be the output's
            gradient, but MXNet 1.9.1 multiplies by the probabilities, and so do we.
        smooth_alpha: Label smoothing; not applied with `multi_output`.
    """

    grad_scale: float = 1.0
    ignore_label: float = -1.0
    multi_output: bool = False
    use_ignore: bool = False
    preserve_shape: bool = False
    normalization: Literal["null", "batch", "valid"] = "null"
    out_grad: bool = False
    smooth_alpha: float = 0.0


def _shape(p: SoftmaxOutput, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data, label = unify(inputs[0], outputs[0], "data"), inputs[1]
    if data is None:
        return inputs, outputs
    if len(data) < 2:
        raise ShapeError(f"`data` {data} must have 2 dimensions or more")
    if is_known(label) and is_known(data) and label == data:
        return [data, label], [data]  # probabilities
    if not p.multi_output:
        return [data, unify(label, data[:-1], "label")], [data]
    flat = (data[0], prod(data[2:]))
    accepted: tuple[PartialShape, ...] = (
        flat,
        (data[0], *data[2:]),
        (data[0], 1, *data[2:]),
    )
    if label is None:
        label = flat
    elif is_known(label) and is_known(data) and label not in accepted:
        listed = ", ".join(str(shape) for shape in accepted)
        raise ShapeError(f"`label` has shape {label}, but must have one of {listed}")
    return [data, label], [data]


def _rows(p: SoftmaxOutput, array: Array) -> Array:
    """The array as (rows, classes, positions); the softmax is over the classes."""
    if p.multi_output:
        return array.reshape(*array.shape[:2], -1)
    if p.preserve_shape:
        return array.reshape(-1, array.shape[-1], 1)
    return array.reshape(len(array), -1, 1)


def _forward(
    p: SoftmaxOutput, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data = _rows(p, inputs[0])
    wide = accumulator(data.dtype)
    _rows(p, outputs[0])[...] = softmax(data.astype(wide, copy=False), axis=1)


def _backward(
    p: SoftmaxOutput,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    if grads_in[0] is None:
        return
    label, output = inputs[1], outputs[0]
    wide = accumulator(output.dtype)
    if label.shape == output.shape:
        # Probabilities: no normalization and nothing to ignore, as in MXNet.
        grad = (output.astype(wide) - label) * wide.type(p.grad_scale)
    else:
        grad = _cross_entropy_slope(p, _rows(p, output).astype(wide), label)
        grad = grad.reshape(output.shape)
    if p.out_grad:
        grad *= output
    grads_in[0][...] = grad


def _cross_entropy_slope(p: SoftmaxOutput, grad: Array, label: Array) -> Array:
    """Turn the probabilities (rows, classes, positions) into the gradient, in place."""
    rows, classes, positions = grad.shape
    with np.errstate(invalid="ignore"):
        # What is no class (nan, negative, too large) matches none: the row stays p.
        whole = np.trunc(label.reshape(-1))
    # If a row holds more than one label, MXNet reads the first labels of the batch.
    chosen = whole[: rows * positions].reshape(rows, 1, positions)
    hit = chosen == np.arange(classes).reshape(1, classes, 1)
    if p.smooth_alpha and not p.multi_output:
        others = p.smooth_alpha / max(classes - 1, 1)
        grad -= np.where(hit, 1 - p.smooth_alpha, others)
    else:
        grad -= hit
    ignored = whole == np.trunc(p.ignore_label)
    if p.use_ignore:
        grad *= ~ignored[: rows * positions].reshape(rows, 1, positions)
    if p.normalization == "valid":
        divisor = max(1, int(np.count_nonzero(~ignored)))
    elif p.normalization == "batch":
        divisor = rows * positions if p.multi_output else whole.size
    else:
        divisor = positions
    grad *= grad.dtype.type(p.grad_scale / divisor)
    return grad


register(
    Operator(
        name="SoftmaxOutput",
        aliases=("Softmax",),
        attributes=SoftmaxOutput,
        inputs=("data", "label"),
        no_gradient=("label",),
        shape=_shape,
        dtype=free_label,
        forward=_forward,
        backward=_backward,
        saved=Saved(inputs=(1,), outputs=(0,)),
        is_loss=True,
    )
)
