"""Operators that show every element of their input once, at another place.

depth_to_space, space_to_depth and diag: one function says where, of an array of any
dtype; the gradient is put back to where the function took it from.

Sources: MXNet's `src/operator/tensor/matrix_op-inl.h` and
`src/operator/tensor/diag_op-inl.h`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.graph.shapes import is_known, unify
from runtime.ops.rules import axis_in


@dataclass(frozen=True)
class Blocks:
    """Attributes of depth_to_space and space_to_depth."""

    block_size: int


@dataclass(frozen=True)
class Diag:
    """Attributes of diag; a vector becomes the diagonal of a matrix."""

    k: int = 0
    axis1: int = 0
    axis2: int = 1


def _check_blocks(p: Blocks, data: Array, sizes: tuple[int, ...], unit: int) -> None:
    if p.block_size < 1 or any(n % unit for n in sizes):
        raise ShapeError(
            f"`data` has shape {data.shape}, whose sizes {sizes} must be divisible by "
            f"{unit} for a `block_size` of {p.block_size}"
        )


def _four(data: Array) -> tuple[int, int, int, int]:
    if data.ndim != 4:
        raise ShapeError(f"`data` must have 4 dimensions, but has shape {data.shape}")
    n, c, h, w = data.shape
    return n, c, h, w


def _depth_to_space(p: Blocks, data: Array) -> Array:
    n, c, h, w = _four(data)
    b = p.block_size
    _check_blocks(p, data, (c,), b * b)
    blocks = data.reshape(n, b, b, c // (b * b), h, w)
    return blocks.transpose(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth(p: Blocks, data: Array) -> Array:
    n, c, h, w = _four(data)
    b = p.block_size
    _check_blocks(p, data, (h, w), b)
    blocks = data.reshape(n, c, h // b, b, w // b, b)
    return blocks.transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def _diag(p: Diag, data: Array) -> Array:
    if data.ndim == 1:
        return np.diag(data, p.k)
    first = axis_in(p.axis1, data.ndim, "axis1")
    second = axis_in(p.axis2, data.ndim, "axis2")
    if first == second:
        raise ShapeError(f"`axis1` and `axis2` (={p.axis2}) must be different axes")
    found = np.diagonal(data, p.k, first, second)
    if not found.shape[-1]:
        raise ShapeError(f"`k` (={p.k}) names no diagonal of shape {data.shape}")
    return found


def _register(name: str, attributes: type, function: Callable[..., Array]) -> None:
    def shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
        (data,) = inputs
        if not is_known(data):
            return inputs, outputs
        found = function(p, np.empty(data, np.bool_)).shape
        return inputs, [unify(outputs[0], found, "output")]

    def forward(
        p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        outputs[0][...] = function(p, inputs[0])

    def backward(
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        (target,), (grad,) = grads_in, grads_out
        # Numbered from 1, so that 0 is what has no source.
        source = function(p, np.arange(1, target.size + 1).reshape(target.shape))
        numbered = np.zeros(target.size + 1, target.dtype)
        numbered[source] = grad
        target[...] = numbered[1:].reshape(target.shape)

    register(
        Operator(
            name=name,
            attributes=attributes,
            shape=shape,
            forward=forward,
            backward=backward,
        )
    )


_register("depth_to_space", Blocks, _depth_to_space)
_register("space_to_depth", Blocks, _space_to_depth)
_register("diag", Diag, _diag)
