"""RNN: whole recurrent layers, one over another, in one operator.

The parameters are one vector: for each layer and direction the weights of input and
hidden projection, and after all weights, in the same order, the two biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from runtime.errors import OperatorError, ShapeError
from runtime.graph.registry import (
    Array,
    Mode,
    Operator,
    Saved,
    Shapes,
    register,
)
from runtime.graph.shapes import unify
from runtime.ops.rnn_cells import CELLS, Cell, States
from runtime.ops.rules import accumulator


@dataclass(frozen=True)
class RNN:
    """Attributes of RNN; MXNet too has the last five on GPUs only."""

    state_size: int
    num_layers: int
    mode: Literal["rnn_relu", "rnn_tanh", "lstm", "gru"]
    bidirectional: bool = False
    p: float = 0.0
    state_outputs: bool = False
    projection_size: int | None = None
    lstm_state_clip_min: float | None = None
    lstm_state_clip_max: float | None = None
    lstm_state_clip_nan: bool = False
    use_sequence_length: bool = False

    @property
    def cell(self) -> Cell:
        return CELLS[self.mode]

    @property
    def directions(self) -> int:
        return 1 + self.bidirectional


@dataclass(frozen=True)
class Weights:
    """Of one layer in one direction: (gates * size, input) matrices and biases."""

    input: Array
    hidden: Array
    input_bias: Array
    hidden_bias: Array


@dataclass(frozen=True)
class Part:
    """Where a matrix or a bias lies in the parameter vector, in elements."""

    offset: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.offset + prod(self.shape)


@dataclass(frozen=True)
class Parts:
    """Where the `Weights` of one layer in one direction lie."""

    input: Part
    hidden: Part
    input_bias: Part
    hidden_bias: Part


def parameter_parts(p: RNN, channels: int) -> list[Parts]:
    """The parts of the parameter vector, layer by layer, direction by direction."""
    rows = p.cell.gates * p.state_size
    position = 0

    def part(*shape: int) -> Part:
        nonlocal position
        found = Part(position, shape)
        position = found.end
        return found

    count = p.num_layers * p.directions
    widths = [channels] * p.directions
    widths += [p.directions * p.state_size] * (count - p.directions)
    matrices = [(part(rows, width), part(rows, p.state_size)) for width in widths]
    return [Parts(*pair, part(rows), part(rows)) for pair in matrices]


def parameter_count(p: RNN, channels: int) -> int:
    """The length of the parameter vector."""
    return parameter_parts(p, channels)[-1].hidden_bias.end


def _views(p: RNN, vector: Array, channels: int) -> list[Weights]:
    """The vector's parts, layer by layer; writing to them writes to the vector."""

    def view(part: Part) -> Array:
        return vector[part.offset : part.end].reshape(part.shape)

    return [
        Weights(*map(view, (w.input, w.hidden, w.input_bias, w.hidden_bias)))
        for w in parameter_parts(p, channels)
    ]


def _refuse(p: RNN) -> None:
    unsupported = {
        "projection_size": p.projection_size is not None,
        "lstm_state_clip_min": p.lstm_state_clip_min is not None,
        "lstm_state_clip_max": p.lstm_state_clip_max is not None,
        "use_sequence_length": p.use_sequence_length,
    }
    for name, is_given in unsupported.items():
        if is_given:
            raise OperatorError(
                f"RNN does not support `{name}` (={getattr(p, name)}); leave it out"
            )
    if p.num_layers < 1:
        raise OperatorError(f"`num_layers` (={p.num_layers}) must be at least 1")
    if not 0 <= p.p < 1:
        raise OperatorError(f"`p` (={p.p}) must be at least 0 and below 1")


def _shape(p: RNN, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes]:
    _refuse(p)
    data, parameters, *states = inputs
    if data is None:
        return inputs, outputs
    if len(data) != 3:
        raise ShapeError(f"`data` must be (time, batch, channel), but has shape {data}")
    steps, batch, channels = data
    if channels:
        count = parameter_count(p, channels)
        parameters = unify(parameters, (count,), "parameters")
    shape: Any = (p.num_layers * p.directions, batch, p.state_size)
    for other in (*states, *outputs[1:]):
        shape = unify(shape, other, "state")
    output = unify(outputs[0], (steps, batch, p.directions * p.state_size), "output")
    return (
        [data, parameters, *[shape] * len(states)],
        [output, *[shape] * len(outputs[1:])],
    )


class Direction:
    """One pass over the time steps, with what its backward needs."""

    def __init__(self, cell: Cell, weights: Weights, is_reversed: bool) -> None:
        self.cell = cell
        self.weights = weights
        self.is_reversed = is_reversed

    def forward(self, data: Array, states: States) -> tuple[Array, States]:
        """Hidden states (time, batch, size) for (time, batch, channel); last states."""
        w = self.weights
        projected = data @ w.input.T + w.input_bias
        hidden = np.empty((*data.shape[:2], w.hidden.shape[1]), data.dtype)
        self.data, self.before, self.kept = data, np.empty_like(hidden), {}
        for t in self._times(len(data)):
            self.before[t] = states[0]
            recurrent = states[0] @ w.hidden.T + w.hidden_bias
            states, self.kept[t] = self.cell.forward(projected[t], recurrent, states)
            hidden[t] = states[0]
        return hidden, states

    def backward(
        self, grad: Array, of_states: States, of_weights: Weights
    ) -> tuple[Array, States]:
        """Writes the gradients of the weights; returns those of data and states."""
        w = self.weights
        rows = len(w.hidden)
        of_input = np.empty((*grad.shape[:2], rows), grad.dtype)
        of_hidden = np.empty_like(of_input)
        for t in reversed(self._times(len(grad))):
            grads = (grad[t] + of_states[0], *of_states[1:])
            of_input[t], of_hidden[t], past = self.cell.backward(grads, self.kept[t])
            of_states = (past[0] + of_hidden[t] @ w.hidden, *past[1:])
        for bias, projection, matrix, source in (
            (of_weights.input_bias, of_input, of_weights.input, self.data),
            (of_weights.hidden_bias, of_hidden, of_weights.hidden, self.before),
        ):
            bias[...] = projection.sum(axis=(0, 1))
            matrix[...] = np.tensordot(projection, source, axes=((0, 1), (0, 1)))
        return of_input @ w.input, of_states

    def _times(self, count: int) -> range:
        return range(count - 1, -1, -1) if self.is_reversed else range(count)


class Stack:
    """All layers, each the input of the next, with dropout between them."""

    def __init__(self, p: RNN, parameters: Array, channels: int, mode: Mode) -> None:
        self.p = p
        self.mode = mode
        self.directions = [
            Direction(p.cell, weights, is_reversed=bool(i % p.directions))
            for i, weights in enumerate(_views(p, parameters, channels))
        ]

    def _layers(self) -> list[range]:
        step = self.p.directions
        return [range(i * step, (i + 1) * step) for i in range(self.p.num_layers)]

    def forward(self, data: Array, states: Sequence[Array]) -> tuple[Array, States]:
        """The last layer's hidden states, and the last states of all layers."""
        last: list[States] = []
        self.masks = self._masks(data)
        for layer, members in enumerate(self._layers()):
            if layer > 0:
                data = data * self.masks[layer - 1]
            results = [
                self.directions[i].forward(data, tuple(state[i] for state in states))
                for i in members
            ]
            data = np.concatenate([hidden for hidden, _ in results], axis=2)
            last += [final for _, final in results]
        return data, tuple(map(np.stack, zip(*last, strict=True)))

    def backward(
        self, grad: Array, of_states: Sequence[Any], of_weights: Sequence[Weights]
    ) -> tuple[Array, States]:
        """Writes the gradients of the weights; returns those of data and states."""
        first: list[States] = []
        for layer, members in reversed(list(enumerate(self._layers()))):
            pieces = np.split(grad, self.p.directions, axis=2)
            results = [
                self.directions[i].backward(
                    piece, tuple(state[i] for state in of_states), of_weights[i]
                )
                for i, piece in zip(members, pieces, strict=True)
            ]
            grad = sum((of_data for of_data, _ in results), np.zeros((), grad.dtype))
            if layer > 0:
                grad = grad * self.masks[layer - 1]
            first = [initial for _, initial in results] + first
        return grad, tuple(map(np.stack, zip(*first, strict=True)))

    def _masks(self, data: Array) -> Any:
        """What to multiply each layer's hidden states by, but the last layer's."""
        p, count = self.p, self.p.num_layers - 1
        if p.p == 0 or not self.mode.is_train or count == 0:
            return [1] * count
        if self.mode.random is None:
            raise ValueError("RNN needs random numbers here, but `mode.random` is None")
        steps, batch, _ = data.shape
        # The batch goes first, so that its rows get their own numbers.
        shape = (batch, count, steps, p.directions * p.state_size)
        kept = self.mode.random.uniform(shape) < np.float32(1 - p.p)
        return kept.transpose(1, 2, 0, 3) * data.dtype.type(1 / (1 - p.p))


def _run(p: RNN, inputs: Sequence[Array], mode: Mode) -> tuple[Stack, Array, States]:
    wide = accumulator(inputs[0].dtype)
    data, parameters, *states = (x.astype(wide, copy=False) for x in inputs)
    stack = Stack(p, parameters, data.shape[2], mode)
    return stack, *stack.forward(data, states)


def _forward(
    p: RNN, inputs: Sequence[Array], outputs: Sequence[Array], mode: Mode
) -> None:
    _, hidden, last = _run(p, inputs, mode)
    outputs[0][...] = hidden
    for output, state in zip(outputs[1:], last, strict=False):
        output[...] = state


def _backward(
    p: RNN,
    grads_out: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    grads_in: Sequence[Any],
    mode: Mode,
) -> None:
    # The gates are computed anew rather than kept: they are many times the output.
    stack, hidden, last = _run(p, inputs, mode)
    vector = np.empty(inputs[1].shape, hidden.dtype)
    of_weights = _views(p, vector, inputs[0].shape[2])
    given = list(grads_out[1:]) or [None] * len(last)
    of_states = [
        np.zeros_like(state) if grad is None else grad
        for grad, state in zip(given, last, strict=True)
    ]
    grad = np.zeros_like(hidden) if grads_out[0] is None else grads_out[0]
    of_data, of_first = stack.backward(grad, of_states, of_weights)
    for target, value in zip(grads_in, (of_data, vector, *of_first), strict=True):
        if target is not None:
            target[...] = value


def _inputs(p: RNN) -> tuple[str, ...]:
    return ("data", "parameters", "state", "state_cell")[: 2 + p.cell.states]


def _outputs(p: RNN) -> tuple[str, ...]:
    names = ("output", "state_output", "statecell_output")
    return names[: 1 + p.cell.states] if p.state_outputs else names[:1]


register(
    Operator(
        name="RNN",
        attributes=RNN,
        inputs=_inputs,
        outputs=_outputs,
        shape=_shape,
        forward=_forward,
        backward=_backward,
        saved=lambda p: Saved(inputs=tuple(range(2 + p.cell.states))),
        is_random=True,
    )
)
