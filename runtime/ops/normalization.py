"""Normalization of each example by itself, without running statistics.

InstanceNorm and GroupNorm normalize groups of channels; L2Normalization scales to
unit length; LRN divides by what neighboring channels hold.

Sources: MXNet's `src/operator/instance_norm-inl.h`, `src/operator/nn/group_norm-inl.h`,
`src/operator/l2_normalization-inl.h` and `src/operator/nn/lrn-inl.h`.
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
    PartialShape,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import unify
from runtime.ops.rules import accumulator, one_shape


@dataclass(frozen=True)
class InstanceNorm:
    """Attributes of InstanceNorm: every channel is a group."""

    eps: float = 1e-3


@dataclass(frozen=True)
class GroupNorm:
    """Attributes of GroupNorm; gamma and beta have one number per group."""

    num_groups: int = 1
    eps: float = 1e-5
    output_mean_var: bool = False


def _group_count(p: Any, channels: int) -> int:
    groups: int = getattr(p, "num_groups", channels)
    if channels % groups:
        raise ShapeError(
            f"the channels of `data` (={channels}) must be divisible by `num_groups` "
            f"(={groups})"
        )
    return groups


def _grouped_shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data = unify(inputs[0], outputs[0], "data")
    if data is None:
        return inputs, outputs
    if len(data) < 3:
        raise ShapeError(
            f"`data` must be (batch, channel, ...) with 3 dimensions or more, but has "
            f"shape {data}"
        )
    groups = _group_count(p, data[1])
    vector: PartialShape = (groups,)
    for name, shape in zip(("gamma", "beta"), inputs[1:], strict=True):
        vector = unify(vector, shape, name)
    moments = [unify(shape, (data[0], groups)) for shape in outputs[1:]]
    return [data, vector, vector], [data, *moments]


def _groups(p: Any, array: Array) -> Array:
    """As (batch, group, rest), in a dtype to sum in."""
    wide = array.astype(accumulator(array.dtype), copy=False)
    return wide.reshape(len(array), _group_count(p, array.shape[1]), -1)


def _standard(p: Any, data: Array) -> tuple[Array, Array, Array]:
    """Data with mean 0 and variance 1 in every group; the mean and deviation."""
    grouped = _groups(p, data)
    mean = grouped.mean(axis=2, keepdims=True)
    centered = grouped - mean
    std = np.sqrt(np.square(centered).mean(axis=2, keepdims=True) + p.eps)
    return centered / std, mean, std


def _grouped_forward(
    p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, gamma, beta = inputs
    normal, mean, std = _standard(p, data)
    scaled = normal * gamma[:, None] + beta[:, None]
    outputs[0][...] = scaled.reshape(data.shape)
    for output, moment in zip(outputs[1:], (mean, std), strict=False):
        output[...] = moment[:, :, 0]


def _grouped_backward(
    p: Any,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    """Gradients of the outputs mean and std are not propagated."""
    data, gamma = inputs[:2]
    if grads_out[0] is None:
        for array in grads_in:
            if array is not None:
                array[...] = 0
        return
    grad = _groups(p, grads_out[0])
    normal, _, std = _standard(p, data)
    if grads_in[1] is not None:
        grads_in[1][...] = (grad * normal).sum(axis=(0, 2))
    if grads_in[2] is not None:
        grads_in[2][...] = grad.sum(axis=(0, 2))
    if grads_in[0] is not None:
        scaled = grad * gamma[:, None]
        along = (scaled * normal).mean(axis=2, keepdims=True)
        scaled = scaled - scaled.mean(axis=2, keepdims=True) - normal * along
        grads_in[0][...] = (scaled / std).reshape(data.shape)


for _name, _attributes, _outputs in (
    ("InstanceNorm", InstanceNorm, ("output",)),
    ("GroupNorm", GroupNorm, ("output", "mean", "std")),
):
    register(
        Operator(
            name=_name,
            attributes=_attributes,
            inputs=("data", "gamma", "beta"),
            outputs=_outputs,
            visible=lambda p: 3 if getattr(p, "output_mean_var", False) else 1,
            shape=_grouped_shape,
            forward=_grouped_forward,
            backward=_grouped_backward,
            saved=Saved(inputs=(0, 1)),
        )
    )


@dataclass(frozen=True)
class L2Normalization:
    """Attributes: unit length of each example, pixel (channel) or plane (spatial)."""

    eps: float = 1e-10
    mode: Literal["instance", "channel", "spatial"] = "instance"


@dataclass(frozen=True)
class LRN:
    """Attributes of LRN, over windows of `nsize` channels."""

    nsize: int
    alpha: float = 1e-4
    beta: float = 0.75
    knorm: float = 2.0


def _l2_axes(p: L2Normalization, rank: int) -> tuple[int, ...]:
    if p.mode == "channel":
        return (1,)
    return tuple(range(1 if p.mode == "instance" else 2, rank))


def _l2(p: L2Normalization, x: Array) -> Array:
    squares = np.square(x).sum(axis=_l2_axes(p, x.ndim), keepdims=True)
    unit: Array = x / np.sqrt(squares + p.eps)
    return unit


def _l2_backward(p: L2Normalization, g: Array, x: Array) -> Array:
    axes = _l2_axes(p, x.ndim)
    norm = np.sqrt(np.square(x).sum(axis=axes, keepdims=True) + p.eps)
    unit = x / norm
    grad: Array = (g - unit * (g * unit).sum(axis=axes, keepdims=True)) / norm
    return grad


def _window_sum(p: LRN, x: Array) -> Array:
    """The sum over the channels around each channel."""
    half, channels = p.nsize // 2, x.shape[1]
    total = np.zeros_like(x)
    for shift in range(-half, half + 1):
        to = slice(max(0, -shift), channels - max(0, shift))
        source = slice(max(0, shift), channels - max(0, -shift))
        if abs(shift) < channels:
            total[:, to] += x[:, source]
    return total


def _lrn_base(p: LRN, x: Array) -> Array:
    base: Array = p.knorm + p.alpha / p.nsize * _window_sum(p, np.square(x))
    return base


def _lrn(p: LRN, x: Array) -> Array:
    y: Array = x * np.power(_lrn_base(p, x), -p.beta)
    return y


def _lrn_backward(p: LRN, g: Array, x: Array) -> Array:
    base = _lrn_base(p, x)
    power = np.power(base, -p.beta)
    # The window is symmetric, so its transpose is the same sum.
    around = _window_sum(p, g * x * power / base)
    grad: Array = g * power - 2 * p.beta * p.alpha / p.nsize * x * around
    return grad


def _l2_shape(
    p: L2Normalization, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    data = inputs[0]
    least = 2 if p.mode == "instance" else 3
    if data is not None and len(data) < least:
        raise ShapeError(
            f"`mode` (={p.mode!r}) asks for {least} dimensions or more, but `data` has "
            f"shape {data}"
        )
    return one_shape(p, inputs, outputs)


def _lrn_shape(p: LRN, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data = inputs[0]
    if p.nsize < 1 or p.nsize % 2 == 0:
        raise ShapeError(f"`nsize` (={p.nsize}) must be odd and positive")
    if data is not None and len(data) != 4:
        raise ShapeError(f"`data` must have 4 dimensions, but has shape {data}")
    return one_shape(p, inputs, outputs)


def _register(
    name: str,
    attributes: type,
    shape: Callable[[Any, Shapes, Shapes], tuple[Shapes, Shapes]],
    function: Callable[[Any, Array], Array],
    gradient: Callable[[Any, Array, Array], Array],
) -> None:
    def forward(
        p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        (data,) = inputs
        outputs[0][...] = function(p, data.astype(accumulator(data.dtype), copy=False))

    def backward(
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        wide = accumulator(inputs[0].dtype)
        grad, data = (x.astype(wide, copy=False) for x in (grads_out[0], inputs[0]))
        grads_in[0][...] = gradient(p, grad, data)

    register(
        Operator(
            name=name,
            attributes=attributes,
            shape=shape,
            forward=forward,
            backward=backward,
            saved=Saved(inputs=(0,)),
        )
    )


_register("L2Normalization", L2Normalization, _l2_shape, _l2, _l2_backward)
_register("LRN", LRN, _lrn_shape, _lrn, _lrn_backward)
