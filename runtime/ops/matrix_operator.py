"""Operators on matrices, or on stacks of them: what they are made from.

The last two axes of an array are a matrix. A gradient rule is given the attributes,
gradients of the outputs that have slopes, the list of inputs, and those outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
from runtime.graph.shapes import is_known, unify
from runtime.ops.rules import accumulator

Apply = Callable[..., Array | tuple[Array, ...]]
Gradients = Callable[..., Sequence[Array]]
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class MatrixOperator:
    """One operator.

    Attributes:
        name: MXNet's, without `linalg_`.
        attributes: See `Operator`.
        inputs: Their names.
        shape: Of all outputs, or of each, from the attributes and the shapes of up to
            two inputs.
        apply: The definition: attributes and inputs to output, or outputs.
        gradients: The gradient rule.
        outputs: Their names.
        slopes: How many of the last outputs have some; a sign has none.
    """

    name: str
    attributes: type
    inputs: tuple[str, ...]
    shape: Callable[..., Sizes | list[Sizes]]
    apply: Apply
    gradients: Gradients
    outputs: tuple[str, ...] = ("output",)
    slopes: int = 1


def register_matrix_operator(row: MatrixOperator) -> None:
    """Add it to the table of operators, as `_linalg_x` and `linalg_x`."""

    def shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
        if not all(is_known(each) for each in inputs[:2]):
            return inputs, outputs
        found = row.shape(p, *inputs[:2])
        shapes = found if isinstance(found, list) else [found] * len(outputs)
        rest = [unify(each, shapes[0]) for each in inputs[2:]]  # C
        return [*inputs[:2], *rest], [
            unify(each, shape) for each, shape in zip(outputs, shapes, strict=True)
        ]

    def forward(
        p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        found = row.apply(p, *map(_wide, inputs))
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
        results = [_wide(output) for output in outputs[-row.slopes :]]
        heads = [
            np.zeros_like(result) if head is None else _wide(head)
            for head, result in zip(grads_out[-row.slopes :], results, strict=True)
        ]
        found = row.gradients(p, *heads, [*map(_wide, inputs)], *results)
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
            saved=Saved(
                tuple(range(len(row.inputs))),
                tuple(range(len(row.outputs)))[-row.slopes :],
            ),
        )
    )


def _wide(array: Array) -> Array:
    """As what there are solvers for: float16 as float32, integers as float64."""
    return array.astype(accumulator(array.dtype), copy=False)


def transposed(a: Array) -> Array:
    """Every matrix transposed."""
    return np.swapaxes(a, -1, -2)


def check_matrix(a: Sizes) -> None:
    """Refuse what is no matrix, and no stack of them."""
    if len(a) < 2:
        raise ShapeError(f"a matrix has two axes or more, but the shape is {a}")


def check_square(a: Sizes) -> None:
    """Refuse matrices that are not square."""
    check_matrix(a)
    if a[-1] != a[-2]:
        raise ShapeError(f"matrices must be square, but the shape is {a}")
