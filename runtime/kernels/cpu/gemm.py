"""Matrix products: C = A @ B with B in panels, in register tiles."""

from __future__ import annotations

from runtime.kernels.cpu.entry import kernel
from runtime.kernels.cpu.target import host_target
from runtime.kernels.cpu.tiles import (
    ADD_AFTER_EPILOGUE,
    ADD_BEFORE_EPILOGUE,
    PANEL,
    REPLACE,
    ROWS_2,
    even_share,
    load_row,
    multiply_rows,
)
from runtime.kernels.cpu.vector import LANES, inlined, load_first, stack, store_first

_CACHE_FLOATS = host_target().cache_bytes // 4
# Longest run of k in one pass: a panel of it and the rows of A it meets stay in cache.
_DEPTH = _CACHE_FLOATS // (4 * PANEL)

_FAR = 128
_COPY_FLOATS = 32768

_bias_row = stack(PANEL)
_copy_room = stack(_COPY_FLOATS)


@kernel
def gemm(
    a: int,
    a_row: int,
    a_column: int,
    panels: int,
    c: int,
    c_row: int,
    m: int,
    k: int,
    n: int,
    bias: int,
    mask: int,
    mask_row: int,
    epilogue: int,
    accumulate: int,
) -> None:
    """C = epilogue(A @ B + bias) (+ C), or (A @ B) * gradient(mask) (+ C).

    Element (i, p) of A is at a + i * a_row + p * a_column; C's rows are contiguous.
    With `mask`, the activation's gradient is taken from its output mask[i, j].
    """
    nonlinear = epilogue != 0 or mask != 0
    start = 0
    while start < k:
        depth = even_share(k - start, _DEPTH)
        if accumulate != 0 and nonlinear:
            depth = k  # C cannot hold partial sums beside what they are added to
        last = start + depth == k
        carry = REPLACE
        if start > 0:
            carry = ADD_BEFORE_EPILOGUE
        elif accumulate != 0:
            carry = ADD_AFTER_EPILOGUE if nonlinear else ADD_BEFORE_EPILOGUE
        _multiply(
            a + 4 * start * a_column,
            a_row,
            a_column,
            panels + 4 * start * PANEL,
            k * PANEL,
            c,
            c_row,
            m,
            depth,
            n,
            bias if start == 0 else 0,
            mask if last else 0,
            mask_row,
            epilogue if last else 0,
            carry,
        )
        start += depth


@inlined
def _multiply(
    a: int,
    a_row: int,
    a_column: int,
    panels: int,
    panel_size: int,
    c: int,
    c_row: int,
    m: int,
    k: int,
    n: int,
    bias: int,
    mask: int,
    mask_row: int,
    epilogue: int,
    carry: int,
) -> None:
    """One pass over a run of k."""
    bias_row = _bias_row()
    block = max(ROWS_2, _CACHE_FLOATS // 2 // k)
    if m * n > 2 * _CACHE_FLOATS:
        block = min(block, 4 * ROWS_2)  # few rows of C: few pages
    # Columns of a transposed A that are far apart displace each other in the
    # first-level cache; then a block of them is copied for all panels to read.
    copied = a_row == 1 and a_column >= _FAR and k >= _FAR // 4 and n >= 4 * PANEL
    fitting = _COPY_FLOATS // k // LANES * LANES
    if copied and fitting >= ROWS_2:
        block = min(block, fitting)
    else:
        copied = False
    room = _copy_room()
    first = 0
    while first < m:
        rows = even_share(m - first, block)
        x, x_column = a + 4 * first * a_row, a_column
        if copied:
            step = (rows + LANES - 1) // LANES * LANES
            _copy_runs(x, x_column, room, step, k, rows)
            x, x_column = room, step
        for j in range(0, n, PANEL):
            columns = n - j
            load_row(bias_row, bias, j, columns)
            panel = panels + 4 * (j // PANEL) * panel_size
            y = c + 4 * (first * c_row + j)
            z = mask + 4 * (first * mask_row + j) if mask != 0 else 0
            width = LANES if columns <= LANES else PANEL
            # fmt: off
            multiply_rows(rows, x, a_row, panel, PANEL, width,
                          1, 0, 0, 1, 0, k, x_column, bias, bias_row, y, c_row,
                          columns, columns, z, mask_row, epilogue, carry)
            # fmt: on
        first += rows


@inlined
def _copy_runs(x: int, x_row: int, y: int, y_row: int, rows: int, length: int) -> None:
    """Copy `rows` contiguous runs."""
    for r in range(rows):
        for i in range(0, length, LANES):
            value = load_first(x, r * x_row + i, length - i)
            store_first(y, r * y_row + i, value, length - i)
