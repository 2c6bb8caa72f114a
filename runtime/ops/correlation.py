"""Correlation: how patches of two images agree, at every small displacement (FlowNet).

Patches around a position of the first image are compared with patches around displaced
positions of the second; each displacement is a channel of the output. The operator is
MXNet's (`src/operator/correlation.cc`), after Dosovitskiy et al., "FlowNet", 2015.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

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
from runtime.ops.rules import accumulator

# An index of images (batch, channel, h, w).
Index = tuple[Any, ...]


@dataclass(frozen=True)
class Correlation:
    """Attributes of Correlation.

    Attributes:
        kernel_size: Height and width of a patch, odd.
        max_displacement: The largest displacement along an axis, in pixels.
        stride1: Distance of neighboring positions in the first image.
        stride2: Distance of neighboring displacements.
        pad_size: Zeros around both images.
        is_multiply: Compare by the product of pixels, else by their distance.
    """

    kernel_size: int = 1
    max_displacement: int = 1
    stride1: int = 1
    stride2: int = 1
    pad_size: int = 0
    is_multiply: bool = True

    @property
    def reach(self) -> int:
        """How many displacements lie on either side of none, along an axis."""
        return self.max_displacement // self.stride2


def _count(p: Correlation, size: int) -> int:
    """Positions along an axis whose patch stays inside at every displacement."""
    if not size:
        return 0
    room = size + 2 * p.pad_size - 2 * p.max_displacement - (p.kernel_size - 1)
    if room < 1:
        raise ShapeError(
            f"a patch with `kernel_size` (={p.kernel_size}) and `max_displacement` "
            f"(={p.max_displacement}) must fit in the size {size} with its `pad_size` "
            f"(={p.pad_size})"
        )
    return -(-room // p.stride1)


def _shape(p: Correlation, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    if p.kernel_size % 2 == 0:
        raise ShapeError(f"`kernel_size` (={p.kernel_size}) must be odd")
    for name in ("kernel_size", "stride1", "stride2"):
        if getattr(p, name) < 1:
            raise ShapeError(f"`{name}` (={getattr(p, name)}) must be positive")
    for name in ("max_displacement", "pad_size"):
        if getattr(p, name) < 0:
            raise ShapeError(f"`{name}` (={getattr(p, name)}) must not be negative")
    data = unify(unify(inputs[0], (0, 0, 0, 0), "data1"), inputs[1], "data2")
    if not is_known(data):
        return [data, data], outputs
    displacements = (2 * p.reach + 1) ** 2
    counts = (_count(p, size) for size in data[2:])
    output = unify(outputs[0], (data[0], displacements, *counts), "output")
    return [data, data], [output]


def _pairs(
    p: Correlation, count: tuple[int, ...]
) -> Iterator[tuple[int, Index, Index]]:
    """The output's channel, and the pixels of the padded images that it compares.

    There is one pair for each displacement and each pixel of a patch.
    """
    shifts = [i * p.stride2 for i in range(-p.reach, p.reach + 1)]
    pixels = range(p.max_displacement, p.max_displacement + p.kernel_size)

    def place(*starts: int) -> Index:
        return (
            ...,
            *(
                slice(start, start + (n - 1) * p.stride1 + 1, p.stride1)
                for start, n in zip(starts, count, strict=True)
            ),
        )

    for channel, (down, right) in enumerate(product(shifts, shifts)):
        for y, x in product(pixels, pixels):
            yield channel, place(y, x), place(y + down, x + right)


def _padded(p: Correlation, data: Array) -> Array:
    pad = (p.pad_size, p.pad_size)
    wide = data.astype(accumulator(data.dtype), copy=False)
    return np.pad(wide, ((0, 0), (0, 0), pad, pad))


def _forward(
    p: Correlation, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    first, second = (_padded(p, data) for data in inputs)
    (output,) = outputs
    total = np.zeros(output.shape, first.dtype)
    for channel, one, other in _pairs(p, output.shape[2:]):
        if p.is_multiply:
            total[:, channel] += np.einsum("nchw,nchw->nhw", first[one], second[other])
        else:
            total[:, channel] += np.abs(first[one] - second[other]).sum(axis=1)
    output[...] = total / (p.kernel_size**2 * first.shape[1])


def _backward(
    p: Correlation,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    """Of equal pixels the first counts as the larger one, as in MXNet."""
    first, second = (_padded(p, data) for data in inputs)
    of_first, of_second = np.zeros_like(first), np.zeros_like(second)
    grad = grads_out[0].astype(first.dtype) / (p.kernel_size**2 * first.shape[1])
    for channel, one, other in _pairs(p, grad.shape[2:]):
        given = grad[:, channel, None]
        if p.is_multiply:
            of_first[one] += given * second[other]
            of_second[other] += given * first[one]
        else:
            slope = np.where(first[one] >= second[other], given, -given)
            of_first[one] += slope
            of_second[other] -= slope
    inside: Index = (
        ...,
        *(slice(p.pad_size, p.pad_size + n) for n in inputs[0].shape[2:]),
    )
    for target, total in zip(grads_in, (of_first, of_second), strict=True):
        if target is not None:
            target[...] = total[inside]


register(
    Operator(
        name="Correlation",
        attributes=Correlation,
        inputs=("data1", "data2"),
        shape=_shape,
        forward=_forward,
        backward=_backward,
        saved=Saved(inputs=(0, 1)),
    )
)
