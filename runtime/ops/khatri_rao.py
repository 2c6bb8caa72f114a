"""khatri_rao: Kronecker products of matrices, column by column.

Source: MXNet's `src/operator/contrib/krprod.cc`, which has no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Array, Mode, Operator, Saved, Shapes, register
from runtime.graph.shapes import is_known, unify
from runtime.ops.several import Several, argument_names


def _shape(p: Several, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    known = [shape for shape in inputs if is_known(shape)]
    if any(len(shape) != 2 or shape[1] != known[0][1] for shape in known):
        raise ShapeError(
            f"matrices must have two axes and as many columns, not shapes {known}"
        )
    if len(known) < len(inputs):
        return inputs, outputs
    whole = (prod(rows for rows, _ in known), known[0][1])
    return inputs, [unify(outputs[0], whole, "output")]


def _spread(inputs: Sequence[Array]) -> list[Array]:
    """Each matrix with its rows on an axis of its own, and the columns last."""
    count = len(inputs)
    return [
        a.reshape([len(a) if i == j else 1 for j in range(count)] + [a.shape[1]])
        for i, a in enumerate(inputs)
    ]


def _product(factors: Sequence[Array]) -> Array:
    return reduce(np.multiply, factors)


def _forward(
    p: Several, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    outputs[0][...] = _product(_spread(inputs)).reshape(outputs[0].shape)


def _backward(
    p: Several,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    head = grads_out[0].reshape(*map(len, inputs), -1)
    spread = _spread(inputs)
    for i, gradient in enumerate(grads_in):
        if gradient is not None:
            others = tuple(j for j in range(len(inputs)) if j != i)
            slope = _product([head, *(spread[j] for j in others)])
            gradient[...] = slope.sum(axis=others)


register(
    Operator(
        name="khatri_rao",
        attributes=Several,
        inputs=argument_names,
        shape=_shape,
        forward=_forward,
        backward=_backward,
        saved=lambda p: Saved(tuple(range(p.num_args))),
        variadic=True,
    )
)
