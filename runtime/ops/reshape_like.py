"""reshape_like: the elements of one array under the shape of another.

Source: MXNet's `src/operator/tensor/elemwise_unary_op_basic.cc`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from runtime.errors import ShapeError
from runtime.graph.registry import Operator, Shapes, register
from runtime.graph.shapes import is_known, unify
from runtime.ops.rules import free_label
from runtime.ops.shape import view_backward, view_forward


@dataclass(frozen=True)
class ReshapeLike:
    """Attributes: which axes of `lhs` become which of `rhs`; None is either end."""

    lhs_begin: int | None = None
    lhs_end: int | None = None
    rhs_begin: int | None = None
    rhs_end: int | None = None


def _shape(p: ReshapeLike, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    lhs, rhs = inputs
    if not is_known(lhs) or not is_known(rhs):
        return inputs, outputs
    begin, end, _ = slice(p.lhs_begin, p.lhs_end).indices(len(lhs))
    shape = (*lhs[:begin], *rhs[slice(p.rhs_begin, p.rhs_end)], *lhs[end:])
    if prod(shape) != prod(lhs):
        raise ShapeError(
            f"`lhs` has shape {lhs}, whose elements do not fill the shape {shape} that "
            "`rhs` asks for"
        )
    return inputs, [unify(outputs[0], shape, "output")]


register(
    Operator(
        name="reshape_like",
        attributes=ReshapeLike,
        inputs=("lhs", "rhs"),
        no_gradient=("rhs",),
        shape=_shape,
        dtype=free_label,
        forward=view_forward,
        backward=view_backward,
    )
)
