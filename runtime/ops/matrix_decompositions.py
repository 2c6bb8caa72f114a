"""LQ decompositions, and eigenvectors of symmetric matrices.

Source: MXNet's `src/operator/tensor/la_op.cc`. Gradients: Seeger et al.,
"Auto-Differentiating Linear Algebra", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Array, NoAttributes
from runtime.ops.matrix_operator import (
    MatrixOperator,
    Sizes,
    check_matrix,
    check_square,
    register_matrix_operator,
    transposed,
)


def _lq(p: NoAttributes, a: Array) -> tuple[Array, ...]:
    q, r = np.linalg.qr(transposed(a))
    return transposed(q), transposed(r)


def _lq_gradients(
    p: NoAttributes,
    head_q: Array,
    head_l: Array,
    inputs: Sequence[Array],
    q: Array,
    low: Array,
) -> list[Array]:
    m = np.tril(transposed(low) @ head_l - head_q @ transposed(q))
    mirrored = m + transposed(np.tril(m, -1))
    return [np.linalg.solve(transposed(low), head_q + mirrored @ q)]


def _lq_shapes(p: NoAttributes, a: Sizes) -> list[Sizes]:
    check_matrix(a)
    if a[-2] > a[-1]:
        raise ShapeError(f"a matrix must not have more rows than columns, as {a} has")
    return [a, (*a[:-1], a[-2])]


def _eigenvectors(p: NoAttributes, a: Array) -> tuple[Array, ...]:
    """In rows, each with the sign that makes its largest element positive."""
    values, columns = np.linalg.eigh(a)
    rows = transposed(columns)
    largest = np.abs(rows).argmax(axis=-1)[..., None]
    return rows * np.sign(np.take_along_axis(rows, largest, -1)), values


def _eigenvectors_gradients(
    p: NoAttributes,
    head_u: Array,
    head_values: Array,
    inputs: Sequence[Array],
    u: Array,
    values: Array,
) -> list[Array]:
    """Of equal eigenvalues the vectors may turn into each other: no slope."""
    apart = values[..., None] - values[..., None, :]
    inverse = np.divide(1, apart, where=apart != 0, out=np.zeros_like(apart))
    turned = head_u @ transposed(u) * inverse
    middle = 0.5 * (turned + transposed(turned))
    middle += head_values[..., None] * np.eye(values.shape[-1], dtype=values.dtype)
    return [transposed(u) @ middle @ u]


def _eigenvectors_shapes(p: NoAttributes, a: Sizes) -> list[Sizes]:
    check_square(a)
    return [a, a[:-1]]


OPERATORS = (
    MatrixOperator(
        "gelqf",
        NoAttributes,
        ("A",),
        _lq_shapes,
        _lq,
        _lq_gradients,
        ("output0", "output1"),
        slopes=2,
    ),
    MatrixOperator(
        "syevd",
        NoAttributes,
        ("A",),
        _eigenvectors_shapes,
        _eigenvectors,
        _eigenvectors_gradients,
        ("output0", "output1"),
        slopes=2,
    ),
)
for _row in OPERATORS:
    register_matrix_operator(_row)
