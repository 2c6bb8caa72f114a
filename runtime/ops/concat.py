"""Concat: any number of arrays joined along one axis.

Source: MXNet's `src/operator/nn/concat-inl.h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from runtime.errors import ShapeError
from runtime.graph.registry import Array, Mode, Operator, Saved, Shapes, register
from runtime.graph.shapes import unify
from runtime.ops.rules import axis_in


@dataclass(frozen=True)
class Concat:
    """Attributes of Concat."""

    num_args: int
    dim: int = 1


def _shape(
    p: Concat, inputs: Shapes, outputs: Shapes, equal_rest: bool = False
) -> tuple[Shapes, Shapes]:
    """Several unknown sizes of `dim` follow from the output's if they are equal."""
    (output,) = outputs
    known = next((shape for shape in (*inputs, output) if shape is not None), None)
    if known is None:
        return inputs, outputs
    rank = len(known)
    axis = axis_in(p.dim, rank, "dim")
    # All sizes but that of `dim` agree.
    common: Any = None
    for shape in (*inputs, output):
        common = unify(common, _with(shape, axis, 0))
    sizes = [0 if shape is None else shape[axis] for shape in inputs]
    total = 0 if output is None else output[axis]
    if 0 not in sizes:
        output = unify(output, _with(common, axis, sum(sizes)), "output")
    elif total and (equal_rest or sizes.count(0) == 1):
        each, left = divmod(total - sum(sizes), sizes.count(0))
        if each < 1 or left:
            raise ShapeError(
                f"{total} elements along `dim` (={p.dim}) do not suffice for inputs of "
                f"{sizes} (0 is not known)"
            )
        sizes = [size or each for size in sizes]
    return (
        [_with(common, axis, size) for size in sizes],
        [unify(output, _with(common, axis, 0), "output")],
    )


def _with(shape: Any, axis: int, size: int) -> Any:
    return None if shape is None else (*shape[:axis], size, *shape[axis + 1 :])


def _forward(
    p: Concat, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    np.concatenate(inputs, axis=p.dim, out=outputs[0])


def _backward(
    p: Concat,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    (grad,) = grads_out
    ends = np.cumsum([data.shape[p.dim] for data in inputs])
    pieces = np.split(grad, ends[:-1], axis=p.dim)
    for grad_in, piece in zip(grads_in, pieces, strict=True):
        if grad_in is not None:
            grad_in[...] = piece


# The other one joins the weights of recurrent nets that Gluon has exported; those of
# both directions are equally large.
for _name, _aliases, _rule in (
    ("Concat", ("concat",), _shape),
    ("_rnn_param_concat", (), partial(_shape, equal_rest=True)),
):
    register(
        Operator(
            name=_name,
            aliases=_aliases,
            attributes=Concat,
            inputs=lambda p: tuple(f"arg{i}" for i in range(p.num_args)),
            shape=_rule,
            forward=_forward,
            backward=_backward,
            # Read for their sizes: an input that needs no gradient has none to show it.
            saved=lambda p: Saved(inputs=tuple(range(p.num_args))),
            variadic=True,
        )
    )
