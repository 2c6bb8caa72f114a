"""RNN as rows, layer by layer and direction by direction.

Next: `runtime.devices.cpu.recurrent_pass` for the rows of one direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from runtime.devices.cpu import cost
from runtime.devices.cpu.recurrent_pass import RecurrentPass
from runtime.graph.build import Builder
from runtime.graph.draft import Dense
from runtime.graph.ir import Entry, Node
from runtime.ops.rnn import parameter_parts


def can_recur(b: Builder, node: Node) -> bool:
    """Whether the kernels do all that an RNN node of float32 asks for."""
    p = node.attributes
    # Dropout between layers needs random numbers.
    return not (b.is_train and p.p and p.num_layers > 1)


@dataclass(frozen=True, eq=False)
class RecurrentStep:
    """One RNN node."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    @property
    def _outputs(self) -> list[Entry]:
        return [Entry(self.node, i) for i in range(len(self.node.output_names))]

    def _layers(self, b: Builder) -> Iterator[list[RecurrentPass]]:
        """The passes of each layer: one, or forth and back."""
        node, p = self.node, self.node.attributes
        source, top = b.dense(node.inputs[0]), b.dense(Entry(node))
        parts = parameter_parts(p, source.shape[2])
        for layer in range(p.num_layers):
            hidden = top
            if layer < p.num_layers - 1:
                buffer = b.saved(node, f"hidden{layer}", 4 * top.size)
                hidden = Dense(buffer, top.shape, "float32")
            first = layer * p.directions
            yield [
                RecurrentPass(b, node, first + i, parts[first + i], source, hidden)
                for i in range(p.directions)
            ]
            source = hidden

    def forward(self, b: Builder) -> None:
        for entry in self._outputs:
            b.define(entry, b.output(entry))
        last = [b.dense(entry) for entry in self._outputs[1:]]
        for one in chain(*self._layers(b)):
            one.forward()
            one.hand_over(last)

    def backward(self, b: Builder) -> None:
        book = b.gradients
        data, vector, *states = self.node.inputs
        top, *given = [book.dense(entry) for entry in self._outputs]
        if top is None and not any(given):
            return
        of_states = [
            self._started(b, entry, given[i] if given else None)
            for i, entry in enumerate(states)
        ]
        of_hidden = top or self._started(b, self._outputs[0], None)
        before = book.accumulator(vector)
        of_vector = before if isinstance(before, Dense) else book.fresh(vector)
        for layer in reversed(list(self._layers(b))):
            source = layer[0].source
            of_source = b.new_dense(f"{self.node.name}.dx", source.shape, "float32")
            for one in layer:
                one.backward(of_hidden, of_states)
                if book.wanted(vector):
                    one.weight_gradients(of_vector, add=of_vector is before)
                if layer[0].index > 0 or book.wanted(data):
                    one.data_gradient(of_source, add=one is not layer[0])
            of_hidden = of_source
        book.contribute(data, of_hidden)
        if of_vector is not before:
            book.contribute(vector, of_vector)
        for entry, gradient in zip(states, of_states, strict=True):
            book.contribute(entry, gradient)

    def _started(self, b: Builder, entry: Entry, given: Dense | None) -> Dense:
        """A gradient of a value's shape to write to, equal to another one or zero."""
        target = b.new_dense(f"{entry.name}.gradient", b.shape(entry), "float32")
        if given is not None:
            b.copy(given, target, self.node.name)
            return target
        b.kernel(
            "fill",
            self.node.name,
            ("y",),
            cost.floats(target.size),
            y=target.at,
            bytes=4 * target.size,
        )
        return target
