"""GridGenerator, BilinearSampler and SpatialTransformer: images read along a grid.

A grid is (batch, 2, height, width): x, then y, each from -1 to 1 across the image.
What lies outside the image reads as 0.

Sources: MXNet's `src/operator/grid_generator-inl.h`,
`src/operator/bilinear_sampler-inl.h` and `src/operator/spatial_transformer-inl.h`;
Jaderberg et al., "Spatial Transformer Networks", 2015.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from runtime.ops.rules import accumulator


@dataclass(frozen=True)
class GridGenerator:
    """Attributes; an affine map (batch, 6) makes a grid of `target_shape`."""

    transform_type: Literal["affine", "warp"]
    target_shape: tuple[int, ...] = (0, 0)


@dataclass(frozen=True)
class BilinearSampler:
    """Attributes of BilinearSampler; `cudnn_off` has no effect."""

    cudnn_off: bool | None = None


@dataclass(frozen=True)
class SpatialTransformer:
    """Attributes of SpatialTransformer; `cudnn_off` has no effect."""

    transform_type: Literal["affine"]
    sampler_type: Literal["bilinear"]
    target_shape: tuple[int, ...] = (0, 0)
    cudnn_off: bool | None = None


def _pixels(height: int, width: int) -> Array:
    """x and y of every pixel, counted from 0: (2, height, width)."""
    y, x = np.mgrid[:height, :width]
    return np.stack((x, y))


def _half(height: int, width: int) -> Array:
    """What takes pixels to -1..1: divide by this, subtract 1. (2, 1, 1)"""
    half = np.array([width - 1, height - 1]) / 2
    return half.reshape(2, 1, 1)


def _targets(target: tuple[int, ...]) -> Array:
    """Rows x, y and 1 for every pixel of an affine grid: (3, pixels)."""
    grid = _pixels(*target) / _half(*target) - 1
    return np.concatenate((grid.reshape(2, -1), np.ones((1, grid[0].size))))


def _affine(matrix: Array, target: tuple[int, ...]) -> Array:
    grid: Array = matrix.reshape(-1, 2, 3) @ _targets(target)
    return grid.reshape(-1, 2, *target)


def _affine_backward(grad: Array, target: tuple[int, ...]) -> Array:
    product: Array = grad.reshape(len(grad), 2, -1) @ _targets(target).T
    return product.reshape(len(grad), 6)


def _check_target(target: tuple[int, ...]) -> None:
    if len(target) != 2 or min(target) < 2:
        raise ShapeError(f"`target_shape` (={target}) must be two numbers above 1")


def _grid_shape(
    p: GridGenerator, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    data, output = inputs[0], outputs[0]
    if p.transform_type == "affine":
        _check_target(p.target_shape)
        data = unify(data, (0, 6), "data")
        output = unify(output, ((data or (0,))[0], 2, *p.target_shape), "output")
        return [data], [output]
    data = unify(unify(data, (0, 2, 0, 0), "data"), output, "data")
    return [data], [data]


def _grid_forward(
    p: GridGenerator, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    (data,) = inputs
    if p.transform_type == "affine":
        outputs[0][...] = _affine(data, p.target_shape)
    else:
        size = data.shape[2:]
        outputs[0][...] = (data + _pixels(*size)) / _half(*size) - 1


def _grid_backward(
    p: GridGenerator,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    (grad,) = grads_out
    if p.transform_type == "affine":
        grads_in[0][...] = _affine_backward(grad, p.target_shape)
    else:
        grads_in[0][...] = grad / _half(*grad.shape[2:])


@dataclass(frozen=True)
class Corner:
    """One of the four pixels around each point of a grid; arrays (batch, 1, h, w).

    Attributes:
        place: An index of images (batch, h, w, channel) for the pixels.
        weight: Each pixel's part; 0 outside the image.
        slopes: The derivative of the weight by x and by y, in pixels.
    """

    place: tuple[Array, ...]
    weight: Array
    slopes: tuple[Array, Array]


def _corners(grid: Array, height: int, width: int) -> Iterator[Corner]:
    x, y = np.moveaxis((grid + 1) * _half(height, width), 1, 0)
    left, top = np.floor(x), np.floor(y)
    batch = np.arange(len(grid))[:, None, None]
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            across, down = 1 - np.abs(x - column), 1 - np.abs(y - row)
            place = (
                batch,
                np.clip(row, 0, height - 1).astype(np.intp),
                np.clip(column, 0, width - 1).astype(np.intp),
            )
            slopes = inside * (2 * dx - 1) * down, inside * (2 * dy - 1) * across
            yield Corner(place, inside * across * down, slopes)


def _sample(data: Array, grid: Array) -> Array:
    images = np.moveaxis(data, 1, -1)
    total = sum(
        corner.weight[..., None] * images[corner.place]
        for corner in _corners(grid, *data.shape[2:])
    )
    return np.moveaxis(np.asarray(total), -1, 1)


def _sample_backward(grad: Array, data: Array, grid: Array) -> tuple[Array, Array]:
    """Gradients of data and grid."""
    images, given = np.moveaxis(data, 1, -1), np.moveaxis(grad, 1, -1)
    of_images = np.zeros(images.shape, accumulator(data.dtype))
    of_grid = np.zeros(grid.shape, accumulator(grid.dtype))
    for corner in _corners(grid, *data.shape[2:]):
        np.add.at(of_images, corner.place, corner.weight[..., None] * given)
        along = (images[corner.place] * given).sum(axis=-1)
        for axis, slope in enumerate(corner.slopes):
            of_grid[:, axis] += slope * along
    return np.moveaxis(of_images, -1, 1), of_grid * _half(*data.shape[2:])


def _images(data: Any, grid: Any, output: Any) -> tuple[Any, Any, Any]:
    data = unify(data, (0, 0, 0, 0), "data")
    grid = unify(grid, (data[0], 2, 0, 0), "grid")
    output = unify(output, (grid[0], data[1], *grid[2:]), "output")
    return data, grid, output


def _sampler_shape(
    p: BilinearSampler, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    data, grid, output = _images(inputs[0], inputs[1], outputs[0])
    return [data, grid], [output]


def _sampler_forward(
    p: BilinearSampler, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    outputs[0][...] = _sample(*inputs)


def _sampler_backward(
    p: BilinearSampler,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    grads = _sample_backward(grads_out[0], *inputs)
    for target, grad in zip(grads_in, grads, strict=True):
        if target is not None:
            target[...] = grad


def _transformer_shape(
    p: SpatialTransformer, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    _check_target(p.target_shape)
    data, _, output = _images(inputs[0], (0, 2, *p.target_shape), outputs[0])
    return [data, unify(inputs[1], (data[0], 6), "loc")], [output]


def _transformer_forward(
    p: SpatialTransformer, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    data, loc = inputs
    outputs[0][...] = _sample(data, _affine(loc, p.target_shape))


def _transformer_backward(
    p: SpatialTransformer,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    data, loc = inputs
    grid = _affine(loc, p.target_shape)
    of_data, of_grid = _sample_backward(grads_out[0], data, grid)
    if grads_in[0] is not None:
        grads_in[0][...] = of_data
    if grads_in[1] is not None:
        grads_in[1][...] = _affine_backward(of_grid, p.target_shape)


register(
    Operator(
        name="GridGenerator",
        attributes=GridGenerator,
        shape=_grid_shape,
        forward=_grid_forward,
        backward=_grid_backward,
    )
)
register(
    Operator(
        name="BilinearSampler",
        attributes=BilinearSampler,
        inputs=("data", "grid"),
        shape=_sampler_shape,
        forward=_sampler_forward,
        backward=_sampler_backward,
        saved=Saved(inputs=(0, 1)),
    )
)
register(
    Operator(
        name="SpatialTransformer",
        attributes=SpatialTransformer,
        inputs=("data", "loc"),
        shape=_transformer_shape,
        forward=_transformer_forward,
        backward=_transformer_backward,
        saved=Saved(inputs=(0, 1)),
    )
)
