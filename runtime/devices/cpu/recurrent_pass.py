"""One layer of an RNN in one direction, as rows of `gemm` and `recurrent`.

The projections of all time steps' inputs are one matrix product, and so are the
gradients of both weights and of the inputs; only what depends on the last hidden state
goes step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.devices.cpu import cost
from runtime.devices.cpu.matrix import Matrix, Panels, multiply, pack
from runtime.graph.build import Builder
from runtime.graph.draft import At, Dense
from runtime.graph.ir import Node
from runtime.kernels.cpu.table import RecurrentCell
from runtime.ops.rnn import Part, Parts

_CELLS = {
    "rnn_relu": RecurrentCell.RNN_RELU,
    "rnn_tanh": RecurrentCell.RNN_TANH,
    "lstm": RecurrentCell.LSTM,
    "gru": RecurrentCell.GRU,
}
# An element of a cell costs as much as so many elements of a plain pass.
_CELL_COST = 10


@dataclass(frozen=True, eq=False)
class RecurrentPass:
    """See the module.

    Attributes:
        index: Position among all passes of the node, as its states have them.
        parts: Where its weights lie in the parameter vector.
        source: What it reads (time, batch, channel).
        hidden: What it writes, beside the other direction.
    """

    b: Builder
    node: Node
    index: int
    parts: Parts
    source: Dense
    hidden: Dense

    # Sizes and places ------------------------------------------------------------

    @property
    def _steps(self) -> int:
        return self.hidden.shape[0]

    @property
    def _batch(self) -> int:
        return self.hidden.shape[1]

    @property
    def _size(self) -> int:
        return int(self.node.attributes.state_size)

    @property
    def _width(self) -> int:
        """Of all gates side by side."""
        return self.parts.hidden.shape[0]

    @property
    def _cell(self) -> RecurrentCell:
        return _CELLS[self.node.attributes.mode]

    @property
    def _direction(self) -> int:
        return self.index % int(self.node.attributes.directions)

    @property
    def _hidden_row(self) -> int:
        return self.hidden.shape[2]

    @property
    def _fields(self) -> dict[str, int]:
        """The sizes, as both kernels take them."""
        return {
            "steps": self._steps,
            "batch": self._batch,
            "size": self._size,
            "cell": int(self._cell),
            "reverse": self._direction,
        }

    def _saved(self, name: str, width: int) -> Dense:
        """Rows of `width` elements for each step that backward reads."""
        shape = (self._steps, self._batch, width)
        nbytes = 4 * self._steps * self._batch * width
        buffer = self.b.saved(self.node, f"{name}{self.index}", nbytes)
        return Dense(buffer, shape, "float32")

    @property
    def _gates(self) -> Dense:
        return self._saved("gates", self._width)

    @property
    def _kept(self) -> At | int:
        """LSTM's memory, or GRU's hidden projection of its new value."""
        if self._cell in (RecurrentCell.LSTM, RecurrentCell.GRU):
            return self._saved("kept", self._size).at
        return 0

    def _of_direction(self, hidden: Dense) -> At:
        """The part of all hidden states, or of their gradient."""
        return At(hidden.buffer, 4 * self._direction * self._size)

    def _of_states(self, states: Sequence[Dense]) -> tuple[At, At | int]:
        """The part of the hidden states and the memories; 0 if there are none."""
        offset = 4 * self.index * self._batch * self._size
        state, *memory = [At(dense.buffer, offset) for dense in states]
        return state, memory[0] if memory else 0

    @property
    def _first_states(self) -> tuple[At, At | int]:
        return self._of_states([self.b.dense(e) for e in self.node.inputs[2:]])

    def _rows(self, dense: Dense, first: int, steps: int) -> Matrix:
        """Some steps' rows: of this direction, if both are in them."""
        row = dense.shape[2]
        at = self._of_direction(dense) if dense is self.hidden else dense.at
        at = At(at.buffer, at.offset + 4 * first * self._batch * row)
        columns = self._size if dense is self.hidden else row
        return Matrix(at, steps * self._batch, columns, row)

    def _all_rows(self, dense: Dense) -> Matrix:
        return Matrix.of(dense, self._steps * self._batch, dense.shape[2])

    # Weights ---------------------------------------------------------------------

    def _place(self, vector: Dense, part: Part) -> At:
        return At(vector.buffer, 4 * part.offset)

    def _weight(self, part: Part) -> Matrix:
        rows, columns = part.shape
        at = self._place(self.b.dense(self.node.inputs[1]), part)
        return Matrix(at, rows, columns, columns)

    def _panels(self, weight: Matrix) -> Panels:
        """Panels of a weight, which are packed only when it has changed."""
        if self.node.inputs[1] in self.b.parameters:
            return pack(self.b, self.node.name, weight, "pack", "packed")
        return pack(self.b, self.node.name, weight)

    # Rows ------------------------------------------------------------------------

    def forward(self) -> None:
        """Emit the rows that give all hidden states."""
        vector = self.b.dense(self.node.inputs[1])
        multiply(
            self.b,
            self.node.name,
            self._all_rows(self.source),
            self._panels(self._weight(self.parts.input).transpose),
            self._gates.at,
            bias=self._place(vector, self.parts.input_bias),
        )
        panels = self._panels(self._weight(self.parts.hidden).transpose)
        projection: At | int = 0
        if self._cell == RecurrentCell.GRU:
            shape = (self._batch, self._width)
            projection = self.b.new_dense("projection", shape, "float32").at
        state, memory = self._first_states
        self.b.kernel(
            "recurrent",
            self.node.name,
            ("gates", "hidden", "kept", "projection"),
            self._cost,
            gates=self._gates.at,
            panels=panels.at,
            panel_size=panels.size,
            panel_row=panels.row,
            bias=self._place(vector, self.parts.hidden_bias),
            state=state,
            memory=memory,
            hidden=self._of_direction(self.hidden),
            hidden_row=self._hidden_row,
            kept=self._kept,
            projection=projection,
            **self._fields,
        )

    @property
    def _cost(self) -> float:
        cells = self._steps * self._batch * self._width
        return cost.multiply_adds(cells * self._size) + cost.floats(_CELL_COST * cells)

    def hand_over(self, last: Sequence[Dense]) -> None:
        """Emit the copies of the last states to their part of the outputs."""
        final = 0 if self._direction else self._steps - 1
        sources = [self._rows(self.hidden, final, 1)]
        if self._cell == RecurrentCell.LSTM:
            sources.append(self._rows(self._saved("kept", self._size), final, 1))
        for source, target in zip(sources, last, strict=False):
            at, _ = self._of_states([target])
            self.b.kernel(
                "copy",
                self.node.name,
                ("y",),
                cost.floats(2 * source.rows * source.columns),
                x=source.at,
                x_outer=0,
                x_middle=source.row,
                y=at,
                y_outer=0,
                y_middle=self._size,
                outer=1,
                middle=source.rows,
                inner=source.columns,
            )

    def backward(self, of_hidden: Dense, of_states: Sequence[Dense]) -> None:
        """Emit the row that gives the gradients of the projections.

        Args:
            of_hidden: The gradient of the hidden states of the layer.
            of_states: Those of the last states of all passes, which become those of
                the first ones.
        """
        panels = self._panels(self._weight(self.parts.hidden))
        state, memory = self._first_states
        of_state, of_memory = self._of_states(of_states)
        self.b.kernel(
            "recurrent_backward",
            self.node.name,
            ("gates", "dstate", "dmemory", "projection"),
            self._cost,
            gates=self._gates.at,
            panels=panels.at,
            panel_size=panels.size,
            panel_row=panels.row,
            state=state,
            memory=memory,
            hidden=self._of_direction(self.hidden),
            hidden_row=self._hidden_row,
            kept=self._kept,
            dy=self._of_direction(of_hidden),
            dy_row=self._hidden_row,
            dstate=of_state,
            dmemory=of_memory,
            projection=self._of_projection.at,
            **self._fields,
        )

    @property
    def _of_projection(self) -> Dense:
        """Where backward leaves the gradient of the hidden states' projections."""
        if self._cell == RecurrentCell.GRU:
            return self._saved("projection", self._width)
        return self._gates

    def weight_gradients(self, target: Dense, add: bool) -> None:
        """Emit the gradients of weights and biases, as parts of the vector's."""
        b, name, parts = self.b, self.node.name, self.parts
        source, gates, projection = self.source, self._gates, self._of_projection
        multiply(
            b,
            name,
            self._all_rows(gates).transpose,
            pack(b, name, self._all_rows(source)),
            self._place(target, parts.input),
            accumulate=add,
        )
        # Each step's projection is of the hidden states of the step before it.
        more = self._steps - 1
        now, before = (0, 1) if self._direction else (1, 0)
        first = more if self._direction else 0
        state = Matrix(self._first_states[0], self._batch, self._size, self._size)
        for gradient, hidden in (
            (self._rows(projection, now, more), self._rows(self.hidden, before, more)),
            (self._rows(projection, first, 1), state),
        ):
            if gradient.rows:
                multiply(
                    b,
                    name,
                    gradient.transpose,
                    pack(b, name, hidden),
                    self._place(target, parts.hidden),
                    accumulate=add or (hidden is state and more > 0),
                )
        for dense, part in (
            (gates, parts.input_bias),
            (projection, parts.hidden_bias),
        ):
            rows = self._all_rows(dense)
            b.kernel(
                "column_sums",
                name,
                ("sums",),
                cost.floats(dense.size),
                x=rows.at,
                x_row=rows.row,
                sums=self._place(target, part),
                m=rows.rows,
                n=rows.columns,
                accumulate=int(add),
            )

    def data_gradient(self, target: Dense, add: bool) -> None:
        """Emit the gradient of what was read."""
        multiply(
            self.b,
            self.node.name,
            self._all_rows(self._gates),
            self._panels(self._weight(self.parts.input)),
            target.at,
            accumulate=add,
        )
