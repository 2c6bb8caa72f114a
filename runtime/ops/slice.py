"""slice and slice_axis: a regular part of an array.

Source: MXNet's `src/operator/tensor/matrix_op-inl.h`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import ShapeError
from runtime.graph.registry import Array, Mode, Operator, Shapes, register
from runtime.graph.shapes import unify
from runtime.ops.rules import axis_in

Index = tuple[slice, ...]


@dataclass(frozen=True)
class Slice:
    """Attributes of slice: one entry per leading axis, as in Python."""

    begin: tuple[int | None, ...]
    end: tuple[int | None, ...]
    step: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class SliceAxis:
    """Attributes of slice_axis; `end` None means to the end."""

    axis: int
    begin: int
    end: int | None


def _slices(p: Slice, rank: int) -> Index:
    steps = p.step or (None,) * len(p.begin)
    if not len(p.begin) == len(p.end) == len(steps) <= rank:
        raise ShapeError(
            f"`begin` (={p.begin}), `end` (={p.end}) and `step` (={p.step}) must have "
            f"as many entries as each other, and at most {rank}"
        )
    if 0 in steps:
        raise ShapeError(f"`step` (={p.step}) must not be 0")
    return tuple(map(slice, p.begin, p.end, steps))


def _slice_of_axis(p: SliceAxis, rank: int) -> Index:
    axis = axis_in(p.axis, rank)
    return (*[slice(None)] * axis, slice(p.begin, p.end))


def _register(names: str, attributes: type, index: Callable[[Any, int], Index]) -> None:
    def shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
        (data,) = inputs
        if data is None:
            return inputs, outputs
        slices = index(p, len(data))
        sizes = list(data)
        for i, part in enumerate(slices):
            # What is taken whole may stay unknown.
            if data[i] and part != slice(None):
                sizes[i] = len(range(data[i])[part])
                if not sizes[i]:
                    raise ShapeError(
                        f"nothing is left of axis {i}, which has size {data[i]}, "
                        f"between {part.start} and {part.stop}"
                    )
        return inputs, [unify(outputs[0], tuple(sizes), "output")]

    def forward(
        p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        outputs[0][...] = inputs[0][index(p, inputs[0].ndim)]

    def backward(
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        grads_in[0][...] = 0
        grads_in[0][index(p, grads_in[0].ndim)] = grads_out[0]

    name, *aliases = names.split()
    register(
        Operator(
            name=name,
            aliases=tuple(aliases),
            attributes=attributes,
            shape=shape,
            forward=forward,
            backward=backward,
        )
    )


_register("slice crop", Slice, _slices)
_register("slice_axis", SliceAxis, _slice_of_axis)
