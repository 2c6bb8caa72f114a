"""Pooling: max, average, sum and lp over windows, or over the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
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
from runtime.ops.convolution import check_layout
from runtime.ops.rules import accumulator
from runtime.ops.windows import Windows, filled


@dataclass(frozen=True)
class Pooling:
    """Attributes; `cudnn_off` has no effect. `kernel` is not read if `global_pool`."""

    kernel: tuple[int, ...] = ()
    pool_type: Literal["max", "avg", "sum", "lp"] = "max"
    global_pool: bool = False
    cudnn_off: bool = False
    pooling_convention: Literal["valid", "full", "same"] = "valid"
    stride: tuple[int, ...] = ()
    pad: tuple[int, ...] = ()
    p_value: int | None = None
    count_include_pad: bool | None = None
    layout: Literal["NCW", "NCHW", "NCDHW", "NWC", "NHWC", "NDHWC"] | None = None


def _count(p: Pooling, size: int, kernel: int, stride: int, pad: int) -> int:
    if not size:
        return 0
    if p.pooling_convention == "same":
        return -(-(size + 2 * pad) // stride)
    room = size + 2 * pad - kernel
    if room < 0:
        raise ShapeError(
            f"`kernel` (={p.kernel}) exceeds the input size {size} with its "
            f"padding {pad}"
        )
    return (
        -(-room // stride) if p.pooling_convention == "full" else room // stride
    ) + 1


def geometry(p: Pooling, size: tuple[int, ...]) -> Windows:
    """The windows over an image of that size."""
    rank = len(size)
    ones, zeros = (1,) * rank, (0,) * rank
    if p.global_pool:
        return Windows(size, size, ones, ones, zeros, (1,) * rank)
    stride, pad = filled(p.stride, rank, 1), filled(p.pad, rank, 0)
    for name, values in (("kernel", p.kernel), ("stride", stride), ("pad", pad)):
        if len(values) != rank:
            raise ShapeError(
                f"`{name}` (={values}) must have one entry for each of the {rank} "
                "spatial axes of the data (batch, channel, ...)"
            )
    if p.pooling_convention == "same" and rank != 1:
        raise ShapeError("`pooling_convention` 'same' is for data of 3 dimensions only")
    count = tuple(
        _count(p, s, k, step, q)
        for s, k, step, q in zip(size, p.kernel, stride, pad, strict=True)
    )
    return Windows(size, p.kernel, stride, ones, pad, count)


def shape(p: Pooling, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    """The shape rule."""
    check_layout(p.layout)
    if p.pool_type == "lp" and p.p_value not in (1, 2, 3):
        raise ShapeError(f"`p_value` (={p.p_value}) must be 1, 2 or 3 for lp pooling")
    data: PartialShape = inputs[0]
    output: PartialShape = outputs[0]
    if data is not None:
        if not 3 <= len(data) <= 5:
            raise ShapeError("pooling needs data of 3 to 5 dimensions")
        windows = geometry(p, data[2:])
        output = unify(output, (*data[:2], *windows.count), "output")
        assert output is not None
        data = (*output[:2], *data[2:])
    return [data], [output]


def _divisor(p: Pooling, windows: Windows) -> Array:
    """How many inputs each window averages; what hangs over never counts."""
    counts = []
    for size, kernel, stride, pad, count in zip(
        windows.size,
        windows.kernel,
        windows.stride,
        windows.pad,
        windows.count,
        strict=True,
    ):
        start = np.arange(count) * stride - pad
        if p.count_include_pad is False:
            end = np.minimum(start + kernel, size)
            start = np.maximum(start, 0)
        else:
            end = np.minimum(start + kernel, size + pad)
        counts.append(np.maximum(end - start, 1))
    return reduce(np.multiply.outer, counts)


def fold(function: np.ufunc, padded: Array, windows: Windows) -> Array:
    """Reduce every window to one element."""
    if padded.shape[2:] == windows.kernel:  # one window: let NumPy run over it
        axes = tuple(range(2, padded.ndim))
        return np.asarray(function.reduce(padded, axis=axes, keepdims=True))
    taps = windows.taps()
    total = padded[next(taps)].copy()
    for tap in taps:
        function(total, padded[tap], out=total)
    return total


def _forward(
    p: Pooling, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    (data,), (output,) = inputs, outputs
    windows = geometry(p, data.shape[2:])
    if p.pool_type == "max":
        # What a window that lies in the padding alone gives, as in MXNet.
        limits = np.finfo if data.dtype.kind == "f" else np.iinfo
        lowest = limits(data.dtype).min
        padded = windows.padded(data, lowest, data.dtype)
        output[...] = fold(np.maximum, padded, windows)
        return
    wide = accumulator(data.dtype)
    padded = windows.padded(data, 0, wide)
    if p.pool_type == "lp":
        padded **= p.p_value
    total = fold(np.add, padded, windows)
    if p.pool_type == "avg":
        total /= _divisor(p, windows)
    elif p.pool_type == "lp":
        total = np.cbrt(total) if p.p_value == 3 else total ** (1 / (p.p_value or 1))
    output[...] = total


def backward(
    p: Pooling,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    """The gradient rule."""
    (grad_in,) = grads_in
    windows = geometry(p, grad_in.shape[2:])
    wide = accumulator(grad_in.dtype)
    grad = grads_out[0].astype(wide, copy=False)
    scattered = np.zeros((*grad_in.shape[:2], *windows.padded_size), wide)
    if p.pool_type in ("avg", "sum"):
        if p.pool_type == "avg":
            grad = grad / _divisor(p, windows)
        if scattered.shape[2:] == windows.kernel:
            scattered += grad
        else:
            for tap in windows.taps():
                scattered[tap] += grad
    elif p.pool_type == "max":
        padded = windows.padded(inputs[0], -np.inf, wide)
        # The first maximum in row-major order takes the whole gradient.
        open_windows = np.ones(grad.shape, bool)
        for tap in windows.taps():
            hit = (padded[tap] == outputs[0]) & open_windows
            scattered[tap] += np.where(hit, grad, 0)
            open_windows &= ~hit
    else:
        padded = windows.padded(inputs[0], 0, wide)
        # A window of zeros has no slope to give: MXNet sets it to zero.
        inverse = np.divide(
            1, outputs[0], where=outputs[0] != 0, out=np.zeros_like(grad)
        )
        power = (p.p_value or 1) - 1
        for tap in windows.taps():
            scattered[tap] += grad * (padded[tap] * inverse) ** power
    grad_in[...] = scattered[windows.inside]


def _saved(p: Pooling) -> Saved:
    return Saved((0,), (0,)) if p.pool_type in ("max", "lp") else Saved()


register(
    Operator(
        name="Pooling",
        attributes=Pooling,
        shape=shape,
        forward=_forward,
        backward=backward,
        saved=_saved,
    )
)
