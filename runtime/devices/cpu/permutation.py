"""SwapAxis and transpose as rows of `permute`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.graph.build import Builder
from runtime.graph.draft import Dense
from runtime.graph.ir import Entry, Node, Shape

_AXES = 4  # that the kernel goes along


@dataclass(frozen=True, slots=True)
class Walk:
    """Sizes of a result's axes, and the strides of its source along them."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, shape: Shape, order: Sequence[int]) -> Walk:
        """Through an array of a shape, so that axis i of the result is its order[i].

        Axes that stay together count as one.
        """
        sizes: list[int] = []
        strides: list[int] = []
        for axis in order:
            size, stride = shape[axis], math.prod(shape[axis + 1 :])
            if size == 1:
                continue
            if strides and strides[-1] == size * stride:
                sizes[-1] *= size
                strides[-1] = stride
            else:
                sizes.append(size)
                strides.append(stride)
        missing = max(0, _AXES - len(sizes))
        return cls((1,) * missing + tuple(sizes), (0,) * missing + tuple(strides))

    @property
    def is_short(self) -> bool:
        """Whether the kernel can go it."""
        return len(self.sizes) == _AXES


def can_permute(b: Builder, node: Node) -> bool:
    """Whether the kernel does what a SwapAxis or transpose of float32 asks for."""
    shape = b.shape(node.inputs[0])
    return Walk.of(shape, node.attributes.order(len(shape))).is_short


@dataclass(frozen=True, eq=False)
class PermutationStep:
    """One node."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    def forward(self, b: Builder) -> None:
        source, output = b.dense(self.node.inputs[0]), Entry(self.node)
        target = b.output(output)
        b.define(output, target)
        order = self.node.attributes.order(len(source.shape))
        self._emit(b, source, target, Walk.of(source.shape, order))

    def backward(self, b: Builder) -> None:
        source, book = self.node.inputs[0], b.gradients
        dy = book.dense(Entry(self.node))
        if dy is None or not book.wanted(source):
            return
        order = self.node.attributes.order(len(dy.shape))
        back = sorted(range(len(order)), key=order.__getitem__)
        target = book.fresh(source)
        self._emit(b, dy, target, Walk.of(dy.shape, back))
        book.contribute(source, target)

    def _emit(self, b: Builder, x: Dense, y: Dense, walk: Walk) -> None:
        fields = {f"size{i}": size for i, size in enumerate(walk.sizes)}
        fields |= {f"stride{i}": stride for i, stride in enumerate(walk.strides)}
        b.kernel(
            "permute",
            self.node.name,
            ("y",),
            cost.floats(2 * x.size),
            x=x.at,
            y=y.at,
            **fields,
        )
