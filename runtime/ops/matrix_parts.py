"""Diagonals and triangles of matrices as vectors, and back.

Source: MXNet's `src/operator/tensor/la_op.cc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Array
from runtime.ops.matrix_operator import (
    MatrixOperator,
    Sizes,
    check_square,
    register_matrix_operator,
)


@dataclass(frozen=True)
class Diagonal:
    """Attributes: which diagonal, counted upwards from the main one."""

    offset: int = 0


@dataclass(frozen=True)
class Triangle:
    """Attributes: the triangle from diagonal `offset` on; `lower` where that is 0."""

    offset: int = 0
    lower: bool = True


def _places(p: Diagonal | Triangle, size: int) -> tuple[Array, Array]:
    """Rows and columns of what is taken out of a matrix.

    A lower triangle row by row, an upper one column by column.
    """
    if isinstance(p, Diagonal):
        steps = np.arange(size - abs(p.offset))
        return steps + max(0, -p.offset), steps + max(0, p.offset)
    rows, columns = np.tril_indices(size, -abs(p.offset))
    lower = p.offset < 0 or (p.offset == 0 and p.lower)
    return (rows, columns) if lower else (columns, rows)


def _size(p: Diagonal | Triangle, count: int) -> int:
    """Of the matrix out of which so many are taken."""
    if isinstance(p, Diagonal):
        return count + abs(p.offset)
    return (isqrt(8 * count + 1) - 1) // 2 + abs(p.offset)


def _extract(p: Diagonal | Triangle, a: Array) -> Array:
    rows, columns = _places(p, a.shape[-1])
    taken: Array = a[..., rows, columns]
    return taken


def _spread(p: Diagonal | Triangle, values: Array) -> Array:
    size = _size(p, values.shape[-1])
    matrix = np.zeros((*values.shape[:-1], size, size), values.dtype)
    rows, columns = _places(p, size)
    matrix[..., rows, columns] = values
    return matrix


def _extract_gradients(
    p: Diagonal | Triangle, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    return [_spread(p, head)]


def _spread_gradients(
    p: Diagonal | Triangle, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    return [_extract(p, head)]


def _extract_shape(p: Diagonal | Triangle, a: Sizes) -> Sizes:
    check_square(a)
    if abs(p.offset) >= a[-1]:
        raise ShapeError(
            f"`offset` (={p.offset}) names no diagonal of a matrix of shape {a}"
        )
    return (*a[:-2], len(_places(p, a[-1])[0]))


def _spread_shape(p: Diagonal | Triangle, a: Sizes) -> Sizes:
    size = _size(p, a[-1])
    if len(_places(p, size)[0]) != a[-1]:
        raise ShapeError(f"{a[-1]} numbers do not fill a triangle")
    return (*a[:-1], size, size)


OPERATORS = (
    MatrixOperator(
        "extractdiag", Diagonal, ("A",), _extract_shape, _extract, _extract_gradients
    ),
    MatrixOperator(
        "makediag", Diagonal, ("A",), _spread_shape, _spread, _spread_gradients
    ),
    MatrixOperator(
        "extracttrian", Triangle, ("A",), _extract_shape, _extract, _extract_gradients
    ),
    MatrixOperator(
        "maketrian", Triangle, ("A",), _spread_shape, _spread, _spread_gradients
    ),
)
for _row in OPERATORS:
    register_matrix_operator(_row)
