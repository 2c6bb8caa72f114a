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
from runtime.kernels.cpu.vector import LANES, inlined, stack

_CACHE_FLOATS = host_target().cache_bytes // 4
# Longest run of k in one pass: a panel of it and the rows of A it meets stay in cache.
_DEPTH = _CACHE_FLOATS // (4 * PANEL)

_bias_row = stack(PANEL)


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
    first = 0
    while first < m:
        rows = even_share(m - first, block)
        x = a + 4 * first * a_row
        for j in range(0, n, PANEL):
            columns = n - j
            load_row(bias_row, bias, j, columns)
            panel = panels + 4 * (j // PANEL) * panel_size
            y = c + 4 * (first * c_row + j)
            z = mask + 4 * (first * mask_row + j) if mask != 0 else 0
            width = LANES if columns <= LANES else PANEL
            # fmt: off
            multiply_rows(rows, x, a_row, panel, PANEL, width,
                          1, 0, 1, 0, k, a_column, bias, bias_row, y, c_row,
                          columns, columns, z, mask_row, epilogue, carry)
            # fmt: on
        first += rows
