"""Images of another size: _contrib_AdaptiveAvgPooling2D, _contrib_BilinearResize2D.

Both work axis by axis: an output is a weighted sum of a few inputs along the axis. Bins
and positions are those of MXNet's operators of these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Shapes,
    register,
)
from runtime.graph.shapes import is_known, unify
from runtime.ops.rules import accumulator


@dataclass(frozen=True)
class Weights:
    """What outputs along one axis read, both arrays (taps, outputs).

    Attributes:
        places: Positions along the input's axis.
        parts: The factor of each.
    """

    places: Array
    parts: Array

    def read(self, data: Array, axis: int) -> Array:
        """The outputs along an axis of the data."""
        spread = (-1,) + (1,) * (data.ndim - axis - 1)
        return np.asarray(
            sum(
                data.take(place, axis=axis) * part.astype(data.dtype).reshape(spread)
                for place, part in zip(self.places, self.parts, strict=True)
            )
        )

    def add_up(self, grad: Array, axis: int, size: int) -> Array:
        """The gradient of `size` inputs."""
        rows = np.moveaxis(grad, axis, -1)
        total = np.zeros((*rows.shape[:-1], size), grad.dtype)
        for place, part in zip(self.places, self.parts, strict=True):
            index: Any = (..., place)
            np.add.at(total, index, rows * part.astype(grad.dtype))
        return np.moveaxis(total, -1, axis)


def _means(size: int, count: int) -> Weights:
    """Means over `count` bins that cover the axis; neighbors may share an input."""
    number = np.arange(count)
    start = number * size // count
    end = -(-(number + 1) * size // count)
    taps = np.arange(int((end - start).max()))[:, None]
    parts = np.where(start + taps < end, 1 / (end - start), 0)
    return Weights(np.minimum(start + taps, end - 1), parts)


def _between(size: int, count: int, align_corners: bool) -> Weights:
    """Linear interpolation; corners are centers of pixels if aligned, else edges."""
    number = np.arange(count)
    if count == 1:
        at: Array = np.zeros(1)
    elif align_corners:
        at = number * ((size - 1) / (count - 1))
    else:
        at = np.maximum((number + 0.5) * (size / count) - 0.5, 0)
    left = np.minimum(at.astype(np.intp), size - 1)
    part = at - left
    return Weights(
        np.stack((left, np.minimum(left + 1, size - 1))), np.stack((1 - part, part))
    )


def _resample(data: Array, output: Array, weights: Sequence[Weights]) -> None:
    data = data.astype(accumulator(data.dtype), copy=False)
    for axis, along in zip((2, 3), weights, strict=True):
        data = along.read(data, axis)
    output[...] = data


def _resample_backward(grad: Array, target: Array, weights: Sequence[Weights]) -> None:
    grad = grad.astype(accumulator(grad.dtype), copy=False)
    for axis, along in zip((2, 3), weights, strict=True):
        grad = along.add_up(grad, axis, target.shape[axis])
    target[...] = grad


@dataclass(frozen=True)
class AdaptiveAvgPooling2D:
    """Attributes; one number stands for a square, none for the mean of the image."""

    output_size: tuple[int, ...] = ()


def _pooling_shape(
    p: AdaptiveAvgPooling2D, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    if len(p.output_size) > 2 or min(p.output_size, default=1) < 1:
        raise ShapeError(
            f"`output_size` (={p.output_size}) must be one or two positive numbers"
        )
    data: Any = unify(inputs[0], (0, 0, 0, 0), "data")
    height, width = (p.output_size or (1,)) * (1 if len(p.output_size) == 2 else 2)
    return [data], [unify(outputs[0], (*data[:2], height, width), "output")]


def _pooling_weights(source: Array, result: Array) -> list[Weights]:
    return [_means(source.shape[axis], result.shape[axis]) for axis in (2, 3)]


def _pooling_forward(
    p: AdaptiveAvgPooling2D,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    mode: Mode,
) -> None:
    (data,), (output,) = inputs, outputs
    _resample(data, output, _pooling_weights(data, output))


def _pooling_backward(
    p: AdaptiveAvgPooling2D,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    (grad,), (target,) = grads_out, grads_in
    _resample_backward(grad, target, _pooling_weights(target, grad))


@dataclass(frozen=True)
class BilinearResize2D:
    """Attributes of _contrib_BilinearResize2D.

    Attributes:
        height: Of the output, in mode `size`.
        width: Likewise.
        scale_height: In mode `size` the output is this times the input, rounded down;
            needs `scale_width`. Mode `odd_scale` needs both: an odd size n becomes
            (n - 1) * scale + 1.
        scale_width: Likewise.
        mode: `like` takes the size of a second input; `to_even_up` and its kin take
            the nearest even or odd size that is not below, or not above.
        align_corners: Corner pixels keep their values.
    """

    height: int = 1
    width: int = 1
    scale_height: float | None = None
    scale_width: float | None = None
    mode: Literal[
        "size",
        "odd_scale",
        "like",
        "to_even_down",
        "to_even_up",
        "to_odd_down",
        "to_odd_up",
    ] = "size"
    align_corners: bool = True


def _resize_inputs(p: BilinearResize2D) -> tuple[str, ...]:
    return ("data", "like") if p.mode == "like" else ("data",)


def _resized(p: BilinearResize2D, size: int, given: int, scale: float | None) -> int:
    """The output's size along an axis, except in mode `like`."""
    if p.mode in ("size", "odd_scale"):
        if scale is None:
            return given
        odd = p.mode == "odd_scale" and size % 2
        # MXNet multiplies in single precision before it rounds down.
        return int(np.float32(scale) * np.float32(size - odd)) + odd
    _, parity, direction = p.mode.split("_")
    wrong = size % 2 != (parity == "odd")
    return size + wrong * (1 if direction == "up" else -1)


def _resize_shape(
    p: BilinearResize2D, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    scales = (p.scale_height, p.scale_width)
    if (p.mode == "odd_scale" or p.scale_height is not None) and None in scales:
        raise ShapeError(
            "`scale_height` and `scale_width` must both be given, but are "
            f"{p.scale_height} and {p.scale_width}"
        )
    if p.scale_height is None:
        scales = (None, None)
    data: Any = unify(inputs[0], (0, 0, 0, 0), "data")
    if p.mode == "like":
        like: Any = unify(inputs[1], (0, 0, 0, 0), "like")
        output = unify(outputs[0], (*data[:2], *like[2:]), "output")
        return [data, like], [output]
    if not is_known(data):
        return [data], outputs
    target = [
        _resized(p, *axis)
        for axis in zip(data[2:], (p.height, p.width), scales, strict=True)
    ]
    if min(target) < 1:
        raise ShapeError(
            f"{data} would become {target[0]} high and {target[1]} wide, but both must "
            "be positive"
        )
    return [data], [unify(outputs[0], (*data[:2], *target), "output")]


def _resize_weights(p: BilinearResize2D, source: Array, result: Array) -> list[Weights]:
    return [
        _between(source.shape[axis], result.shape[axis], p.align_corners)
        for axis in (2, 3)
    ]


def _resize_forward(
    p: BilinearResize2D, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    _resample(inputs[0], outputs[0], _resize_weights(p, inputs[0], outputs[0]))


def _resize_backward(
    p: BilinearResize2D,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    if grads_in[0] is not None:
        weights = _resize_weights(p, grads_in[0], grads_out[0])
        _resample_backward(grads_out[0], grads_in[0], weights)


register(
    Operator(
        name="_contrib_AdaptiveAvgPooling2D",
        attributes=AdaptiveAvgPooling2D,
        shape=_pooling_shape,
        forward=_pooling_forward,
        backward=_pooling_backward,
    )
)
register(
    Operator(
        name="_contrib_BilinearResize2D",
        attributes=BilinearResize2D,
        inputs=_resize_inputs,
        no_gradient=("like",),
        shape=_resize_shape,
        forward=_resize_forward,
        backward=_resize_backward,
    )
)
