"""Convolution in one, two or three dimensions, as matrix products over columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from runtime.graph.shapes import unify
from runtime.ops.rules import accumulator
from runtime.ops.windows import Windows, filled

# Images are taken in chunks whose columns have about this many elements.
_CHUNK_ELEMENTS = 1 << 21

Layout = Literal["NCW", "NCHW", "NCDHW", "NHWC", "NDHWC"] | None


@dataclass(frozen=True)
class Convolution:
    """Attributes; those named after cuDNN, and `workspace`, have no effect."""

    kernel: tuple[int, ...]
    num_filter: int
    stride: tuple[int, ...] = ()
    dilate: tuple[int, ...] = ()
    pad: tuple[int, ...] = ()
    num_group: int = 1
    workspace: int = 1024
    no_bias: bool = False
    cudnn_tune: Literal["fastest", "limited_workspace", "off"] | None = None
    cudnn_off: bool = False
    layout: Layout = None


def check_layout(layout: str | None) -> None:
    """Refuse channels-last layouts, as MXNet does on a CPU."""
    if layout is not None and layout[1] != "C":
        raise ShapeError(
            f"`layout` (={layout!r}) must have its channels second (NCW, NCHW, NCDHW)"
        )


def _geometry(p: Convolution, size: tuple[int, ...]) -> Windows:
    rank = len(p.kernel)
    stride, dilate = filled(p.stride, rank, 1), filled(p.dilate, rank, 1)
    pad = filled(p.pad, rank, 0)
    for name, values in (("stride", stride), ("dilate", dilate), ("pad", pad)):
        if len(values) != rank:
            raise ShapeError(
                f"`{name}` (={values}) must have as many entries as `kernel` "
                f"(={p.kernel})"
            )
    if len(size) != rank:
        raise ShapeError(
            f"`kernel` (={p.kernel}) asks for data of {rank + 2} dimensions, "
            f"(batch, channel, ...), but it has {len(size) + 2}"
        )
    count = tuple(
        (s + 2 * q - d * (k - 1) - 1) // step + 1 if s else 0
        for s, k, step, d, q in zip(size, p.kernel, stride, dilate, pad, strict=True)
    )
    if any(s and c <= 0 for s, c in zip(size, count, strict=True)):
        raise ShapeError(
            f"`kernel` (={p.kernel}, dilate {dilate}) exceeds the input {size} with "
            f"its padding {pad}"
        )
    return Windows(size, p.kernel, stride, dilate, pad, count)


def _shape(p: Convolution, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    check_layout(p.layout)
    data, weight, *bias = inputs
    (output,) = outputs
    if data is not None:
        windows = _geometry(p, data[2:])
        channels = data[1]
        for name, value in (("the channels", channels), ("`num_filter`", p.num_filter)):
            if value % p.num_group:
                raise ShapeError(
                    f"{name} (={value}) must be divisible by `num_group` "
                    f"(={p.num_group})"
                )
        weight = unify(
            weight, (p.num_filter, channels // p.num_group, *p.kernel), "weight"
        )
        output = unify(output, (data[0], p.num_filter, *windows.count), "output")
        assert output is not None
        data = (output[0], *data[1:])
    bias = [unify(shape, (p.num_filter,), "bias") for shape in bias]
    return [data, weight, *bias], [output]


def _chunks(p: Convolution, data: Array, windows: Windows) -> Iterator[slice]:
    per_window = data.shape[1] * prod(p.kernel)
    per_image = per_window * (prod(windows.count) + p.num_filter)
    step = max(1, _CHUNK_ELEMENTS // per_image)
    for start in range(0, len(data), step):
        yield slice(start, start + step)


def _columns(p: Convolution, data: Array, windows: Windows) -> Array:
    """What each window reads: (images, group, channel * tap, window)."""
    wide = accumulator(data.dtype)
    padded = windows.padded(data, 0, wide)
    images, channels = data.shape[:2]
    columns = np.empty((images, channels, prod(p.kernel), *windows.count), wide)
    for i, tap in enumerate(windows.taps()):
        columns[:, :, i] = padded[tap]
    return columns.reshape(images, p.num_group, -1, prod(windows.count))


def _scatter(p: Convolution, columns: Array, windows: Windows) -> Array:
    """The transpose of `_columns`: adds every column entry to where it was read."""
    images = len(columns)
    columns = columns.reshape(images, -1, prod(p.kernel), *windows.count)
    shape = (*columns.shape[:2], *windows.padded_size)
    padded = np.zeros(shape, columns.dtype)
    for i, tap in enumerate(windows.taps()):
        padded[tap] += columns[:, :, i]
    return padded[windows.inside]


def convolve(
    p: Convolution, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    """The definition of Convolution."""
    data, weight = inputs[:2]
    output = outputs[0]
    windows = _geometry(p, data.shape[2:])
    wide = accumulator(data.dtype)
    matrices = weight.reshape(p.num_group, p.num_filter // p.num_group, -1)
    matrices = matrices.astype(wide, copy=False)
    for chunk in _chunks(p, data, windows):
        product = np.matmul(matrices, _columns(p, data[chunk], windows))
        output[chunk] = product.reshape(output[chunk].shape)
    if not p.no_bias:
        output += inputs[2].reshape(-1, *[1] * len(p.kernel))


def convolve_backward(
    p: Convolution,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    """The gradient rule of Convolution; data is read for the weight's gradient."""
    data, weight = inputs[:2]
    (grad,) = grads_out
    windows = _geometry(p, data.shape[2:])
    wide = accumulator(data.dtype)
    matrices = weight.reshape(p.num_group, p.num_filter // p.num_group, -1)
    transposed = matrices.astype(wide, copy=False).swapaxes(1, 2)
    grad_weight = np.zeros(matrices.shape, wide)
    for chunk in _chunks(p, data, windows):
        images = len(data[chunk])
        slices = grad[chunk].astype(wide, copy=False)
        slices = slices.reshape(images, *matrices.shape[:2], -1)
        if grads_in[0] is not None:
            columns = np.matmul(transposed, slices)
            grads_in[0][chunk] = _scatter(p, columns, windows)
        if grads_in[1] is not None:
            columns = _columns(p, data[chunk], windows)
            grad_weight += np.matmul(slices, columns.swapaxes(2, 3)).sum(axis=0)
    if grads_in[1] is not None:
        grads_in[1][...] = grad_weight.reshape(weight.shape)
    if not p.no_bias and grads_in[2] is not None:
        axes = (0, *range(2, grad.ndim))
        grads_in[2][...] = grad.sum(axis=axes, dtype=wide)


register(
    Operator(
        name="Convolution",
        aliases=("Convolution_v1",),
        attributes=Convolution,
        inputs=lambda p: (
            ("data", "weight") if p.no_bias else ("data", "weight", "bias")
        ),
        shape=_shape,
        forward=convolve,
        backward=convolve_backward,
        saved=Saved(inputs=(0, 1)),
    )
)
