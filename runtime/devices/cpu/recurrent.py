"""RNN as rows, layer by layer and direction by direction.

Next: `runtime.devices.cpu.recurrent_pass` for the rows of one direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.devices.cpu.dropout import Runs, drop
from runtime.devices.cpu.elementwise import fill
from runtime.devices.cpu.recurrent_pass import RecurrentPass
from runtime.graph.build import Builder
from runtime.graph.draft import Dense
from runtime.graph.ir import Entry, Node
from runtime.ops.rnn import parameter_parts


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
            if self._drops(b):
                buffer = b.saved(node, f"dropped{layer}", 4 * top.size)
                source = Dense(buffer, top.shape, "float32")

    def _drops(self, b: Builder) -> bool:
        """Whether layers read the hidden states of the one below through a dropout."""
        return bool(b.is_train and self.node.attributes.p)

    def _drop(self, b: Builder, x: Dense, y: Dense, layer: int) -> None:
        """Emit the dropout in front of a layer, forth or back."""
        steps, batch, width = x.shape
        # The definition draws for each row of the batch: layer, time step, unit.
        first = (layer - 1) * steps * width
        runs = Runs(width, batch * width, batch, steps, width, first)
        drop(b, self.node, x, y, self.node.attributes.p, runs)

    def forward(self, b: Builder) -> None:
        for entry in self._outputs:
            b.define(entry, b.output(entry))
        last = [b.dense(entry) for entry in self._outputs[1:]]
        below: Dense | None = None
        for layer, passes in enumerate(self._layers(b)):
            if below and self._drops(b):
                self._drop(b, below, passes[0].source, layer)
            for one in passes:
                one.forward()
                one.hand_over(last)
            below = passes[0].hidden

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
        for layer, passes in reversed(list(enumerate(self._layers(b)))):
            source = passes[0].source
            of_source = b.new_dense(f"{self.node.name}.dx", source.shape, "float32")
            for one in passes:
                one.backward(of_hidden, of_states)
                if book.wanted(vector):
                    one.weight_gradients(of_vector, add=of_vector is before)
                if layer > 0 or book.wanted(data):
                    one.data_gradient(of_source, add=one is not passes[0])
            if layer > 0 and self._drops(b):
                self._drop(b, of_source, of_source, layer)
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
        fill(b, self.node.name, target.buffer)
        return target
