"""Embedding as rows of `embedding`, and of one kernel or another that goes back."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.graph.build import Builder
from runtime.graph.draft import Dense
from runtime.graph.ir import Entry, Node

TABLES = ("Embedding", "_contrib_SparseEmbedding")


@dataclass(frozen=True, eq=False)
class EmbeddingStep:
    """One table, whose gradient has all of its rows, or those that were read."""

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
        if weight in book.row_sparse:
            self._rows_backward(b, dy)
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

    def _rows_backward(self, b: Builder, dy: Dense) -> None:
        index, weight = self.node.inputs
        rows = b.gradients.row_sparse
        target, (height, width) = rows.fresh(weight), b.shape(weight)
        count = dy.size // width
        scratch = b.new_dense(f"{self.node.name}.order", (2 * count,), "int64")
        b.kernel(
            "embedding_backward_rows",
            self.node.name,
            ("numbers", "values", "scratch"),
            cost.floats(20 * count + 3 * dy.size),
            index=b.dense(index).at,
            dy=dy.at,
            numbers=target.rows.at,
            values=target.values.at,
            count=count,
            rows=height,
            width=width,
            scratch=scratch.at,
        )
        rows.contribute(weight, target)
