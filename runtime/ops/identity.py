"""Operators that pass their input on and differ in what they do to the gradient.

Source: MXNet's `src/operator/tensor/elemwise_unary_op_basic.cc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.graph.registry import Mode, Operator, register
from runtime.ops.rules import one_shape
from runtime.ops.shape import view_backward, view_forward


def _ones(
    p: Any,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    grads_in[0][...] = 1


register(
    Operator(
        name="_copy",
        aliases=("identity",),
        shape=one_shape,
        forward=view_forward,
        backward=view_backward,
        is_view=True,
    )
)
register(
    Operator(
        name="BlockGrad",
        aliases=("stop_gradient",),
        shape=one_shape,
        forward=view_forward,
        # As a head it asks for no gradient, since it would pass none.
        is_loss=True,
        is_view=True,
    )
)
register(
    Operator(
        name="make_loss",
        outputs=("loss",),
        shape=one_shape,
        forward=view_forward,
        backward=_ones,
        is_loss=True,
    )
)
