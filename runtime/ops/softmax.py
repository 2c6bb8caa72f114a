"""The softmax family: plain, differentiable functions along an axis.

Source: MXNet's `src/operator/nn/softmax-inl.h`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from runtime.graph.shapes import unify
from runtime.ops.rules import Dtypes, accumulator, axis_in, free_label


def softmax(x: Array, axis: int) -> Array:
    """exp(x) / sum(exp(x)) along an axis, without overflow."""
    y: Array = np.exp(x - x.max(axis=axis, keepdims=True))
    y /= y.sum(axis=axis, keepdims=True)
    return y


def log_softmax(x: Array, axis: int) -> Array:
    """The logarithm of the softmax, without underflow."""
    shifted = x - x.max(axis=axis, keepdims=True)
    y: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return y


def softmax_slope(g: Array, y: Array, axis: int) -> Array:
    """The gradient of the softmax's input."""
    slope: Array = y * (g - (g * y).sum(axis=axis, keepdims=True))
    return slope


def _log_softmax_slope(g: Array, y: Array, axis: int) -> Array:
    slope: Array = g - np.exp(y) * g.sum(axis=axis, keepdims=True)
    return slope


@dataclass(frozen=True)
class Softmax:
    """Attributes.

    Attributes:
        axis: Where the outputs sum to one.
        temperature: The input is divided by it; None means 1.
        dtype: Of the output; None means the input's.
        use_length: A second input gives for each row how many entries count; the
            others are zero.
    """

    axis: int = -1
    temperature: float | None = None
    dtype: Literal["float16", "float32", "float64"] | None = None
    use_length: bool = False


def _shape(p: Softmax, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data = unify(inputs[0], outputs[0])
    if data is None:
        return inputs, outputs
    axis = axis_in(p.axis, len(data))
    rows = (*data[:axis], *data[axis + 1 :])
    return [data, *(unify(s, rows, "length") for s in inputs[1:])], [data]


def _dtype(p: Softmax, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    if p.dtype is None:
        return free_label(p, inputs, outputs)
    return inputs, [np.dtype(p.dtype)]


def _counted(p: Softmax, data: Array, length: Array) -> Array:
    """Which entries lie within their row's length."""
    axis = p.axis % data.ndim
    position = np.arange(data.shape[axis])
    position = position.reshape(-1, *[1] * (data.ndim - 1 - axis))
    counted: Array = position < np.expand_dims(length, axis)
    return counted


def _register(
    name: str,
    function: Callable[[Array, int], Array],
    slope: Callable[[Array, Array, int], Array],
    sign: int = 1,
    outside: float = 0.0,
) -> None:
    """Register function(sign * x / temperature); `outside` fills what lies beyond."""

    def scale(p: Softmax) -> float:
        return sign / (p.temperature or 1.0)

    def forward(
        p: Softmax, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        data = inputs[0]
        wide = accumulator(outputs[0].dtype)
        scaled = data.astype(wide, copy=False) * wide.type(scale(p))
        if not p.use_length:
            outputs[0][...] = function(scaled, p.axis)
            return
        counted = _counted(p, data, inputs[1])
        # An empty row has no maximum to subtract; its result is not used.
        with np.errstate(invalid="ignore", divide="ignore"):
            value = function(np.where(counted, scaled, -np.inf), p.axis)
        outputs[0][...] = np.where(counted, value, outside)

    def backward(
        p: Softmax,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        if grads_in[0] is None:
            return
        grad, output = grads_out[0], outputs[0]
        if p.use_length:
            grad = np.where(_counted(p, output, inputs[1]), grad, 0)
        wide = accumulator(output.dtype)
        value = slope(
            grad.astype(wide, copy=False), output.astype(wide, copy=False), p.axis
        )
        grads_in[0][...] = value * wide.type(scale(p))

    register(
        Operator(
            name=name,
            attributes=Softmax,
            inputs=lambda p: ("data", "length") if p.use_length else ("data",),
            no_gradient=("length",),
            shape=_shape,
            dtype=_dtype,
            forward=forward,
            backward=backward,
            saved=lambda p: Saved((1,) if p.use_length else (), (0,)),
        )
    )


_register("softmax", softmax, softmax_slope)
_register("softmin", softmax, softmax_slope, sign=-1)
_register("log_softmax", log_softmax, _log_softmax_slope, outside=-np.inf)


@dataclass(frozen=True)
class SoftmaxActivation:
    """Attributes; `instance` is over all but the batch axis, `channel` over axis 1."""

    mode: Literal["instance", "channel"] = "instance"


def _activation_view(p: SoftmaxActivation, array: Array) -> Array:
    return array if p.mode == "channel" else array.reshape(len(array), -1)


def _activation_forward(
    p: SoftmaxActivation, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    _activation_view(p, outputs[0])[...] = softmax(_activation_view(p, inputs[0]), 1)


def _activation_backward(
    p: SoftmaxActivation,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    grad, output = (_activation_view(p, array) for array in (grads_out[0], outputs[0]))
    _activation_view(p, grads_in[0])[...] = softmax_slope(grad, output, 1)


def _activation_shape(
    p: SoftmaxActivation, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    data = unify(inputs[0], outputs[0])
    if data is not None and len(data) < 2:
        raise ShapeError("SoftmaxActivation needs data of 2 dimensions or more")
    return [data], [data]


register(
    Operator(
        name="SoftmaxActivation",
        attributes=SoftmaxActivation,
        shape=_activation_shape,
        forward=_activation_forward,
        backward=_activation_backward,
        saved=Saved(outputs=(0,)),
    )
)
