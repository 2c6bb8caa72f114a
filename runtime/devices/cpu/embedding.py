"""Embedding as rows of `embedding` and `embedding_backward`."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.graph.build import Builder
from runtime.graph.draft import Dense
from runtime.graph.ir import Entry, Node


@dataclass(frozen=True, eq=False)
class EmbeddingStep:
    """One table, whose gradient has all of its rows."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    def forward(self, b: Builder) -> None:
        output = Entry(self.node)
        index, weight = map(b.dense, self.node.inputs)
        target = b.output(output)
        b.define(output, target)
        rows, width = weight.shape
        b.kernel(
            "embedding",
            self.node.name,
            ("y",),
            cost.floats(2 * target.size),
            index=index.at,
            weight=weight.at,
            y=target.at,
            count=index.size,
            rows=rows,
            width=width,
        )

    def backward(self, b: Builder) -> None:
        index, weight = self.node.inputs
        book = b.gradients
        dy = book.dense(Entry(self.node))
        if dy is None or not book.wanted(weight):
            return
        before = book.accumulator(weight)
        target = before if isinstance(before, Dense) else book.fresh(weight)
        rows, width = target.shape
        b.kernel(
            "embedding_backward",
            self.node.name,
            ("dweight",),
            cost.floats(rows * width + 3 * dy.size),
            index=b.dense(index).at,
            dy=dy.at,
            dweight=target.at,
            count=dy.size // width,
            rows=rows,
            width=width,
            accumulate=int(target is before),
        )
        if target is not before:
            book.contribute(weight, target)
