"""dot and batch_dot: products that contract one axis of each operand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
from runtime.row_sparse import RowSparsePlace


@dataclass(frozen=True)
class Product:
    """Attributes; `forward_stype` has no effect: results are dense.

    Of dot the left operand may be a CSR matrix; the cost then follows its elements.
    """

    transpose_a: bool = False
    transpose_b: bool = False
    forward_stype: Literal["default", "csr", "row_sparse"] | None = None


def _dot_shape(p: Product, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    left, right = inputs
    if left is None or right is None:
        return inputs, outputs
    *kept_left, inner_left = left[1:] + left[:1] if p.transpose_a else left
    inner_right, *kept_right = right[-1:] + right[:-1] if p.transpose_b else right
    _check_inner(inner_left, inner_right)
    # MXNet has no zero-dimensional arrays: two vectors give (1,).
    shape = (*kept_left, *kept_right) or (1,)
    return inputs, [unify(outputs[0], shape, "output")]


def _check_inner(left: int, right: int) -> None:
    if left != right and left and right:
        raise ShapeError(f"the axes to contract have sizes {left} and {right}")


def _batch_shape(p: Product, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    left, right = inputs
    if left is None or right is None:
        return inputs, outputs
    if len(left) < 3 or len(left) != len(right):
        raise ShapeError("both operands must have the same 3 or more dimensions")
    batch = unify(left[:-2], right[:-2], "batch")
    assert batch is not None
    rows, inner_left = left[-2:][:: -1 if p.transpose_a else 1]
    inner_right, columns = right[-2:][:: -1 if p.transpose_b else 1]
    _check_inner(inner_left, inner_right)
    return inputs, [unify(outputs[0], (*batch, rows, columns), "output")]


def _left_matrix(p: Product, array: Array) -> Array:
    """(rows, inner) of dot's first operand, a view."""
    if _is_csr(array):
        return array.T if p.transpose_a else array
    if p.transpose_a:
        return array.reshape(array.shape[0], -1).T
    return array.reshape(-1, array.shape[-1])


def _right_matrix(p: Product, array: Array) -> Array:
    """(inner, columns) of dot's second operand, a view."""
    if p.transpose_b:
        return array.reshape(-1, array.shape[-1]).T
    return array.reshape(array.shape[0], -1)


def _left_stack(p: Product, array: Array) -> Array:
    return array.swapaxes(-1, -2) if p.transpose_a else array


def _right_stack(p: Product, array: Array) -> Array:
    return array.swapaxes(-1, -2) if p.transpose_b else array


def _is_csr(operand: Any) -> bool:
    """Whether an operand is a scipy.sparse CSR matrix; they multiply by `@` too."""
    return hasattr(operand, "tocsr")


def _rows_of_product(left: Any, grad: Array, target: RowSparsePlace) -> None:
    """target = left.T @ grad for CSR: rows for the columns that have elements."""
    columns, places = np.unique(left.indices, return_inverse=True)
    shape = left.shape[0], len(columns)
    compact = type(left)((left.data, places, left.indptr), shape=shape)
    rows = compact.T @ grad
    target.set(columns, rows.reshape(len(columns), *target.shape[1:]))


def _dot_row_sparse(p: Product, csr: Collection[str], head: bool) -> tuple[str, ...]:
    straight = not (p.transpose_a or p.transpose_b)
    return ("rhs",) if "lhs" in csr and straight else ()


def _register(
    name: str, shape: Any, left_view: Any, right_view: Any, **options: Any
) -> None:
    """Register a product of matrices, seen through a view of each operand."""

    def forward(
        p: Product, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        left, right = left_view(p, inputs[0]), right_view(p, inputs[1])
        wide = accumulator(outputs[0].dtype)
        product = left.astype(wide, copy=False) @ right.astype(wide, copy=False)
        outputs[0][...] = product.reshape(outputs[0].shape)

    def backward(
        p: Product,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        left, right = left_view(p, inputs[0]), right_view(p, inputs[1])
        wide = accumulator(left.dtype)
        shape = (*left.shape[:-1], right.shape[-1])
        grad = grads_out[0].reshape(shape).astype(wide, copy=False)
        if grads_in[0] is not None:
            left_view(p, grads_in[0])[...] = grad @ right.swapaxes(-1, -2)
        if isinstance(grads_in[1], RowSparsePlace):
            _rows_of_product(left, grad, grads_in[1])
        elif grads_in[1] is not None:
            across = left.T if _is_csr(left) else left.swapaxes(-1, -2)
            right_view(p, grads_in[1])[...] = across @ grad

    register(
        Operator(
            name=name,
            attributes=Product,
            inputs=("lhs", "rhs"),
            shape=shape,
            forward=forward,
            backward=backward,
            saved=Saved(inputs=(0, 1)),
            **options,
        )
    )


_register(
    "dot",
    _dot_shape,
    _left_matrix,
    _right_matrix,
    csr_inputs=("lhs",),
    row_sparse_gradients=_dot_row_sparse,
)
_register("batch_dot", _batch_shape, _left_stack, _right_stack)
