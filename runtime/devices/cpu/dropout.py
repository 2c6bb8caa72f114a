"""Dropout as a row that draws the numbers of its definition."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.graph.build import Builder
from runtime.graph.draft import Dense
from runtime.graph.ir import Entry, Node

# Drawing a number costs as much as so many elements of a plain pass.
_DRAW_COST = 4


@dataclass(frozen=True, slots=True)
class Runs:
    """Which numbers of its rows a dropout draws; see the kernel `dropout`."""

    row_stride: int
    run_stride: int
    rows: int
    runs: int
    length: int
    first: int = 0

    @classmethod
    def of(cls, shape: tuple[int, ...], size: int) -> Runs:
        """All of an array's rows."""
        width = size // shape[0]
        return cls(width, 0, shape[0], 1, width)


def drop(
    b: Builder, node: Node, x: Dense, y: Dense, probability: float, runs: Runs
) -> None:
    """Emit y = x with elements set to zero, the others scaled; y may be x."""
    b.kernel(
        "dropout",
        node.name,
        ("y",),
        cost.floats((2 + _DRAW_COST) * x.size),
        key=b.step_key,
        x=x.at,
        y=y.at,
        row_stride=runs.row_stride,
        run_stride=runs.run_stride,
        rows=runs.rows,
        runs=runs.runs,
        length=runs.length,
        first=runs.first,
        node=b.positions[node],
        keep=1 - probability,
    )


@dataclass(frozen=True, eq=False)
class DropoutStep:
    """One node; the backward draws the same numbers again."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    def forward(self, b: Builder) -> None:
        output = Entry(self.node)
        source = b.dense(self.node.inputs[0])
        if not self._drops(b):
            b.define(output, source)
            return
        target = b.output(output)
        b.define(output, target)
        self._emit(b, source, target)

    def backward(self, b: Builder) -> None:
        source, output, book = self.node.inputs[0], Entry(self.node), b.gradients
        dy = book.dense(output)
        if dy is None or not book.wanted(source):
            return
        if not self._drops(b):
            book.contribute(source, dy, owned=False)
            return
        target = book.fresh(source)
        self._emit(b, dy, target)
        book.contribute(source, target)

    def _drops(self, b: Builder) -> bool:
        p = self.node.attributes
        return bool(p.p and (b.is_train or p.mode == "always"))

    def _emit(self, b: Builder, x: Dense, y: Dense) -> None:
        drop(b, self.node, x, y, self.node.attributes.p, Runs.of(x.shape, x.size))
