"""Operators whose output reads its input at positions chosen axis by axis.

Tiles, broadcasts, borders and crops (`tiling`, `cropping`) are one idea: for each axis
a list of the positions that the output shows, -1 where it shows a constant instead.
The gradient adds up what was read from each position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Lookup:
    """What an output shows of its input.

    Attributes:
        shape: The input's shape as one dimension per entry of `positions`.
        positions: For each axis the positions along it; None shows it as it is.
        fill: The constant at positions of -1.
    """

    shape: Shape
    positions: tuple[Array | None, ...]
    fill: float = 0.0

    @property
    def output_shape(self) -> Shape:
        return tuple(
            size if index is None else len(index)
            for size, index in zip(self.shape, self.positions, strict=True)
        )

    def read(self, data: Array) -> Array:
        data = data.reshape(self.shape)
        for axis, index in enumerate(self.positions):
            if index is not None:
                data = data.take(index, axis=axis)
                data[(slice(None),) * axis + (index < 0,)] = self.fill
        return data

    def add_up(self, grad: Array) -> Array:
        grad = grad.astype(accumulator(grad.dtype), copy=False)
        for axis, index in enumerate(self.positions):
            if index is not None:
                rows = np.moveaxis(grad, axis, 0)
                total = np.zeros((self.shape[axis], *rows.shape[1:]), grad.dtype)
                shown = index >= 0
                np.add.at(total, index[shown], rows[shown])
                grad = np.moveaxis(total, 0, axis)
        return grad


Rule = Callable[[Any, list[Shape]], Lookup]


def along(shape: Shape, positions: dict[int, Array], fill: float = 0.0) -> Lookup:
    """Positions along some axes; the others are shown as they are."""
    return Lookup(shape, tuple(positions.get(i) for i in range(len(shape))), fill)


Names = tuple[str, ...]


def register_lookup(
    names: str,
    attributes: type,
    rule: Rule,
    inputs: Names | Callable[[Any], Names] = ("data",),
    like: Names = (),
) -> None:
    """Register an operator; of its inputs named in `like` only the shape counts."""

    def shape(p: Any, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
        known = [shape for shape in inputs if is_known(shape)]
        if len(known) < len(inputs):
            return inputs, outputs
        found = rule(p, known).output_shape
        return inputs, [unify(outputs[0], found, "output")]

    def forward(
        p: Any, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
    ) -> None:
        outputs[0][...] = rule(p, [x.shape for x in inputs]).read(inputs[0])

    def backward(
        p: Any,
        grads_out: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        grads_in: Sequence[Any],
        mode: Mode,
    ) -> None:
        (target, *_), (grad, *_) = grads_in, grads_out
        others = [x.shape for x in inputs[1:] if x is not None]
        lookup = rule(p, [target.shape, *others])
        target[...] = lookup.add_up(grad).reshape(target.shape)

    name, *aliases = names.split()
    register(
        Operator(
            name=name,
            aliases=tuple(aliases),
            attributes=attributes,
            inputs=inputs,
            shape=shape,
            forward=forward,
            backward=backward,
            saved=lambda p: Saved(inputs=tuple(range(1, _count(p, inputs)))),
            no_gradient=like,
            variadic=callable(inputs),
        )
    )


def _count(p: Any, inputs: Names | Callable[[Any], Names]) -> int:
    return len(inputs(p) if callable(inputs) else inputs)
