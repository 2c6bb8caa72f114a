"""Heads that end a net: regression outputs and MakeLoss.

Their backward ignores the gradient of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import is_known, unify
from runtime.ops.elementwise import sigmoid
from runtime.ops.rules import free_label, one_shape


@dataclass(frozen=True)
class RegressionOutput:
    """Attributes; the gradient is averaged over outputs, not over the batch."""

    grad_scale: float = 1.0


def _shape(
    p: RegressionOutput, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    data, label = unify(inputs[0], outputs[0], "data"), inputs[1]
    if data is not None and label is None:
        label = data[:1] if len(data) == 2 and data[1] == 1 else data
    elif is_known(data) and is_known(label):
        if label[0] != data[0] or prod(label) != prod(data):
            raise ShapeError(
                f"`label` has shape {label}, but must have the rows and the number of "
                f"elements of `data`, which has shape {data}"
            )
    return [data, label], [data]


def _register(
    name: str,
    function: Callable[[Array], Array],
    slope: Callable[[Array, Array], Array],
) -> None:
    def forward(
        p: RegressionOutput,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        mode: Mode,
    ) -> None:
        outputs[0][...] = function(inputs[0])

    def backward(
        p: RegressionOutput,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        if grads_in[0] is None:
            return
        output = outputs[0]
        label = inputs[1].reshape(output.shape).astype(output.dtype, copy=False)
        scale = p.grad_scale / prod(output.shape[1:])
        grads_in[0][...] = slope(output, label) * output.dtype.type(scale)

    register(
        Operator(
            name=name,
            attributes=RegressionOutput,
            inputs=("data", "label"),
            no_gradient=("label",),
            shape=_shape,
            dtype=free_label,
            forward=forward,
            backward=backward,
            saved=Saved(inputs=(1,), outputs=(0,)),
            is_loss=True,
        )
    )


_register("LinearRegressionOutput", lambda x: x, lambda y, label: y - label)
_register("LogisticRegressionOutput", sigmoid, lambda y, label: y - label)
# MXNet's gradient of |y - label| is -1 where they are equal.
_register(
    "MAERegressionOutput",
    lambda x: x,
    lambda y, label: np.where(y > label, 1, -1).astype(y.dtype),
)


@dataclass(frozen=True)
class MakeLoss:
    """Attributes of MakeLoss.

    Attributes:
        grad_scale: The gradient of every element.
        valid_thresh: An element above it counts as valid.
        normalization: Divide by 1; by the batch size, as make_loss-inl.h counts it: the
            product of all axes but the last, so that a vector is one row ("batch"); or
            by the number of valid elements.
    """

    grad_scale: float = 1.0
    valid_thresh: float = 0.0
    normalization: Literal["null", "batch", "valid"] = "null"


def _make_loss_forward(
    p: MakeLoss, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    outputs[0][...] = inputs[0]


def _make_loss_backward(
    p: MakeLoss,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    divisor = 1
    if p.normalization == "batch":
        divisor = prod(grads_in[0].shape[:-1])
    elif p.normalization == "valid":
        divisor = max(1, int(np.count_nonzero(outputs[0] > p.valid_thresh)))
    grads_in[0][...] = p.grad_scale / divisor


register(
    Operator(
        name="MakeLoss",
        attributes=MakeLoss,
        shape=one_shape,
        forward=_make_loss_forward,
        backward=_make_loss_backward,
        saved=lambda p: Saved(outputs=(0,) if p.normalization == "valid" else ()),
        is_loss=True,
    )
)
