"""One time step of the four recurrent cells of RNN, forward and backward.

A cell gets its two projections, of the input and of the last hidden state (biases
included, gates side by side), and its states, the hidden state first. All arrays are
(batch, size).

Sources: MXNet's `src/operator/rnn_impl.h`; Hochreiter and Schmidhuber, "Long Short-Term
Memory", 1997; Cho et al., "Learning Phrase Representations", 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from runtime.graph.registry import Array
from runtime.ops.elementwise import sigmoid

States = tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """A recurrent cell.

    Attributes:
        gates: How many gates its projections hold.
        states: 1, or 2 with a memory besides the hidden state.
        forward: (input projection, hidden projection, states) to (next states, what
            `backward` needs).
        backward: (gradients of the next states, what `forward` kept) to (gradients of
            both projections, and of the states other than through the projection).
    """

    gates: int
    states: int
    forward: Callable[[Array, Array, States], tuple[States, States]]
    backward: Callable[[States, States], tuple[Array, Array, States]]


def _relu(x: Array, h: Array, states: States) -> tuple[States, States]:
    y = np.maximum(x + h, 0)
    return (y,), (y,)


def _relu_backward(grads: States, kept: States) -> tuple[Array, Array, States]:
    grad = grads[0] * (kept[0] > 0)
    return grad, grad, (0,)


def _tanh(x: Array, h: Array, states: States) -> tuple[States, States]:
    y = np.tanh(x + h)
    return (y,), (y,)


def _tanh_backward(grads: States, kept: States) -> tuple[Array, Array, States]:
    grad = grads[0] * (1 - kept[0] * kept[0])
    return grad, grad, (0,)


def _lstm(x: Array, h: Array, states: States) -> tuple[States, States]:
    memory = states[1]
    i, f, g, o = np.split(x + h, 4, axis=1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    following = f * memory + i * g
    squashed = np.tanh(following)
    return (o * squashed, following), (i, f, g, o, squashed, memory)


def _lstm_backward(grads: States, kept: States) -> tuple[Array, Array, States]:
    i, f, g, o, squashed, memory = kept
    grad, of_memory = grads
    of_memory = of_memory + grad * o * (1 - squashed * squashed)
    gates = np.concatenate(
        (
            of_memory * g * i * (1 - i),
            of_memory * memory * f * (1 - f),
            of_memory * i * (1 - g * g),
            grad * squashed * o * (1 - o),
        ),
        axis=1,
    )
    return gates, gates, (0, of_memory * f)


def _gru(x: Array, h: Array, states: States) -> tuple[States, States]:
    (hidden,) = states
    (xr, xz, xn), (hr, hz, hn) = np.split(x, 3, axis=1), np.split(h, 3, axis=1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    n = np.tanh(xn + r * hn)
    return ((1 - z) * n + z * hidden,), (r, z, n, hn, hidden)


def _gru_backward(grads: States, kept: States) -> tuple[Array, Array, States]:
    r, z, n, hn, hidden = kept
    (grad,) = grads
    of_n = grad * (1 - z) * (1 - n * n)
    of_r = of_n * hn * r * (1 - r)
    of_z = grad * (hidden - n) * z * (1 - z)
    of_input = np.concatenate((of_r, of_z, of_n), axis=1)
    of_hidden = np.concatenate((of_r, of_z, of_n * r), axis=1)
    return of_input, of_hidden, (grad * z,)


CELLS: Mapping[str, Cell] = MappingProxyType(
    {
        "rnn_relu": Cell(1, 1, _relu, _relu_backward),
        "rnn_tanh": Cell(1, 1, _tanh, _tanh_backward),
        "lstm": Cell(4, 2, _lstm, _lstm_backward),
        "gru": Cell(3, 1, _gru, _gru_backward),
    }
)
