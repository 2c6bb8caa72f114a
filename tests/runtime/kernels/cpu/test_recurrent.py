"""The recurrent part of RNN against the cells of its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.kernels.cpu.table import RecurrentCell, panel_width, panels_size
from runtime.ops.rnn import Direction, Weights
from runtime.ops.rnn_cells import CELLS
from tests.runtime.kernels.cpu.conftest import Floats, Kernels, Memory

fast = settings(max_examples=25, deadline=None)


def packed(kernels: Kernels, memory: Memory, matrix: Floats) -> dict[str, object]:
    """A matrix in panels, as the fields of a row."""
    (k, n), width = matrix.shape, panel_width()
    source, panels = memory.array(matrix), memory.nans(panels_size(k, n))
    kernels("pack_panels", b=source, b_row=n, b_column=1, panels=panels, k=k, n=n)
    return {"panels": panels, "panel_size": k * width, "panel_row": width}


def agree(got: Floats, expected: Floats) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-6 * scale)


@pytest.mark.parametrize("mode", CELLS)
@pytest.mark.parametrize("reverse", [0, 1])
@fast
@given(
    steps=st.integers(1, 4),
    batch=st.integers(1, 16),
    size=st.integers(1, 35),
    beside=st.integers(0, 3),
)
def test_a_pass_forth_and_back(
    kernels: Kernels, mode, reverse, steps, batch, size, beside
):
    memory, random = Memory(), np.random.default_rng(steps * batch * size)
    cell, code = CELLS[mode], RecurrentCell[mode.upper()]
    width = cell.gates * size

    def normal(*shape: int) -> Floats:
        return random.normal(0, 0.5, shape).astype(np.float32)

    # The inputs are their own projections.
    weights = Weights(
        np.eye(width, dtype=np.float32),
        normal(width, size) / np.float32(size**0.5),  # or relu's states would grow
        np.zeros(width, np.float32),
        normal(width),
    )
    data, dy = normal(steps, batch, width), normal(steps, batch, size)
    states = tuple(normal(batch, size) for _ in range(cell.states))
    of_last = tuple(normal(batch, size) for _ in range(cell.states))
    direction = Direction(cell, weights, bool(reverse))
    expected, _ = direction.forward(data, states)
    of_weights = Weights(*map(np.empty_like, vars(weights).values()))
    of_data, of_states = direction.backward(dy, of_last, of_weights)

    row = size + beside
    hidden = memory.nans(steps, batch, row)
    gates, kept = memory.array(data), memory.nans(steps, batch, size)
    state, cell_state = (memory.array(states[i % len(states)]) for i in range(2))
    common = {"steps": steps, "batch": batch, "size": size, "cell": int(code)}
    common |= {"gates": gates, "state": state, "memory": cell_state, "hidden": hidden}
    common |= {"hidden_row": row, "kept": kept, "reverse": reverse}
    kernels(
        "recurrent",
        bias=memory.array(weights.hidden_bias),
        projection=memory.nans(batch, width),
        **packed(kernels, memory, weights.hidden.T.copy()),
        **common,
    )
    agree(hidden[..., :size], expected)
    assert np.isnan(hidden[..., size:]).all()

    dstate, dmemory = (memory.array(of_last[i % len(states)]) for i in range(2))
    of_hidden = memory.nans(steps, batch, width)
    kernels(
        "recurrent_backward",
        dy=memory.array(dy),
        dy_row=size,
        dstate=dstate,
        dmemory=dmemory,
        projection=of_hidden,
        **packed(kernels, memory, weights.hidden),
        **common,
    )
    agree(gates, of_data)
    agree(dstate, of_states[0])
    if mode == "lstm":
        agree(dmemory, of_states[1])
    if mode == "gru":
        agree(of_hidden.sum((0, 1)), of_weights.hidden_bias)
    memory.check()
