"""Concat and SliceChannel: copies between an array and its pieces along one axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.devices.cpu.elementwise import fill
from runtime.graph.build import Builder
from runtime.graph.draft import At, Dense
from runtime.graph.ir import Entry, Node


@dataclass(frozen=True, slots=True)
class _Rows:
    """An array, or a piece of one, as rows that are apart."""

    at: At
    rows: int
    length: int
    apart: int


def _pieces(whole: Dense, axis: int, sizes: Sequence[int]) -> Iterator[_Rows]:
    """The pieces of some sizes along an axis, one after the other."""
    rows = math.prod(whole.shape[:axis])
    inner = math.prod(whole.shape[axis + 1 :])
    apart = whole.shape[axis] * inner
    first = 0
    for size in sizes:
        at = At(whole.buffer, 4 * first * inner)
        yield _Rows(at, rows, size * inner, apart)
        first += size


def _as_rows(dense: Dense, like: _Rows) -> _Rows:
    return _Rows(dense.at, like.rows, like.length, like.length)


def _copy(b: Builder, node: Node, source: _Rows, target: _Rows) -> None:
    b.kernel(
        "copy",
        node.name,
        ("y",),
        cost.floats(2 * source.rows * source.length),
        x=source.at,
        x_outer=0,
        x_middle=source.apart,
        y=target.at,
        y_outer=0,
        y_middle=target.apart,
        outer=1,
        middle=source.rows,
        inner=source.length,
    )


@dataclass(frozen=True, eq=False)
class ConcatStep:
    """One node."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    def _of_inputs(self, b: Builder, whole: Dense) -> Iterator[_Rows]:
        axis = self.node.attributes.dim % len(whole.shape)
        sizes = [b.shape(entry)[axis] for entry in self.node.inputs]
        return _pieces(whole, axis, sizes)

    def forward(self, b: Builder) -> None:
        output = Entry(self.node)
        sources = [b.dense(entry) for entry in self.node.inputs]
        target = b.output(output)
        b.define(output, target)
        for source, piece in zip(sources, self._of_inputs(b, target), strict=True):
            _copy(b, self.node, _as_rows(source, piece), piece)

    def backward(self, b: Builder) -> None:
        book = b.gradients
        dy = book.dense(Entry(self.node))
        if dy is None:
            return
        for entry, piece in zip(self.node.inputs, self._of_inputs(b, dy), strict=True):
            if book.wanted(entry):
                target = book.fresh(entry)
                _copy(b, self.node, piece, _as_rows(target, piece))
                book.contribute(entry, target)


@dataclass(frozen=True, eq=False)
class SliceChannelStep:
    """One node."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    @property
    def _outputs(self) -> list[Entry]:
        return [Entry(self.node, i) for i in range(len(self.node.output_names))]

    def _of_outputs(self, whole: Dense) -> Iterator[_Rows]:
        p = self.node.attributes
        axis = p.axis % len(whole.shape)
        size = whole.shape[axis] // p.num_outputs
        return _pieces(whole, axis, [size] * p.num_outputs)

    def forward(self, b: Builder) -> None:
        source = b.dense(self.node.inputs[0])
        pieces = self._of_outputs(source)
        for output, piece in zip(self._outputs, pieces, strict=True):
            target = b.output(output)
            b.define(output, target)
            _copy(b, self.node, piece, _as_rows(target, piece))

    def backward(self, b: Builder) -> None:
        book, source = b.gradients, self.node.inputs[0]
        gradients = [book.dense(entry) for entry in self._outputs]
        if not any(gradients) or not book.wanted(source):
            return
        target = book.fresh(source)
        if not all(gradients):
            fill(b, self.node.name, target.buffer)
        for gradient, piece in zip(gradients, self._of_outputs(target), strict=True):
            if gradient is not None:
                _copy(b, self.node, _as_rows(gradient, piece), piece)
        book.contribute(source, target)
