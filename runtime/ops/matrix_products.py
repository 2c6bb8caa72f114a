"""Products of matrices, and solutions with triangular ones.

Source: MXNet's `src/operator/tensor/la_op.cc`. Gradients: Giles, "Collected Matrix
Derivative Results for Forward and Reverse Mode Algorithmic Differentiation", 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Array
from runtime.ops.matrix_operator import (
    MatrixOperator,
    Sizes,
    check_matrix,
    check_square,
    register_matrix_operator,
    transposed,
)
from runtime.ops.rules import axis_in


@dataclass(frozen=True)
class Products:
    """Attributes: `alpha * op(A) op(B)`.

    Attributes:
        transpose_a, transpose_b: Whether `op` transposes a matrix.
        alpha: The factor.
        axis: Which axis holds the rows of the matrices; columns are the last one.
    """

    transpose_a: bool = False
    transpose_b: bool = False
    alpha: float = 1.0
    axis: int = -2


@dataclass(frozen=True)
class ProductsAndSum(Products):
    """Attributes: `alpha * op(A) op(B) + beta * C`."""

    beta: float = 1.0


@dataclass(frozen=True)
class Triangular:
    """Attributes of products and solutions with a triangular A.

    Attributes:
        transpose: Use the transpose of A.
        rightside: A stands to the right of B.
        lower: Which triangle of A is read.
        alpha: The factor.
    """

    transpose: bool = False
    rightside: bool = False
    lower: bool = True
    alpha: float = 1.0


@dataclass(frozen=True)
class Square:
    """Attributes: `alpha * A A^T`, or `alpha * A^T A` with `transpose`."""

    transpose: bool = False
    alpha: float = 1.0


def _triangle(p: Triangular, a: Array) -> Array:
    return np.tril(a) if p.lower else np.triu(a)


def _op(transpose: bool, a: Array) -> Array:
    return transposed(a) if transpose else a


def _product(p: Products, a: Array, b: Array) -> Array:
    rows = [np.moveaxis(array, p.axis, -2) for array in (a, b)]
    product = _op(p.transpose_a, rows[0]) @ _op(p.transpose_b, rows[1])
    return np.moveaxis(p.alpha * product, -2, p.axis)


def _product_gradients(
    p: Products, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    a, b, g = (np.moveaxis(array, p.axis, -2) for array in (*inputs[:2], head))
    found = [
        _op(p.transpose_a, g @ transposed(_op(p.transpose_b, b))),
        _op(p.transpose_b, transposed(_op(p.transpose_a, a)) @ g),
    ]
    return [np.moveaxis(p.alpha * array, -2, p.axis) for array in found]


def _product_and_sum(p: ProductsAndSum, a: Array, b: Array, c: Array) -> Array:
    return _product(p, a, b) + p.beta * c


def _product_and_sum_gradients(
    p: ProductsAndSum, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    return [*_product_gradients(p, head, inputs, output), p.beta * head]


def _square(p: Square, a: Array) -> Array:
    return p.alpha * (transposed(a) @ a if p.transpose else a @ transposed(a))


def _square_gradients(
    p: Square, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    (a,) = inputs
    both = p.alpha * (head + transposed(head))
    return [a @ both if p.transpose else both @ a]


def _triangular_product(p: Triangular, a: Array, b: Array) -> Array:
    factor = _op(p.transpose, _triangle(p, a))
    return p.alpha * (b @ factor if p.rightside else factor @ b)


def _triangular_product_gradients(
    p: Triangular, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    a, b = inputs
    g, factor = p.alpha * head, transposed(_op(p.transpose, _triangle(p, a)))
    slope, rest = (
        (transposed(b) @ g, g @ factor)
        if p.rightside
        else (g @ transposed(b), factor @ g)
    )
    return [_triangle(p, _op(p.transpose, slope)), rest]


def _triangular_solution(p: Triangular, a: Array, b: Array) -> Array:
    factor = _op(p.transpose, _triangle(p, a))
    if p.rightside:
        return p.alpha * transposed(np.linalg.solve(transposed(factor), transposed(b)))
    return p.alpha * np.linalg.solve(factor, b)


def _triangular_solution_gradients(
    p: Triangular, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    factor = _op(p.transpose, _triangle(p, inputs[0]))
    if p.rightside:
        g = transposed(np.linalg.solve(factor, transposed(head)))
        slope = -transposed(output) @ g
    else:
        g = np.linalg.solve(transposed(factor), head)
        slope = -g @ transposed(output)
    return [_triangle(p, _op(p.transpose, slope)), p.alpha * g]


def _product_shape(p: Products, a: Sizes, b: Sizes, *rest: Sizes) -> Sizes:
    check_matrix(a)
    first, second = list(a), list(b)
    rows, columns = axis_in(p.axis, len(a)), len(a) - 1
    if len(a) != len(b) or rows == columns:
        raise ShapeError(
            f"shapes {a} and {b} must have as many axes, and `axis` (={p.axis}) must "
            "not name the last one"
        )
    if p.transpose_a:
        first[rows], first[columns] = first[columns], first[rows]
    if p.transpose_b:
        second[rows], second[columns] = second[columns], second[rows]
    stacked = [i for i in range(len(a)) if i not in (rows, columns)]
    if first[columns] != second[rows] or any(first[i] != second[i] for i in stacked):
        raise ShapeError(f"shapes {a} and {b} cannot be multiplied")
    first[columns] = second[columns]
    return tuple(first)


def _square_shape(p: Square, a: Sizes) -> Sizes:
    check_matrix(a)
    size = a[-1] if p.transpose else a[-2]
    return (*a[:-2], size, size)


def _second_shape(p: Triangular, a: Sizes, b: Sizes) -> Sizes:
    check_square(a)
    check_matrix(b)
    if a[-1] != (b[-1] if p.rightside else b[-2]) or a[:-2] != b[:-2]:
        raise ShapeError(f"a matrix of shape {b} does not fit one of shape {a}")
    return b


OPERATORS = (
    MatrixOperator(
        "gemm",
        ProductsAndSum,
        ("A", "B", "C"),
        _product_shape,
        _product_and_sum,
        _product_and_sum_gradients,
    ),
    MatrixOperator(
        "gemm2", Products, ("A", "B"), _product_shape, _product, _product_gradients
    ),
    MatrixOperator("syrk", Square, ("A",), _square_shape, _square, _square_gradients),
    MatrixOperator(
        "trmm",
        Triangular,
        ("A", "B"),
        _second_shape,
        _triangular_product,
        _triangular_product_gradients,
    ),
    MatrixOperator(
        "trsm",
        Triangular,
        ("A", "B"),
        _second_shape,
        _triangular_solution,
        _triangular_solution_gradients,
    ),
)
for _row in OPERATORS:
    register_matrix_operator(_row)
