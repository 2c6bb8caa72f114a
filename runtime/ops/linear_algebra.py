"""Linear algebra on matrices, or on stacks of them: the last two axes are a matrix.

Sources: MXNet's `src/operator/tensor/la_op.cc`. Gradients: Murray, "Differentiation of
the Cholesky decomposition", 2016, and Giles, "Collected Matrix Derivative Results for
Forward and Reverse Mode Algorithmic Differentiation", 2008.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import (
    Array,
    Mode,
    NoAttributes,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import is_known, unify

Apply = Callable[..., Array | tuple[Array, ...]]
Gradients = Callable[..., Sequence[Array]]
Sizes = tuple[int, ...]


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


@dataclass(frozen=True)
class Diagonal:
    """Attributes: which diagonal, counted upwards from the main one."""

    offset: int = 0


@dataclass(frozen=True)
class Triangle:
    """Attributes: the triangle from diagonal `offset` on; `lower` where that is 0."""

    offset: int = 0
    lower: bool = True


def _t(a: Array) -> Array:
    return np.swapaxes(a, -1, -2)


def _triangle(p: Triangular, a: Array) -> Array:
    return np.tril(a) if p.lower else np.triu(a)


def _op(transpose: bool, a: Array) -> Array:
    return _t(a) if transpose else a


# Definitions and gradients: a gradient rule is given the attributes, the gradient of
# the output, the inputs, and the output.


def _product(p: Products, a: Array, b: Array) -> Array:
    rows = [np.moveaxis(array, p.axis, -2) for array in (a, b)]
    product = _op(p.transpose_a, rows[0]) @ _op(p.transpose_b, rows[1])
    return np.moveaxis(p.alpha * product, -2, p.axis)


def _product_gradients(
    p: Products, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    a, b, g = (np.moveaxis(array, p.axis, -2) for array in (*inputs[:2], head))
    found = [
        _op(p.transpose_a, g @ _t(_op(p.transpose_b, b))),
        _op(p.transpose_b, _t(_op(p.transpose_a, a)) @ g),
    ]
    return [np.moveaxis(p.alpha * array, -2, p.axis) for array in found]


def _product_and_sum(p: ProductsAndSum, a: Array, b: Array, c: Array) -> Array:
    return _product(p, a, b) + p.beta * c


def _product_and_sum_gradients(
    p: ProductsAndSum, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    return [*_product_gradients(p, head, inputs, output), p.beta * head]


def _square(p: Square, a: Array) -> Array:
    return p.alpha * (_t(a) @ a if p.transpose else a @ _t(a))


def _square_gradients(
    p: Square, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    (a,) = inputs
    both = p.alpha * (head + _t(head))
    return [a @ both if p.transpose else both @ a]


def _triangular_product(p: Triangular, a: Array, b: Array) -> Array:
    factor = _op(p.transpose, _triangle(p, a))
    return p.alpha * (b @ factor if p.rightside else factor @ b)


def _triangular_product_gradients(
    p: Triangular, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    a, b = inputs
    g, factor = p.alpha * head, _t(_op(p.transpose, _triangle(p, a)))
    slope, rest = (_t(b) @ g, g @ factor) if p.rightside else (g @ _t(b), factor @ g)
    return [_triangle(p, _op(p.transpose, slope)), rest]


def _triangular_solution(p: Triangular, a: Array, b: Array) -> Array:
    factor = _op(p.transpose, _triangle(p, a))
    if p.rightside:
        return p.alpha * _t(np.linalg.solve(_t(factor), _t(b)))
    return p.alpha * np.linalg.solve(factor, b)


def _triangular_solution_gradients(
    p: Triangular, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    factor = _op(p.transpose, _triangle(p, inputs[0]))
    if p.rightside:
        g = _t(np.linalg.solve(factor, _t(head)))
        slope = -_t(output) @ g
    else:
        g = np.linalg.solve(_t(factor), head)
        slope = -g @ _t(output)
    return [_triangle(p, _op(p.transpose, slope)), p.alpha * g]


def _cholesky(p: NoAttributes, a: Array) -> Array:
    return np.linalg.cholesky(a)


def _cholesky_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    middle = np.tril(_t(output) @ head)
    middle -= 0.5 * middle * np.eye(middle.shape[-1], dtype=middle.dtype)
    left = np.linalg.solve(_t(output), middle)
    whole = _t(np.linalg.solve(_t(output), _t(left)))
    return [0.5 * (whole + _t(whole))]


def _inverse_of_square(p: NoAttributes, a: Array) -> Array:
    inverse = np.linalg.inv(np.tril(a))
    return _t(inverse) @ inverse


def _inverse_of_square_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    return [np.tril(-output @ (head + _t(head)) @ output @ np.tril(inputs[0]))]


def _inverse(p: NoAttributes, a: Array) -> Array:
    return np.linalg.inv(a)


def _inverse_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    return [-_t(output) @ head @ _t(output)]


def _scalars(head: Array, like: Array) -> Array:
    """One number per matrix, to be multiplied with matrices."""
    return head.reshape(*like.shape[:-2], 1, 1)


def _determinant(p: NoAttributes, a: Array) -> Array:
    return np.asarray(np.linalg.det(a))


def _determinant_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    (a,) = inputs
    return [_scalars(head * output, a) * _t(np.linalg.inv(a))]


def _log_determinant(p: NoAttributes, a: Array) -> tuple[Array, ...]:
    sign, logarithm = np.linalg.slogdet(a)
    return sign, logarithm


def _log_determinant_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    (a,) = inputs
    return [_scalars(head, a) * _t(np.linalg.inv(a))]


def _sum_of_logarithms(p: NoAttributes, a: Array) -> Array:
    return np.asarray(np.log(np.diagonal(a, 0, -2, -1)).sum(axis=-1))


def _sum_of_logarithms_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    (a,) = inputs
    eye = np.eye(a.shape[-1], dtype=a.dtype)
    return [_scalars(head, a) * eye / np.where(eye == 1, a, 1)]


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


# Shapes, from those of the inputs when they are known.


def _product_shape(p: Products, a: Sizes, b: Sizes, *rest: Sizes) -> Sizes:
    first, second = list(a), list(b)
    rows, columns = p.axis % len(a), len(a) - 1
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
    size = a[-1] if p.transpose else a[-2]
    return (*a[:-2], size, size)


def _second_shape(p: Triangular, a: Sizes, b: Sizes) -> Sizes:
    _check_square(a)
    if a[-1] != (b[-1] if p.rightside else b[-2]) or a[:-2] != b[:-2]:
        raise ShapeError(f"a matrix of shape {b} does not fit one of shape {a}")
    return b


def _same_shape(p: Any, a: Sizes) -> Sizes:
    _check_square(a)
    return a


def _scalar_shape(p: Any, a: Sizes) -> Sizes:
    _check_square(a)
    return a[:-2] or (1,)  # there are no arrays without axes


def _extract_shape(p: Diagonal | Triangle, a: Sizes) -> Sizes:
    _check_square(a)
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


def _check_square(a: Sizes) -> None:
    if len(a) < 2 or a[-1] != a[-2]:
        raise ShapeError(f"matrices must be square, but the shape is {a}")


@dataclass(frozen=True)
class _Row:
    """One operator; see `_register`."""

    name: str
    attributes: type
    inputs: tuple[str, ...]
    shape: Callable[..., Sizes]
    apply: Apply
    gradients: Gradients
    outputs: tuple[str, ...] = ("output",)


_A, _AB, _ABC = ("A",), ("A", "B"), ("A", "B", "C")
_TABLE = (
    _Row("gemm", ProductsAndSum, _ABC, _product_shape, _product_and_sum,
         _product_and_sum_gradients),
    _Row("gemm2", Products, _AB, _product_shape, _product, _product_gradients),
    _Row("syrk", Square, _A, _square_shape, _square, _square_gradients),
    _Row("trmm", Triangular, _AB, _second_shape, _triangular_product,
         _triangular_product_gradients),
    _Row("trsm", Triangular, _AB, _second_shape, _triangular_solution,
         _triangular_solution_gradients),
    _Row("potrf", NoAttributes, _A, _same_shape, _cholesky, _cholesky_gradients),
    _Row("potri", NoAttributes, _A, _same_shape, _inverse_of_square,
         _inverse_of_square_gradients),
    _Row("inverse", NoAttributes, _A, _same_shape, _inverse, _inverse_gradients),
    _Row("det", NoAttributes, _A, _scalar_shape, _determinant, _determinant_gradients,
         ("output0",)),
    _Row("slogdet", NoAttributes, _A, _scalar_shape, _log_determinant,
         _log_determinant_gradients, ("output0", "output1")),
    _Row("sumlogdiag", NoAttributes, _A, _scalar_shape, _sum_of_logarithms,
         _sum_of_logarithms_gradients),
    _Row("extractdiag", Diagonal, _A, _extract_shape, _extract, _extract_gradients),
    _Row("makediag", Diagonal, _A, _spread_shape, _spread, _spread_gradients),
    _Row("extracttrian", Triangle, _A, _extract_shape, _extract, _extract_gradients),
    _Row("maketrian", Triangle, _A, _spread_shape, _spread, _spread_gradients),
)  # fmt: skip


def _register(row: _Row) -> None:
    def shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
        known = [each for each in inputs if is_known(each)]
        if len(known) < min(2, len(inputs)):
            return inputs, outputs
        found = row.shape(p, *known)
        rest = [unify(each, found) for each in inputs[2:]]  # C
        return [*inputs[:2], *rest], [unify(each, found) for each in outputs]

    def forward(
        p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        found = row.apply(p, *inputs)
        parts = found if isinstance(found, tuple) else (found,)
        for place, part in zip(outputs, parts, strict=True):
            place[...] = part

    def backward(
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        head, output = grads_out[-1], outputs[-1]  # a sign has no slope
        for place in grads_in:
            if place is not None and head is None:
                place[...] = 0
        if head is None:
            return
        found = row.gradients(p, head, inputs, output)
        for place, part in zip(grads_in, found, strict=True):
            if place is not None:
                place[...] = part

    register(
        Operator(
            name=f"_linalg_{row.name}",
            aliases=(f"linalg_{row.name}",),
            attributes=row.attributes,
            inputs=row.inputs,
            outputs=row.outputs,
            shape=shape,
            forward=forward,
            backward=backward,
            saved=Saved(tuple(range(len(row.inputs))), (len(row.outputs) - 1,)),
        )
    )


for _row in _TABLE:
    _register(_row)
