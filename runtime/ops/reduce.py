"""Reductions over axes: one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.graph.shapes import unify
from runtime.ops.derivative import derivative, saved
from runtime.ops.rules import accumulator, axis_in


@dataclass(frozen=True)
class Reduction:
    """Attributes; no axis means all, `exclude` means all axes but these."""

    axis: tuple[int, ...] | None = None
    keepdims: bool = False
    exclude: bool = False


def reduced_axes(p: Reduction, rank: int) -> tuple[int, ...]:
    """The axes that go, ascending.

    Raises:
        ShapeError: if there is no such axis.
    """
    axes = {axis_in(axis, rank) for axis in p.axis or ()}
    if p.exclude or not axes:
        axes = set(range(rank)) - axes
    return tuple(sorted(axes))


def kept_shape(p: Reduction, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The output's shape with the reduced axes left in as 1."""
    axes = reduced_axes(p, len(shape))
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def reduced_shape(
    p: Reduction, inputs: Shapes, outputs: Shapes
) -> tuple[Shapes, Shapes]:
    """The shape rule of reductions."""
    (data,), (output,) = inputs, outputs
    if data is not None:
        axes = reduced_axes(p, len(data))
        if p.keepdims:
            shape = kept_shape(p, data)
        else:
            # MXNet has no zero-dimensional arrays: a full reduction gives (1,).
            shape = tuple(n for i, n in enumerate(data) if i not in axes) or (1,)
        output = unify(output, shape, "output")
    return [data], [output]


def _max(x: Array, axis: tuple[int, ...], dtype: Any) -> Any:
    return x.max(axis=axis)


def _min(x: Array, axis: tuple[int, ...], dtype: Any) -> Any:
    return x.min(axis=axis)


# Name, function of (x, axis, dtype), and derivative: a function of the output's
# gradient g (spread over the axes) and of what else it names: the input x, the output
# y (spread too), or the number n of elements that were reduced to one.
TABLE: tuple[tuple[str, Callable[..., Any], Callable[..., Any]], ...] = (
    ("sum sum_axis", np.sum, lambda g: g),
    ("mean", np.mean, lambda g, n: g / n),
    ("prod", np.prod, lambda g, x, y: g * y / x),
    ("nansum", np.nansum, lambda g, x: np.where(np.isnan(x), 0, g)),
    ("nanprod", np.nanprod, lambda g, x, y: np.where(np.isnan(x), 0, g * y / x)),
    # All elements that equal the maximum get the gradient.
    ("max max_axis", _max, lambda g, x, y: g * (x == y)),
    ("min min_axis", _min, lambda g, x, y: g * (x == y)),
)


def _register(names: str, function: Any, slope: Callable[..., Any]) -> None:
    name, *aliases = names.split()
    rule = derivative(slope)

    def forward(
        p: Reduction, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        (data,), (output,) = inputs, outputs
        axes = reduced_axes(p, data.ndim)
        value = function(data, axis=axes, dtype=accumulator(data.dtype))
        output[...] = value.reshape(output.shape)

    def backward(
        p: Reduction,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        (grad_in,) = grads_in
        kept = kept_shape(p, grad_in.shape)
        output = outputs[0]
        grad_in[...] = rule(
            grads_out[0].reshape(kept),
            x=inputs[0],
            y=None if output is None else output.reshape(kept),
            n=grad_in.size // prod(kept),
        )

    register(
        Operator(
            name=name,
            aliases=tuple(aliases),
            attributes=Reduction,
            shape=reduced_shape,
            forward=forward,
            backward=backward,
            saved=saved([rule], "x"),
        )
    )


for _row in TABLE:
    _register(*_row)
