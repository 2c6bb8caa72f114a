"""BatchNorm: normalize each channel by the statistics of the batch, then scale it."""

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
from runtime.ops.rules import Dtypes, accumulator, axis_in

INPUTS = ("data", "gamma", "beta", "moving_mean", "moving_var")


@dataclass(frozen=True)
class BatchNorm:
    """Attributes; `cudnn_off` and the calibration ranges have no effect.

    With `fix_gamma` gamma reads as 1 and gets no gradient. `use_global_stats` takes
    the moving statistics in training too, and leaves them as they are.
    """

    eps: float = 1e-3
    momentum: float = 0.9
    fix_gamma: bool = True
    use_global_stats: bool = False
    output_mean_var: bool = False
    axis: int = 1
    cudnn_off: bool = False
    min_calib_range: float | None = None
    max_calib_range: float | None = None


def _shape(p: BatchNorm, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    data = unify(inputs[0], outputs[0], "data")
    channel: PartialShape = (
        None if data is None else (data[axis_in(p.axis, len(data))],)
    )
    names = (*INPUTS[1:], "mean", "var")
    for name, shape in zip(names, (*inputs[1:], *outputs[1:]), strict=True):
        channel = unify(channel, shape, name)
    return [data, *[channel] * 4], [data, channel, channel]


def _dtype(p: BatchNorm, inputs: Dtypes, outputs: Dtypes) -> tuple[Dtypes, Dtypes]:
    """Parameters and statistics of float16 data are float32."""
    data = inputs[0] if inputs[0] is not None else outputs[0]
    if data is None:
        return inputs, outputs
    wide = accumulator(data) if data == np.float16 else data
    for name, dtype in zip(INPUTS[1:], inputs[1:], strict=True):
        if dtype is not None and dtype != wide:
            raise ShapeError(f"`{name}` is {dtype}, but must be {wide} for {data} data")
    return [data, *[wide] * 4], [data, wide, wide]


def _channels(p: BatchNorm, data: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes to reduce, and the shape that lets a channel vector broadcast."""
    axis = axis_in(p.axis, data.ndim)
    axes = tuple(i for i in range(data.ndim) if i != axis)
    return axes, tuple(-1 if i == axis else 1 for i in range(data.ndim))


def _forward(
    p: BatchNorm, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, gamma, beta, moving_mean, moving_var = inputs
    output, mean_out, inverse_out, *moving = outputs
    axes, spread = _channels(p, data)
    wide = accumulator(data.dtype)
    if mode.is_train and not p.use_global_stats:
        mean = data.mean(axis=axes, dtype=wide)
        centered = data - mean.reshape(spread)
        var = np.square(centered).mean(axis=axes)
    else:
        mean, var = moving_mean.astype(wide), moving_var.astype(wide)
        centered = data - mean.reshape(spread)
    inverse = 1 / np.sqrt(var + p.eps)
    scale = inverse if p.fix_gamma else inverse * gamma
    centered *= scale.reshape(spread)
    np.add(centered, beta.reshape(spread), out=output, casting="unsafe")
    # What MXNet calls the output `var` is the inverse standard deviation, and in
    # prediction both hold the moving statistics.
    mean_out[...] = mean
    inverse_out[...] = inverse
    for new, old, batch in zip(
        moving, (moving_mean, moving_var), (mean, var), strict=bool(moving)
    ):
        if p.use_global_stats:
            new[...] = old
        else:
            new[...] = p.momentum * old + (1 - p.momentum) * batch


def _backward(
    p: BatchNorm,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    """As MXNet, gradients of the outputs mean and var are not propagated."""
    data, gamma = inputs[:2]
    _, mean, inverse = outputs[:3]
    axes, spread = _channels(p, data)
    wide = accumulator(data.dtype)
    if grads_out[0] is None:
        for array in grads_in:
            if array is not None:
                array[...] = 0
        return
    grad = grads_out[0].astype(wide, copy=False)
    normal = (data - mean.reshape(spread)) * inverse.reshape(spread)
    grad_beta = grad.sum(axis=axes)
    grad_gamma = (grad * normal).sum(axis=axes)
    if grads_in[0] is not None:
        scale = inverse if p.fix_gamma else inverse * gamma
        if mode.is_train and not p.use_global_stats:
            count = data.size // len(mean)
            normal *= grad_gamma.reshape(spread) / count
            grad = grad - normal - grad_beta.reshape(spread) / count
        grads_in[0][...] = grad * scale.reshape(spread)
    if grads_in[1] is not None:
        grads_in[1][...] = 0 if p.fix_gamma else grad_gamma
    if grads_in[2] is not None:
        grads_in[2][...] = grad_beta


register(
    Operator(
        name="BatchNorm",
        aliases=("BatchNorm_v1",),
        attributes=BatchNorm,
        inputs=INPUTS,
        auxiliary=INPUTS[3:],
        outputs=("output", "mean", "var"),
        visible=lambda p: 3 if p.output_mean_var else 1,
        shape=_shape,
        dtype=_dtype,
        forward=_forward,
        backward=_backward,
        saved=Saved(inputs=(0, 1), outputs=(1, 2)),
        parameter_defaults={
            "moving_mean": {"__init__": '["zero", {}]'},
            "moving_var": {"__init__": '["one", {}]'},
        },
    )
)
