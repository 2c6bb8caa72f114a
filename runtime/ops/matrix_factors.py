"""Factors, inverses and determinants of matrices.

Source: MXNet's `src/operator/tensor/la_op.cc`. Gradients: Murray, "Differentiation of
the Cholesky decomposition", 2016, and Giles, "Collected Matrix Derivative Results for
Forward and Reverse Mode Algorithmic Differentiation", 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.graph.registry import (
    Array,
    NoAttributes,
)
from runtime.ops.matrix_operator import (
    MatrixOperator,
    Sizes,
    check_square,
    register_matrix_operator,
    transposed,
)


def _cholesky(p: NoAttributes, a: Array) -> Array:
    return np.linalg.cholesky(a)


def _cholesky_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    middle = np.tril(transposed(output) @ head)
    middle -= 0.5 * middle * np.eye(middle.shape[-1], dtype=middle.dtype)
    left = np.linalg.solve(transposed(output), middle)
    whole = transposed(np.linalg.solve(transposed(output), transposed(left)))
    return [0.5 * (whole + transposed(whole))]


def _inverse_of_square(p: NoAttributes, a: Array) -> Array:
    inverse = np.linalg.inv(np.tril(a))
    return transposed(inverse) @ inverse


def _inverse_of_square_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    return [np.tril(-output @ (head + transposed(head)) @ output @ np.tril(inputs[0]))]


def _inverse(p: NoAttributes, a: Array) -> Array:
    return np.linalg.inv(a)


def _inverse_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    return [-transposed(output) @ head @ transposed(output)]


def _scalars(head: Array, like: Array) -> Array:
    """One number per matrix, to be multiplied with matrices."""
    return head.reshape(*like.shape[:-2], 1, 1)


def _determinant(p: NoAttributes, a: Array) -> Array:
    return np.asarray(np.linalg.det(a))


def _determinant_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    (a,) = inputs
    return [_scalars(head * output, a) * transposed(np.linalg.inv(a))]


def _log_determinant(p: NoAttributes, a: Array) -> tuple[Array, ...]:
    sign, logarithm = np.linalg.slogdet(a)
    return sign, logarithm


def _log_determinant_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    (a,) = inputs
    return [_scalars(head, a) * transposed(np.linalg.inv(a))]


def _sum_of_logarithms(p: NoAttributes, a: Array) -> Array:
    return np.asarray(np.log(np.diagonal(a, 0, -2, -1)).sum(axis=-1))


def _sum_of_logarithms_gradients(
    p: NoAttributes, head: Array, inputs: Sequence[Array], output: Array
) -> list[Array]:
    (a,) = inputs
    eye = np.eye(a.shape[-1], dtype=a.dtype)
    return [_scalars(head, a) * eye / np.where(eye == 1, a, 1)]


def _same_shape(p: Any, a: Sizes) -> Sizes:
    check_square(a)
    return a


def _scalar_shape(p: Any, a: Sizes) -> Sizes:
    check_square(a)
    return a[:-2] or (1,)  # there are no arrays without axes


OPERATORS = (
    MatrixOperator(
        "potrf", NoAttributes, ("A",), _same_shape, _cholesky, _cholesky_gradients
    ),
    MatrixOperator(
        "potri",
        NoAttributes,
        ("A",),
        _same_shape,
        _inverse_of_square,
        _inverse_of_square_gradients,
    ),
    MatrixOperator(
        "inverse", NoAttributes, ("A",), _same_shape, _inverse, _inverse_gradients
    ),
    MatrixOperator(
        "det",
        NoAttributes,
        ("A",),
        _scalar_shape,
        _determinant,
        _determinant_gradients,
        ("output0",),
    ),
    MatrixOperator(
        "slogdet",
        NoAttributes,
        ("A",),
        _scalar_shape,
        _log_determinant,
        _log_determinant_gradients,
        ("output0", "output1"),
    ),
    MatrixOperator(
        "sumlogdiag",
        NoAttributes,
        ("A",),
        _scalar_shape,
        _sum_of_logarithms,
        _sum_of_logarithms_gradients,
    ),
)
for _row in OPERATORS:
    register_matrix_operator(_row)
