"""Recurrent layers over all time steps, in one direction: forward and backward.

The projections of the inputs come from one matrix product before; what is left is the
product with the last hidden state, step by step, and the cell.
"""

from __future__ import annotations

import numpy as np

from runtime.kernels.cpu.activation import hyperbolic_tangent, rectify, sigmoid
from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.gemm import gemm
from runtime.kernels.cpu.lowering import (
    LANES,
    Vector,
    inlined,
)
from runtime.kernels.cpu.table import RecurrentCell
from runtime.kernels.cpu.vector import (
    fma,
    load_first,
    splat,
    store_first,
    where_less,
    zeros,
)

_ONE = np.float32(1.0)
# Plain numbers, which compiled code can hold.
_LSTM, _GRU, _TANH = (
    int(RecurrentCell.LSTM),
    int(RecurrentCell.GRU),
    int(RecurrentCell.RNN_TANH),
)


@inlined
def _gates(cell: int) -> int:
    if cell == _LSTM:
        return 4
    return 3 if cell == _GRU else 1


@kernel
def recurrent(
    gates: int,
    panels: int,
    panel_size: int,
    panel_row: int,
    bias: int,
    state: int,
    memory: int,
    hidden: int,
    hidden_row: int,
    kept: int,
    projection: int,
    steps: int,
    batch: int,
    size: int,
    cell: int,
    reverse: int,
) -> None:
    """Hidden states of all time steps (steps, batch, size), rows `hidden_row` apart.

    `gates` (steps, batch, gates * size) holds the projections of the inputs with their
    bias, and afterwards the gates' values. The panels are those of the transposed
    hidden weight, `bias` is the hidden one. `state` and `memory` (batch, size) come
    before the first step. `kept` (steps, batch, size) gets LSTM's memory, or of GRU
    the hidden projection of its new value; `projection` (batch, 3 * size) is room that
    GRU needs. The cells are those of `runtime.ops.rnn_cells`.
    """
    width = _gates(cell) * size
    before, before_row = state, size
    for step in range(steps):
        t = steps - 1 - step if reverse != 0 else step
        z = gates + 4 * t * batch * width
        h = hidden + 4 * t * batch * hidden_row
        c = kept + 4 * t * batch * size
        room = projection if cell == _GRU else z
        # fmt: off
        gemm(before, before_row, 1, panels, panel_size, panel_row, room, width,
             batch, size, width, 0, 0, 0, 0, 1 - (cell == _GRU), 0)
        # fmt: on
        for b in range(batch):
            x, y = z + 4 * b * width, h + 4 * b * hidden_row
            if cell == _LSTM:
                _lstm(x, bias, memory + 4 * b * size, c + 4 * b * size, y, size)
            elif cell == _GRU:
                last = before + 4 * b * before_row
                _gru(x, room + 4 * b * width, bias, last, c + 4 * b * size, y, size)
            else:
                _plain(x, bias, y, size, cell)
        before, before_row, memory = h, hidden_row, c


@inlined
def _lstm(z: int, bias: int, memory: int, following: int, y: int, size: int) -> None:
    for j in range(0, size, LANES):
        count = size - j
        i = sigmoid(_sum(z, bias, j, count))
        f = sigmoid(_sum(z, bias, size + j, count))
        g = hyperbolic_tangent(_sum(z, bias, 2 * size + j, count))
        o = sigmoid(_sum(z, bias, 3 * size + j, count))
        c = fma(f, load_first(memory, j, count), i * g)
        store_first(z, j, i, count)
        store_first(z, size + j, f, count)
        store_first(z, 2 * size + j, g, count)
        store_first(z, 3 * size + j, o, count)
        store_first(following, j, c, count)
        store_first(y, j, o * hyperbolic_tangent(c), count)


@inlined
def _gru(x: int, h: int, bias: int, before: int, kept: int, y: int, size: int) -> None:
    for j in range(0, size, LANES):
        count = size - j
        r = sigmoid(load_first(x, j, count) + _sum(h, bias, j, count))
        z = sigmoid(load_first(x, size + j, count) + _sum(h, bias, size + j, count))
        hidden = _sum(h, bias, 2 * size + j, count)
        n = hyperbolic_tangent(fma(r, hidden, load_first(x, 2 * size + j, count)))
        store_first(x, j, r, count)
        store_first(x, size + j, z, count)
        store_first(x, 2 * size + j, n, count)
        store_first(kept, j, hidden, count)
        store_first(y, j, fma(z, load_first(before, j, count) - n, n), count)


@inlined
def _plain(z: int, bias: int, y: int, size: int, cell: int) -> None:
    for j in range(0, size, LANES):
        value = _sum(z, bias, j, size - j)
        value = hyperbolic_tangent(value) if cell == _TANH else rectify(value)
        store_first(z, j, value, size - j)
        store_first(y, j, value, size - j)


@inlined
def _sum(a: int, b: int, j: int, count: int) -> Vector:
    return load_first(a, j, count) + load_first(b, j, count)


@kernel
def recurrent_backward(
    gates: int,
    panels: int,
    panel_size: int,
    panel_row: int,
    state: int,
    memory: int,
    hidden: int,
    hidden_row: int,
    kept: int,
    dy: int,
    dy_row: int,
    dstate: int,
    dmemory: int,
    projection: int,
    steps: int,
    batch: int,
    size: int,
    cell: int,
    reverse: int,
) -> None:
    """Gradients of both projections at all time steps, and of the first states.

    `gates` holds the gates' values, and afterwards the gradient of the projections of
    the inputs; that of the hidden ones is the same but for GRU, for which `projection`
    (steps, batch, 3 * size) gets it. The panels are those of the hidden weight.
    `dstate` and `dmemory` (batch, size) hold the gradients of the last states, and
    afterwards those of the first ones. `dy` is the gradient of the hidden states. For
    the others see `recurrent`.
    """
    width = _gates(cell) * size
    for step in range(steps):
        t = step if reverse != 0 else steps - 1 - step
        z = gates + 4 * t * batch * width
        c = kept + 4 * t * batch * size
        p = projection + 4 * t * batch * width if cell == _GRU else z
        past, past_row, past_memory = state, size, memory
        if step + 1 < steps:
            u = t + 1 if reverse != 0 else t - 1
            past, past_row = hidden + 4 * u * batch * hidden_row, hidden_row
            past_memory = kept + 4 * u * batch * size
        for b in range(batch):
            g = dy + 4 * (t * batch + b) * dy_row
            x, dh = z + 4 * b * width, dstate + 4 * b * size
            k = c + 4 * b * size
            if cell == _LSTM:
                before = past_memory + 4 * b * size
                _lstm_backward(x, k, before, g, dh, dmemory + 4 * b * size, size)
            elif cell == _GRU:
                before = past + 4 * b * past_row
                _gru_backward(x, k, before, g, dh, p + 4 * b * width, size)
            else:
                _plain_backward(x, g, dh, size, cell)
        # fmt: off
        gemm(p, width, 1, panels, panel_size, panel_row, dstate, size, batch, width,
             size, 0, 0, 0, 0, int(cell == _GRU), 0)
        # fmt: on


@inlined
def _lstm_backward(
    z: int, kept: int, memory: int, dy: int, dh: int, dc: int, size: int
) -> None:
    one = splat(_ONE)
    for j in range(0, size, LANES):
        count = size - j
        i = load_first(z, j, count)
        f = load_first(z, size + j, count)
        g = load_first(z, 2 * size + j, count)
        o = load_first(z, 3 * size + j, count)
        squashed = hyperbolic_tangent(load_first(kept, j, count))
        grad = _sum(dy, dh, j, count)
        slope = one - squashed * squashed
        of_memory = fma(grad * o, slope, load_first(dc, j, count))
        before = load_first(memory, j, count)
        store_first(z, j, of_memory * g * i * (one - i), count)
        store_first(z, size + j, of_memory * before * f * (one - f), count)
        store_first(z, 2 * size + j, of_memory * i * (one - g * g), count)
        store_first(z, 3 * size + j, grad * squashed * o * (one - o), count)
        store_first(dc, j, of_memory * f, count)


@inlined
def _gru_backward(
    x: int, kept: int, hidden: int, dy: int, dh: int, projection: int, size: int
) -> None:
    one = splat(_ONE)
    for j in range(0, size, LANES):
        count = size - j
        r = load_first(x, j, count)
        z = load_first(x, size + j, count)
        n = load_first(x, 2 * size + j, count)
        grad = _sum(dy, dh, j, count)
        of_new = grad * (one - z) * (one - n * n)
        of_reset = of_new * load_first(kept, j, count) * r * (one - r)
        of_update = grad * (load_first(hidden, j, count) - n) * z * (one - z)
        store_first(x, j, of_reset, count)
        store_first(x, size + j, of_update, count)
        store_first(x, 2 * size + j, of_new, count)
        store_first(projection, j, of_reset, count)
        store_first(projection, size + j, of_update, count)
        store_first(projection, 2 * size + j, of_new * r, count)
        store_first(dh, j, grad * z, count)


@inlined
def _plain_backward(z: int, dy: int, dh: int, size: int, cell: int) -> None:
    for j in range(0, size, LANES):
        count = size - j
        y, grad = load_first(z, j, count), _sum(dy, dh, j, count)
        if cell == _TANH:
            grad = grad * (splat(_ONE) - y * y)
        else:
            grad = where_less(zeros(), y, grad, zeros())
        store_first(z, j, grad, count)
