"""FullyConnected and SoftmaxOutput: the logits become probabilities where they are.

A head over many classes goes back some classes at a time, so that their part of the
gradient is made, and read by two products, in the cache: as a whole it would be as
large as the output, and would go to memory and back three times.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.devices.cpu.dense import DenseStep
from runtime.devices.cpu.matrix import Matrix, multiply, pack
from runtime.devices.cpu.softmax import SoftmaxStep
from runtime.graph.build import Builder
from runtime.graph.draft import At, Dense
from runtime.graph.ir import Entry, Node

# Classes at a time: whole register tiles, and rows of an odd number of cache lines,
# which do not displace each other.
_CLASSES = 112
# Smaller gradients stay in the cache as a whole.
_LARGE = 1 << 20


@dataclass(frozen=True)
class _Sum:
    """Where a gradient is summed up, and whether something is there already."""

    place: Dense
    add: bool

    def part(self, first: int) -> At:
        """The place of an element and of those behind it."""
        return At(self.place.buffer, 4 * first)


@dataclass(frozen=True, eq=False)
class HeadStep:
    """One layer and its loss."""

    dense: DenseStep
    softmax: SoftmaxStep

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (*self.dense.nodes, *self.softmax.nodes)

    def forward(self, b: Builder) -> None:
        output = Entry(self.softmax.node)
        target = b.output(output)
        b.define(output, target)
        self.dense.multiply(b, target)
        self.softmax.normalize(b, target, target)

    def backward(self, b: Builder) -> None:
        rows, classes = b.shape(Entry(self.softmax.node))
        if classes >= 8 * _CLASSES and rows * classes >= _LARGE:
            self._backward_by_classes(b, rows, classes)
        else:
            self.softmax.backward(b)
            self.dense.backward(b)

    def _backward_by_classes(self, b: Builder, rows: int, classes: int) -> None:
        dense, name = self.dense, self.dense.name
        data, weight, *biases = dense.layer.inputs
        of_data, of_weight = self._sum(b, data), self._sum(b, weight)
        of_bias = self._sum(b, biases[0]) if biases else None
        x, w = dense.data(b), dense.weight(b)
        x_panels = pack(b, name, x) if of_weight else None
        w_panels = dense.weight_panels(b, w) if of_data else None
        for first in range(0, classes, _CLASSES):
            shape = (rows, min(_CLASSES, classes - first))
            part = b.new_dense(f"{name}.dz", shape, "float32")
            self.softmax.slope(
                b,
                part,
                first,
                of_bias.part(first) if of_bias else None,
                of_bias is not None and of_bias.add,
            )
            dz = Matrix.of(part, *shape)
            if of_weight and x_panels:
                multiply(
                    b,
                    name,
                    dz.transpose,
                    x_panels,
                    of_weight.part(first * x.columns),
                    accumulate=of_weight.add,
                )
            if of_data and w_panels:
                multiply(
                    b,
                    name,
                    dz,
                    w_panels.below(first),
                    of_data.place.at,
                    accumulate=of_data.add or first > 0,
                )
        for entry, total in ((data, of_data), (weight, of_weight)):
            if total and not total.add:
                b.gradients.contribute(entry, total.place)
        if of_bias and not of_bias.add:
            b.gradients.contribute(biases[0], of_bias.place)

    def _sum(self, b: Builder, entry: Entry) -> _Sum | None:
        if not b.gradients.wanted(entry):
            return None
        before = b.gradients.accumulator(entry)
        if isinstance(before, Dense):
            return _Sum(before, True)
        return _Sum(b.gradients.fresh(entry), False)
